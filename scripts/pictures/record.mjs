// Records how the spin window follows traffic: a worker stores a word at planned times, a context spins on it, and of its trace the
// counter of the window and the ends of spins are kept. Each side is pinned to a CPU of its own, as the scheduler may put both on one; the
// guards would take that for a machine with one CPU, so they are off.
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, readlinkSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { Worker } from 'node:worker_threads'
import { AioContext, EventNotifier } from 'fdmon'

const MAX_NS = 100_000
/** What the producer does, one after the other: an event every `us` microseconds for `ms` milliseconds. */
const PHASES = [
  { us: 2_000, ms: 20, words: 'an event every 2 ms' },
  { us: 4, ms: 20, words: 'every 4 µs' },
  { us: 2_000, ms: 20, words: 'every 2 ms' },
  { us: 30, ms: 20, words: 'every 30 µs' },
  { us: 400, ms: 20, words: 'every 400 µs' },
  { us: 10, ms: 20, words: 'every 10 µs' },
]
const POLICIES = [{ policy: 'cost' }, { policy: 'cost', latencyWeight: 10 }, { policy: 'classic' }]

const PRODUCER = `
  const { words, handle, phases } = require('node:worker_threads').workerData
  const bell = require('fdmon').EventNotifier.from(handle)
  const thread = require('node:path').basename(require('node:fs').readlinkSync('/proc/thread-self'))
  require('node:child_process').execFileSync('taskset', ['-p', '-c', '1', thread])
  const begin = process.hrtime.bigint()
  Atomics.store(words, 3, 1)
  let due = begin
  let end = begin
  for (const { us, ms } of phases) {
    end += BigInt(ms) * 1_000_000n
    for (due += BigInt(us) * 1_000n; due < end; due += BigInt(us) * 1_000n) {
      while (process.hrtime.bigint() < due);
      Atomics.add(words, 0, 1) // publish, then look whether the consumer may be asleep
      if (Atomics.load(words, 2) === 0) bell.set()
    }
    due = end
  }
  Atomics.store(words, 4, 1)
  bell.set()
  require('node:worker_threads').parentPort.postMessage(begin)`

export async function record() {
  execFileSync('taskset', ['-p', '-c', '0', basename(readlinkSync('/proc/thread-self'))])
  const traces = []
  for (const params of POLICIES) traces.push(await recordOne(params))
  return { maxNs: MAX_NS, phases: PHASES, traces }
}

async function recordOne(params) {
  const words = new Int32Array(new SharedArrayBuffer(20)) // head, tail, suppress, begun, ended
  const bell = new EventNotifier()
  const ctx = new AioContext({ poll: { maxNs: MAX_NS, guards: false, ...params } })
  const take = () => Atomics.store(words, 1, Atomics.load(words, 0))
  const poll = { memory: words, index: 0, notEqual: { index: 1 }, suppress: { index: 2 } }
  ctx.setEventNotifier(bell, { poll, pollReady: take, read: () => (bell.testAndClear(), take()) })
  const folder = mkdtempSync(join(tmpdir(), 'fdmon-window-'))
  const trace = ctx.trace(join(folder, 'trace.json'))
  const worker = new Worker(PRODUCER, { eval: true, workerData: { words, handle: bell.handle, phases: PHASES } })
  const begun = new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject))
  // Not synchronously: the worker boots with the help of this thread.
  while (Atomics.load(words, 3) === 0) await new Promise((resolve) => setTimeout(resolve, 1))
  const before = ctx.stats()
  ctx.pollUntil(() => Atomics.load(words, 4) === 1)
  const after = ctx.stats()
  const begin = await begun
  trace.stop()
  ctx.close()
  bell.close()
  if (trace.dropped > 0) throw new Error(`the trace lacks ${trace.dropped} events; record it again on a machine with nothing else to do`)
  const { traceEvents } = JSON.parse(readFileSync(trace.file, 'utf8'))
  rmSync(folder, { recursive: true })
  // A trace has the microseconds of CLOCK_MONOTONIC, which process.hrtime() reads as well.
  const ms = (us) => Math.round(us - Number(begin) / 1000) / 1000
  const windows = traceEvents.filter(({ ph, name }) => ph === 'C' && name.startsWith('spin window'))
  const spins = traceEvents.filter(({ ph, name }) => ph === 'X' && name === 'spin')
  const endsOf = (isMiss) => thin(spins.filter(({ args }) => (args.result === 'miss') === isMiss).map(({ ts, dur }) => ms(ts + dur)))
  return {
    params,
    hits: after.spinHits - before.spinHits,
    misses: after.spinMisses - before.spinMisses,
    sleeps: after.sleeps - before.sleeps,
    cpuMs: Math.round((after.cpuNs - before.cpuNs) / 1e6),
    guard: after.guard,
    // [ms since the begin, ns from then on]
    points: windows.slice(1).map(({ ts, args }) => [ms(ts), args.ns]),
    // When spins ended. Of thousands those that a picture can show: for each fifth of a millisecond one of each kind.
    hitsMs: endsOf(false),
    missesMs: endsOf(true),
  }
}

function thin(times) {
  return times.filter((time, index) => index === 0 || Math.floor(time * 5) !== Math.floor(times[index - 1] * 5))
}
