// Other threads: wake-ups, stops, statistics, and workers that end at any moment.
import test from 'ava'
import { AioContext } from 'fdmon'
import { ended, inWorker, message } from './in-worker.js'
import { onEach, refuses } from './on-each.js'

onEach('notify() ends a wait and is no progress [SPEC 16] [SPEC 32]', (t, kit) => {
  const ctx = kit.context()
  ctx.notify()
  t.false(ctx.poll(true))
  AioContext.remote(ctx.id).notify()
  t.false(ctx.poll(true))
})

onEach('remote.stop() from another thread ends a blocked run() [SPEC 4] [SPEC 32]', async (t, kit) => {
  const ctx = kit.context()
  const flag = new Int32Array(new SharedArrayBuffer(4))
  const worker = inWorker(
    `Atomics.wait(data.flag, 0, 0)
     Atomics.wait(data.flag, 0, 1, 20) // most likely the other thread sleeps by now
     fdmon.AioContext.remote(data.id).stop()`,
    { id: ctx.id, flag },
  )
  await new Promise((resolve) => worker.once('online', resolve))
  Atomics.store(flag, 0, 1)
  Atomics.notify(flag, 0)
  ctx.run()
  t.is(await ended(worker), 0)
})

onEach('remote.stop() before a loop ends the next one, before its first turn', (t, kit) => {
  const ctx = kit.context()
  AioContext.remote(ctx.id).stop()
  const turns = ctx.stats().turns
  ctx.run()
  t.is(ctx.stats().turns, turns)
  let asked = 0
  ctx.pollUntil(() => asked++ === 1 || void ctx.notify() === null)
  t.is(asked, 2)
})

onEach('a bottom half scheduled by another thread wakes a sleeping loop, and none of 1,000 is lost [SPEC 35] [SPEC 36]', async (t, kit) => {
  const ctx = kit.context()
  const count = new Int32Array(new SharedArrayBuffer(8))
  let seen = 0
  const half = ctx.bottomHalf(() => {
    seen = Atomics.load(count, 0)
    Atomics.store(count, 1, seen)
    Atomics.notify(count, 1)
  })
  const worker = inWorker(
    `const remote = fdmon.AioContext.remote(data.id)
     for (let turn = 1; turn <= 1000; turn++) {
       Atomics.store(data.count, 0, turn)
       remote.schedule(data.half)
       while (Atomics.load(data.count, 1) < turn) Atomics.wait(data.count, 1, turn - 1)
     }`,
    { id: ctx.id, half: half.id, count },
  )
  ctx.pollUntil(() => seen === 1000)
  t.is(await ended(worker), 0)
})

onEach('a remote reads statistics and changes parameters while the loop runs [SPEC 31] [SPEC 53]', async (t, kit) => {
  const ctx = kit.context()
  const worker = inWorker(
    `const remote = fdmon.AioContext.remote(data)
     remote.setPollParams({ maxNs: 1000 })
     remote.setAioParams({ maxBatch: 8 })
     const stats = remote.stats()
     parentPort.postMessage({ monitor: stats.monitor, turns: stats.turns, id: remote.id })
     remote.stop()`,
    ctx.id,
  )
  const told = message(worker)
  ctx.run()
  const answer = await told
  t.is(answer.monitor, kit.monitor)
  t.is(answer.id, ctx.id)
  t.is(typeof answer.turns, 'number')
  await ended(worker)
})

onEach('a remote of a context that is closed, or never was, is refused', (t, kit) => {
  const ctx = kit.context()
  const remote = AioContext.remote(ctx.id)
  ctx.close()
  const calls = [
    () => remote.notify(),
    () => remote.stop(),
    () => remote.stats(),
    () => remote.schedule(1),
    () => remote.setPollParams({ maxNs: 1 }),
    () => remote.setAioParams({ maxBatch: 1 }),
    () => AioContext.remote(ctx.id),
    () => AioContext.remote(Number.MAX_SAFE_INTEGER),
  ]
  for (const call of calls) refuses(t, call, [], 'ERR_FDMON_CLOSED')
})

onEach('a worker that blocks in run() is stopped from outside, then ends', async (t, kit) => {
  const worker = inWorker(
    `const ctx = new fdmon.AioContext({ monitor: data })
     parentPort.postMessage(ctx.id)
     ctx.run()
     parentPort.postMessage('stopped')`,
    kit.monitor,
  )
  const id = (await message(worker)) as number
  const next = message(worker)
  AioContext.remote(id).stop()
  t.is(await next, 'stopped')
  await ended(worker)
  refuses(t, () => AioContext.remote(id).notify(), [], 'ERR_FDMON_CLOSED')
})

onEach('a worker may be terminated between turns, with everything still registered', async (t, kit) => {
  for (let round = 0; round < 5; round++) {
    const worker = inWorker(
      `const ctx = new fdmon.AioContext({ monitor: data, poll: { maxNs: 100_000, guards: false } })
       const notifiers = Array.from({ length: 10 }, () => new fdmon.EventNotifier())
       const words = new Int32Array(new SharedArrayBuffer(64))
       for (const [index, notifier] of notifiers.entries()) {
         ctx.setFdHandler(notifier, {
           poll: index % 2 ? () => false : { memory: words, index: 0, notEqual: 0, suppress: { index: index + 1 } },
           pollReady() {}, pollBegin() {}, pollEnd() {}, read: () => notifier.testAndClear(),
         })
       }
       const half = ctx.bottomHalf(() => {})
       ctx.timer(() => {}).arm(3_600_000_000_000)
       half.schedule()
       for (const notifier of notifiers) notifier.set()
       for (let turn = 0; turn < 10; turn++) ctx.poll(false)
       parentPort.postMessage(ctx.id)
       const turn = () => { half.schedule(); ctx.poll(false); setImmediate(turn) }
       turn()`,
      kit.monitor,
    )
    const id = (await message(worker)) as number
    t.is(await worker.terminate(), 1)
    refuses(t, () => AioContext.remote(id).notify(), [], 'ERR_FDMON_CLOSED')
  }
})

onEach('a worker may be terminated while its loop spins in a predicate', async (t, kit) => {
  for (let round = 0; round < 5; round++) {
    const worker = inWorker(
      `const ctx = new fdmon.AioContext({ monitor: data, poll: { maxNs: 1_000_000, guards: false, policy: 'classic' } })
       const notifier = new fdmon.EventNotifier()
       const timer = ctx.timer(() => timer.arm(100_000)) // for the turns that do sleep
       timer.arm(0)
       let asked = 0
       ctx.setFdHandler(notifier, {
         poll() { if (asked === 10_000) parentPort.postMessage('spinning'); return asked++ % 5 === 0 },
         pollReady() {},
       })
       for (;;) ctx.poll(true)`,
      kit.monitor,
    )
    // The message leaves at once: a port posts without its thread's event loop.
    t.is(await message(worker), 'spinning')
    t.is(await worker.terminate(), 1)
  }
})

onEach('a worker may be terminated while it runs a loop of short turns', async (t, kit) => {
  const worker = inWorker(
    `const ctx = new fdmon.AioContext({ monitor: data })
     let turns = 0
     const half = ctx.bottomHalf(() => { half.schedule(); if (turns++ === 1000) parentPort.postMessage('running') })
     half.schedule()
     ctx.run()`,
    kit.monitor,
  )
  t.is(await message(worker), 'running')
  t.is(await worker.terminate(), 1)
})

test('ids are process-wide and never used again', async (t) => {
  const first = new AioContext()
  const second = new AioContext()
  t.not(first.id, second.id)
  first.close()
  second.close()
  const worker = inWorker(`parentPort.postMessage(new fdmon.AioContext().id)`)
  const id = (await message(worker)) as number
  await ended(worker)
  t.false([first.id, second.id].includes(id))
})
