// npm run bench:strategies: which way of getting level-triggered readiness out of a ring is right, and what each costs.
//
//   node scripts/bench-strategies.mjs [--json] [--only TEXT]
//
// Runs the bare loops of crates/fdmon/benches/strategies.rs, writes the tables in DESIGN.md between the markers "strategies" and
// prints them. --only TEXT measures the ways whose name contains it and writes nothing; --json prints all that was measured.
import { spawnSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { usableCpus } from '../examples/main-job/rows.mjs'
import { buildBench, count, instructionsOf, line, machine, machineLine, median, needCounters, systemCallsOf } from './measure.mjs'
import { sealPart } from './seal.mjs'
import { fail, install, needCargo, root, say, sayOnStderr, seconds } from './step.mjs'

const { values: options } = parseArgs({ options: { json: { type: 'boolean' }, only: { type: 'string' } } })
if (options.json) sayOnStderr()
const counter = needCounters()
needCargo()
install()

const TIMES = 9
/** Events of a timed run. */
const EVENTS = 25_600
/** Reads and writes of an event, which are none of the way's own. */
const OWN_CALLS = 2
const LOADS = [256, 10_000].flatMap((live) => [1, 64, 256].map((ready) => ({ live, ready, name: `${ready} of ${count(live)}` })))
const since = performance.now()
const cpu = usableCpus().at(-1)
const program = buildBench('strategies')
const ways = waysToWait().filter(({ name }) => !options.only || name.includes(options.only))
if (ways.length === 0) fail(`--only ${options.only}: no way has this in its name; use one of: ${waysToWait().map(({ name }) => name).join('; ')}`)

for (const way of ways) {
  way.level = level(way)
  way.cells = LOADS.map((load) => ({ load: load.name, times: [], ...counts(way, load) }))
  say(`${way.name}: ${way.level ?? 'not a way to wait'}; ${way.cells.map(({ load, instructions }) => `${load} ${show(instructions, 0)}`).join(', ')} instructions`)
}
// Interleaved, so that a slow moment of the machine hits all of them.
for (let time = 0; time < TIMES; time++) {
  for (const [at, load] of LOADS.entries()) {
    for (const way of ways) way.cells[at].times.push(nsAnEvent(way, load))
  }
}
finish()

function waysToWait() {
  const ring = (name, strategy, mode, ...more) => ({ name: `${name}, ${mode}${more.length > 0 ? ', head kept' : ''}`, args: ['--strategy', strategy, '--mode', mode, ...more] })
  const deferred = (name, strategy) => [ring(name, strategy, 'deferred'), ring(name, strategy, 'deferred', '--keep-head')]
  const rings = [['one-shot', 'one-shot'], ['multishot + ppoll', 'multishot-ppoll'], ['by kind', 'by-kind'], ['multishot + one-shot', 'multishot'], ['multishot alone', 'multishot-edge']]
  return [
    { name: 'write and read only', args: ['--strategy', 'none'] },
    { name: 'epoll', args: ['--strategy', 'epoll'] },
    ...rings.flatMap(([name, strategy]) => deferred(name, strategy)),
    ...rings.map(([name, strategy]) => ring(name, strategy, 'cooperative')),
  ]
}

/** Whether a way is level-triggered, in words; undefined for what does not wait. */
function level({ args }) {
  if (args.includes('none')) return undefined
  const { reports, stale, slept } = run([program, ...args, '--level'])
  if (slept !== 'true') return 'no: does not sleep'
  const kinds = reports.split(',').map((value, at) => ({ reports: Number(value), stale: Number(stale.split(',')[at]) }))
  const wrong = kinds.filter((kind) => kind.reports !== 3 || kind.stale !== 0)
  if (wrong.length === 0) return 'yes'
  return `${wrong.length < kinds.length ? 'half' : 'no'}: ${wrong[0].reports} of 3 reports, ${wrong[0].stale} stale`
}

/** Instructions and system calls an event: the difference of two lengths, so that start-up cancels. */
function counts({ args }, load) {
  const [short, long] = load.ready === 1 ? [1000, 3000] : [40, 120]
  const command = (rounds) => [program, ...args, ...of(load), '--rounds', `${rounds}`]
  const anEvent = (measure) => (measure(command(long)) - measure(command(short))) / ((long - short) * load.ready)
  return { instructions: anEvent(instructionsOf), calls: anEvent((command) => systemCallsOf(counter, command)) - OWN_CALLS }
}

function nsAnEvent({ args }, load) {
  const command = [program, ...args, ...of(load), '--rounds', `${EVENTS / load.ready}`]
  const { ns, events } = run(['taskset', '--cpu-list', `${cpu}`, ...command])
  return Number(ns) / Number(events)
}

function of({ live, ready }) {
  return ['--live', `${live}`, '--ready', `${ready}`]
}

/** Runs a command; the `name=value` pairs that it printed. */
function run(command) {
  const { status, stdout, stderr, error } = spawnSync(command[0], command.slice(1), { encoding: 'utf8', timeout: 60_000 })
  if (status !== 0) fail(`${command.join(' ')}: ${error?.message ?? `exit code ${status}`}\n${stderr}`)
  return Object.fromEntries(stdout.trim().split(' ').map((pair) => pair.split('=')))
}

function finish() {
  const text = tables()
  if (options.json) process.stdout.write(`${JSON.stringify({ ...machine(), ways }, undefined, 2)}\n`)
  else process.stdout.write(text)
  const path = join(root, 'DESIGN.md')
  if (!options.only) writeFileSync(path, sealPart(readFileSync(path, 'utf8'), 'strategies', text))
  say(`strategies: ${ways.length} ways, ${seconds(since)}${options.only ? '' : ', DESIGN.md written'}`)
}

function tables() {
  const loads = LOADS.map(({ name }) => name)
  const right = LOADS.map(() => '---:')
  const spread = (times) => `${show(median(times), 0)} (${show(Math.min(...times), 0)}–${show(Math.max(...times), 0)})`
  return (
    'Nanoseconds an event, its write and its read included: median (least–most)\n\n' +
    line(['way', 'level-triggered', ...loads]) +
    line(['---', '---', ...right]) +
    ways.map(({ name, level, cells }) => line([name, level ?? '', ...cells.map(({ times }) => spread(times))])).join('') +
    '\nSystem calls · instructions in user space an event; the calls without its write and its read\n\n' +
    line(['way', ...loads]) +
    line(['---', ...right]) +
    ways.filter(({ level }) => level).map(({ name, cells }) => line([name, ...cells.map(({ calls, instructions }) => `${show(calls, 3)} · ${show(instructions, 0)}`)])).join('') +
    '\nWritten by `npm run bench:strategies`. A round of a bare loop writes that many eventfds, the next ones each time, waits until all were\n' +
    'reported and reads each. In "256 of 256" the round writes before the polls of the round before are submitted again, so these complete\n' +
    `while they are submitted; elsewhere they are armed. ns: time of the thread, pinned to one CPU, median of ${TIMES} interleaved rounds of\n` +
    `${count(EVENTS)} events. Calls by ${counter.name}, instructions by callgrind, each the difference of two lengths. Level-triggered is\n` +
    'measured too: an fd of which a read takes one of three is reported three times; one that is written again before its read is not\n' +
    'reported once more for nothing; a wait sleeps when nothing is ready. The writer is the same thread, so a cooperative ring completes at\n' +
    `the end of each write. ${machineLine()}\n`
  )
}

function show(value, digits) {
  return Math.abs(value) < 0.0005 ? '0' : value.toFixed(digits)
}
