// What `fdmon tune` has found: the parameters to paste, what they gain, and what they cost.
import type { PollParams } from '../../options.js'
import { figure, spreadOf, type Spread } from '../bench/results.js'
import { paint, table, wrap, type Terminal } from '../terminal.js'
import { BASELINE, codeOf, nameOf, variableOf } from './candidates.js'
import { isGain, median, type Outcome, type Rung } from './halving.js'
import type { Goal } from './score.js'
import type { Sample } from './workload.js'

/** A part, over all rounds. */
export interface PartReport {
  name: string
  timeUs: Spread
  cpuUs: Spread
  p99Us: Spread | null
  score: Spread | null
  /** Share of one CPU. */
  share: number
}

export interface CandidateReport {
  params: PollParams
  /** Its cost over that of a loop that never spins, median of its rounds; null = over the CPU budget. */
  result: number | null
  rounds: number
  parts: PartReport[]
}

/** What `--json` prints. */
export interface TuneReport {
  ok: boolean
  version: string
  date: string
  machine: string
  workload: string
  seconds: number
  goal: Goal
  rungs: Rung[]
  /** What is worth setting; null = nothing gains more than the rounds differ. */
  best: PollParams | null
  code: string | null
  variable: string | null
  /** A loop that never spins. */
  baseline: PartReport[]
  baselineRounds: number
  /** The best first. */
  candidates: CandidateReport[]
  notes: string[]
}

export function candidatesOf({ standings }: Outcome<PollParams, Sample>): CandidateReport[] {
  return standings.map(({ candidate, samples, results }) => {
    const result = median(results)
    return { params: candidate, result: Number.isFinite(result) ? result : null, rounds: results.length, parts: partsOf(samples) }
  })
}

/** The first of the standings, if it is worth it. */
export function bestOf({ standings: [first] }: Outcome<PollParams, Sample>): PollParams | null {
  return first !== undefined && isGain(first.results) ? first.candidate : null
}

export function partsOf(samples: readonly Sample[]): PartReport[] {
  return (samples[0] ?? []).map(({ name, p99Ns, score }, at) => {
    const all = samples.flatMap((sample) => sample[at] ?? [])
    const us = (value: (part: (typeof all)[number]) => number): Spread => spreadOf(all.map((part) => value(part) / 1000))
    return {
      name,
      timeUs: us(({ timeNs }) => timeNs),
      cpuUs: us(({ cpuNs }) => cpuNs),
      p99Us: p99Ns === null ? null : us((part) => part.p99Ns ?? NaN),
      score: score === null ? null : spreadOf(all.map((part) => part.score ?? NaN)),
      share: median(all.map(({ share }) => share)),
    }
  })
}

const SHOWN = 5

/** For a person. */
export function show(report: TuneReport, terminal: Terminal): string {
  const { bold, green, dim } = paint(terminal)
  const { best, baseline, candidates, goal, rungs, notes } = report
  const sum = rungs.map(({ candidates: some, rounds }) => `${some} × ${rounds}`).join(', ')
  const aim = baseline.some(({ score }) => score !== null)
    ? `the program's own score, ${goal.higher ? 'the higher' : 'the lower'} the better`
    : `${goal.latencyWeight} × time + CPU time`
  const head = [report.machine, report.workload, `Aim: ${aim}; at most ${Math.round(goal.cpuBudget * 100)} % of a CPU. Candidates × rounds: ${sum}, all in turn.`]
  const tuned = candidates.find(({ params }) => params === best)
  const parts = [head.map((line) => wrap(terminal, line)).join('')]
  if (best === null || tuned === undefined) {
    parts.push(`${bold('Never spin.')} ${wrap(terminal, 'No candidate is better than that by more than the rounds differ.', '')}`)
  } else {
    parts.push(`${bold(green(codeOf(best)))}\n${dim('or, where no poll is given:')} ${variableOf(best)}\n`)
    parts.push(comparison(terminal, baseline, tuned.parts))
  }
  parts.push(ranking(terminal, [{ params: BASELINE, result: 1, rounds: report.baselineRounds, parts: baseline }, ...candidates.slice(0, SHOWN)]))
  if (notes.length > 0) parts.push(notes.map((note) => dim(wrap(terminal, note))).join(''))
  return parts.join('\n')
}

function change(before: number, after: number): string {
  const percent = Math.round((after / before - 1) * 100)
  return `${percent > 0 ? '+' : percent < 0 ? '−' : '±'}${Math.abs(percent)} %`
}

/** `35.1 → 0.52 (−99 %)` */
function fromTo(before: Spread | null, after: Spread | null): string {
  if (before === null || after === null) return ''
  return `${figure(before.median)} → ${figure(after.median)} (${change(before.median, after.median)})`
}

function comparison(terminal: Terminal, baseline: readonly PartReport[], tuned: readonly PartReport[]): string {
  const isProgram = baseline[0]?.p99Us === null
  const scored = baseline[0]?.score !== null
  const head = isProgram ? ['program', ...(scored ? ['score'] : []), 'time µs', 'CPU µs', 'of a CPU'] : ['event every', 'p50 µs', 'p99 µs', 'CPU µs an event', 'of a CPU']
  const rows = tuned.map((after, at) => {
    const before = baseline[at]
    if (before === undefined) return []
    const share = `${Math.round(before.share * 100)} → ${Math.round(after.share * 100)} %`
    const middle = isProgram ? [...(scored ? [fromTo(before.score, after.score)] : []), fromTo(before.timeUs, after.timeUs)] : [fromTo(before.timeUs, after.timeUs), fromTo(before.p99Us, after.p99Us)]
    return [after.name, ...middle, fromTo(before.cpuUs, after.cpuUs), share]
  })
  return table(terminal, head, rows, { right: [1, 2, 3, 4, 5] })
}

function ranking(terminal: Terminal, candidates: readonly CandidateReport[]): string {
  const rows = candidates.map(({ params, result, rounds, parts }) => {
    const list = (value: (part: PartReport) => Spread | null): string => parts.map((part) => figure(value(part)?.median ?? null)).join(' / ')
    const cost = result === null ? 'over the CPU budget' : `× ${result.toFixed(2)}`
    const score = parts.some(({ score }) => score !== null) ? [list(({ score }) => score)] : []
    return [nameOf(params), cost, ...score, list(({ timeUs }) => timeUs), list(({ cpuUs }) => cpuUs), `${rounds}`]
  })
  const head = ['the best', 'cost', ...(rows[0]?.length === 6 ? ['score'] : []), 'time µs', 'CPU µs', 'rounds']
  return table(terminal, head, rows, { right: [1, 2, 3, 4, 5] })
}
