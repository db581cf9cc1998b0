// The main job: what fdmon is for, on real input. Exit code 0, or 1 when anything was lost, 2 for a wrong option.
import { spawnSync } from 'node:child_process'
import cliProgress from 'cli-progress'
import { Command } from 'commander'
import { capabilities } from 'fdmon'
import { systemCallCounter } from './counter.mjs'
import { problemsOf, show, write } from './report.mjs'
import { conclusion, measureRow, pingpongRows, rowName } from './rows.mjs'
import { strangersBytes } from './strangers-bytes.mjs'

const options = new Command('npm start --')
  .description('Moves real bytes through one loop and counts them; then compares ways to exchange messages between threads.')
  .option('--quick', 'a smaller file and shorter runs, about 10 s')
  .option('--json', 'the results as JSON on standard output, without a table')
  .option('--write', 'also write the tables of docs/MAIN-JOB.md and README.md')
  .exitOverride((error) => process.exit(error.exitCode === 0 ? 0 : 2))
  .parse()
  .opts()
const { quick = false, json = false } = options
const size = quick ? { mebibytes: 8, ms: 120, warmUpMs: 120, idleMs: 80 } : { mebibytes: 64, ms: 1500, warmUpMs: 400, idleMs: 500 }

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
  try {
    pingpong.push(await measureRow(row, { ...size, quick, counter }))
  } catch (error) {
    const reason = /\w*Error\b.*/.exec(error.stderr ?? '')?.[0] ?? error.message.split('\n')[0]
    pingpong.push({ ...row, name: rowName(row), failed: error.killed ? 'not finished after a minute' : reason })
  }
}
bar.end()

const problems = problemsOf(bytes, pingpong)
const seconds = (performance.now() - since) / 1000
if (options.write) write(bytes, pingpong, size)
if (json) {
  const result = { ok: problems.length === 0, seconds, problems, strangersBytes: bytes, ringPingpong: pingpong }
  process.stdout.write(`${JSON.stringify({ ...result, conclusion: conclusion(pingpong) ?? null }, undefined, 2)}\n`)
} else process.stdout.write(show(bytes, pingpong, problems, seconds))
process.exitCode = problems.length === 0 ? 0 : 1

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
