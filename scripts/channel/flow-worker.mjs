// One of the two sides of a flow of 64-byte messages: the producer, or the consumer, which looks at the number of each message
// or, with `whole`, at each word.
import { execFileSync } from 'node:child_process'
import { readlinkSync } from 'node:fs'
import { basename } from 'node:path'
import { parentPort, workerData } from 'node:worker_threads'
import { AioContext, ChannelPort } from 'fdmon'

const { role, over, spin, whole, count, cpu, handle, port } = workerData
const WORDS = 16
/** Messages on their way at most, where nothing else limits them. */
const WINDOW = 1000
if (cpu !== undefined) execFileSync('taskset', ['-p', '-c', `${cpu}`, basename(readlinkSync('/proc/thread-self'))])

const words = new Int32Array(WORDS)
const bytes = new Uint8Array(words.buffer)
let next = 0
let wrong = 0

function fill() {
  for (let i = 0; i < (whole ? WORDS : 1); i++) words[i] = Math.imul(next, 31) + i
}

/** True = it was the last one. */
function check(seen) {
  for (let i = 0; i < (whole ? WORDS : 1); i++) if (seen[i] !== ((Math.imul(next, 31) + i) | 0)) wrong++
  return ++next === count
}

if (over === 'message') {
  // As Node has them, one event each; the consumer answers each window.
  if (role === 'produce') {
    const more = () => {
      for (let i = 0; i < WINDOW && next < count; i++, next++) {
        fill()
        port.postMessage(bytes)
      }
    }
    port.on('message', more)
    parentPort.once('message', more)
  } else {
    port.on('message', (message) => {
      const last = check(new Int32Array(message.buffer))
      if (next % WINDOW === 0) port.postMessage(0)
      if (last) report()
    })
  }
  parentPort.on('message', (what) => what === 'end' && end(() => port.close()))
} else {
  const context = new AioContext({ name: role, poll: spin ? { maxNs: 200_000, guards: false } : { maxNs: 0 } })
  const side = ChannelPort.from(handle)
  const finish = () => end(() => (side.close(), context.close()))
  if (role === 'produce') {
    fill()
    const more = () => {
      while (next < count && side.send(bytes)) {
        next++
        fill()
      }
      if (next === count) context.stop()
    }
    side.listen(context, () => {}, { drain: more })
    parentPort.once('message', () => {
      more()
      context.run()
      parentPort.once('message', finish)
    })
  } else {
    let view = new Int32Array(0)
    side.listen(context, (message) => {
      if (view.buffer !== message.buffer) view = new Int32Array(message.buffer, 0, WORDS)
      if (check(view)) context.stop()
    })
    parentPort.once('message', () => {
      context.run()
      report(context.stats())
      parentPort.once('message', finish)
    })
  }
}
parentPort.postMessage({ what: 'ready' })

function report(stats) {
  parentPort.postMessage({ what: 'done', got: next, wrong, sleeps: stats?.sleeps, hits: stats?.spinHits })
}

function end(close) {
  close()
  parentPort.close()
}
