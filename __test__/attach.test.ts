// A context attached to Node's own loop: callbacks, the order of Node's queues, errors, and what it is attached to.
import { AsyncLocalStorage } from 'node:async_hooks'
import { once } from 'node:events'
import { createRequire } from 'node:module'
import { createServer, connect, type AddressInfo } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import { inspect } from 'node:util'
import test from 'ava'
import { AioContext, EventNotifier } from 'fdmon'
import { inProcess } from './in-process.js'
import { ended, inWorker } from './in-worker.js'
import { drain, monitors, onEach, onEachAlone, put, refuses } from './on-each.js'

/** Resolves when it is called so many times. */
function called(times = 1): { call: () => void; done: Promise<void> } {
  let left = times
  let resolve: () => void
  const done = new Promise<void>((fulfil) => (resolve = fulfil))
  return { call: () => void (--left === 0 && resolve()), done }
}

onEachAlone('callbacks run while Node\'s loop runs: handlers, bottom halves and timers [SPEC 51]', async (t, kit) => {
  const ctx = kit.context().attach()
  const [left, right] = kit.pair()
  const all = called(4)
  ctx.setFdHandler(left, { read: (fd) => void (drain(fd), all.call()) })
  ctx.schedule(all.call)
  ctx.bottomHalf(all.call).schedule()
  ctx.timer(all.call).arm(1_000_000)
  put(right)
  await all.done
  t.is(ctx.stats().events, 4)
})

onEachAlone('nextTicks and then promise reactions run after a batch, before the next turn [SPEC 51]', async (t, kit) => {
  const ctx = kit.context().attach()
  const order: string[] = []
  const over = called()
  const callback = (name: string) => () => {
    order.push(name)
    void Promise.resolve().then(() => order.push(`promise of ${name}`))
    process.nextTick(() => order.push(`tick of ${name}`))
    if (name === 'a') ctx.schedule(callback('next turn'))
    if (name === 'next turn') setImmediate(over.call)
  }
  ctx.schedule(callback('a'))
  ctx.schedule(callback('b'))
  await over.done
  const queues = (...names: string[]): string[] => [...names, ...names.map((name) => `tick of ${name}`), ...names.map((name) => `promise of ${name}`)]
  t.deepEqual(order, [...queues('a', 'b'), ...queues('next turn')])
})

onEachAlone('each callback runs in the AsyncLocalStorage of its registration, also two of one batch [SPEC 51]', async (t, kit) => {
  const storage = new AsyncLocalStorage<string>()
  const ctx = kit.context()
  const seen: Record<string, string | undefined> = {}
  const all = called(7)
  const note = (name: string) => () => {
    seen[name] = storage.getStore()
    all.call()
  }
  const bells = [0, 1].map(() => new EventNotifier({ value: 1 }))
  for (const bell of bells) kit.own(bell, () => bell.close())
  const read = (name: string) => ({ read: (fd: number) => void (drain(fd), note(name)()) })
  // Before attach, and all due in the first turn.
  storage.run('before attach', () => ctx.setFdHandler(bells[0]!, read('handler before')))
  const half = storage.run('before attach', () => ctx.bottomHalf(note('bottom half before')))
  const timer = storage.run('before attach', () => ctx.timer(note('timer before')))
  half.schedule()
  timer.arm(0)
  ctx.attach()
  storage.run('attached', () => {
    ctx.setFdHandler(bells[1]!, read('handler'))
    ctx.bottomHalf(note('bottom half')).schedule()
    ctx.schedule(note('schedule'))
    ctx.timer(note('timer')).arm(0)
  })
  await all.done
  t.is(ctx.stats().batchMax >= 2, true)
  for (const [name, store] of Object.entries(seen)) t.is(store, name.endsWith('before') ? 'before attach' : 'attached', name)
})

onEach('async_hooks see a resource a handler, and before and after are balanced also when a callback throws [SPEC 51]', async (t, { monitor }) => {
  const { said, code, stderr } = await inProcess(
    `const hooks = require('node:async_hooks')
     const types = new Map()
     const log = []
     const note = (what) => (id) => types.get(id) === 'FDMON_HANDLER' && log.push(what + id)
     hooks.createHook({ init: (id, type) => { types.set(id, type); note('i')(id) }, before: note('b'), after: note('a'), destroy: note('d') }).enable()
     process.on('uncaughtException', (error) => log.push(error.message))
     const ctx = context().attach()
     const bells = [1, 2].map(() => new fdmon.EventNotifier({ value: 1 }))
     const during = []
     const registrations = bells.map((bell, index) => ctx.setFdHandler(bell, { read() {
       bell.testAndClear()
       during.push(types.get(hooks.executionAsyncId()))
       if (index === 0) throw new Error('thrown')
     } }))
     // On a busy machine Node may first run what is due by then.
     const end = () => {
       if (during.length < bells.length) return setTimeout(end, 20)
       for (const registration of registrations) registration.remove()
       ctx.close()
       setImmediate(() => say(JSON.stringify({ log, during })))
     }
     setTimeout(end, 20)`,
    { monitor },
  )
  t.is(code, 0, stderr)
  const { log, during } = JSON.parse(said[0]!)
  const ids = log.filter((what: string) => what.startsWith('i')).map((what: string) => what.slice(1))
  t.is(ids.length, 2)
  t.deepEqual(during, ['FDMON_HANDLER', 'FDMON_HANDLER'])
  const [one, two] = ids
  t.true(log.includes('thrown'))
  const order = log.filter((what: string) => what !== 'thrown')
  t.deepEqual(order.slice(0, 6).sort(), [`i${one}`, `i${two}`, `b${one}`, `a${one}`, `b${two}`, `a${two}`].sort())
  for (const id of ids) t.true(log.indexOf(`b${id}`) + 1 === log.indexOf(`a${id}`), log.join(' '))
  // Its listeners ran in the context of the first once more.
  t.deepEqual(log.slice(log.indexOf('thrown') - 1, log.indexOf('thrown') + 2), [`b${one}`, 'thrown', `a${one}`])
  t.deepEqual(order.slice(6).sort(), [`a${one}`, `b${one}`, `d${one}`, `d${two}`].sort())
})

onEach('what callbacks throw is an uncaught exception: one error as it is, several as an AggregateError [SPEC 21] [SPEC 51]', async (t, { monitor }) => {
  const { said, code, stderr } = await inProcess(
    `process.on('uncaughtException', (error, origin) => say(origin, error instanceof AggregateError ? error.errors.map((one) => one.message) : error?.message ?? String(error)))
     const ctx = context().attach()
     ctx.schedule(() => { throw new RangeError('one') })
     ctx.schedule(() => say('the other ran'))
     ctx.timer(() => say('the timer ran')).arm(0)
     // After the first pass of the loop, in which the above runs.
     setImmediate(() => setTimeout(() => {
       ctx.schedule(() => { throw new Error('a') })
       ctx.schedule(() => { throw new Error('b') })
       ctx.schedule(() => say('and the third'))
       setTimeout(() => { ctx.schedule(() => { throw undefined }); setTimeout(() => { say('Node goes on'); ctx.close() }, 20) }, 20)
     }, 5))`,
    { monitor },
  )
  t.is(code, 0, stderr)
  t.deepEqual(said, ['the other ran', 'the timer ran', 'uncaughtException one', 'and the third', 'uncaughtException a,b', 'uncaughtException undefined', 'Node goes on'])
})

onEach('what a predicate, pollBegin or pollEnd throws is uncaught too, and reported at once [SPEC 21] [SPEC 51]', async (t, { monitor }) => {
  for (const where of ['poll', 'pollBegin', 'pollEnd']) {
    const { said, code, signal, stderr } = await inProcess(
      `process.on('uncaughtException', (error) => { say(error.message); if (!ctx.closed) end() })
       const ctx = spinning({ maxNs: 2_000_000 }).attach()
       const bell = new fdmon.EventNotifier()
       let hits = 3, thrown = false
       const may = (at) => { if (at === data.where && !thrown) { thrown = true; throw new Error('of ' + at) } }
       ctx.setFdHandler(bell, {
         poll: () => (hits < 3 && may('poll'), hits > 0),
         pollReady: () => void hits--,
         pollBegin: () => may('pollBegin'),
         pollEnd: () => may('pollEnd'),
       })
       const timer = ctx.timer(() => timer.arm(300_000)) // opens the window
       timer.arm(300_000)
       const keep = setTimeout(() => { say('never'); process.exit(1) }, 10_000)
       function end() { clearTimeout(keep); ctx.close() }`,
      { monitor, where },
    )
    t.deepEqual({ code, signal, said }, { code: 0, signal: null, said: [`of ${where}`] }, `${where}: ${stderr}`)
  }
})

onEach('close() inside a predicate or a hook leaves Node\'s loop without an error [SPEC 38] [SPEC 51]', async (t, { monitor }) => {
  for (const where of ['poll', 'pollBegin', 'pollEnd', 'pollReady']) {
    const { said, code, stderr } = await inProcess(
      `const ctx = spinning({ maxNs: 2_000_000 }).attach()
       const bell = new fdmon.EventNotifier()
       let hits = 3
       const may = (at) => { if (at === data.where) { say('closed', ctx.close().handlers) } }
       ctx.setFdHandler(bell, {
         poll: () => (may('poll'), hits > 0),
         pollReady: () => (may('pollReady'), void hits--),
         pollBegin: () => may('pollBegin'),
         pollEnd: () => may('pollEnd'),
       })
       const timer = ctx.timer(() => timer.arm(300_000))
       timer.arm(300_000)`,
      { monitor, where },
    )
    t.deepEqual({ code, said, stderr }, { code: 0, said: ['closed 1'], stderr: '' }, where)
  }
})

onEachAlone('a hook is refused what would begin a turn or move the context, with IN_USE', async (t, kit) => {
  const ctx = kit.context().attach()
  const over = called()
  ctx.setFdHandler(kit.notifier(), {
    poll() {
      for (const call of [() => ctx.poll(false), () => ctx.attach(), () => ctx.detach(), () => ctx.suspend(), () => ctx.run()]) {
        refuses(t, call, [], 'ERR_FDMON_IN_USE')
      }
      over.call()
      return false
    },
    pollReady() {},
  })
  await over.done
})

onEachAlone('poll() still works, inside a callback and outside, and runs nothing twice [SPEC 19] [SPEC 51]', async (t, kit) => {
  const ctx = kit.context().attach()
  const [left, right] = kit.pair()
  const order: string[] = []
  const over = called()
  ctx.setFdHandler(left, { read: (fd) => void order.push(`read ${drain(fd)}`) })
  ctx.schedule(() => {
    put(right)
    order.push('outer')
    while (!order.includes('read 1')) t.true(ctx.poll(true))
    ctx.schedule(() => void order.push('nested'))
    t.true(ctx.poll(false))
    order.push('outer ends')
  })
  ctx.schedule(() => void order.push('second'))
  ctx.schedule(over.call)
  await over.done
  t.is(order.at(-1) === 'outer ends' || order.includes('outer ends'), true)
  t.deepEqual([...order].sort(), ['nested', 'outer', 'outer ends', 'read 1', 'second'])
  ctx.schedule(() => void order.push('outside'))
  t.true(ctx.poll(true))
  t.is(order.at(-1), 'outside')
  t.false(ctx.poll(false))
  await pause(5)
  t.is(order.filter((what) => what === 'outside').length, 1)
})

onEachAlone('attach() twice and detach() twice do nothing more, and detached it runs by poll() again [SPEC 51]', async (t, kit) => {
  const ctx = kit.context()
  t.is(ctx.attach(), ctx)
  t.is(ctx.attach({ ref: true }), ctx)
  let runs = 0
  const once = called()
  ctx.schedule(() => (runs++, once.call()))
  await once.done
  ctx.detach()
  ctx.detach()
  ctx.schedule(() => void runs++)
  await pause(10)
  t.is(runs, 1)
  t.true(ctx.poll(true))
  t.is(runs, 2)
  const again = called()
  ctx.attach()
  ctx.schedule(again.call)
  await again.done
})

onEachAlone('what was found before detach() runs in the next turn, and the rest of a batch still runs [SPEC 51]', async (t, kit) => {
  const ctx = kit.context().attach()
  const [left, right] = kit.pair()
  const order: string[] = []
  const detached = called()
  ctx.setFdHandler(left, { read: (fd) => void order.push(`read ${drain(fd)}`) })
  ctx.schedule(() => {
    put(right)
    ctx.detach()
    order.push('detached')
    t.false(inspect(ctx).includes("'attached'"))
  })
  ctx.schedule(() => (order.push('same batch'), detached.call()))
  await detached.done
  await pause(10)
  t.deepEqual(order, ['detached', 'same batch'])
  ctx.schedule(() => void order.push('later'))
  ctx.poll(true)
  while (ctx.poll(false));
  t.deepEqual(order.slice(2).sort(), ['later', 'read 1'])
})

onEachAlone('attach() inside a callback: the loop goes on where the turn ends [SPEC 51]', async (t, kit) => {
  const ctx = kit.context()
  const over = called(2)
  ctx.schedule(() => {
    ctx.attach()
    ctx.schedule(over.call)
    ctx.timer(over.call).arm(1_000_000)
  })
  ctx.poll(true)
  await over.done
  t.true(inspect(ctx).includes("mode: 'attached'"))
})

onEachAlone('close() inside an attached callback stops the others, and Node goes on [SPEC 38] [SPEC 51]', async (t, kit) => {
  const ctx = kit.context().attach()
  let runs = 0
  const closed = called()
  for (let count = 0; count < 3; count++) {
    ctx.schedule(() => {
      runs++
      ctx.close()
      closed.call()
    })
  }
  await closed.done
  await pause(5)
  t.is(runs, 1)
})

onEachAlone('detach() and close() leave spin mode: pollEnd runs, the suppress word is 0 [SPEC 25] [SPEC 51]', async (t, kit) => {
  for (const leave of ['detach', 'close'] as const) {
    const ctx = kit.spinning({ grow: 1_000_000 }).attach()
    const words = new Int32Array(new SharedArrayBuffer(64))
    words[0] = 1 // a first hit, which puts it on the spin list
    const begun = called()
    let ends = 0
    // The loop spins in prepare: what leaves spin mode is called from a hit, in which the word is still 1.
    ctx.setFdHandler(kit.notifier(), {
      poll: { memory: words, index: 0, notEqual: 0, suppress: { index: 1 } },
      pollReady() {
        Atomics.store(words, 0, 0)
        if (Atomics.load(words, 1) !== 1) return
        ctx[leave]()
        t.is(Atomics.load(words, 1), 0, leave)
        begun.call()
      },
      pollEnd: () => void ends++,
    })
    const timer = ctx.timer(() => (Atomics.store(words, 0, 1), timer.arm(500_000)))
    timer.arm(500_000)
    await begun.done
    t.true(ends > 0, leave)
    t.is(Atomics.load(words, 1), 0, leave)
  }
})

onEachAlone('detach() whose pollEnd throws is detached all the same, and ends a turn() that waits', async (t, kit) => {
  const ctx = kit.spinning({ grow: 1_000_000 }).attach()
  const tried = called()
  let hits = 1
  let begun = false
  let bad = false
  ctx.setFdHandler(kit.notifier(), {
    poll: () => hits > 0,
    pollReady() {
      hits = 0
      if (!begun || bad) return
      bad = true
      process.nextTick(() => {
        turn = ctx.turn()
        thrown = t.throws(() => ctx.detach())
        tried.call()
      })
    },
    pollBegin: () => void (begun = true),
    pollEnd() {
      begun = false
      if (bad) throw new RangeError('of pollEnd')
    },
  })
  let turn: Promise<boolean> | undefined
  let thrown: Error | undefined
  const timer = ctx.timer(() => (hits = 1, timer.arm(500_000)))
  timer.arm(500_000)
  await tried.done
  t.is(thrown?.message, 'of pollEnd')
  t.false(await turn)
  t.true(inspect(ctx).includes("mode: 'idle'"))
})

onEachAlone('prepareNs(), check() and dispatch() are refused while attached, and work again afterwards [SPEC 50]', (t, kit) => {
  const ctx = kit.context().attach()
  for (const call of [() => ctx.prepareNs(), () => ctx.check(), () => ctx.dispatch()]) {
    refuses(t, call, ['attached', 'detach()'], 'ERR_FDMON_ATTACHED')
  }
  ctx.detach()
  t.is(ctx.prepareNs(), -1)
  t.false(ctx.check())
  t.false(ctx.dispatch())
})

onEachAlone('attach() refuses what is no option, and a closed context', (t, kit) => {
  const ctx = kit.context()
  refuses(t, () => ctx.attach({ ref: 1 } as any), ['options.ref', '1'])
  refuses(t, () => ctx.attach({ reff: true } as any), ['reff'])
  refuses(t, () => ctx.attach(null as any), ['options'])
  t.true(inspect(ctx).includes("mode: 'idle'"))
  ctx.close()
  for (const call of [() => ctx.attach(), () => ctx.detach(), () => ctx.ref(), () => ctx.unref()]) refuses(t, call, [], 'ERR_FDMON_CLOSED')
})

onEachAlone('console.log() of an attached context says so', (t, kit) => {
  const ctx = kit.context().attach()
  t.true(inspect(ctx).includes("mode: 'attached'"))
  ctx.detach()
  t.true(inspect(ctx).includes("mode: 'idle'"))
})

test('an auto context is on epoll once it is attached, and says why; io_uring that was asked for stays [SPEC 45]', async (t) => {
  const { said, code, stderr } = await inProcess(
    `delete process.env.FDMON_MONITOR
     const ctx = new fdmon.AioContext().attach()
     const bell = new fdmon.EventNotifier({ value: 1 })
     ctx.setFdHandler(bell, { read() { bell.testAndClear(); say(ctx.monitor, ctx.monitorReason.includes('embedded')); ctx.close() } })`,
  )
  t.deepEqual({ code, said }, { code: 0, said: ['epoll true'] }, stderr)
  if (!monitors.includes('io_uring')) return
  using ctx = new AioContext({ monitor: 'io_uring' })
  ctx.attach()
  t.is(ctx.monitor, 'io_uring')
})

onEachAlone('turn() of an attached context is fulfilled by a turn that makes progress [SPEC 51]', async (t, kit) => {
  const ctx = kit.context().attach()
  const order: string[] = []
  const turn = ctx.turn().then((progress) => order.push(`turn ${progress}`))
  ctx.schedule(() => void order.push('callback'))
  await turn
  t.deepEqual(order, ['callback', 'turn true'])
})

onEachAlone('turn() rejects when its signal aborts, and is false when the context is detached or closed', async (t, kit) => {
  const ctx = kit.context().attach()
  const abort = new AbortController()
  const aborted = ctx.turn({ signal: abort.signal })
  abort.abort(new RangeError('enough'))
  await t.throwsAsync(aborted, { instanceOf: RangeError, message: 'enough' })
  await t.throwsAsync(ctx.turn({ signal: abort.signal }), { message: 'enough' })
  const detached = ctx.turn()
  ctx.detach()
  t.false(await detached)
  ctx.attach()
  const closed = ctx.turn()
  ctx.close()
  t.false(await closed)
})

onEachAlone('timers are never early and not much late, also re-armed, put off, cancelled and armed in a callback [SPEC 39] [SPEC 51]', async (t, kit) => {
  const ctx = kit.context().attach()
  const late: number[] = []
  const all = called(60)
  const now = (): bigint => process.hrtime.bigint()
  for (let count = 0; count < 20; count++) {
    const delay = BigInt(Math.floor(Math.random() * 20_000_000))
    let due = now() + delay
    let times = 0
    const timer = ctx.timer(() => {
      const at = now()
      t.true(at >= due, `${due - at} ns early`)
      late.push(Number(at - due))
      all.call()
      if (++times === 3) return
      due = now() + 700_000n
      timer.armAt(due)
    })
    timer.armAt(due)
    if (count % 4 === 1) {
      due = now() + 30_000_000n // put off
      timer.armAt(due)
    } else if (count % 4 === 2) {
      timer.cancel()
      due = now() + 2_000_000n // sooner
      timer.armAt(due)
    }
  }
  const never = ctx.timer(() => t.fail())
  never.arm(5_000_000)
  void Promise.resolve().then(() => never.cancel())
  await all.done
  t.true(Math.min(...late) < 50_000_000, `the best was ${Math.min(...late)} ns late`)
})

onEachAlone('several contexts are attached at once, and use each other [SPEC 51]', async (t, kit) => {
  const contexts = Array.from({ length: 5 }, (_, index) => (index % 2 === 0 ? kit.context() : kit.spinning()).attach())
  let hops = 0
  const over = called()
  const hop = (): void => {
    hops++
    if (hops === 200) return over.call()
    const next = contexts[hops % contexts.length]!
    if (hops % 3 === 0) next.timer(hop).arm(1000)
    else next.schedule(hop)
  }
  contexts[0]!.schedule(hop)
  await over.done
  t.is(hops, 200)
})

onEachAlone('timers, immediates and sockets of Node are served beside a context that always has something to do [SPEC 51]', async (t, kit) => {
  const kinds = {
    'a bottom half that schedules itself': (ctx: AioContext, ran: () => void) => {
      const half = ctx.bottomHalf(() => (ran(), half.schedule()))
      half.schedule()
    },
    'a word that is always ready': (ctx: AioContext, ran: () => void) => {
      const memory = new Int32Array(new SharedArrayBuffer(64)).fill(1)
      ctx.setFdHandler(kit.notifier(), { poll: { memory, index: 0, notEqual: 0 }, pollReady: ran })
    },
    'a descriptor that is never drained': (ctx: AioContext, ran: () => void) => {
      const bell = kit.notifier()
      bell.set()
      ctx.setFdHandler(bell, { read: ran })
    },
  }
  const server = createServer((socket) => socket.pipe(socket)).listen(0)
  await once(server, 'listening')
  for (const [kind, start] of Object.entries(kinds)) {
    const ctx = kit.spinning({ maxNs: 1_000_000 }).attach()
    let runs = 0
    start(ctx, () => void runs++)
    let at = 0
    const socket = connect((server.address() as AddressInfo).port)
    for (let round = 0; round < 20; round++) {
      await new Promise((resolve) => setImmediate(resolve))
      await pause(1)
      socket.write('x')
      await once(socket, 'data')
      t.true(runs > at, `${kind} is starved in round ${round}`)
      at = runs
    }
    socket.destroy()
    ctx.close()
  }
  server.close()
})

onEach('another thread wakes a context that sleeps, spins or dispatches, and no wake-up is lost [SPEC 32] [SPEC 51]', async (t, { monitor }) => {
  const { said, code, signal, stderr } = await inProcess(
    `const { Worker } = require('node:worker_threads')
     const source = \`const { workerData: { entry, id, half, words } } = require('node:worker_threads')
       const remote = require(entry).AioContext.remote(id)
       for (let round = 0; round < 300; round++) {
         while (Atomics.load(words, 0) === round) { if (Math.random() < 0.7) Atomics.wait(words, 0, round, 1) }
         const until = performance.now() + Math.random() * 0.3
         while (performance.now() < until);
         remote.schedule(half)
         if (round % 3 === 0) remote.notify()
       }\`
     async function rounds(name, ctx, busy) {
       const words = new Int32Array(new SharedArrayBuffer(64))
       ctx.attach()
       const half = ctx.bottomHalf(() => { words[1]++; Atomics.add(words, 0, 1); Atomics.notify(words, 0) })
       const always = ctx.bottomHalf(() => always.schedule())
       if (busy) always.schedule()
       const worker = new Worker(source, { eval: true, workerData: { entry: require.resolve(data.entry), id: ctx.id, half: half.id, words } })
       Atomics.store(words, 0, 1)
       await new Promise((resolve) => worker.once('exit', resolve))
       while (words[1] < 300) await pause(1)
       say(name, words[1])
       ctx.close()
     }
     void (async () => {
       await rounds('sleeps', context(), false)
       await rounds('spins', spinning({ maxNs: 300_000 }), false)
       await rounds('dispatches', context(), true)
     })()`,
    { monitor, entry: createRequire(import.meta.url).resolve('fdmon') },
  )
  t.deepEqual({ code, signal, said }, { code: 0, signal: null, said: ['sleeps 300', 'spins 300', 'dispatches 300'] }, stderr)
})

onEach('when a callback throws, uncaughtException comes first, then what was queued, as for Node\'s own callbacks [SPEC 51]', async (t, { monitor }) => {
  const body = `() => {
    process.nextTick(() => say('tick'))
    void Promise.resolve().then(() => say('promise'))
    setImmediate(() => say('immediate'))
    throw new Error('thrown')
  }`
  const program = (start: string): string => `process.on('uncaughtException', (error) => say(error.message)); ${start}`
  const plain = await inProcess(program(`require('node:net').createServer().listen(0, function () { this.close(); (${body})() })`), { monitor })
  const ours = await inProcess(program(`const ctx = context().attach(); ctx.schedule(${body})`), { monitor })
  t.is(plain.code, 0)
  t.is(ours.code, 0, ours.stderr)
  t.deepEqual(ours.said, plain.said)
  t.is(ours.said[0], 'thrown')
})

for (const [name, key] of [['Bun', 'bun'], ['Deno', 'deno']] as const) {
  test(`attach() is refused in ${name} before anything of libuv is called, and poll() works there [SPEC 51]`, async (t) => {
    const { said, code, stderr } = await inProcess(
      `Object.defineProperty(process, 'versions', { value: { ...process.versions, ${key}: '1.0.0' } })
       const tryTo = (call) => { try { call() } catch (error) { say(error.code, error.message.includes('${name}')) } }
       const bell = new fdmon.EventNotifier()
       const ctx = new fdmon.AioContext()
       tryTo(() => ctx.attach())
       tryTo(() => fdmon.defaultContext())
       tryTo(() => fdmon.watch(bell, { read() {} }))
       tryTo(() => fdmon.readable(bell))
       ctx.schedule(() => say('ran'))
       say(ctx.poll(true))`,
    )
    t.deepEqual({ code, said }, { code: 0, said: [...Array(4).fill('ERR_FDMON_UNSUPPORTED true'), 'ran', 'true'] }, stderr)
  })
}

for (const kind of ['require', 'import'] as const) {
  test(`a context attaches and ends from a module loaded by ${kind}`, async (t) => {
    const { said, code, stderr } = await inProcess(
      `const load = ${kind === 'import' ? `import(${JSON.stringify(import.meta.resolve('fdmon'))})` : 'Promise.resolve(fdmon)'}
       void load.then(({ AioContext, defaultContext, watch }) => {
         const ctx = new AioContext().attach()
         ctx.schedule(() => say('ran', defaultContext() === fdmon.defaultContext()))
         const bell = new fdmon.EventNotifier({ value: 1 })
         const registration = watch(bell, { read() { registration.remove(); say('watched') } })
       })`,
    )
    t.is(code, 0, stderr)
    t.deepEqual(said.sort(), ['ran true', 'watched'])
  })
}

test('an attached context that is dropped is not collected, and gives no warning', async (t) => {
  const worker = inWorker(
    `require('node:v8').setFlagsFromString('--expose-gc')
     const gc = require('node:vm').runInNewContext('gc')
     const warnings = []
     process.on('warning', (warning) => warnings.push(warning.code))
     const notifier = new fdmon.EventNotifier()
     let runs = 0
     ;(() => new fdmon.AioContext({ name: 'kept' }).attach().setFdHandler(notifier, { read() { notifier.testAndClear(); runs++ } }))()
     let rounds = 0
     const timer = setInterval(() => {
       gc()
       notifier.set()
       if (rounds++ < 20) return
       clearInterval(timer)
       parentPort.postMessage({ warnings, runs })
       setImmediate(() => process.exit())
     }, 1)`,
  )
  const [{ warnings, runs }] = await once(worker, 'message')
  t.deepEqual(warnings, [])
  t.true(runs > 10)
  await ended(worker)
})

onEach('more contexts than the kernel lets watch one file are refused or served, and never end the process', async (t, { monitor }) => {
  const { said, code, signal, stderr } = await inProcess(
    `const bell = new fdmon.EventNotifier()
     const contexts = []
     let refused = 0
     for (let count = 0; count < 520; count++) {
       const ctx = context().attach()
       try { ctx.setFdHandler(bell, { read() { ctx.close(); contexts.splice(contexts.indexOf(ctx), 1) } }); contexts.push(ctx) }
       catch (error) { refused++; ctx.close() }
     }
     setTimeout(() => bell.set(), 10)
     process.on('exit', () => say(contexts.length))`,
    { monitor },
  )
  t.deepEqual({ code, signal, said }, { code: 0, signal: null, said: ['0'] }, stderr)
})

test('an attach() that the kernel refuses is a typed error, leaves nothing behind, and can be tried again', async (t) => {
  const { said, code, signal, stderr } = await inProcess(
    `const count = () => require('node:fs').readdirSync('/proc/self/fd').length
     const bell = new fdmon.EventNotifier()
     const contexts = []
     for (let count = 0; count < 500; count++) {
       const ctx = context().attach({ ref: false })
       ctx.setFdHandler(bell, { read() {} })
       contexts.push(ctx)
     }
     const ctx = context()
     ctx.setFdHandler(bell, { read() { bell.testAndClear(); say('read'); ctx.close() } })
     const attach = () => { try { ctx.attach(); return 'attached' } catch (error) { return error.code + ' ' + error.syscall } }
     setTimeout(() => {
       const before = (attach(), count())
       const second = attach()
       setTimeout(() => {
         say(second, Math.max(count() - before, 0), ctx.poll(false), ctx.prepareNs(), ctx.check())
         for (const other of contexts) other.close()
         say(attach())
         bell.set()
       }, 10)
     }, 10)`,
    { monitor: 'epoll' },
  )
  t.deepEqual({ code, signal }, { code: 0, signal: null }, stderr)
  t.deepEqual(said, ['ERR_FDMON_SYSCALL uv_poll_init 0 false -1 false', 'attached', 'read'], stderr)
})

onEach('the listener of an uncaught exception sees the AsyncLocalStorage store of the callback that threw [SPEC 51]', async (t, { monitor }) => {
  const { said, code, stderr } = await inProcess(
    `const store = new (require('node:async_hooks').AsyncLocalStorage)()
     const ctx = context().attach()
     const bell = new fdmon.EventNotifier()
     process.on('uncaughtException', (error) => { say(error.message, store.getStore()); ctx.close() })
     store.run('of the handler', () => ctx.setEventNotifier(bell, { read() { throw new Error('one') } }))
     bell.set()`,
    { monitor },
  )
  t.deepEqual({ code, said }, { code: 0, said: ['one of the handler'] }, stderr)
})
