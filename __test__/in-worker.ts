// Threads for tests.
import { createRequire } from 'node:module'
import { Worker } from 'node:worker_threads'

const ends = new WeakMap<Worker, Promise<number>>()
const fdmon = createRequire(import.meta.url).resolve('fdmon')

/** A worker that runs a piece of CommonJS with `fdmon`, `parentPort` and `data` at hand. */
export function inWorker(source: string, data?: unknown): Worker {
  const text = `const { parentPort, workerData } = require('node:worker_threads')
    const data = workerData.data
    const fdmon = require(workerData.fdmon)
    ${source}`
  const worker = new Worker(text, { eval: true, workerData: { fdmon, data }, execArgv: [] })
  const end = new Promise<number>((resolve, reject) => {
    worker.once('error', reject)
    worker.once('exit', resolve)
  })
  end.catch(() => {}) // reported where it is awaited
  ends.set(worker, end)
  return worker
}

/** Its exit code; rejects with what it threw. */
export function ended(worker: Worker): Promise<number> {
  return ends.get(worker)!
}

/** The next message. */
export function message(worker: Worker): Promise<any> {
  return new Promise((resolve, reject) => {
    worker.once('error', reject)
    worker.once('message', resolve)
  })
}
