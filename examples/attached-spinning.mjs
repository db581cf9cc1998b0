// A worker stores a word; the context, attached to Node's loop, spins on it. The doorbell rings only while nobody looks.
import { Worker } from 'node:worker_threads'
import { AioContext, EventNotifier, watch } from 'fdmon'

const words = new Int32Array(new SharedArrayBuffer(12)) // head, tail, suppress
const bell = new EventNotifier()
const code = `
  const { words, handle } = require('node:worker_threads').workerData
  const bell = require('fdmon').EventNotifier.from(handle)
  for (let sent = 1; sent <= 10_000; sent++) {
    Atomics.store(words, 0, sent) // publish, then look whether the consumer may be asleep
    if (Atomics.load(words, 2) === 0) bell.set()
    while (Atomics.load(words, 1) !== sent); // until it is taken
  }`
const context = new AioContext({ poll: { maxNs: 200_000 } })
const poll = { memory: words, index: 0, notEqual: { index: 1 }, suppress: { index: 2 } }
const registration = watch(bell, { poll, pollReady: take, read: () => (bell.testAndClear(), take()) }, { context })
const worker = new Worker(code, { eval: true, workerData: { words, handle: bell.handle } })

function take() {
  Atomics.store(words, 1, Atomics.load(words, 0))
}
worker.on('exit', () => { // an event of Node: its loop goes on meanwhile
  const { handlers, guard } = context.stats()
  console.log(`${words[1]} taken, ${handlers[0].pollHits} of them by spinning; guard: ${guard}`)
  registration.remove()
})
