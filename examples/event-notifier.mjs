// An eventfd between threads: a worker sets it, which ends this thread's sleep.
import { Worker } from 'node:worker_threads'
import { AioContext, EventNotifier } from 'fdmon'

const ctx = new AioContext()
const notifier = new EventNotifier()
ctx.setEventNotifier(notifier, {
  read() {
    notifier.testAndClear()
    console.log('the worker rang')
    ctx.stop()
  },
})
const code = `
  const { EventNotifier } = require('fdmon')
  const notifier = EventNotifier.from(require('node:worker_threads').workerData)
  notifier.set()
  notifier.close()`
new Worker(code, { eval: true, workerData: notifier.handle })
ctx.run()
ctx.close()
// The worker has rung, so it has its own copy: this side may be closed.
notifier.close()
