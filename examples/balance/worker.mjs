// The module of an I/O thread: descriptors come and go by messages, each of which is answered when it is done.
import { createHash } from 'node:crypto'
import { parentPort, workerData as counters } from 'node:worker_threads'
import { currentContext } from 'fdmon'
import { read } from 'fdmon/fd'
import { WORDS } from './sources.mjs'

const ctx = currentContext()
const registrations = new Map()
const bytes = new Uint8Array(8)
const record = new Uint32Array(bytes.buffer)
const expirations = new BigUint64Array(bytes.buffer)
const block = new Uint8Array(65_536)

parentPort.on('message', ({ request, add, remove }) => {
  if (add) {
    registrations.set(add.number, ctx.setFdHandler(add.fd, { read: () => take(add) }))
  } else {
    registrations.get(remove).remove() // nothing of it runs from here on
    registrations.delete(remove)
  }
  parentPort.postMessage(request)
})

/** One record a call: the rest makes the descriptor ready again. */
function take({ number, kind, fd }) {
  const at = number * WORDS
  if (kind === 'timer') {
    if (read(fd, bytes) === 8) Atomics.add(counters, at, Number(expirations[0]))
  } else if (read(fd, bytes.subarray(0, 4)) === 4) {
    if (Atomics.add(counters, at, 1) + 1 !== record[0]) Atomics.add(counters, at + 1, 1)
  }
  createHash('sha256').update(block).digest() // stands for what a program does with an event
}
