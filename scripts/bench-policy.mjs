// How good is the policy: latency and CPU time an event of every policy, over gaps, shapes of traffic, numbers of sources and
// placements. First in a simulator that runs the production policies on a clock turned by hand, then for real.
//
//   node scripts/bench-policy.mjs            measures in full and writes docs/POLICY.md and its plots, 15 minutes
//   node scripts/bench-policy.mjs --simulate the simulator alone, written likewise, without the measured part
//   node scripts/bench-policy.mjs --check    the simulator alone, against the goals, for CI; writes nothing
import { spawnSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { line, machineLine, median } from './measure.mjs'
import { seal } from './seal.mjs'
import { fail, root, say, seconds } from './step.mjs'

const check = process.argv.includes('--check')
const since = performance.now()
const plots = join(root, 'docs', 'policy')
const MAX_US = 32.768
const POLICIES = ['blocking', 'fixed', 'classic', 'handler', 'cost', 'cost + budget']
const DEFAULT = 'cost'
const OTHERS = ['blocking', 'fixed', 'classic', 'handler']
const PLACEMENTS = ['two CPUs', 'one CPU', 'one CPU without guards']
const WORDS = { constant: 'all alike', exponential: 'as of independent events', bimodal: '70 % a tenth of the mean, 30 % 3.1 times the mean', bursts: 'by turns 50 at a tenth of the mean and 50 at 1.9 times the mean' }

/** Half of the rounds are below. */
const MEDIAN = (rounds) => Math.floor(rounds / 2)
/** All rounds but one are at or above it: eight of nine, which chance does once in fifty times where two are alike. */
const SURE = (rounds) => Math.min(1, rounds - 1)

if (!check) mkdirSync(plots, { recursive: true })
const simulated = cellsOf(bench('simulate'))
const found = goals(simulated, 'simulated')
if (check) {
  judge(found)
} else {
  const measured = process.argv.includes('--simulate') ? undefined : cellsOf(bench('measure'))
  writeFileSync(join(root, 'docs', 'POLICY.md'), seal(report(found, measured)))
}
say(`${check ? 'policies, simulated' : 'docs/POLICY.md written'}: ${seconds(since)}`)

// --- Running --------------------------------------------------------------------------------------------------------------

function bench(what) {
  const args = ['bench', '--quiet', '--package', 'fdmon', '--bench', 'policy', '--', what, ...(check ? [] : ['--plots', plots])]
  const { status, stdout, stderr } = spawnSync('cargo', args, { cwd: root, encoding: 'utf8', maxBuffer: 1 << 30 })
  if (status !== 0) fail(`the sweep ended with exit code ${status}\n${stderr}`)
  return stdout.trim().split('\n').map((text) => JSON.parse(text))
}

/** One entry a cell: the median over the rounds of each figure, by policy. */
function cellsOf(rows) {
  const cells = new Map()
  for (const row of rows) {
    const key = [row.placement, row.wakeUpNs, row.shape, row.sources, row.gapNs].join('|')
    if (!cells.has(key)) cells.set(key, { ...row, gapUs: row.gapNs / 1000, rounds: {} })
    const { rounds } = cells.get(key)
    ;(rounds[row.policy] ??= []).push(row)
  }
  for (const cell of cells.values()) {
    cell.of = Object.fromEntries(Object.entries(cell.rounds).map(([policy, rounds]) => {
      const us = (key) => median(rounds.map((row) => row[key])) / 1000
      const totals = rounds.map((row) => (row.meanNs + row.cpuNs) / 1000)
      return [policy, { mean: us('meanNs'), p50: us('p50Ns'), cpu: us('cpuNs'), calls: us('calls') * 1000,
        total: median(totals), least: Math.min(...totals), most: Math.max(...totals) }]
    }))
  }
  return [...cells.values()]
}

// --- Goals ----------------------------------------------------------------------------------------------------------------

/** At the precision of the tables. */
function tenth(us) {
  return Math.round(us * 10) / 10
}

/** What the default costs in terms of another policy, round by round: the ratio at this place among those of the rounds. */
function ratioTo(cell, other, place) {
  const total = (row) => tenth((row.meanNs + row.cpuNs) / 1000)
  const ratios = cell.rounds[DEFAULT].map((row, round) => total(row) / Math.max(total(cell.rounds[other][round]), 0.1))
  return ratios.toSorted((a, b) => a - b)[place(ratios.length)]
}

function goals(cells, how) {
  const on = (placement, filter = () => true) => cells.filter((cell) => cell.placement === placement && filter(cell))
  const two = on('two CPUs')
  const name = (cell) => [cell.wakeUpNs ? `wake-up ${cell.wakeUpNs / 1000} µs` : '', cell.shape, cell.sources, `${cell.gapUs} µs`].filter(Boolean).join(', ')
  const worst = (list, ratio) => list.reduce((most, cell) => (ratio(cell) > (most?.ratio ?? 0) ? { ratio: ratio(cell), cell: name(cell) } : most), undefined)
  const goal = (text, list, ratio, limit, share = 1) => {
    const kept = list.filter((cell) => ratio(cell) <= limit)
    const missed = list.filter((cell) => ratio(cell) > limit)
    return { how, text, cells: list.length, kept: kept.length, needed: share, worst: worst(list, ratio), missed: missed.map(name), ratio, list }
  }
  const best = (place) => (cell) => Math.max(...OTHERS.map((policy) => ratioTo(cell, policy, place)))
  const to = (policy, place) => (cell) => ratioTo(cell, policy, place)
  const soon = (cell) => cell.sources === 'one source' && cell.shape === 'constant' && cell.gapUs > 0 && cell.gapUs < MAX_US - 1
  const alone = (cell) => cells.find((other) => other.sources === 'one source' && ['placement', 'wakeUpNs', 'shape', 'gapNs'].every((key) => other[key] === cell[key]))
  const slowest = how === 'simulated' ? (cell) => cell.wakeUpNs === 35_000 : () => true
  return [
    goal('latency + CPU of the default at or below every other policy, in nine cells of ten', two, best(SURE), 1, 0.9),
    goal('…and never above 1.1 times the best', two, best(MEDIAN), 1.1),
    goal('latency worth 20 times: p50 within 1.3 times that of the fixed window, gaps below the maximum', two.filter((cell) => cell.gapUs < MAX_US),
      (cell) => tenth(cell.of['cost, latency × 20'].p50) / Math.max(tenth(cell.of.fixed.p50), 0.1), 1.3),
    goal('CPU within 10 % of blocking where every gap is above twice the maximum', two.filter((cell) => cell.shape === 'constant' && cell.sources === 'one source' && cell.gapUs > 2 * MAX_US),
      (cell) => cell.of[DEFAULT].cpu / cell.of.blocking.cpu, 1.1),
    goal('spinning starts where a wake-up takes longer than the window: sleeps in at most a tenth of the turns', two.filter((cell) => soon(cell) && slowest(cell)),
      (cell) => cell.of[DEFAULT].calls, how === 'simulated' ? 0.1 : 0.2),
    goal('a slow source never stops the spin for the fast one: at most 0.1 system calls an event more than without it', two.filter((cell) => cell.sources === 'one fast, one slow' && alone(cell).of[DEFAULT].calls < 0.1),
      (cell) => cell.of[DEFAULT].calls - alone(cell).of[DEFAULT].calls, 0.1),
    goal('one CPU: never worse than 1.2 times blocking', on('one CPU'), to('blocking', MEDIAN), 1.2),
    goal('one CPU without guards: better than classic', on('one CPU without guards'), to('classic', SURE), 1),
  ]
}

function judge(found) {
  const misses = []
  for (const { text, cells, kept, needed, worst, missed } of found) {
    const share = kept / cells
    say(`${kept} of ${cells}: ${text}${worst ? ` (worst ${worst.ratio.toFixed(2)}: ${worst.cell})` : ''}`)
    if (cells === 0) misses.push(`${text}: there is no such cell`)
    // Half the goal: twice the share of cells may miss it, and a cell that may not is one in forty.
    if (share < (needed === 1 ? 0.975 : 2 * needed - 1)) misses.push(`${text}: kept in ${kept} of ${cells} cells, missed in ${missed.slice(0, 5).join('; ')}`)
  }
  if (misses.length > 0) fail(misses.join('\n'))
}

// --- Writing --------------------------------------------------------------------------------------------------------------

function report(found, measured) {
  const rows = (list) => list.map(({ text, cells, kept, needed, worst, missed }) =>
    line([text, `${kept} of ${cells}`, kept / cells >= needed ? 'kept' : '**missed**', worst ? `${worst.ratio.toFixed(2)}: ${worst.cell}` : '', missed.length > 0 && kept / cells < needed ? missed.slice(0, 6).join('; ') + (missed.length > 6 ? '; …' : '') : '']))
  const head = [line(['goal', 'cells that keep it', '', 'worst', 'missed in']), line(Array(5).fill('---'))]
  const table = (placement, shape, sources) => {
    const cells = measured.filter((cell) => cell.placement === placement && cell.shape === shape && cell.sources === sources)
    const figure = ({ mean, p50, cpu, calls, total, least, most }) =>
      `**${total.toFixed(1)}** (${least.toFixed(1)}–${most.toFixed(1)})<br>${mean.toFixed(1)} · ${p50.toFixed(1)} · ${cpu.toFixed(1)} · ${calls.toFixed(2)}`
    const rows = cells.map((cell) => line([cell.gapUs, ...POLICIES.map((policy) => figure(cell.of[policy]))]))
    return `### ${placement}, ${shape}, ${sources}\n\n${line(['gap, µs', ...POLICIES])}${line(Array(POLICIES.length + 1).fill('---'))}${rows.join('')}\n`
  }
  const measuredPart = () => {
    const tables = PLACEMENTS.flatMap((placement) => Object.keys(WORDS).flatMap((shape) => ['one source', 'one fast, one slow', '64 sources'].map((sources) => table(placement, shape, sources))))
    return `## Goals, measured

A producer thread and a context; a source is a word with an eventfd as its doorbell. 9 rounds of 300 events after 200 to warm up, the policies
taking turns within a round. On two CPUs the producer is pinned to one and waits awake, the context to the other, without guards, which would
take that one for all there are; on one CPU both are pinned to it. The latency runs from the moment at which the event was due, so what keeps
the producer from its work counts as well. A policy is above another where it is so in eight of the nine rounds, each compared with its own;
"times" are medians of the rounds' ratios.

${[...head, ...rows(goals(measured, 'measured'))].join('')}

![measured on two CPUs](policy/measured-two-cpus.svg)
![measured on one CPU](policy/measured-one-cpu.svg)
![measured on one CPU without guards](policy/measured-one-cpu-without-guards.svg)

## Measured, cell by cell

**latency + CPU** (least–most of the rounds), then mean latency · p50 · CPU time in µs · system calls, an event.

${tables.join('').trimEnd()}
`
  }
  return `# How good is the policy

Written by \`npm run bench:policy\`. ${machineLine()}

What an event costs under each policy: **latency + CPU time**, in µs, lower is better. The longest spin is ${MAX_US} µs; the budget
is 10 % of the time for fruitless spins. A source's next event comes a gap after the last one was handled. Gaps: ${Object.entries(WORDS).map(([shape, words]) => `*${shape}*, ${words}`).join('; ')}.
Where the 64 sources are one cell, the gap is that between events of all of them.

## Goals, simulated

The simulator runs the production policies, compiled from their own files, on a clock turned by hand: 6,000 events a cell, a sleep and its
wake-up take 4 µs of CPU time and 35, 8 or 3 µs until the handler runs. It is the same on every machine, and CI checks it. A cell is compared
at the precision of 0.1 µs.

${[...head, ...rows(found)].join('')}

![latency and CPU by gap, a wake-up takes 35 µs](policy/simulated-two-cpus-35.svg)
![…8 µs](policy/simulated-two-cpus-8.svg)
![…3 µs](policy/simulated-two-cpus-3.svg)
![one CPU without guards](policy/simulated-one-cpu-without-guards-3.svg)

${measured ? measuredPart() : 'The measured part is written by `npm run bench:policy` without `--simulate`; it was not run for this table.\n'}`
}
