// Asks for a context of another thread.
import { parentPort, workerData } from 'node:worker_threads'
import { AioContext } from 'fdmon'

const ctx = new AioContext()
try {
  AioContext.remote(workerData.id)
  parentPort.postMessage({ code: 'none', message: 'it was found', own: ctx.id })
} catch ({ code, message }) {
  parentPort.postMessage({ code, message, own: ctx.id })
}
