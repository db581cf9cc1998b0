// npm run bench:channel: messages between two workers by a channel and by a MessagePort: latency, throughput, and what they cost.
//
//   node scripts/bench-channel.mjs            measures in full and writes docs/CHANNEL.md, 3 minutes
//   node scripts/bench-channel.mjs --check    fewer rounds; fails when a goal is missed by more than half
import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { usableCpus } from '../examples/main-job/rows.mjs'
import { checkGoals, machineLine, median, systemCallsOf, table } from './measure.mjs'
import { systemCallCounter } from '../examples/main-job/counter.mjs'
import { seal } from './seal.mjs'
import { fail, has, root, say, seconds } from './step.mjs'

const check = process.argv.includes('--check')
const since = performance.now()
if (!has('taskset')) fail('taskset is missing; run: apt-get install util-linux')
const counter = systemCallCounter() ?? fail('strace is missing; run: apt-get install strace')
const [first, second = first] = usableCpus()
const ROUNDS = check ? 3 : 9
const MS = check ? ['--ms', '100', '--warm-up-ms', '100'] : ['--ms', '200', '--warm-up-ms', '200']
const pingpong = [process.execPath, join(root, 'examples', 'main-job', 'pingpong.mjs')]
const flow = [process.execPath, join(root, 'scripts', 'channel', 'flow.mjs')]

const MESSAGE = 'MessagePort'
const BLOCK = 'channel, blocking'
const SPIN = 'channel, spinning'
const GUARDED = 'channel, spinning, guards on'
const UNGUARDED = 'channel, spinning, guards off'
const trip = (variant, ...more) => [...pingpong, '--over', 'ring', '--variant', variant, ...more]

/** A worker pinned to a CPU looks to the guards like a machine with one CPU, so they are off there. */
const twoCpus = {
  title: 'A round trip of 64 bytes, a CPU for each side',
  ways: {
    [MESSAGE]: trip('message', '--pin', `${first},${second}`),
    [BLOCK]: trip('block', '--pin', `${first},${second}`),
    [SPIN]: trip('spin', '--no-guards', '--pin', `${first},${second}`),
  },
}
const alone = ['taskset', '-c', `${first}`]
const oneCpu = {
  title: 'A round trip of 64 bytes, one CPU for both sides',
  ways: {
    [MESSAGE]: [...alone, ...trip('message')],
    [BLOCK]: [...alone, ...trip('block')],
    [GUARDED]: [...alone, ...trip('spin')],
    [UNGUARDED]: [...alone, ...trip('spin', '--no-guards')],
  },
}
const pinned = ['--pin', `${first},${second}`]
const MANY = check ? 500_000 : 2_000_000
const flows = {
  title: '64-byte messages from one worker to the handler of another, a CPU for each side',
  ways: {
    [MESSAGE]: [...flow, '--over', 'message', '--count', `${MANY / 20}`, ...pinned],
    [BLOCK]: [...flow, '--count', `${MANY}`, ...pinned],
    [SPIN]: [...flow, '--spin', '--count', `${MANY}`, ...pinned],
    'channel of a memfd, spinning': [...flow, '--spin', '--memory', 'memfd', '--count', `${MANY}`, ...pinned],
  },
}

const trips = [twoCpus, oneCpu].map(({ title, ways }) => ({ title, rows: rounds(ways, MS, (row) => row.p50) }))
for (const { rows } of trips) for (const row of rows) row.calls = callsARound(row)
const flowing = { title: flows.title, rows: rounds(flows.ways, [], ({ perSecond }) => 1e9 / perSecond) }

if (check) checkGoals(goals())
else writeFileSync(join(root, 'docs', 'CHANNEL.md'), seal(report()))
say(`${check ? 'channels, quickly' : 'docs/CHANNEL.md written'}: ${seconds(since)}`)

/** Runs all ways in turn, round by round: medians, and the ratio to the first way in each round. */
function rounds(ways, args, cost) {
  const names = Object.keys(ways)
  const taken = Object.fromEntries(names.map((name) => [name, []]))
  for (let round = 0; round < ROUNDS; round++) for (const name of names) taken[name].push(run([...ways[name], ...args]))
  return names.map((way) => {
    const of = (key) => taken[way].map((one) => one[key])
    const costs = taken[way].map(cost)
    const over = (other) => median(costs.map((own, round) => cost(taken[other][round]) / own))
    const has = (key) => of(key)[0] !== undefined
    return {
      way, command: ways[way], cost: median(costs), least: Math.min(...costs), most: Math.max(...costs),
      p99: has('p99') ? median(of('p99')) : undefined, cpu: median(of(has('cpuUs') ? 'cpuUs' : 'cpuNs')), switches: median(of('switches')),
      over: Object.fromEntries(names.map((name) => [name, over(name)])),
    }
  })
}

function run([command, ...args]) {
  return JSON.parse(execFileSync(command, args, { cwd: root, encoding: 'utf8', timeout: 60_000 }))
}

/** System calls a round trip: of a long run less those of a short one, best of five where they are next to none. */
function callsARound({ way, command }) {
  const spins = way === SPIN
  const [few, many] = spins ? [100, check ? 100_100 : 300_100] : [100, 2100]
  const once = () => (systemCallsOf(counter, [...command, '--rounds', `${many}`]) - systemCallsOf(counter, [...command, '--rounds', `${few}`])) / (many - few)
  return Math.max(0, Math.min(...Array.from({ length: spins ? 5 : 1 }, once)))
}

// --- Goals ----------------------------------------------------------------------------------------------------------

function goals() {
  const find = (table, way) => table.rows.find((row) => row.way === way)
  const [two, one] = trips
  const [spin, block, message] = [SPIN, BLOCK, MESSAGE].map((way) => find(two, way))
  const times = (value) => `${value.toFixed(2)} times`
  const faster = spin.over[MESSAGE]
  const guarded = 1 / find(one, GUARDED).over[BLOCK]
  const M = (ns) => (1e3 / ns).toFixed(2)
  const [flow] = [SPIN, BLOCK].map((way) => find(flowing, way)).toSorted((a, b) => a.cost - b.cost)
  const million = 1e3 / flow.cost
  return [
    { goal: 'spinning, two CPUs: at least 10 times as fast as MessagePort', value: times(faster), kept: faster >= 10, half: faster >= 5 },
    { goal: 'spinning, two CPUs: at most 0.05 system calls a round trip, best of 5', value: spin.calls.toFixed(4), kept: spin.calls <= 0.05, half: spin.calls <= 0.1 },
    {
      goal: 'blocking: fewer system calls than MessagePort', value: `${block.calls.toFixed(2)} against ${message.calls.toFixed(2)}`,
      kept: block.calls < message.calls, half: block.calls < message.calls,
    },
    { goal: 'one CPU: spinning with guards at most 1.2 times blocking', value: times(guarded), kept: guarded <= 1.2, half: guarded <= 1.4 },
    { goal: 'at least 5 million messages of 64 bytes a second to JavaScript', value: `${M(flow.cost)} million`, kept: million >= 5, half: million >= 2.5,
      reason: `the rounds of one run differ that much, from ${M(flow.most)} to ${M(flow.least)} million` },
  ]
}

// --- The report -----------------------------------------------------------------------------------------------------

function report() {
  const latency = ({ title, rows }) => `## ${title}\n\n${table(
    ['way', 'p50 µs (least–most)', 'p99 µs', 'CPU µs', 'system calls', 'context switches', '× MessagePort'],
    rows.map((row) => [
      row.way, `${row.cost.toFixed(2)} (${row.least.toFixed(2)}–${row.most.toFixed(2)})`, row.p99.toFixed(1), row.cpu.toFixed(2),
      `${row.way === UNGUARDED || row.way === SPIN ? '≤ ' : ''}${row.calls.toFixed(3)}`, row.switches.toFixed(3), row.over[MESSAGE].toFixed(2),
    ]),
  )}`
  const M = (ns) => (1e3 / ns).toFixed(2)
  const throughput = ({ title, rows }) => `## ${title}\n\n${table(
    ['way', 'million a second (least–most)', 'CPU ns a message', 'context switches', '× MessagePort'],
    rows.map((row) => [row.way, `${M(row.cost)} (${M(row.most)}–${M(row.least)})`, row.cpu.toFixed(0), row.switches.toFixed(4), row.over[MESSAGE].toFixed(1)]),
  )}`
  return `# Messages between workers

Written by \`npm run bench:channel\`; do not edit.

Two workers of one process. CPU, system calls and context switches are those of the whole process, a round trip or a message.

${[...trips.map(latency), throughput(flowing)].join('\n')}
## Goals

${table(['goal', 'measured', 'kept?'], goals().map(({ goal, value, kept, reason }) => [goal, value, kept ? 'kept' : `**missed**${reason ? `: ${reason}` : ''}`]))}
Medians of ${ROUNDS} rounds in which the ways take turns, each in a process of its own; ratios round by round. The window is 200 µs, policy classic for round
trips. A worker that is pinned to a CPU looks to the guards like a machine with one CPU, so they are off in those spinning rows. System calls are
counted by strace in runs of their own, which stretches the time between two messages: of a spinning row that is an upper bound. A flow of
MessagePort is one event a message, answered every 1,000; of a channel, its ring of 64 KiB fills and the producer sleeps until half of it is free.
An idle channel makes no turn and no spin at all, which a test counts. ${machineLine()}
`
}
