// The main job: what fdmon is for, on real input. Exit code 0, or 1 when anything was lost, 2 for a wrong option.
import { spawnSync } from 'node:child_process'
import cliProgress from 'cli-progress'
import { Command } from 'commander'
import { capabilities } from 'fdmon'
import { systemCallCounter } from './counter.mjs'
import { problemsOf, show, write } from './report.mjs'
import { measureRow, ringConclusion, ringRows, rowName, socketConclusion, socketRows } from './rows.mjs'
import { strangersBytes } from './strangers-bytes.mjs'

const options = new Command('npm start --')
  .description('Moves real bytes through one loop and counts them; then compares ways to exchange messages between threads.')
  .option('--quick', 'a smaller file, shorter runs and fewer of them, about 15 s')
  .option('--json', 'the results as JSON on standard output, without a table')
  .option('--write', 'also write the tables of docs/MAIN-JOB.md and README.md')
  .exitOverride((error) => process.exit(error.exitCode === 0 ? 0 : 2))
  .parse()
  .opts()
const { quick = false, json = false } = options
const mebibytes = quick ? 8 : 64
const sizes = quick
  ? { rings: { ms: 200, warmUpMs: 200, idleMs: 400 }, sockets: { ms: 60, warmUpMs: 40, idleMs: 0 } }
  : { rings: { ms: 1500, warmUpMs: 400, idleMs: 500 }, sockets: { ms: 250, warmUpMs: 200, idleMs: 100 } }

const since = performance.now()
const tools = lookForTools()
const monitors = Object.entries(capabilities().monitors)
  .filter(([name, { available }]) => available && name !== 'wasi')
  .map(([name]) => name)
const rows = { rings: ringRows(tools), sockets: socketRows(tools, monitors, quick) }
const bar = progress(monitors.length + rows.rings.length + rows.sockets.length)
let done = 0

const bytes = strangersBytes({
  mebibytes,
  monitors,
  onProgress: (monitor, share) => bar.at(monitors.indexOf(monitor) + share, `bytes through a FIFO, ${monitor}`),
})
done = monitors.length
const counter = systemCallCounter(tools)
const rings = await measure(rows.rings, sizes.rings)
const sockets = await measure(rows.sockets, sizes.sockets)
bar.end()

const results = { bytes, rings, sockets }
const problems = problemsOf(results)
const seconds = (performance.now() - since) / 1000
if (options.write) write(results, sizes)
if (json) {
  const result = { ok: problems.length === 0, seconds, problems, strangersBytes: bytes, ringPingpong: rings, socketPingpong: sockets }
  const conclusion = [ringConclusion(rings), socketConclusion(sockets)].filter(Boolean).join(' ')
  process.stdout.write(`${JSON.stringify({ ...result, conclusion: conclusion || null }, undefined, 2)}\n`)
} else process.stdout.write(show(results, problems, seconds))
process.exitCode = problems.length === 0 ? 0 : 1

/** Measures one row after the other; one that fails says why. */
async function measure(rows, size) {
  const measured = []
  for (const row of rows) {
    bar.at(done++, `64-byte messages over a ${row.over}, ${row.placement}: ${rowName(row)}`)
    try {
      measured.push(await measureRow(row, { ...size, quick, counter }))
    } catch (error) {
      const reason = /\w*Error\b.*/.exec(error.stderr ?? '')?.[0] ?? error.message.split('\n')[0]
      measured.push({ ...row, name: rowName(row), failed: error.killed ? 'not finished after a minute' : reason })
    }
  }
  return measured
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
