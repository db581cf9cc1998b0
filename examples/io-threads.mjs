// Two I/O threads, each with a timerfd of its own: parameters and statistics are at hand in the thread that started them.
import { isMainThread, workerData } from 'node:worker_threads'
import { currentContext, IoThread } from 'fdmon'
import { timerfd } from 'fdmon/fd'

if (isMainThread) {
  const start = (ms) => new IoThread(new URL(import.meta.url), { name: `every ${ms} ms`, workerData: ms })
  const threads = [start(1), start(4)]
  await Promise.all(threads.map((thread) => thread.ready()))
  threads[0].setPollParams({ policy: 'fixed', maxNs: 200_000 }) // while it runs
  await new Promise((resolve) => setTimeout(resolve, 100))
  for (const thread of threads) {
    const { events, spinNs, cpuNs } = thread.stats()
    console.log(`${events} events, ${cpuNs / 1e6} ms of CPU, ${spinNs / 1e6} ms spun`)
  }
  await Promise.all(threads.map((thread) => thread.stop()))
} else {
  const clock = timerfd({ intervalNs: workerData * 1_000_000 })
  // The context keeps the thread alive until stop().
  currentContext().setFdHandler(clock, { poll: 'kernel', read: () => void clock.read() })
}
