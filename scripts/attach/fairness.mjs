// One process of `npm run bench:attach`: how Node's own timers, sockets and immediates are served while something else is
// busy. Prints a line of JSON: the quantiles of each in nanoseconds.
//
//   node scripts/attach/fairness.mjs '{"beside": "socket", "ms": 2000}'
import { mkdtempSync, rmSync } from 'node:fs'
import net from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createHistogram } from 'node:perf_hooks'
import { Worker } from 'node:worker_threads'
import { AioContext, EventNotifier } from 'fdmon'

const { beside, ms } = JSON.parse(process.argv[2])
const folder = mkdtempSync(join(tmpdir(), 'fdmon-fair-'))
const server = net.createServer({ noDelay: true })
await new Promise((resolve) => server.listen(join(folder, 'socket'), resolve))
const path = server.address()
let handled = 0

/** 2 µs of work, as a small handler has. */
function work() {
  handled++
  for (const until = process.hrtime.bigint() + 2000n; process.hrtime.bigint() < until; ) {}
}

/** What is busy; each is started and returns what stops it. */
const busy = {
  nothing: () => () => {},
  /** A socket of Node's into which a thread writes without end. */
  socket: async () => {
    const accepted = new Promise((resolve) => server.once('connection', resolve))
    const flood = thread(`
      const socket = require('node:net').connect(data.path)
      const message = Buffer.alloc(64)
      const more = () => { while (socket.write(message)) {}; socket.once('drain', more) }
      socket.on('connect', more).on('error', () => {})`, { path })
    const socket = await accepted
    socket.on('data', (bytes) => {
      for (let at = 0; at < Math.min(bytes.length, 64); at += 64) work()
    })
    return () => {
      socket.destroy()
      return flood.terminate()
    }
  },
  /** A word that another thread changes all the time, spun on. */
  word: () => {
    const words = new Int32Array(new SharedArrayBuffer(64))
    const ctx = new AioContext({ monitor: 'epoll', poll: { maxNs: 500_000, policy: 'classic' } }).attach()
    const doorbell = new EventNotifier()
    ctx.setEventNotifier(doorbell, {
      poll: { memory: words, index: 0, notEqual: { index: 1 } },
      pollReady() {
        Atomics.store(words, 1, Atomics.load(words, 0))
        work()
      },
      read: () => doorbell.testAndClear(),
    })
    doorbell.set()
    const stores = thread('const words = data.words; for (;;) Atomics.add(words, 0, 1)', { words })
    return () => {
      ctx.close()
      doorbell.close()
      return stores.terminate()
    }
  },
  /** An fd that is always readable. */
  fd: () => {
    const ctx = new AioContext({ monitor: 'epoll' }).attach()
    const notifier = new EventNotifier({ value: 1 })
    ctx.setEventNotifier(notifier, { read: work })
    return () => {
      ctx.close()
      notifier.close()
    }
  },
  /** A bottom half that schedules itself. */
  'bottom half': () => {
    const ctx = new AioContext({ monitor: 'epoll' }).attach()
    const half = ctx.bottomHalf(() => {
      work()
      half.schedule()
    })
    half.schedule()
    return () => ctx.close()
  },
}

function thread(source, data) {
  return new Worker(`const data = require('node:worker_threads').workerData\n${source}`, { eval: true, workerData: data })
}

const stop = await busy[beside]()
const timer = createHistogram()
const immediate = createHistogram()
const echo = createHistogram()
let over = false
const now = () => process.hrtime.bigint()
const note = (histogram, ns) => histogram.record(ns > 0n ? ns : 1n)

/** How late a timer of 1 ms is. */
function timers() {
  const due = now() + 1_000_000n
  setTimeout(() => {
    note(timer, now() - due)
    if (!over) timers()
  }, 1)
}
/** How long an immediate waits; one a millisecond. */
function immediates() {
  const since = now()
  setImmediate(() => {
    note(immediate, now() - since)
    if (!over) setTimeout(immediates, 1)
  })
}
/** A byte to a socket of the same process and back; one a millisecond. */
async function echoes() {
  const accepted = new Promise((resolve) => server.once('connection', resolve))
  const client = net.connect(path)
  const other = await accepted
  other.on('data', (bytes) => other.write(bytes))
  let since
  client.on('data', () => {
    note(echo, now() - since)
    if (over) return void client.destroy()
    setTimeout(send, 1)
  })
  const send = () => {
    since = now()
    client.write('x')
  }
  send()
}

timers()
immediates()
await echoes()
await new Promise((resolve) => setTimeout(resolve, 200))
for (const histogram of [timer, immediate, echo]) histogram.reset()
const before = { handled, cpu: process.cpuUsage(), since: now() }
await new Promise((resolve) => setTimeout(resolve, ms))
const wall = Number(now() - before.since)
const cpu = process.cpuUsage(before.cpu)
const quantiles = (histogram) => ({
  count: histogram.count,
  p50: histogram.percentile(50), p90: histogram.percentile(90), p99: histogram.percentile(99), max: histogram.max,
})
process.stdout.write(`${JSON.stringify({
  timer: quantiles(timer), immediate: quantiles(immediate), echo: quantiles(echo),
  perSecond: (handled - before.handled) / (wall / 1e9),
  cpu: ((cpu.user + cpu.system) * 1000) / wall,
})}\n`)
over = true
await stop()
server.close()
rmSync(folder, { recursive: true })
