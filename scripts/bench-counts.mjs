// npm run bench:counts: what a turn costs, in counts that do not depend on how fast the machine is today.
//
//   node scripts/bench-counts.mjs [--report] [--check] [--json] [--top N] [--only TEXT] [--no-js]
//
// Instructions are counted by callgrind and system calls by perf (by strace where perf may not), each as the difference of
// two runs of different length, so that start-up cancels. Writes docs/BUDGETS.md and prints it; exits 1 when a budget is missed (with --report 0).
// --check compares with docs/BUDGETS.md instead of writing it: no instruction count may be more than 3 % above the one there
// (the functions that grew since docs/runs/counts.json are named), and nothing that counts exactly and kept its budget may miss it.
// --top N shows where the instructions of each row are; --only TEXT measures the rows that contain it and writes nothing.
import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { usableCpus } from '../examples/main-job/rows.mjs'
import { functionsOf, grown, keepFunctions, keptFunctions, ofARound } from './bench/functions.mjs'
import { buildBench, callgrindFile, count, instructionsOf, line, machine, machineLine, median, needCounters, systemCallsOf } from './measure.mjs'
import { seal } from './seal.mjs'
import { install, needCargo, ready, root, say, sayOnStderr, seconds } from './step.mjs'

const { values: options } = parseArgs({
  options: {
    report: { type: 'boolean' },
    check: { type: 'boolean' },
    json: { type: 'boolean' },
    'no-js': { type: 'boolean' },
    top: { type: 'string' },
    only: { type: 'string' },
  },
})
if (options.json) sayOnStderr()
const counter = needCounters()
// What is written down is measured on what is checked out.
if (options.only || options['no-js'] || options.check) {
  needCargo()
  install()
} else ready()

const TIMES = 3
const since = performance.now()
const program = buildBench('counts')
const rows = []
/** The functions of every row of instructions. */
const functions = {}

// Long windows: under callgrind a turn takes 50 times as long, and must still fit.
const SPIN = ['--max-ns', '1000000000']
const at = {}
for (const idle of [1, 64, 1000, 10_000]) {
  const name = `one ready eventfd among ${count(idle)} idle, epoll`
  at[idle] = instructions(name, 300, ['event', '--monitor', 'epoll', '--idle', `${idle}`], [1000, 5000])
}
apart('epoll', at)
for (const [idle, lengths] of [[1, [1000, 5000]], [64, [1000, 5000]], [1000, [200, 600]], [10_000, [20, 60]]]) {
  instructions(`one ready eventfd among ${count(idle)} idle, poll`, undefined, ['event', '--monitor', 'poll', '--idle', `${idle}`], lengths)
}
const onRing = {}
for (const idle of [1, 64, 1000, 10_000]) {
  const args = ['event', '--monitor', 'io_uring', '--idle', `${idle}`]
  onRing[idle] = instructions(`one ready eventfd among ${count(idle)} idle, io_uring`, 400, args, [1000, 5000])
}
apart('io_uring', onRing)
const hits = {}
hits.alone = instructions('hit by a memory word, handler with nothing but the word', 200, ['hit', ...SPIN], [1000, 5000])
// The clock goes 100 ns a reading here, so that the kernel is asked as often as at full speed: every 50 µs.
hits.doorbell = instructions('hit by a memory word, handler with a doorbell', 200, ['hit', '--doorbell', '--clock-step', '100', ...SPIN], [1000, 5000])
instructions('turn that does not block, nothing to do, all handlers on the spin list', 100, ['idle', ...SPIN], [1000, 9000])
instructions('turn that does not block, nothing to do, the kernel is asked', 100, ['idle', '--kernel'], [1000, 9000])
for (const [monitor, budget] of [['epoll', 500], ['io_uring', 450]]) {
  instructions(`bottom half scheduled by another thread while the loop is awake, and its turn, ${monitor}`, budget, ['schedule', '--monitor', monitor], [1000, 5000])
}
systemCalls('turn that does not block, all handlers on the spin list', 0, ['idle', ...SPIN], [1000, 101_000])
systemCalls('the same with doorbells (the kernel is asked every 50 µs)', undefined, ['idle', '--doorbell', ...SPIN], [1000, 101_000])
onTheRing()
fileReads()
registering()
await roundTrips()
kernelPolling()
await fromTypeScript()

await finish()

/** How far the rows of one monitor are apart. */
function apart(monitor, rows) {
  add(`the same from N = 1 to N = 10,000, ${monitor}`, { budget: 3, unit: '% apart' }, () => {
    const values = Object.values(rows).filter((value) => value !== undefined)
    return values.length === 4 ? [(100 * (Math.max(...values) - Math.min(...values))) / rows[1]] : 'needs all four rows'
  })
}

/** Instructions a round, by callgrind. */
function instructions(name, budget, args, lengths) {
  return add(name, { budget, unit: 'instructions' }, () => Array.from({ length: TIMES }, () => between(name, args, lengths)))
}

/** Instructions a round, as the difference of two runs; what functions they are in is kept for `name`. */
function between(name, args, [short, long]) {
  const [least, most] = [short, long].map((rounds) => {
    const total = instructionsOf([program, ...args, '--rounds', `${rounds}`])
    return { total, functions: functions[name] ? {} : functionsOf(callgrindFile) }
  })
  if (!functions[name]) {
    functions[name] = ofARound(most.functions, least.functions, long - short)
    if (options.top) top(name)
  }
  return (most.total - least.total) / (long - short)
}

/** The functions that the instructions of a row are in, a file of one a line. */
function top(name) {
  const parts = Object.entries(functions[name]).flatMap(([name, files]) => Object.entries(files).map(([file, instructions]) => ({ name, file, instructions })))
  const most = parts.toSorted((a, b) => b.instructions - a.instructions).slice(0, Number(options.top))
  process.stderr.write(`${name}\n${most.map(({ name, file, instructions }) => `${instructions.toFixed(2).padStart(10)}  ${name} (${file})\n`).join('')}`)
}

/** System calls a round. */
function systemCalls(name, budget, args, lengths, times = 1) {
  return add(name, { budget, unit: 'system calls' }, () => callsARound([program, ...args, '--rounds'], lengths, times))
}

/** The least of three short runs is the start-up; a long run in which something went badly must not hide behind another. */
function callsARound(command, [short, long], times) {
  const startUp = Math.min(...[0, 1, 2].map(() => systemCallsOf(counter, [...command, `${short}`])))
  return Array.from({ length: times }, () => (systemCallsOf(counter, [...command, `${long}`]) - startUp) / (long - short))
}

/** The ring beside epoll: hits, turns that find nothing, and bursts. */
function onTheRing() {
  const ring = ['--monitor', 'io_uring']
  // As on epoll, which is measured above.
  const asOnEpoll = (instructions) => instructions && Math.ceil(instructions * 1.03)
  instructions('hit by a memory word, handler with nothing but the word, io_uring', asOnEpoll(hits.alone), ['hit', ...ring, ...SPIN], [1000, 5000])
  instructions('hit by a memory word, handler with a doorbell, io_uring', asOnEpoll(hits.doorbell), ['hit', ...ring, '--doorbell', '--clock-step', '100', ...SPIN], [1000, 5000])
  instructions('turn that does not block, nothing to do, a plain fd, io_uring', 100, ['idle', ...ring, '--kernel'], [1000, 9000])
  systemCalls('turn that does not block, nothing to do, a plain fd, io_uring', 0, ['idle', ...ring, '--kernel'], [1000, 101_000])
  const burst = (monitor, budget) => {
    const args = ['burst', '--monitor', monitor, '--ready', '64', '--idle', '192']
    return systemCalls(`turn with 64 ready of 256, their writes and reads included, ${monitor}`, budget, args, [100, 2100])
  }
  burst('io_uring', burst('epoll'))
}

/** Reads of 4 KiB that the page cache answers, 32 in flight, each asking for the next. The kernel's part is not in the instructions. */
function fileReads() {
  const reads = (engine) => ['reads', '--monitor', 'epoll', '--engine', engine]
  instructions('file read of 4 KiB, 32 in flight, ring', undefined, reads('io_uring'), [640, 6400])
  systemCalls('file read of 4 KiB, 32 in flight, ring', 0.05, reads('io_uring'), [640, 6400])
}

/** A plain eventfd after 50 µs of idle, on two CPUs: spun by the kernel's readiness, and slept for, in turn. */
function kernelPolling() {
  for (const monitor of ['epoll', 'io_uring', 'poll']) {
    const run = (window, ...more) => {
      const args = ['oneway', '--monitor', monitor, '--max-ns', window, '--rounds', '3000', ...more]
      const text = execFileSync(program, args, { encoding: 'utf8' })
      return Object.fromEntries(text.trim().split(' ').map((pair) => pair.split('=')).map(([name, value]) => [name, Number(value)]))
    }
    const rounds = []
    const name = `kernel polling after 50 µs of idle, ${monitor}`
    const of = (what) => rounds.map(what)
    // The window is longer than the pause, so that it spins all of it.
    add(`${name}: sooner than blocking`, { budget: 10, atLeast: true, unit: 'times' }, () => {
      if (usableCpus().length < 2) return 'needs two CPUs'
      for (let round = 0; round < 9; round++) rounds.push({ blocking: run('0'), spinning: run('200000'), bare: run('0', '--bare') })
      return of(({ blocking, spinning }) => blocking.p50 / spinning.p50)
    })
    const row = (what, unit, value) => add(`${name}: ${what}`, { unit }, () => (rounds.length === 0 ? 'needs the row above' : of(value)))
    row('latency blocking', 'µs', ({ blocking }) => blocking.p50 / 1000)
    row('latency spinning', 'µs', ({ spinning }) => spinning.p50 / 1000)
    row('latency of a bare loop that asks every 1.5 µs', 'µs', ({ bare }) => bare.p50 / 1000)
    const sooner = rows.find((row) => row.name === `${name}: sooner than blocking`)
    if (sooner) sooner.reachable = () => median(of(({ blocking, bare }) => blocking.p50 / bare.p50))
    row('CPU an event blocking', 'µs', ({ blocking }) => blocking.cpu / 1000)
    row('CPU an event spinning', 'µs', ({ spinning }) => spinning.cpu / 1000)
  }
  add('messages of a producer that suppresses its doorbell: taken by a hit, io_uring', { budget: 95, atLeast: true, unit: '%' }, () => {
    if (usableCpus().length < 2) return 'needs two CPUs'
    const args = ['pingpong', '--monitor', 'io_uring', '--max-ns', '200000', '--rounds', '3000000']
    return [0, 1, 2].map(() => {
      const [, hits, reads] = /hits=(\d+) reads=(\d+)/.exec(execFileSync(program, args, { encoding: 'utf8' }))
      return (100 * Number(hits)) / (Number(hits) + Number(reads))
    })
  })
}

function registering() {
  const cost = {}
  const mean = (name, from, to) => add(name, { unit: 'instructions' }, () => [(cost[name] = between(name, ['register', '--fds', '10000'], [from, to]))])
  mean('registering the first fd', 0, 1)
  mean('registering one of the first 1,000 fds', 0, 1000)
  mean('registering one of the last 1,000 of 10,000 fds', 9000, 10_000)
  add('registering an fd at 10,000, over the first 1,000', { budget: 1.2, unit: 'times' }, () => {
    const [, first, last] = Object.values(cost)
    return last === undefined ? 'needs the rows above' : [last / first]
  })
}

async function roundTrips() {
  const two = usableCpus().length >= 2 ? undefined : 'needs two CPUs'
  const args = ['pingpong', '--max-ns', '200000']
  best('64-byte round trip of two threads that spin, Rust', () => two ?? callsARound([program, ...args, '--rounds'], [100, 300_100], 5))
  const script = join(root, 'examples', 'main-job', 'pingpong.mjs')
  best('64-byte round trip of two workers that spin, each pinned to a CPU, TypeScript', () => {
    if (options['no-js'] || !existsSync(join(root, 'dist'))) return 'the package is not built'
    return two ?? callsARound([process.execPath, script, '--variant', 'spin', '--no-guards', '--pin', usableCpus().slice(0, 2).join(','), '--rounds'], [100, 300_100], 5)
  })
  function best(name, measure) {
    add(name, { budget: 0.05, unit: 'system calls', best: true }, measure)
  }
}

async function fromTypeScript() {
  if (options['no-js'] || !existsSync(join(root, 'dist'))) {
    add('event from TypeScript at batch 100, over an empty call', { budget: 15, unit: 'ns' }, () => 'the package is not built')
    return
  }
  const { dispatch } = await import('./bench/dispatch.mjs')
  let result
  add('plain loop of calls, batch 100', { unit: 'ns' }, () => (result = dispatch(100)).plain)
  add('event from TypeScript at batch 100, with its call', { unit: 'ns' }, () => (result ??= dispatch(100)).turn)
  add('event from TypeScript at batch 100, over an empty call', { budget: 15, unit: 'ns' }, () => (result ??= dispatch(100)).over)
}

/** Measures a row. `measure` gives its values, or a text that says why there are none. */
function add(name, { budget, unit, best = false, atLeast = false }, measure) {
  if (options.only && !name.includes(options.only)) return undefined
  let values
  try {
    values = measure()
  } catch (error) {
    values = `failed: ${error.message}`
  }
  const row = { name, budget, unit, best, atLeast }
  if (typeof values === 'string') row.reason = values
  else {
    const least = Math.min(...values)
    row.value = best ? least : median(values)
    row.spread = Math.max(...values) - least
    row.measurements = values.length
  }
  const keeps = atLeast ? row.value >= budget : row.value <= budget
  row.kept = budget === undefined ? undefined : row.value !== undefined && keeps
  rows.push(row)
  say(`${name}: ${row.reason ?? `${show(row.value, unit)} ${unit}`}`)
  return row.value
}

async function finish() {
  const cells = rows.map((row) => [
    row.name,
    row.reason ?? `${show(row.value, row.unit)} ${row.unit}`,
    row.measurements > 1 ? `${show(row.spread, row.unit)}${row.best ? `, best of ${row.measurements}` : ''}` : '',
    row.budget === undefined ? '' : `${row.atLeast ? '≥' : '≤'} ${row.budget} ${row.unit}`,
    row.kept === undefined ? '' : row.kept ? 'kept' : row.reason ? 'NOT MEASURED' : 'MISSED',
  ])
  const head = ['what', 'measured', 'spread', 'budget', '']
  if (!options.only && !options.check) {
    writeFileSync(join(root, 'docs', 'BUDGETS.md'), seal(document(head, cells)))
    keepFunctions(functions)
  }
  if (options.json) process.stdout.write(`${JSON.stringify({ ...machine(), rows }, undefined, 2)}\n`)
  else {
    const { default: Table } = await import('cli-table3')
    const table = new Table({ head, style: { head: [], border: [] }, colAligns: ['left', 'right', 'right', 'right'] })
    table.push(...cells)
    process.stdout.write(`${table.toString()}\n`)
  }
  const missed = rows.filter((row) => row.kept === false)
  const budgets = rows.filter((row) => row.kept !== undefined).length
  say(`counts: ${budgets - missed.length} of ${budgets} budgets kept, ${seconds(since)}${options.only || options.check ? '' : ', docs/BUDGETS.md and docs/runs/counts.json written'}`)
  if (options.check) return check()
  if (missed.length > 0 && !options.report) process.exitCode = 1
}

function check() {
  const exact = new Set(['instructions', '% apart', 'times'])
  const committed = new Map(readFileSync(join(root, 'docs', 'BUDGETS.md'), 'utf8').split('\n').filter((line) => line.startsWith('| '))
    .map((line) => line.split('|').map((cell) => cell.trim()))
    .map(([, what, measured, , , kept]) => [`${what}, ${measured.replace(/^[\d.,]+ /, '')}`, { value: Number.parseFloat(measured.replaceAll(',', '')), kept }]))
  const before = keptFunctions()
  const worse = rows.filter((row) => row.unit === 'instructions' || (exact.has(row.unit) && row.budget !== undefined)).flatMap((row) => {
    const was = committed.get(`${row.name}, ${row.unit}`) // two rows may differ in their unit alone
    if (row.value === undefined) return [`${row.name}: ${row.reason}`]
    if (!was) return [`${row.name}: not in docs/BUDGETS.md; run: npm run bench:counts -- --report`]
    const grew = (what) => [[`${row.name}: ${what}`, ...grown(before[row.name] ?? {}, functions[row.name] ?? {})].join('\n    grew: ')]
    if (row.unit === 'instructions' && row.value > was.value * 1.03) return grew(`${show(row.value, row.unit)} instructions, was ${count(was.value)}`)
    // Times are compared at half their goal, and at half of what can be reached here where that is less: on a machine whose
    // sleeping CPU does not halt, blocking takes a few µs, and no spin is ten times sooner.
    const goal = Math.min(row.budget, row.reachable?.() ?? Infinity)
    const misses = row.atLeast ? row.value < goal / 2 : row.kept === false
    return was.kept === 'kept' && misses ? grew(`${show(row.value, row.unit)} ${row.unit} of ${row.budget}: misses its budget, which it kept`) : []
  })
  for (const line of worse) say(`worse: ${line}`)
  if (worse.length > 0) process.exitCode = 1
}

/** Why a row misses its budget, where that is known; printed below the table while it does. */
function reasons() {
  const why = [
    ['one ready eventfd among', 'a bare loop takes 134; the rest is the wake-up protocol, the generation check, counters, taking the handler out and putting it back.'],
    ['hit by a memory word', 'some 85 are the producer, the closures, the loop around them and the reading of the clock that the 50 µs rule needs in every turn; the rest finds the handler, takes it out for the call, borrows the state anew after it and puts it back, which is what makes nesting and removal safe.'],
    ['turn that does not block, nothing to do, the kernel is asked', 'the budget is that of a turn that asks nobody, which it keeps; the call itself and its result are the rest.'],
    ['kernel polling after 50 µs of idle', 'the sender\'s write and the reader\'s read of the eventfd take most of the 2 µs; blocking takes 16 to 40 µs, as the sleeping CPU halts or not.'],
    ['64-byte round trip', 'each side asks the kernel every 50 µs so that no fd starves: at 1 µs a round trip that alone is 0.04.'],
  ]
  const missed = rows.filter((row) => row.kept === false && !row.reason)
  const lines = why.filter(([name]) => missed.some((row) => row.name.startsWith(name))).map(([name, why]) => `- Missed, ${name} …: ${why}\n`)
  return lines.join('')
}

function document(head, cells) {
  return (
    '# Budgets\n\n' +
    'Written by `npm run bench:counts`; do not edit. What a turn of the loop costs, beside what it may cost.\n\n' +
    line(head) +
    line(['---', '---:', '---:', '---:', '---']) +
    cells.map(line).join('') +
    `\n${reasons()}- ${machineLine()}\n` +
    `- Instructions: callgrind, user space, release build with symbols, median of ${TIMES} differences of two run lengths\n` +
    '  (4,000 rounds apart, fewer where a round is long). An event includes the write and the read of its eventfd and the\n' +
    '  blocking turn between them. Callgrind hides the vDSO, so a reading of the clock counts as the bare system call that\n' +
    '  replaces it, without the instructions of the vDSO itself.\n' +
    `- System calls: ${counter.name === 'perf' ? 'perf, raw_syscalls:sys_enter' : 'strace -c -f, which slows what it counts'}, the difference of two run lengths. A round trip is two messages of 64 bytes through\n` +
    '  rings in shared memory, each with a doorbell that rings only for a sleeper; window 200 µs; guards on in Rust, off\n' +
    '  where the workers are pinned, since a pinned thread looks to them like one CPU. While it spins and hits, each side still\n' +
    '  asks the kernel every 50 µs, so that other fds are not starved.\n' +
    '- Nanoseconds: median of 9 rounds of 0.1 s each, alternating with the plain loop of calls beside it.\n'
  )
}

function show(value, unit) {
  if (unit === 'instructions') return count(Math.round(value))
  return value === 0 ? '0' : value.toFixed(value < 1 && unit === 'system calls' ? 4 : 2)
}
