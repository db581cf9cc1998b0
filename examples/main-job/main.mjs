// The main job: what fdmon is for, on real input. Exit code 0, or 1 when anything was lost, 2 for a wrong option.
import { spawnSync } from 'node:child_process'
import cliProgress from 'cli-progress'
import Table from 'cli-table3'
import { Command } from 'commander'
import pc from 'picocolors'
import { capabilities } from 'fdmon'
import { systemCallCounter } from './counter.mjs'
import { conclusion, measureRow, pingpongRows } from './rows.mjs'
import { strangersBytes } from './strangers-bytes.mjs'

/** An idle program may take this share of a CPU; above it, spinning did not end. */
const IDLE_LIMIT = 0.05

const options = new Command('npm start --')
  .description('Moves real bytes through one loop and counts them; then compares ways to exchange messages between threads.')
  .option('--quick', 'a smaller file and shorter runs, about 10 s')
  .option('--json', 'the results as JSON on standard output, without a table')
  .exitOverride((error) => process.exit(error.exitCode === 0 ? 0 : 2))
  .parse()
  .opts()
const { quick = false, json = false } = options
const size = quick ? { mebibytes: 8, ms: 120, idleMs: 80 } : { mebibytes: 64, ms: 1500, idleMs: 500 }

const since = performance.now()
const tools = lookForTools()
const monitors = Object.entries(capabilities().monitors)
  .filter(([name, { available }]) => available && name !== 'wasi')
  .map(([name]) => name)
const rows = pingpongRows(tools)
const bar = progress(monitors.length + rows.length)

const bytes = strangersBytes({
  ...size,
  monitors,
  onProgress: (monitor, share) => bar.at(monitors.indexOf(monitor) + share, `bytes through a FIFO, ${monitor}`),
})
const counter = systemCallCounter(tools)
const pingpong = []
for (const row of rows) {
  bar.at(monitors.length + pingpong.length, `64-byte messages, ${row.placement}: ${row.variant}`)
  pingpong.push(await measureRow(row, { ...size, quick, counter }))
}
bar.end()

const problems = [
  ...bytes.flatMap(({ monitor, problems }) => problems.map((problem) => `${monitor}: ${problem}`)),
  ...pingpong.flatMap(({ placement, name, lost, idleCpu }) => [
    ...(lost > 0 ? [`${name}, ${placement}: ${lost} words of messages were not what was sent`] : []),
    ...(idleCpu > IDLE_LIMIT ? [`${name}, ${placement}: takes ${percent(idleCpu)} of a CPU while idle`] : []),
  ]),
]
const seconds = (performance.now() - since) / 1000
if (json) {
  const result = { ok: problems.length === 0, seconds, problems, strangersBytes: bytes, ringPingpong: pingpong }
  process.stdout.write(`${JSON.stringify({ ...result, conclusion: conclusion(pingpong) ?? null }, undefined, 2)}\n`)
} else show()
process.exitCode = problems.length === 0 ? 0 : 1

function show() {
  const good = (text) => pc.green(text)
  const bad = (text) => pc.red(text)
  const stranger = table(['monitor', 'MiB', 'MiB/s', 'SHA-256', 'ticks', 'files', 'exits', 'events', 'turns', ''])
  for (const one of bytes) {
    stranger.push([
      one.monitor,
      (one.bytes / 2 ** 20).toFixed(0),
      one.mibPerSecond.toFixed(0),
      one.problems.includes('SHA-256 differs') ? bad('differs') : 'same',
      `${one.ticks} of ${one.ticksDue}`,
      `${one.files} of 200`,
      `${one.exits} of 2`,
      count(one.events),
      count(one.turns),
      one.problems.length === 0 ? good('nothing lost') : bad(one.problems.join(', ')),
    ])
  }
  say(pc.bold("A stranger's bytes: cat pushes a file through a FIFO; a timerfd, an inotify watch and two pidfds in the same loop"))
  say(stranger.toString())

  const ring = table(['64-byte round trips', 'p50 µs', 'p99 µs', 'CPU µs', 'system calls', 'switches', 'idle CPU'])
  let placement
  for (const row of pingpong) {
    if (row.placement !== placement) {
      placement = row.placement
      ring.push([{ colSpan: 7, content: pc.cyan(placement) }])
    }
    if (row.missing) ring.push([`  ${row.name}`, { colSpan: 6, content: pc.yellow(row.missing) }])
    else {
      ring.push([
        `  ${row.name}${row.guard ? pc.dim(` (does not: ${row.guard})`) : ''}`,
        row.p50.toFixed(2),
        row.p99.toFixed(2),
        row.cpuUs.toFixed(2),
        row.systemCalls === undefined ? '–' : row.systemCalls.toFixed(3),
        row.switches.toFixed(3),
        row.idleCpu > IDLE_LIMIT ? bad(percent(row.idleCpu)) : percent(row.idleCpu),
      ])
    }
  }
  say()
  say(pc.bold('ring-pingpong: two workers, rings in shared memory, a doorbell for the one that sleeps'))
  say(ring.toString())
  const text = conclusion(pingpong)
  if (text) say(text)
  say()
  for (const problem of problems) say(bad(problem))
  say(`${problems.length === 0 ? good('ok, nothing lost') : bad(`${problems.length} problems`)}, ${seconds.toFixed(1)} s`)
}

function say(line = '') {
  process.stdout.write(`${line}\n`)
}

function table(head) {
  const align = head.map((_, index) => (index === 0 ? 'left' : 'right'))
  return new Table({ head, colAligns: align, style: { head: [], border: [], compact: true } })
}

function percent(share) {
  return `${(share * 100).toFixed(1)} %`
}

function count(number) {
  return number.toLocaleString('en-US')
}

/** A bar on standard error, if that is a terminal. */
function progress(total) {
  if (!process.stderr.isTTY) return { at() {}, end() {} }
  const format = ' {bar} {percentage} %  {what}'
  const single = new cliProgress.SingleBar({ format, stream: process.stderr, clearOnComplete: true, hideCursor: true }, cliProgress.Presets.shades_classic)
  single.start(total, 0, { what: '' })
  return {
    at: (done, what) => single.update(done, { what }),
    end: () => single.stop(),
  }
}

/** Ends the job without what it cannot do without, and says what else is missing. */
function lookForTools() {
  const has = (command, args) => spawnSync(command, args, { stdio: 'ignore' }).error === undefined
  const found = {
    cat: has('cat', ['/dev/null']),
    mkfifo: has('mkfifo', ['--version']),
    taskset: has('taskset', ['--version']),
    perf: has('perf', ['--version']),
    strace: has('strace', ['-V']),
  }
  const tell = (text) => process.stderr.write(`fdmon: ${text}\n`)
  if (!found.cat || !found.mkfifo) {
    tell('cat or mkfifo is missing; run: apt-get install coreutils')
    process.exit(1)
  }
  if (!found.taskset) tell('taskset is missing, so nothing can be placed on one CPU; run: apt-get install util-linux')
  if (!found.perf && !found.strace) tell('strace is missing, so system calls are not counted; run: apt-get install strace')
  return found
}
