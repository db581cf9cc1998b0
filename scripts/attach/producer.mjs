// The other side of `npm run bench:attach`, in a worker: after each event was taken it pauses, notes the time and signals.
import { EventNotifier } from 'fdmon'
import { workerData } from 'node:worker_threads'
import { SENT, SUPPRESS, TAKEN } from './ways.mjs'

const { words, times, handle, port, pauseNs } = workerData
const notifier = EventNotifier.from(handle)
const pause = BigInt(pauseNs)

/** GO = 0 idle, 1 fd, 2 word, 3 message, 4 over. */
const GO = 4
const WANTED = 5
for (;;) {
  Atomics.wait(words, GO, 0)
  const how = Atomics.load(words, GO)
  if (how === 4) break
  const last = Atomics.load(words, SENT) + Atomics.load(words, WANTED)
  for (let sent = Atomics.load(words, SENT); sent < last; ) {
    while (Atomics.load(words, TAKEN) !== sent) {}
    for (const until = process.hrtime.bigint() + pause; process.hrtime.bigint() < until; ) {}
    sent++
    times[0] = process.hrtime.bigint()
    Atomics.store(words, SENT, sent)
    if (how === 1 || (how === 2 && Atomics.load(words, SUPPRESS) === 0)) notifier.set()
    else if (how === 3) port.postMessage(0)
  }
  while (Atomics.load(words, TAKEN) !== last) {}
  Atomics.store(words, GO, 0)
  Atomics.notify(words, GO)
}
notifier.close()
port.close()
