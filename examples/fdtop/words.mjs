// The other side of the shared words: a worker that publishes a number and rings only when nobody is looking.
import { workerData } from 'node:worker_threads'
import { EventNotifier } from 'fdmon'

const { words, handle, everyMs } = workerData
const [HEAD, , SUPPRESS, PAUSED] = [0, 1, 2, 3]
const bell = EventNotifier.from(handle)

setInterval(() => {
  if (Atomics.load(words, PAUSED) === 1) return
  // The order matters, and both must be Atomics: publish, then look whether the consumer may be asleep.
  Atomics.add(words, HEAD, 1)
  if (Atomics.load(words, SUPPRESS) === 0) bell.set()
}, everyMs)
