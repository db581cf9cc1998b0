// Tracing: what is published on the channels of node:diagnostics_channel, when, and what it may not do.
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import test from 'ava'
import { AioContext, type TraceMessages } from 'fdmon'
import { inProcess } from './in-process.js'
import { ended, inWorker, message } from './in-worker.js'
import { onEachAlone, type Kit } from './on-each.js'

const names = ['fdmon:poll:begin', 'fdmon:poll:end', 'fdmon:window', 'fdmon:handler', 'fdmon:monitor'] as const
type Name = (typeof names)[number]
type Told = { [N in Name]: { on: N } & TraceMessages[N] }[Name]

/** Collects the messages about a context, until the kit is closed or `stop()` is called. */
function listen(kit: Kit, of: { id: number } | undefined, to: readonly Name[] = names, each: (told: Told) => void = () => {}) {
  const told: Told[] = []
  const hear = (data: unknown, on: string | symbol): void => {
    const one = { on, ...(data as object) } as Told
    if (of !== undefined && one.contextId !== of.id) return
    told.push(one)
    each(one)
  }
  const stop = (): void => to.forEach((name) => void unsubscribe(name, hear))
  for (const name of to) subscribe(name, hear)
  kit.own(stop, stop)
  return { take: () => told.splice(0), stop }
}

/** A handler whose `poll` says yes when told to, and that is on the spin list. */
function member(kit: Kit, ctx: AioContext): { fd: number; due: (yes: boolean) => void } {
  const bell = kit.notifier()
  let yes = true
  ctx.setFdHandler(bell, { poll: () => yes, pollReady: () => void (yes = false) })
  ctx.poll(false)
  return { fd: bell.fd, due: (now) => void (yes = now) }
}

/** A turn that waits for this long. */
function waitFor(ctx: AioContext, ns: number): void {
  const timer = ctx.timer(() => {})
  timer.arm(ns)
  while (timer.pending) ctx.poll(true)
}

/** The window opens at once to its maximum. */
const jump = { grow: 1_000_000 }

/** Opens the window of a context that jumps. */
function warm(ctx: AioContext): void {
  waitFor(ctx, 100_000)
  waitFor(ctx, 100_000)
}

const without = (told: readonly Told[], ...left: string[]): object[] =>
  told.map((one) => Object.fromEntries(Object.entries(one).filter(([key]) => !['contextId', 'contextName', 'timeNs', ...left].includes(key))))

onEachAlone('spins, the window and the spin list are published after the turn, in their order and with their times [SPEC 54]', (t, kit) => {
  // Long, so that a machine that is busy elsewhere does not come too late for a spin.
  const maxNs = 5_000_000_000
  const ctx = kit.context({ name: 'traced', poll: { maxNs, policy: 'classic', guards: false, ...jump } })
  const begin = process.hrtime.bigint()
  const told = listen(kit, ctx)
  const { fd, due } = member(kit, ctx)
  t.deepEqual(without(told.take()), [{ on: 'fdmon:handler', change: 'added', fd }])

  waitFor(ctx, 20_000_000)
  t.deepEqual(without(told.take()), [{ on: 'fdmon:window', change: 'grown', fromNs: 0, toNs: 4_000 }])
  waitFor(ctx, 20_000_000)
  const [first, second, third, ...rest] = told.take()
  t.deepEqual(without([first!]), [{ on: 'fdmon:poll:begin', windowNs: 4_000 }])
  t.deepEqual(without([second!], 'spentNs'), [{ on: 'fdmon:poll:end', windowNs: 4_000, result: 'miss' }])
  t.deepEqual(without([third!]), [{ on: 'fdmon:window', change: 'grown', fromNs: 4_000, toNs: 4_000_000_000 }])
  t.deepEqual(rest, [])
  t.true(second?.on === 'fdmon:poll:end' && second.spentNs >= 4_000)

  due(true)
  ctx.poll(true)
  const spin = told.take()
  t.deepEqual(without(spin, 'spentNs'), [
    { on: 'fdmon:poll:begin', windowNs: 4_000_000_000 },
    { on: 'fdmon:poll:end', windowNs: 4_000_000_000, result: 'hit' },
  ])
  waitFor(ctx, 20_000_000)
  const timeout = told.take().find((one) => one.on === 'fdmon:poll:end')
  t.is(timeout?.result, 'timeout')

  ctx.setPollParams({ maxNs: 0 })
  const off = told.take()
  t.deepEqual(without(off), [
    { on: 'fdmon:window', change: 'shrunk', fromNs: 4_000_000_000, toNs: 0 },
    { on: 'fdmon:handler', change: 'removed', fd },
  ])
  for (const { contextId, contextName } of [first!, ...spin, ...off]) t.deepEqual([contextId, contextName], [ctx.id, 'traced'])
  const times = [first!, second!, third!, ...spin, timeout!, ...off].map(({ timeNs }) => timeNs)
  t.deepEqual(times, times.toSorted((a, b) => Number(a - b)))
  t.true(begin < times[0]! && times.at(-1)! < process.hrtime.bigint())
})

onEachAlone('within run() a subscriber hears of each turn before the next, when nothing spins any more [SPEC 54]', (t, kit) => {
  const ctx = kit.spinning(jump)
  const { due } = member(kit, ctx)
  warm(ctx)
  const order: string[] = []
  let turns = 0
  listen(kit, ctx, ['fdmon:poll:end'], () => {
    order.push('told')
    t.notThrows(() => ctx.poll(false), 'a turn is allowed, so none of native is under way')
  })
  const half = ctx.bottomHalf(() => {
    order.push('ran')
    if (++turns === 3) ctx.stop()
    else due(true) // the next turn spins, and hits
    ctx.timer(() => half.schedule()).arm(10_000_000)
  })
  half.schedule()
  ctx.run()
  t.regex(order.join(' '), /^ran( told)+ ran( told)+ ran( told)*$/)
})

onEachAlone('an attached context publishes also when it found nothing, and then Node sleeps [SPEC 51, 54]', async (t, kit) => {
  const ctx = kit.spinning({ maxNs: 20_000_000, ...jump })
  const told = listen(kit, ctx)
  ctx.attach()
  const { fd } = member(kit, ctx)
  t.deepEqual(without(told.take()), [{ on: 'fdmon:handler', change: 'added', fd }])
  const tick = ctx.timer(() => {})
  for (let round = 0; round < 4; round++) {
    tick.arm(3_000_000)
    await ctx.turn()
  }
  await pause(30)
  const spins = told.take().filter(({ on }) => on.startsWith('fdmon:poll:'))
  t.true(spins.length > 0)
  spins.forEach(({ on }, at) => t.is(on, at % 2 === 0 ? 'fdmon:poll:begin' : 'fdmon:poll:end'))
  // Nothing happens any more: the last spin finds nothing, the window closes, and nobody is called for it again.
  await pause(100)
  told.take()
  const before = ctx.stats()
  await pause(100)
  t.deepEqual(told.take(), [])
  t.true(ctx.stats().turns - before.turns < 20, 'Node does not go round and round')
})

onEachAlone('a context that is attached notices who subscribes and unsubscribes meanwhile [SPEC 54]', async (t, kit) => {
  const ctx = kit.spinning({ maxNs: 20_000_000, ...jump }).attach()
  const turn = async (): Promise<void> => {
    ctx.timer(() => {}).arm(1_000_000)
    await ctx.turn()
    await pause(1)
  }
  await turn()
  const told = listen(kit, ctx)
  await turn()
  for (let round = 0; round < 3; round++) await turn()
  t.true(told.take().some(({ on }) => on === 'fdmon:poll:end'))
  told.stop()
  for (let round = 0; round < 3; round++) await turn()
  t.deepEqual(told.take(), [])
})

onEachAlone('prepareNs() and check() of an outer loop publish as well [SPEC 50, 54]', (t, kit) => {
  const ctx = kit.spinning(jump)
  const { due } = member(kit, ctx)
  warm(ctx)
  const told = listen(kit, ctx)
  due(true)
  t.is(ctx.prepareNs(), 0)
  t.deepEqual(without(told.take(), 'spentNs', 'windowNs'), [
    { on: 'fdmon:poll:begin' },
    { on: 'fdmon:poll:end', result: 'hit' },
  ])
  t.true(ctx.check())
  t.true(ctx.dispatch())
  t.deepEqual(told.take(), [])
})

test.serial('another monitor is published with the reason [SPEC 54]', (t) => {
  const told: unknown[] = []
  const hear = (data: unknown): void => void told.push(data)
  subscribe('fdmon:monitor', hear)
  using ctx = new AioContext({ ring: { mode: 'off' } })
  t.is(ctx.monitor, 'poll')
  ctx.attach()
  unsubscribe('fdmon:monitor', hear)
  t.is(told.length, 1)
  const { from, to, reason } = told[0] as TraceMessages['fdmon:monitor']
  t.deepEqual([from, to, reason], ['poll', 'epoll', ctx.monitorReason])
})

onEachAlone('removing, replacing, disabling and closing take a handler off the spin list, and say so [SPEC 54]', (t, kit) => {
  const ctx = kit.spinning()
  const told = listen(kit, ctx, ['fdmon:handler'])
  const changes = (): string[] => told.take().map((one) => (one.on === 'fdmon:handler' ? `${one.change} ${one.fd}` : ''))
  const bell = kit.notifier()
  let yes = true
  const handlers = { external: true, poll: () => yes, pollReady: () => void (yes = false) }
  const join = (): void => {
    yes = true
    ctx.poll(false)
    t.deepEqual(changes(), [`added ${bell.fd}`])
  }
  const registration = ctx.setFdHandler(bell, handlers)
  join()
  registration.remove()
  t.deepEqual(changes(), [`removed ${bell.fd}`])
  ctx.setFdHandler(bell, handlers)
  join()
  ctx.disableExternal()
  t.deepEqual(changes(), [`removed ${bell.fd}`])
  ctx.enableExternal()
  join()
  ctx.close()
  t.deepEqual(changes(), [`removed ${bell.fd}`])
})

onEachAlone('a spin whose predicate closes the context has its end all the same [SPEC 38, 54]', (t, kit) => {
  const ctx = kit.spinning(jump)
  const bell = kit.notifier()
  let close = false
  let yes = true
  ctx.setFdHandler(bell, {
    poll: () => (close && void ctx.close(), yes),
    pollReady: () => void (yes = false),
  })
  ctx.poll(false)
  warm(ctx)
  const told = listen(kit, ctx)
  close = true
  ctx.poll(true)
  const on = told.take().map((one) => one.on)
  t.deepEqual(on, ['fdmon:poll:begin', 'fdmon:handler', 'fdmon:poll:end'])
})

onEachAlone('a subscriber may use, change and close the context [SPEC 54]', (t, kit) => {
  const ctx = kit.spinning(jump)
  const { due } = member(kit, ctx)
  warm(ctx)
  let ran = 0
  const told = listen(kit, ctx, names, ({ on }) => {
    if (on !== 'fdmon:poll:end') return
    ctx.schedule(() => ran++)
    ctx.poll(false)
    ctx.setPollParams({ maxNs: 1_000 })
    ctx.close()
  })
  due(true)
  t.true(ctx.poll(true))
  t.is(ran, 1)
  t.true(told.take().some(({ on }) => on === 'fdmon:handler'))
  t.throws(() => ctx.poll(false), { code: 'ERR_FDMON_CLOSED' })
})

onEachAlone('what a subscriber throws is an uncaught exception and breaks no turn [SPEC 54]', async (t, kit) => {
  const end = await inProcess(
    `process.on('uncaughtException', (error) => say('uncaught', error.message))
     require('node:diagnostics_channel').subscribe('fdmon:poll:end', () => { throw new Error('of a subscriber') })
     let heard = 0
     require('node:diagnostics_channel').subscribe('fdmon:poll:end', () => heard++)
     const ctx = spinning()
     const bell = new fdmon.EventNotifier()
     let yes = true
     ctx.setFdHandler(bell, { poll: () => yes, pollReady() { yes = false } })
     ctx.poll(false)
     for (let turn = 0; turn < 5; turn++) {
       ctx.timer(() => say('timer')).arm(100_000)
       ctx.poll()
     }
     say('sync', heard > 0)
     ctx.attach()
     heard = 0
     const tick = ctx.timer(() => (heard < 3 ? tick.arm(100_000) : (say('attached'), ctx.close())))
     tick.arm(100_000)`,
    { monitor: kit.monitor },
  )
  t.is(end.code, 0, end.stderr)
  t.deepEqual(end.said.filter((line) => line !== 'uncaught of a subscriber'), [...Array(5).fill('timer'), 'sync true', 'attached'])
  t.true(end.said.filter((line) => line === 'uncaught of a subscriber').length >= 4)
})

/** Counts what JavaScript calls of native, by name. */
const counting = `const { NativeContext } = require(data.binding)
  const calls = {}
  const counted = (name, call) => function (...args) { calls[name] = (calls[name] ?? 0) + 1; return call.apply(this, args) }
  for (const [name, { value }] of Object.entries(Object.getOwnPropertyDescriptors(NativeContext.prototype))) {
    if (typeof value !== 'function' || name === 'constructor') continue
    if (name !== 'hot') NativeContext.prototype[name] = counted(name, value)
    else NativeContext.prototype.hot = function () {
      return Object.fromEntries(Object.entries(value.call(this)).map(([name, call]) => [name, counted('hot ' + name, call)]))
    }
  }
  const taken = () => { const was = { ...calls }; for (const name in calls) delete calls[name]; return JSON.stringify(was) }
`
const binding = join(dirname(createRequire(import.meta.url).resolve('fdmon/package.json')), 'native', 'binding.cjs')

onEachAlone('without subscribers a turn is one call into native, and with them two [SPEC 54]', async (t, kit) => {
  const end = await inProcess(
    `${counting}
     const dc = require('node:diagnostics_channel')
     const ctx = spinning()
     const turns = () => { for (let turn = 0; turn < 100; turn++) ctx.poll(false) }
     turns()
     taken()
     turns()
     say(taken())
     const hear = () => {}
     dc.subscribe('fdmon:window', hear)
     turns()
     say(taken())
     dc.unsubscribe('fdmon:window', hear)
     turns()
     taken()
     turns()
     say(taken())`,
    { monitor: kit.monitor, binding },
  )
  t.is(end.code, 0, end.stderr)
  const [before, during, after] = end.said.map((line) => JSON.parse(line) as Record<string, number>)
  t.deepEqual(before, { 'hot turn': 100 })
  t.deepEqual(during, { 'hot turn': 100, trace: 1, takePoints: 100 })
  t.deepEqual(after, { 'hot turn': 100 })
})

test('a worker publishes on its own channels, not on those of others [SPEC 54]', async (t) => {
  const heard: number[] = []
  const hear = (data: unknown): void => void heard.push((data as TraceMessages['fdmon:window']).contextId)
  subscribe('fdmon:window', hear)
  const worker = inWorker(
    `const heard = []
     require('node:diagnostics_channel').subscribe('fdmon:window', ({ contextId }) => heard.push(contextId))
     const ctx = new fdmon.AioContext({ poll: { maxNs: 1_000_000, policy: 'classic', guards: false } })
     ctx.timer(() => {}).arm(100_000)
     ctx.poll()
     parentPort.postMessage({ id: ctx.id, heard })
     ctx.close()`,
  )
  const said = await message(worker)
  await ended(worker)
  unsubscribe('fdmon:window', hear)
  t.true(said.heard.length >= 1 && said.heard.every((id: number) => id === said.id))
  t.false(heard.includes(said.id))
})
