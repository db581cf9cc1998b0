// What a context costs and brings inside Node's own loop, beside uv_poll and MessagePort: latency with its CPU cost, system
// calls, what it costs while idle, and how Node's timers, sockets and immediates are served beside it.
//
//   node scripts/bench-attach.mjs            measures in full and writes docs/ATTACH.md, 2 minutes
//   node scripts/bench-attach.mjs --quick    a short run that checks counts in full and times at half the goal, for CI
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { systemCallCounter } from '../examples/main-job/counter.mjs'
import { checkGoals, machineLine, median, table } from './measure.mjs'
import { seal } from './seal.mjs'
import { fail, has, root, say, seconds } from './step.mjs'

const quick = process.argv.includes('--quick')
const since = performance.now()
const folder = mkdtempSync(join(tmpdir(), 'fdmon-attach-'))
process.on('exit', () => rmSync(folder, { recursive: true, force: true }))
const uvPollAddon = buildUvPoll()
const counter = systemCallCounter() ?? fail('no system calls can be counted; run: apt-get install strace')

const BASE = 'uv_poll'
const BARE = 'a bare spin in prepare, in C'
const PLAIN = 'fdmon attached on epoll'
const SPINNING = ["spinning, poll: 'kernel', epoll", "spinning, poll: 'kernel', io_uring", 'spinning on a word']
const OTHERS = ['fdmon attached on io_uring', 'fdmon attached on poll']
const CALLS = [BASE, PLAIN, ...OTHERS]
const NAMES = {
  nothing: 'nothing',
  socket: 'a net.Socket that a thread floods',
  word: 'an attached context whose word always differs',
  fd: 'an attached context with an fd that is always ready',
  'bottom half': 'a bottom half that schedules itself',
}

const latency = measureLatency()
const calls = measureCalls()
const idle = measureIdle()
const fairness = measureFairness()
if (quick) checkGoals(goals())
else writeFileSync(join(root, 'docs', 'ATTACH.md'), seal(report()))
say(`${quick ? 'attached contexts, quickly' : 'docs/ATTACH.md written'}: ${seconds(since)}`)

// --- Measuring ------------------------------------------------------------------------------------------------------------

/** One process; the ways take turns round by round. */
function measureLatency() {
  const ways = quick ? [BASE, BARE, PLAIN, ...SPINNING] : ['MessagePort', BASE, BARE, PLAIN, ...OTHERS, ...SPINNING]
  const rows = child('latency.mjs', { uvPollAddon, ways, rounds: 9, events: quick ? 300 : 1000, pauseNs: 50_000 })
  return ways.map((way) => {
    const ratios = rows[way].map(({ p50 }, round) => rows[BASE][round].p50 / p50)
    const over = (key) => median(rows[way].map((row) => row[key]))
    return {
      way, p50: over('p50'), p90: over('p90'), p99: over('p99'), cpu: over('cpu'), switches: over('switches'),
      ratio: median(ratios), least: Math.min(...ratios), most: Math.max(...ratios),
      guard: rows[way].at(-1).stats?.guard,
    }
  })
}

/** Of a whole process, as the difference of two lengths. */
function measureCalls() {
  const [short, long] = quick ? [100, 600] : [200, 2200]
  return CALLS.map((way) => {
    const of = (wakeUps) => {
      const program = [process.execPath, script('calls.mjs'), JSON.stringify({ uvPollAddon, way, wakeUps })]
      const [tool, ...args] = [...counter.command, ...program]
      const { status, stderr } = spawnSync(tool, args, { cwd: root, encoding: 'utf8', timeout: 60_000 })
      if (status !== 0) fail(`${way}: exit code ${status}\n${stderr}`)
      return counter.counted()
    }
    const rounds = Array.from({ length: 3 }, () => (of(long) - of(short)) / (long - short))
    return { way, calls: median(rounds) }
  })
}

function measureIdle() {
  const ms = quick ? 1500 : 5000
  return [
    { what: 'Node with a timer that never comes', ...child('idle.mjs', { ms }) },
    { what: 'an attached context beside it', ...child('idle.mjs', { ms, context: true }) },
    { what: 'the same after it spun for 0.5 s', ...child('idle.mjs', { ms, context: true, spinFirst: true }) },
  ]
}

function measureFairness() {
  const kinds = quick ? ['socket', 'word', 'fd'] : ['nothing', 'socket', 'word', 'fd', 'bottom half']
  return kinds.map((beside) => ({ beside, ...child('fairness.mjs', { beside, ms: quick ? 1000 : 4000 }) }))
}

function script(name) {
  return fileURLToPath(new URL(`attach/${name}`, import.meta.url))
}

function child(name, options) {
  const args = [script(name), JSON.stringify(options)]
  const { status, signal, stdout, stderr } = spawnSync(process.execPath, args, { cwd: root, encoding: 'utf8', timeout: 180_000 })
  if (status !== 0) fail(`${name} ${args[1]}: ${signal ?? `exit code ${status}`}\n${stdout}${stderr}`)
  return JSON.parse(stdout)
}

function buildUvPoll() {
  if (!has('cc')) fail('a C compiler is missing; run: apt-get install gcc libc6-dev')
  const addon = join(folder, 'uv_poll.node')
  const args = ['-O2', '-Wall', '-Wextra', '-Werror', '-shared', '-fPIC', '-o', addon, script('uv_poll.c')]
  const { status, stderr } = spawnSync('cc', args, { encoding: 'utf8' })
  if (status !== 0) fail(`cc: ${stderr}`)
  return addon
}

// --- Goals ----------------------------------------------------------------------------------------------------------------

/** Each with its measured value; `half` is what CI lets pass on a noisy machine. */
function goals() {
  const of = (way) => latency.find((row) => row.way === way)
  const callsOf = (way) => calls.find((row) => row.way === way).calls
  const late = 1 / of(PLAIN).ratio
  // What a context adds to a wake-up is a fixed cost: where a wake-up takes few µs, it is the cost that is compared.
  const later = (of(PLAIN).p50 - of(BASE).p50) / 1000
  // A CPU that does not halt wakes within a few µs, and then nothing that asks the kernel is ten times sooner.
  const reachable = Math.min(10, of(BARE).ratio)
  const timers = (beside) => fairness.find((row) => row.beside === beside)
  const served = ['timer', 'echo', 'immediate'].map((kind) => timers('word')[kind].p99 / timers('socket')[kind].p99)
  return [
    ...SPINNING.map((way) => ({
      goal: `${way}: an event after 50 µs of idle at least 10 times sooner than uv_poll`,
      value: `${of(way).ratio.toFixed(1)} times`, kept: of(way).ratio >= 10, half: of(way).ratio >= reachable / 2,
      reason: of(BARE).ratio >= 10 ? undefined : `a bare spin in C is ${of(BARE).ratio.toFixed(1)} times sooner here, where a sleeping CPU wakes in ${(of(BASE).p50 / 1000).toFixed(0)} µs`,
    })),
    { goal: 'not spinning: no later than 1.1 times uv_poll', value: `${late.toFixed(2)} times`, kept: late <= 1.1, half: late <= 2.2,
      reason: `${later.toFixed(1)} µs more: the call that asks which fd is ready, the asynchronous context of the handler, and the turn itself, all of them cold after a sleep` },
    {
      goal: 'not spinning: never more system calls than uv_poll',
      value: `${callsOf(PLAIN).toFixed(2)} against ${callsOf(BASE).toFixed(2)} a wake-up`,
      kept: callsOf(PLAIN) <= callsOf(BASE) + 0.05, half: callsOf(PLAIN) <= callsOf(BASE) + 1.1,
      reason: 'libuv tells that the context\'s set is ready, not which fds are: that takes one call a wake-up, however many are ready',
    },
    ...idle.slice(1).map(({ what, share }) => ({
      goal: `idle: ${what}: under 0.5 % of a CPU`, value: `${(share * 100).toFixed(2)} %`, kept: share < 0.005, half: share < 0.01,
    })),
    {
      goal: 'setTimeout(1), a socket and setImmediate beside a busy context as beside a busy socket (p99)',
      value: `${served.map((ratio) => ratio.toFixed(2)).join(', ')} times`,
      kept: served.every((ratio) => ratio <= 1.1), half: served.every((ratio) => ratio <= 4),
      reason: 'both rows keep both CPUs busy, and their p99 differs by more than that from run to run',
    },
  ]
}

// --- The report -----------------------------------------------------------------------------------------------------------

function report() {
  const us = (ns) => (ns / 1000).toFixed(ns < 10_000 ? 2 : 1)
  return `# Inside Node's loop

Written by \`npm run bench:attach\`; do not edit.

## An event after 50 µs of idle

A thread signals, the main thread of Node takes it in a callback: by an eventfd, by a word of shared memory, or by postMessage. One way,
µs; CPU, of the main thread alone, with what it spins.

${table(
    ['way', 'p50', 'p90', 'p99', 'CPU µs an event', 'switches', 'sooner than uv_poll (least–most)'],
    latency.map((row) => [
      row.way, us(row.p50), us(row.p90), us(row.p99), us(row.cpu), row.switches.toFixed(2),
      row.way === BASE ? '' : `${row.ratio.toFixed(2)} × (${row.least.toFixed(2)}–${row.most.toFixed(2)})`,
    ]),
  )}
Spinning takes the CPU between the events as well: the main thread is busy as long as the window lasts. It pays where events come within it.

## System calls a wake-up, the read of the fd included

${table(['way', 'calls'], calls.map(({ way, calls: value }) => [way, value.toFixed(2)]))}
Node's libuv asks epoll twice when it sleeps: once without waiting, to tell busy time from idle time.

## An idle context

${table(['what', 'CPU', 'spun before'], idle.map(({ what, share, spinHits }) => [what, `${(share * 100).toFixed(2)} %`, spinHits ? `${spinHits} hits` : '']))}
## What Node serves beside something busy

How late a \`setTimeout(1)\` is, how long a byte takes to a socket of the same process and back, and how long a \`setImmediate\` waits, µs.
Each handler that is busy works for 2 µs; the socket's for as long a chunk. CPU of the process, of two.

${table(
    ['beside', 'events a second', 'timer p50 / p99', 'socket p50 / p99', 'immediate p50 / p99', 'CPU'],
    fairness.map((row) => [
      NAMES[row.beside], Math.round(row.perSecond).toLocaleString('en-US'),
      ...['timer', 'echo', 'immediate'].map((kind) => `${us(row[kind].p50)} / ${us(row[kind].p99)}`),
      row.cpu.toFixed(2),
    ]),
  )}
## Goals

${table(
    ['goal', 'measured', 'kept?'],
    goals().map(({ goal, value, kept, reason }) => [goal, value, kept ? 'kept' : `**missed**${reason ? `: ${reason}` : ''}`]),
  )}
Latency: spinning by \`maxNs: 500_000, policy: 'classic'\`, guards on; one process on two CPUs, not pinned, ${latency.length} ways taking turns in 9 rounds of 1,000 events after one to warm up; medians of the
rounds, ratios round by round. System calls: a timerfd every 500 µs, by ${counter.name}, the difference of two lengths, median of 3. ${machineLine()}
`
}
