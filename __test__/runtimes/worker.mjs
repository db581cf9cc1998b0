// Of threads.mjs and channel.mjs: what their workers do.
import { parentPort, workerData } from 'node:worker_threads'
import { AioContext, ChannelPort, EventNotifier } from 'fdmon'
import { timerfd } from 'fdmon/fd'

const { name, id, shared, handle, words, count, half } = workerData

/** A loop of its own, up to the fifth tick. */
function tick() {
  const ctx = new AioContext()
  const clock = timerfd({ intervalNs: 1_000_000 })
  let ticks = 0
  ctx.setFdHandler(clock, { read: () => (ticks += Number(clock.read())) })
  while (ticks < 5) ctx.poll()
  return { ctx, clock, ticks: Math.min(ticks, 5) }
}

const ROLES = {
  notify() {
    const remote = AioContext.remote(id)
    Atomics.store(shared, 0, 1)
    remote.notify()
    Atomics.wait(shared, 1, 0)
    remote.stop()
  },

  loop() {
    const { ctx, clock, ticks } = tick()
    ctx.close()
    clock.close()
    parentPort.postMessage(ticks)
  },

  /** Its context is left open. */
  leave() {
    parentPort.postMessage(tick().ticks)
  },

  /** Numbers into words[0]; rings only while it may. */
  produce() {
    const bell = EventNotifier.from(handle)
    let rings = 0
    for (let number = 1; number <= count; number++) {
      Atomics.store(words, 0, number)
      if (Atomics.load(words, 2) !== 0) continue
      bell.set()
      rings++
    }
    Atomics.store(words, 3, rings)
    bell.close()
    parentPort.postMessage(rings)
  },

  remote() {
    const remote = AioContext.remote(id)
    const { turns } = remote.stats()
    remote.setPollParams({ maxNs: 4_000, policy: 'fixed' })
    remote.schedule(half)
    parentPort.postMessage(turns)
  },

  /** Sends back what comes, until the other side closes. */
  echo() {
    const ctx = new AioContext()
    const port = ChannelPort.from(handle)
    let end
    port.listen(ctx, (message) => {
      if (!port.send(message)) throw new Error('the way back is full')
    }, { closed: (how) => (end = how) })
    parentPort.postMessage('ready')
    ctx.pollUntil(() => end !== undefined)
    port.close()
    ctx.close()
    parentPort.postMessage(end)
  },
}
ROLES[name]()
