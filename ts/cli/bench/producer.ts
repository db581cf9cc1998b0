// The other side, in a worker of the child process: a gap after each event was taken, it publishes the next one, and rings the
// bell unless the loop says that it looks by itself.
import { parentPort, workerData } from 'node:worker_threads'
import { EventNotifier } from '../../notifier.js'
import { pin } from './pin.js'
import { DUE, READY, SENT, SUPPRESS, TAKEN, TAKEN_AT, type Shared, type Task } from './protocol.js'

const { words, times, handle, cpu, shared } = workerData as Shared
const bell = EventNotifier.from(handle)
pin(cpu)

parentPort?.on('message', ({ gapNs, warmUp, events }: Task) => {
  Atomics.wait(words, READY, 0)
  if (Atomics.exchange(words, READY, 0) === 1) produce(BigInt(Math.round(gapNs)), warmUp + events)
  parentPort?.postMessage('done')
})
parentPort?.postMessage('ready')

function produce(gapNs: bigint, total: number): void {
  for (let sent = 0; sent < total; ) {
    untilTaken(sent)
    const due = (times[TAKEN_AT] ?? 0n) + gapNs
    while (process.hrtime.bigint() < due);
    times[DUE] = due
    Atomics.store(words, SENT, ++sent)
    if (Atomics.load(words, SUPPRESS) === 0) bell.set()
  }
  untilTaken(total)
}

/** Awake on a CPU of its own; asleep on one that the loop needs. */
function untilTaken(sent: number): void {
  for (let taken = Atomics.load(words, TAKEN); taken !== sent; taken = Atomics.load(words, TAKEN)) {
    if (shared) Atomics.wait(words, TAKEN, taken)
  }
}
