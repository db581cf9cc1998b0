// One of the two sides: 'ping' sends, measures and sends again; 'pong' sends back what it gets.
import { execFileSync } from 'node:child_process'
import { readlinkSync } from 'node:fs'
import { basename } from 'node:path'
import { parentPort, workerData } from 'node:worker_threads'
import { AioContext, EventNotifier } from 'fdmon'
import { MESSAGE_WORDS, Ring } from './ring.mjs'

const { role, variant, rounds, ms, warmUpMs, guards, out, into, port, cpu } = workerData
if (cpu !== undefined) execFileSync('taskset', ['-p', '-c', cpu, basename(readlinkSync('/proc/thread-self'))])
/** Round trips that are measured at most. */
const MOST = 1 << 22
// Some virtual CPUs take 35 to 45 µs to wake up, longer than the usual window of 32.8 µs.
const SPIN = { maxNs: 200_000, policy: 'classic', grow: 2, guards }

const link = variant === 'message' ? overMessages() : overRings()
if (role === 'pong') {
  link.listen((message) => link.send(message))
  parentPort.postMessage({ what: 'ready', id: link.context?.id })
  link.run()
} else {
  parentPort.postMessage({ what: 'ready', id: link.context?.id })
  parentPort.once('message', () => {
    ping()
    link.run()
  })
}

/** Sends one message after the other, each when the last has come back; then reports. */
function ping() {
  const warmUp = rounds > 0 ? Math.ceil(rounds / 10) : 500
  const begin = performance.now()
  const last = rounds > 0 ? rounds - warmUp : MOST
  const message = new Int32Array(MESSAGE_WORDS)
  const took = new Float64Array(Math.min(last, MOST)) // made before: nothing is allocated while it measures
  let count = 0
  let seq = 0
  let lost = 0
  let sent = 0
  let before
  let end = Infinity
  let reported = false
  const next = () => {
    for (let i = 0; i < MESSAGE_WORDS; i++) message[i] = seq + i
    sent = performance.now()
    link.send(message)
  }
  link.listen((back) => {
    const now = performance.now()
    for (let i = 0; i < MESSAGE_WORDS; i++) if (back[i] !== seq + i) lost++
    seq++
    if (before !== undefined) took[count++] = now - sent
    if (before === undefined && seq >= warmUp && now - begin >= warmUpMs) {
      before = process.resourceUsage()
      end = now + (ms > 0 ? ms : Infinity)
    }
    if (count < last && now < end) next()
    else if (!reported) {
      reported = true
      report(took.subarray(0, count), seq, lost, before)
    }
  })
  next()
}

function report(took, allRounds, lost, before) {
  const after = process.resourceUsage()
  const stats = link.context?.stats()
  const a = (key) => (after[key] - before[key]) / took.length
  took.sort()
  const at = (share) => took[Math.min(took.length - 1, Math.floor(took.length * share))] * 1000
  parentPort.postMessage({
    what: 'result',
    rounds: took.length,
    allRounds,
    lost,
    p50: at(0.5),
    p99: at(0.99),
    cpuUs: a('userCPUTime') + a('systemCPUTime'),
    switches: a('voluntaryContextSwitches') + a('involuntaryContextSwitches'),
    monitor: stats?.monitor ?? null,
    guard: stats?.guard ?? null,
  })
}

function overRings() {
  const context = new AioContext({ name: role, poll: variant === 'spin' ? SPIN : { maxNs: 0 } })
  const [outward, inward] = [out, into].map(({ memory, handle }) => new Ring(memory, EventNotifier.from(handle)))
  return {
    context,
    send: (message) => outward.send(message),
    listen: (onMessage) => inward.listen(context, onMessage),
    run() {
      context.run() // until the main thread says stop
      context.close()
      parentPort.close()
    },
  }
}

function overMessages() {
  return {
    send: (message) => port.postMessage(message),
    listen: (onMessage) => port.on('message', onMessage),
    run() {
      parentPort.once('message', () => {
        port.close()
        parentPort.close()
      })
    },
  }
}
