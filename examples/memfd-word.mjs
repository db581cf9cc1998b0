// A word in memory that another program shares (memfd): polled natively, with a doorbell for when this side sleeps.
import { AioContext, EventNotifier } from 'fdmon'
import { memfd } from 'fdmon/fd'

const [HEAD, TAIL, SUPPRESS] = [0, 1, 2]
const file = memfd('ring', 4096)
const words = new Int32Array(file.map()) // a process that gets file.fd maps the same memory
const bell = new EventNotifier()
const ctx = new AioContext({ poll: { maxNs: 100_000 } })
const take = () => Atomics.store(words, TAIL, Atomics.load(words, HEAD))
ctx.setEventNotifier(bell, {
  poll: { memory: words, index: HEAD, notEqual: { index: TAIL }, suppress: { index: SUPPRESS } },
  pollReady: take,
  read: () => (bell.testAndClear(), take()),
})

// The other side: publish, then look whether the consumer may be asleep. `Atomics` are full barriers.
const other = new Int32Array(file.map())
for (let i = 0; i < 1000; i++) {
  Atomics.add(other, HEAD, 1)
  if (Atomics.load(other, SUPPRESS) === 0) bell.set()
  ctx.poll()
}
const { pollHits, reads } = ctx.stats().handlers[0]
console.log(`${Atomics.load(words, TAIL)} taken: the word hit ${pollHits} times, the doorbell rang ${reads} times`)
ctx.close()
