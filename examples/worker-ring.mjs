// Numbers from a worker through a ring in shared memory; the doorbell rings only when this thread sleeps.
import { Worker } from 'node:worker_threads'
import { AioContext, EventNotifier } from 'fdmon'

const words = new Int32Array(new SharedArrayBuffer(4 * (3 + 1024))) // head, tail, suppress, 1024 slots
const bell = new EventNotifier()
const code = `
  const { EventNotifier } = require('fdmon')
  const { words, handle } = require('node:worker_threads').workerData
  const bell = EventNotifier.from(handle)
  for (let i = 0; i < 100_000; i++) {
    while (i - Atomics.load(words, 1) >= 1024); // full
    words[3 + (i % 1024)] = i
    Atomics.store(words, 0, i + 1) // publish, then look whether the consumer may be asleep
    if (Atomics.load(words, 2) === 0) bell.set()
  }`
const ctx = new AioContext({ poll: { maxNs: 200_000 } })
let sum = 0
const take = () => {
  const head = Atomics.load(words, 0)
  for (let i = words[1]; i < head; i++) sum += words[3 + (i % 1024)]
  Atomics.store(words, 1, head)
}
const poll = { memory: words, index: 0, notEqual: { index: 1 }, suppress: { index: 2 } }
ctx.setEventNotifier(bell, { poll, pollReady: take, read: () => (bell.testAndClear(), take()) })
new Worker(code, { eval: true, workerData: { words, handle: bell.handle } })
ctx.pollUntil(() => words[1] === 100_000)
console.log(`sum ${sum}`, ctx.close()) // sum 4999950000
