// The workers of loop.mjs.
import { parentPort, workerData } from 'node:worker_threads'
import { AioContext } from 'fdmon'
import { timerfd } from 'fdmon/fd'

const { name, id, shared } = workerData
if (name === 'notify') {
  const remote = AioContext.remote(id)
  Atomics.store(shared, 0, 1)
  remote.notify()
  Atomics.wait(shared, 1, 0)
  remote.stop()
} else {
  const ctx = new AioContext()
  const clock = timerfd({ intervalNs: 1_000_000 })
  let ticks = 0
  ctx.setFdHandler(clock, { read: () => (ticks += Number(clock.read())) })
  while (ticks < 5) ctx.poll()
  if (name === 'loop') {
    ctx.close()
    clock.close()
  }
  parentPort.postMessage(Math.min(ticks, 5))
}
