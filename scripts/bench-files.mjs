// npm run bench:files: what reading a file costs, by node:fs and by a context's asynchronous I/O, from the page cache and from the disk.
//
//   node scripts/bench-files.mjs            measures in full and writes docs/FILES.md, 3 minutes
//   node scripts/bench-files.mjs --check    the ways that have a goal; fails when one is missed by more than half, 6 s
import { spawnSync } from 'node:child_process'
import { closeSync, fsyncSync, mkdtempSync, openSync, rmSync, writeFileSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { usableCpus } from '../examples/main-job/rows.mjs'
import { FILE_HANDLE, FS_READ, promiseWay, SYNC, ways } from './files/ways.mjs'
import { checkGoals, machineLine, median, table } from './measure.mjs'
import { seal } from './seal.mjs'
import { fail, has, root, say, seconds } from './step.mjs'

const check = process.argv.includes('--check')
const since = performance.now()
if (!has('taskset')) fail('taskset is missing; run: apt-get install util-linux')
const folder = mkdtempSync(join(tmpdir(), 'fdmon-files-'))
process.on('exit', () => rmSync(folder, { recursive: true, force: true }))

const BYTES = 256 << 20
const ROUNDS = 9
const RING = promiseWay('io_uring', 32)
const THREADS = promiseWay('threads', 32)
const path = makeFile()
const [first, second] = usableCpus()
const two = second === undefined ? undefined : `${first},${second}`

const GOALS = [FS_READ, FILE_HANDLE, RING, THREADS]
const ALL = Object.keys(ways)
const tables = (check
  ? [
      { title: 'From the page cache, 32 in flight', ways: GOALS, inFlight: 32 },
      { title: 'From the page cache, 32 in flight, all on one CPU', ways: GOALS, inFlight: 32, cpus: `${first}` },
    ]
  : [
      { title: 'From the page cache, 32 in flight', ways: ALL, inFlight: 32 },
      { title: 'From the page cache, 1 in flight', ways: ALL, inFlight: 1 },
      { title: 'From the disk, 32 in flight', ways: ALL, inFlight: 32, cold: true },
      { title: 'From the disk, 1 in flight', ways: ALL, inFlight: 1, cold: true },
      { title: 'From the page cache, 32 in flight, all on one CPU', ways: GOALS, inFlight: 32, cpus: `${first}` },
    ]
).map((table) => ({ ...table, rows: measure(table) }))

if (check) checkGoals(goals())
else writeFileSync(join(root, 'docs', 'FILES.md'), seal(report()))
say(`${check ? 'file reads, quickly' : 'docs/FILES.md written'}: ${seconds(since)}`)

/** Synced: a page that is not yet on the disk cannot be dropped from the cache. */
function makeFile() {
  const file = join(folder, 'data')
  const chunk = Buffer.alloc(1 << 20, 'fdmon')
  const fd = openSync(file, 'w')
  for (let at = 0; at < BYTES; at += chunk.length) writeSync(fd, chunk)
  fsyncSync(fd)
  closeSync(fd)
  return file
}

function measure({ title, ways: names, inFlight, cold = false, cpus = two ?? `${first}` }) {
  const options = JSON.stringify({ path, ways: names, rounds: ROUNDS, inFlight, cold, ms: 100 })
  const program = [process.execPath, fileURLToPath(new URL('files/reads.mjs', import.meta.url)), options]
  const { status, signal, stdout, stderr } = spawnSync('taskset', ['-c', cpus, ...program], { cwd: root, encoding: 'utf8', timeout: 300_000 })
  if (status !== 0) fail(`${title}: ${signal ?? `exit code ${status}`}\n${stdout}${stderr}`)
  const rounds = JSON.parse(stdout)
  return names.map((way) => {
    const of = (key) => rounds[way].map((row) => row[key])
    const speeds = of('perSecond')
    // Round by round, because a machine is faster in some rounds than in others.
    const over = (other) => median(speeds.map((speed, round) => speed / rounds[other][round].perSecond))
    return {
      way, perSecond: median(speeds), least: Math.min(...speeds), most: Math.max(...speeds), cpuUs: median(of('cpuUs')),
      submissions: of('submissions')[0] === undefined ? undefined : median(of('submissions')),
      overFsRead: over(FS_READ), overFileHandle: over(FILE_HANDLE),
    }
  })
}

// --- Goals ----------------------------------------------------------------------------------------------------------------

/** Each with its measured value; `half` is what CI lets pass on a noisy machine. */
function goals() {
  const of = (way) => tables[0].rows.find((row) => row.way === way)
  const [ring, threads] = [of(RING), of(THREADS)]
  const alone = tables.find(({ cpus }) => cpus !== undefined).rows.find(({ way }) => way === RING)
  const atLeast = (goal, value, least) => ({ goal, value: `${value.toFixed(2)} times`, kept: value >= least, half: value >= least / 2 })
  const M = (row) => `${(row.perSecond / 1e6).toFixed(2)} M/s`
  return [
    atLeast('warm, 32 in flight: promises of io_uring at least 5 times as fast as FileHandle.read', ring.overFileHandle, 5),
    {
      goal: 'warm, 32 in flight: promises of io_uring at least 3 times as fast as fs.read', reason: limit(ring),
      value: `${ring.overFsRead.toFixed(2)} times, ${alone.overFsRead.toFixed(2)} times where all have one CPU`,
      // Where its threads have another CPU, fs.read is as fast as that CPU is free: no gate on a noisy machine.
      kept: ring.overFsRead >= 3, half: alone.overFsRead >= 3 / 2,
    },
    {
      goal: 'at most 0.05 submissions a read with maxBatch 32', value: `${ring.submissions.toFixed(3)}`,
      kept: ring.submissions <= 0.05, half: ring.submissions <= 0.1,
    },
    { ...atLeast('warm, 32 in flight: promises of the threads no slower than fs.read', threads.overFsRead, 1), reason: `${M(threads)} against ${M(of(FS_READ))}` },
  ]
}

/** What keeps a read from being faster: it is a copy, and who copies on several CPUs has more of them. */
function limit(ring) {
  const [sync, fs] = [SYNC, FS_READ].map((name) => tables[0].rows.find(({ way }) => way === name))
  if (!sync) return undefined
  return `a read costs ${ring.cpuUs.toFixed(2)} µs of CPU, ${sync.cpuUs.toFixed(2)} by fs.readSync, which has nothing around the copy out of the page cache ` +
    `and is ${sync.overFsRead.toFixed(2)} times as fast as fs.read: its threads copy on ${two ? 'both CPUs' : 'the CPU'}, at ${fs.cpuUs.toFixed(2)} µs each`
}

// --- The report -----------------------------------------------------------------------------------------------------------

function report() {
  const speed = (value) => (value / 1e6).toFixed(value < 1e5 ? 4 : value < 1e6 ? 3 : 2)
  const columns = ['way', 'M reads a second (least–most)', '× fs.read', '× FileHandle.read', 'CPU µs a read', 'submissions a read']
  const part = ({ title, rows }) => `## ${title}\n\n${table(
    columns,
    rows.map((row) => [
      row.way, `${speed(row.perSecond)} (${speed(row.least)}–${speed(row.most)})`, row.overFsRead.toFixed(2), row.overFileHandle.toFixed(2),
      row.cpuUs.toFixed(2), row.submissions?.toFixed(3) ?? '',
    ]),
  )}`
  return `# Reading files

Written by \`npm run bench:files\`; do not edit.

Random reads of 4 KiB from a file of 256 MiB. Promises are those of an attached context, callbacks those of a context that runs by itself. CPU is that
of the whole process: of JavaScript, of the threads of a pool, and of io_uring's workers, which are threads of the process as well.

${tables.map(part).join('\n')}
## Goals

${table(
    ['goal', 'measured', 'kept?'],
    goals().map(({ goal, value, kept, reason }) => [goal, value, kept ? 'kept' : `**missed**${reason ? `: ${reason}` : ''}`]),
  )}
One process a table, ${two ? `on the CPUs ${two}` : 'on one CPU'} unless it says otherwise; the ways take turns in ${ROUNDS} rounds of about 100 ms after one to warm up, medians of the
rounds, ratios round by round. From the disk: 4,096 different pages a round; before it the pages of this file are dropped from the page cache
(POSIX_FADV_DONTNEED, by \`dd iflag=nocache\`), while the host's cache and what the kernel knows of the file stay, and no more is read ahead than the kernel chooses. ${machineLine()}
`
}
