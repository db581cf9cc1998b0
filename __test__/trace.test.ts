// Traces in files: what they say, in the words of their format, whatever the context does and however it ends.
import { spawn } from 'node:child_process'
import { closeSync, existsSync, openSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { basename, join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { setTimeout as pause } from 'node:timers/promises'
import test from 'ava'
import { AioContext, EventNotifier, FdmonError } from 'fdmon'
import { dice } from './dice.js'
import { inProcess } from './in-process.js'
import { inThread, said } from './io-thread-kit.js'
import { Kit, onEach, onEachAlone, refuses } from './on-each.js'
import { begin, end, folder, named, readTrace, tracks, within, type Event } from './trace-kit.js'

const fdmon = createRequire(import.meta.url).resolve('fdmon')

onEach('a trace has turns, spins, sleeps and callbacks by handler, each within its turn [SPEC 54]', (t, kit) => {
  const ctx = kit.context({ name: 'one "quoted"\n', poll: { maxNs: 200_000, policy: 'fixed', guards: false } })
  const bell = kit.notifier()
  const [left, right] = kit.pair()
  let due = false
  ctx.setEventNotifier(bell, { name: 'the bell', poll: () => due, pollReady: () => void (due = false), read: () => void bell.testAndClear() })
  ctx.setFdHandler(left, { write: () => ctx.setFdHandler(left, null) })
  const trace = ctx.trace(join(folder(kit), 'trace.json'))
  ctx.poll() // writes
  bell.set()
  ctx.poll()
  due = true
  ctx.poll()
  ctx.schedule(() => {})
  const timer = ctx.timer(() => {})
  timer.arm(3_000_000)
  while (timer.pending) ctx.poll()
  t.false(ctx.poll(false))
  const events = trace.events
  trace.stop()
  trace.stop() // the second time nothing
  t.deepEqual([trace.events, trace.dropped], [events, 0])
  ctx.poll(false) // of which it says nothing

  const read = readTrace(t, trace.file)
  t.deepEqual([read.whole, read.dropped], [true, 0])
  t.deepEqual([...tracks(read)], [['one "quoted"\n', ctx.id]])
  const turns = named(read, 'turn')
  t.is(turns.filter(({ args }) => args['blocking'] === false).length, 1)
  t.is(turns.at(-1)!.args['progress'], false)
  t.deepEqual(
    named(read, 'the bell').map(({ args: { fd, name, callbacks } }) => ({ fd, name, callbacks })),
    [
      { fd: bell.fd, name: 'the bell', callbacks: 'read' },
      { fd: bell.fd, name: 'the bell', callbacks: 'pollReady' },
    ],
  )
  t.is(named(read, 'the bell')[0]!.args['events'], 'IN')
  t.like(named(read, `fd ${left.fd}`), [{ cat: 'dispatch', args: { callbacks: 'write', events: 'OUT' } }])
  t.deepEqual([named(read, 'bottom half').length, named(read, 'timer').length], [1, 1])
  for (const inner of read.events.filter((event) => event.ph === 'X' && event.name !== 'turn')) {
    t.is(turns.filter((turn) => within(turn, inner)).length, 1, JSON.stringify(inner))
  }
  const spins = named(read, 'spin')
  t.true(spins.every(({ args }) => args['window_ns'] <= 200_000 && args['rounds'] >= 1))
  t.true(spins.some(({ args }) => args['result'] === 'hit'))
  const miss = spins.find(({ args }) => args['result'] === 'miss')
  t.true(miss !== undefined && end(miss) - begin(miss) >= 200_000)
  const sleeps = named(read, 'sleep')
  t.true(sleeps.some(({ args }) => args['timeout_ns'] > 0 && args['timeout_ns'] <= 3_000_000))
  t.like(named(read, 'trace ended'), [{ args: { dropped: 0, events: events } }])
  void right
})

onEach('a turn within a callback lies within that callback [SPEC 19, 54]', (t, kit) => {
  const ctx = kit.context()
  const trace = ctx.trace(join(folder(kit), 'nested.json'))
  const halves = [0, 1, 2].map((depth) =>
    ctx.bottomHalf(() => {
      if (depth === 2) return
      halves[depth + 1]!.schedule()
      ctx.poll()
    }),
  )
  halves[0]!.schedule()
  ctx.poll()
  trace.stop()
  const read = readTrace(t, trace.file)
  const turns = named(read, 'turn').sort((a, b) => begin(a) - begin(b))
  const runs = named(read, 'bottom half').sort((a, b) => begin(a) - begin(b))
  t.deepEqual([turns.length, runs.length], [3, 3])
  for (let at = 0; at < 3; at++) {
    t.true(within(turns[at]!, runs[at]!))
    if (at < 2) t.true(within(runs[at]!, turns[at + 1]!))
  }
})

onEach('random programs give traces whose steps nest, and no event is lost [SPEC 54]', (t, kit) => {
  const where = folder(kit)
  for (let seed = 1; seed <= 12; seed++) {
    const roll = dice(seed)
    const ctx = kit.spinning({ maxNs: 20_000 })
    const bells = [0, 1, 2].map(() => kit.notifier())
    let left = 40
    const act = (): void => {
      if (left-- <= 0) return
      const what = roll(6)
      if (what === 0) ctx.schedule(act)
      else if (what === 1) ctx.timer(act).arm(roll(50_000))
      else if (what === 2) ctx.poll(false)
      else if (what === 3) bells[roll(3)]!.set()
      else if (what === 4) ctx.notify()
      else {
        act()
        act()
      }
    }
    for (const [at, bell] of bells.entries()) {
      ctx.setEventNotifier(bell, { ...(at === 0 ? {} : { name: `bell ${at}` }), read: () => (bell.testAndClear(), act()) })
    }
    const trace = ctx.trace(join(where, `${seed}.json`))
    while (left > 0) {
      act()
      ctx.poll(false)
    }
    if (roll(2) === 0) trace.stop()
    else ctx.close()
    trace.stop()
    const read = readTrace(t, trace.file)
    t.is(read.dropped, 0)
    const [ended] = named(read, 'trace ended')
    const names = read.events.filter((event) => event.ph === 'X' && event.name.startsWith('bell')).map(({ name }) => name)
    // What is no event: the names of handlers, of tracks and of the process. What is several: wake-ups.
    const woken = named(read, 'woken')
    const arrows = read.events.filter(({ ph }) => ph === 's').length
    const written = read.events.filter(({ ph }) => ph !== 'M').length - 1 - 3 * arrows + new Set(names).size
    t.is(ended!.args['events'], written, `seed ${seed}`)
    t.true(woken.length >= arrows)
  }
})

onEachAlone('an attached context shows what it does before, during and after the sleep of the loop around it [SPEC 51, 54]', async (t, kit) => {
  const ctx = kit.context({ name: 'attached' })
  const bell = kit.notifier()
  let rings = 0
  ctx.setEventNotifier(bell, { name: 'bell', read: () => (bell.testAndClear(), void rings++) })
  ctx.attach()
  const trace = ctx.trace(join(folder(kit), 'attached.json'))
  for (let round = 1; round <= 3; round++) {
    bell.set()
    while (rings < round) await pause(2)
    await pause(5)
  }
  trace.stop()
  const read = readTrace(t, trace.file)
  const dispatches = named(read, 'dispatch')
  t.is(named(read, 'bell').length, 3)
  for (const run of named(read, 'bell')) t.true(dispatches.some((dispatch) => within(dispatch, run)))
  for (const name of ['prepare', 'check', 'outer sleep']) t.true(named(read, name).length > 0, name)
  const sleeps = named(read, 'outer sleep')
  t.true(sleeps.some(({ args }) => args['ready'] === 1 || args['ready'] === 0))
  t.true(sleeps.every((sleep) => !dispatches.some((dispatch) => within(sleep, dispatch) || within(dispatch, sleep))))
})

onEach('an outer loop that runs turns and steps in odd places still gets steps that nest [SPEC 50, 54]', (t, kit) => {
  const ctx = kit.context()
  const trace = ctx.trace(join(folder(kit), 'outer.json'))
  t.is(ctx.prepareNs(), -1)
  ctx.schedule(() => ctx.prepareNs()) // its sleep would not lie within this turn
  ctx.poll()
  ctx.check()
  t.is(ctx.prepareNs(), -1)
  ctx.schedule(() => void ctx.check())
  ctx.poll()
  t.is(ctx.prepareNs(), -1)
  ctx.poll(false) // within the sleep
  ctx.check()
  ctx.dispatch()
  trace.stop()
  const read = readTrace(t, trace.file)
  t.is(named(read, 'outer sleep').length, 1)
  t.is(named(read, 'turn').filter((turn) => within(named(read, 'outer sleep')[0]!, turn)).length, 1)
})

onEach('batches of file I/O say how many requests were submitted and completed [SPEC 48, 54]', async (t, kit) => {
  const where = folder(kit)
  const file = join(where, 'data')
  writeFileSync(file, Buffer.alloc(65_536))
  const fd = kit.own(openSync(file, 'r'), closeSync)
  const ctx = kit.context()
  const trace = ctx.trace(join(where, 'io.json'))
  let done = 0
  for (let batch = 0; batch < 2; batch++) {
    ctx.plug(() => {
      for (let at = 0; at < 8; at++) ctx.submitRead(fd, Buffer.alloc(4096), at * 4096, (error) => (t.is(error, null), void done++))
    })
  }
  ctx.pollUntil(() => done === 16)
  trace.stop()
  const read = readTrace(t, trace.file)
  t.deepEqual(named(read, 'submitted').map(({ args }) => args['submitted']), [8, 8])
  t.is(named(read, 'completed').reduce((sum, { args }) => sum + args['completed'], 0), 16)
  t.is(named(read, 'completed').at(-1)!.args['in_flight'], 0)
  t.is(named(read, 'completion').length, 16)
})

test.serial('a wake-up by another thread is an arrow from who notified to the turn that took it [SPEC 32, 54]', async (t) => {
  const kit = new Kit('epoll')
  try {
    const file = join(folder(kit), 'threads.json')
    const here = kit.context({ name: 'here' })
    const trace = here.trace(file)
    await using there = inThread(
      `const trace = ctx.trace(data)
       let rung = 0
       const half = ctx.bottomHalf(() => threads.parentPort.postMessage(++rung))
       threads.parentPort.postMessage(half.id)
       threads.parentPort.once('message', () => { trace.stop(); threads.parentPort.postMessage('stopped') })`,
      { name: 'there', data: file },
    )
    const id = await said(there)
    const remote = AioContext.remote(there.contextId)
    for (let round = 1; round <= 3; round++) {
      const answer = said(there)
      if (round === 3) {
        here.schedule(() => remote.schedule(id)) // from within a turn of the context here
        here.poll()
      } else {
        remote.schedule(id) // by the thread, which runs none
      }
      t.is(await answer, round)
      await pause(5)
    }
    const stopped = said(there)
    there.worker.postMessage('stop')
    t.is(await stopped, 'stopped')
    trace.stop()
    const read = readTrace(t, file)
    const names = tracks(read)
    t.true(names.has('here') && names.has('there') && names.size === 3, [...names.keys()].join())
    const target = names.get('there')!
    const arrows = read.events.filter((event) => event.ph === 'f' && event.tid === target)
    const from = arrows.map((arrow) => read.events.find((event) => event.ph === 's' && event.id === arrow.id)!)
    t.true(arrows.length >= 3)
    const turn = named(read, 'turn', names.get('here')!)
    t.is(from.filter((start) => start.tid === names.get('here') && turn.some((one) => begin(one) < begin(start) && begin(start) < end(one))).length, 1)
    t.true(from.some((start) => start.tid !== names.get('here') && start.tid !== target))
    t.is(named(read, 'bottom half', target).length >= 3, true)
    t.true(named(read, 'woken', target).filter(({ args }) => args['after_ns'] >= 0).length >= 3)
  } finally {
    kit.close()
  }
})

onEach('what finds no room is dropped, and the trace says how much [SPEC 54]', (t, kit) => {
  const ctx = kit.context()
  const trace = ctx.trace(join(folder(kit), 'small.json'), { events: 64 })
  for (let round = 0; round < 30_000; round++) ctx.poll(false)
  const { events } = trace
  trace.stop()
  const dropped = trace.dropped
  t.true(dropped > 0)
  t.true(events + dropped >= 30_000)
  const read = readTrace(t, trace.file)
  t.is(read.dropped, dropped)
  t.is(named(read, 'dropped').reduce((sum, { args }) => sum + args['dropped'], 0), dropped)
  t.deepEqual(named(read, 'trace ended').map(({ args }) => args), [{ events, dropped }])
})

onEach('a trace may begin and end in a callback, and ends with its context [SPEC 38, 54]', (t, kit) => {
  const where = folder(kit)
  const ctx = kit.context()
  let trace = ctx.trace(join(where, 'a.json'))
  ctx.schedule(() => {
    trace.stop()
    trace = ctx.trace(join(where, 'b.json'))
    ctx.schedule(() => {})
    ctx.poll()
  })
  ctx.poll()
  ctx.poll(false)
  trace.stop()
  const a = readTrace(t, join(where, 'a.json'))
  t.deepEqual([named(a, 'turn').length, named(a, 'bottom half').length], [1, 1], 'what was open ends with the trace')
  const b = readTrace(t, join(where, 'b.json'))
  t.deepEqual([named(b, 'turn').length, named(b, 'bottom half').length], [2, 1], 'what had begun before it is not there')

  const last = ctx.trace(join(where, 'c.json'))
  ctx.schedule(() => void ctx.close())
  ctx.poll()
  const c = readTrace(t, last.file)
  t.deepEqual([c.whole, named(c, 'turn').length], [true, 1])
  last.stop()
  t.is(last.dropped, 0)
  refuses(t, () => ctx.trace(join(where, 'd.json')), ['closed'], 'ERR_FDMON_CLOSED')
})

test('contexts share a file, which ends with the last of them and is written anew after that [SPEC 54]', (t) => {
  const kit = new Kit('poll')
  const file = join(folder(kit), 'shared.json')
  const [one, two] = [kit.context({ name: 'one' }), kit.context({ name: 'two' })]
  const first = one.trace(file)
  const second = two.trace(pathToFileURL(file))
  one.poll(false)
  two.poll(false)
  first.stop()
  t.false(readTrace(t, file).whole)
  two.poll(false)
  second.stop()
  const read = readTrace(t, file)
  t.true(read.whole)
  t.deepEqual([...tracks(read).keys()], ['one', 'two'])
  t.deepEqual(['one', 'two'].map((name) => named(read, 'turn', tracks(read).get(name)!).length), [1, 2])
  one.trace(file).stop()
  t.deepEqual([...tracks(readTrace(t, file)).keys()], ['one'])
  kit.close()
})

test('what cannot be traced is refused by a typed error, and the context goes on [SPEC 13, 54]', (t) => {
  const kit = new Kit('poll')
  const where = folder(kit)
  const ctx = kit.context()
  const file = join(where, 'x.json')
  for (const bad of ['', 'a\0b', 5, null, undefined, {}, new URL('https://example.org/x')]) refuses(t, () => ctx.trace(bad as string), ['file = '])
  for (const events of [0, 63, 16_777_217, 1.5, NaN, '64']) refuses(t, () => ctx.trace(file, { events: events as number }), ['options.events', String(events)])
  refuses(t, () => ctx.trace(file, { event: 64 } as object), ['options.event = 64'])
  refuses(t, () => ctx.trace(file, 64 as unknown as object), ['options = 64'])
  t.false(existsSync(file))
  const missing = join(where, 'no', 'such.json')
  refuses(t, () => ctx.trace(missing), ['file = ', missing, 'folder'], 'ERR_FDMON_SYSCALL')
  refuses(t, () => ctx.trace(where), ['file = ', where], 'ERR_FDMON_SYSCALL')
  refuses(t, () => ctx.setEventNotifier(kit.notifier(), { name: 5 as unknown as string, read() {} }), ['handlers.name = 5'])
  const trace = ctx.trace(file)
  refuses(t, () => ctx.trace(file), [file, 'traced already'], 'ERR_FDMON_IN_USE')
  trace.stop()
  ctx.schedule(() => {})
  t.true(ctx.poll())
  kit.close()
})

test('an error of writing disturbs no turn and comes out of stop() [SPEC 54]', (t) => {
  const kit = new Kit('poll')
  const ctx = kit.context()
  const trace = ctx.trace('/dev/full')
  for (let round = 0; round < 100; round++) {
    ctx.schedule(() => {})
    t.true(ctx.poll())
  }
  const events = trace.events
  const error = t.throws(() => trace.stop(), { instanceOf: FdmonError })
  t.deepEqual([error?.code, error?.syscall], ['ERR_FDMON_SYSCALL', 'write'])
  t.regex(error!.message, /\/dev\/full.*no space left.*make room/i)
  t.is(trace.dropped, events, 'what could not be written counts')
  t.notThrows(() => trace.stop())
  ctx.schedule(() => {})
  t.true(ctx.poll())
  kit.close()
})

/** A program that traces to `data.file` and goes on until it is killed. */
const busy = `
  const ctx = context({ name: 'busy' })
  if (data.file) ctx.trace(data.file)
  say('ready')
  for (;;) { ctx.schedule(() => {}); ctx.poll() }`

test('what a killed process leaves is a trace without its end [SPEC 54]', async (t) => {
  const kit = new Kit('epoll')
  const where = folder(kit)
  for (let round = 0; round < 6; round++) {
    const file = join(where, `${round}.json`)
    const source = `const fdmon = require(${JSON.stringify(fdmon)}); const data = ${JSON.stringify({ file })}
      const context = (options) => new fdmon.AioContext(options); const say = console.log; ${busy}`
    const child = spawn(process.execPath, ['-e', source], { env: { ...process.env, FDMON_TRACE: '', NODE_OPTIONS: '' }, stdio: 'ignore' })
    const gone = new Promise((resolve) => child.once('exit', (_, signal) => resolve(signal)))
    while (!existsSync(file) || statSync(file).size < 100_000 * (round + 1)) await pause(1)
    child.kill('SIGKILL')
    t.is(await gone, 'SIGKILL')
    const read = readTrace(t, file)
    t.false(read.whole)
    t.true(read.events.length > 500)
    const text = readFileSync(file, 'utf8')
    for (let page = 4096; page < text.length; page += 4096) {
      // Whatever had been cut there, would have been cut between two events.
      t.regex(text.slice(page - 1, page + 2), /[} ],\n|,\n\{|\n\{"|^ {0,2},?\n?/)
      if (!/[} ]$/.test(text.slice(0, page))) t.fail(`an event crosses ${page}`)
    }
  }
  kit.close()
})

/** Runs a program under FDMON_TRACE. */
const traced = (source: string, trace: string, data: object = {}): ReturnType<typeof inProcess> =>
  inProcess(source, { monitor: 'epoll', ...data }, ['env', `FDMON_TRACE=${trace}`])

test('FDMON_TRACE traces all contexts of a process into one file, workers and those that come later included [SPEC 54]', async (t) => {
  const kit = new Kit('epoll')
  const file = join(folder(kit), 'all.json')
  const { code, stderr } = await traced(
    `const turn = (ctx) => { ctx.schedule(() => {}); ctx.poll() }
     const first = context({ name: 'first' })
     turn(first)
     first.close()
     const text = require('node:fs').readFileSync(process.env.FDMON_TRACE, 'utf8')
     if (JSON.parse(text).displayTimeUnit !== 'ns') throw new Error('no end')
     turn(context({ name: 'second, never closed' }))
     const { Worker } = require('node:worker_threads')
     const source = 'const fdmon = require(' + JSON.stringify(require.resolve(data.fdmon)) + '); const ctx = new fdmon.AioContext({ name: "worker" }); ctx.schedule(() => {}); ctx.poll()'
     new Worker(source, { eval: true }).on('exit', () => {
       turn(context({ name: 'third' }))
       process.exit()
     })`,
    file,
    { fdmon },
  )
  t.is(code, 0, stderr)
  const read = readTrace(t, file)
  t.true(read.whole)
  const names = ['first', 'second, never closed', 'worker', 'third']
  t.deepEqual([...tracks(read).keys()], names)
  for (const name of names) t.is(named(read, 'bottom half', tracks(read).get(name)!).length, 1, name)
  kit.close()
})

test('children under the same FDMON_TRACE write files of their own [SPEC 54]', async (t) => {
  const kit = new Kit('epoll')
  const where = folder(kit)
  const family = `
    const ctx = context({ name: data.role })
    ctx.schedule(() => {}); ctx.poll()
    if (data.role === 'parent') {
      const { spawnSync } = require('node:child_process')
      for (let child = 0; child < 2; child++) {
        const args = ['-e', data.program, JSON.stringify({ ...data, role: 'child' })]
        const end = spawnSync(process.execPath, args, { stdio: 'inherit' })
        if (end.status !== 0) process.exit(1)
      }
      ctx.poll(false)
    }`
  const program = `const fdmon = require(${JSON.stringify(fdmon)}); const data = JSON.parse(process.argv[1]); const context = (options) => new fdmon.AioContext(options); ${family}`
  for (const [name, own] of [['plain.json', 'plain.json'], ['pid-%p.json', undefined], ['noext', 'noext']] as const) {
    const before = new Set(readdirSync(where))
    const { code, stderr } = await traced(family, join(where, name), { role: 'parent', program })
    t.is(code, 0, stderr)
    const files = readdirSync(where).filter((file) => !before.has(file))
    t.is(files.length, 3, files.join())
    const roles = files.map((file) => {
      const read = readTrace(t, join(where, file))
      t.true(read.whole)
      const { pid } = read.events[0]!
      if (file !== own) t.true(basename(file).includes(`${pid}`), file)
      return [...tracks(read).keys()].join()
    })
    t.deepEqual(roles.sort(), ['child', 'child', 'parent'])
    if (own !== undefined) t.deepEqual([...tracks(readTrace(t, join(where, own))).keys()], ['parent'])
  }
  kit.close()
})

test('a file that another process writes is refused where it was named, and FDMON_TRACE that cannot be opened as well [SPEC 13, 54]', async (t) => {
  const kit = new Kit('epoll')
  const where = folder(kit)
  const file = join(where, 'taken.json')
  const ctx = kit.context()
  const trace = ctx.trace(file)
  const { said } = await inProcess(
    `const ctx = context()
     try { ctx.trace(data.file); say('traced') } catch (error) { say(error.code, error.message) }`,
    { monitor: 'epoll', file },
  )
  t.regex(said.join(), /^ERR_FDMON_IN_USE file = ".*taken\.json" is being written by another process; put %p/)
  trace.stop()
  t.true(readTrace(t, file).whole)
  const missing = join(where, 'no', 'such.json')
  const end = await traced(`try { context(); say('made') } catch (error) { say(error.code, error.message) }`, missing)
  t.regex(end.said.join(), /^ERR_FDMON_SYSCALL FDMON_TRACE = ".*such\.json" cannot be written/)
  t.deepEqual((await traced(`context(); say('made')`, '')).said, ['made'])
  kit.close()
})

test('a process that ends by an exception while it traces leaves a whole trace [SPEC 38, 54]', async (t) => {
  const kit = new Kit('epoll')
  const file = join(folder(kit), 'thrown.json')
  const { code } = await traced(`const ctx = context(); ctx.schedule(() => { throw new Error('on purpose') }); ctx.poll()`, file)
  t.is(code, 1)
  const read = readTrace(t, file)
  t.true(read.whole)
  t.is(named(read, 'bottom half').length, 1)
  kit.close()
})

const isOwn = (event: Event): boolean => event.cat === 'monitor'

test('moving to another monitor is in the trace [SPEC 43, 54]', (t) => {
  const kit = new Kit('poll')
  const ctx = kit.own(new AioContext({ monitor: 'auto', ring: { mode: 'off' } }), (one) => one.close())
  if (ctx.monitor === 'poll') {
    const trace = ctx.trace(join(folder(kit), 'moves.json'))
    for (let bell = 0; bell < 70; bell++) ctx.setEventNotifier(kit.own(new EventNotifier(), (one) => one.close()), { read() {} })
    ctx.poll(false)
    trace.stop()
    t.like(readTrace(t, trace.file).events.filter(isOwn), [{ name: 'monitor', args: { from: 'poll', to: 'epoll' } }])
  } else {
    t.is(process.env['FDMON_MONITOR'] !== undefined, true, ctx.monitorReason)
  }
  kit.close()
})
