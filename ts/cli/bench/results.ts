// What the rounds say together: medians with their spread, and the percentiles of all events.
import { createHistogram } from 'node:perf_hooks'
import type { Measured } from './measure.js'
import type { PlacementName, PolicyName } from './settings.js'

/** The median of the rounds, and the least and the most of them. */
export interface Spread {
  median: number
  least: number
  most: number
}

/** A row of the results. Times are µs; what is "an event" is a mean over a round's events. */
export interface Row {
  placement: PlacementName
  gapUs: number
  monitor: string
  policy: PolicyName
  /** Why there is nothing else. */
  failed: string | null
  rounds: number
  /** Events of all rounds. */
  events: number
  /** Events that were not taken one by one: there must be none. */
  lost: number
  p50Us: Spread
  p99Us: Spread
  /** Of all rounds' events together; null below a thousand of them. */
  p999Us: number | null
  /** CPU time of the loop's thread, an event. */
  cpuUs: Spread
  /** And of the whole process, in which the producer waits awake. */
  processCpuUs: Spread
  /** Context switches of the process, an event. */
  switches: Spread
  /** Times the loop could sleep, an event. */
  sleeps: Spread
  /** System calls of the process, an event; null where they were not counted. */
  systemCalls: number | null
  /** Why it did not spin although it was asked to. */
  guard: string | null
  /** Latency of all rounds' events: percentile, µs. */
  percentiles: [number, number][]
}

const CURVE = [0, 5, 10, 25, 50, 75, 90, 95, 98, 99, 99.5, 99.8, 99.9, 99.95, 99.99]
/** From so many events on there is one above p99.9. */
const ENOUGH_FOR_P999 = 1000

/** Numbers in order, then the one that this share of them does not exceed. */
export function quantile(sorted: readonly number[], share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.max(0, Math.ceil(sorted.length * share) - 1))] ?? NaN
}

/** Of an even number of rounds, the mean of the middle two. */
export function spreadOf(values: readonly number[]): Spread {
  const sorted = values.toSorted((a, b) => a - b)
  const half = sorted.length / 2
  const median = ((sorted[Math.ceil(half) - 1] ?? NaN) + (sorted[Math.floor(half)] ?? NaN)) / 2
  return { median, least: sorted[0] ?? NaN, most: sorted.at(-1) ?? NaN }
}

/** One row. */
export function rowOf({ cell, samples, failed }: Measured, systemCalls: number | undefined): Row {
  const { place, gapUs, monitor, policy } = cell
  const all = createHistogram() // three significant figures, which is more than the spread leaves
  const rounds = samples.map((sample) => {
    const sorted = sample.latenciesNs.toSorted((a, b) => a - b)
    for (const ns of sorted) all.record(Math.max(1, Math.round(ns)))
    return { ...sample, sorted, events: sorted.length }
  })
  const over = (value: (round: (typeof rounds)[number]) => number): Spread => spreadOf(rounds.map((round) => value(round)))
  const { count } = all
  return {
    ...{ placement: place.name, gapUs, monitor, policy, failed: failed ?? null, rounds: rounds.length, events: count },
    lost: rounds.reduce((sum, { lost }) => sum + lost, 0),
    p50Us: over(({ sorted }) => quantile(sorted, 0.5) / 1000),
    p99Us: over(({ sorted }) => quantile(sorted, 0.99) / 1000),
    p999Us: count < ENOUGH_FOR_P999 ? null : all.percentile(99.9) / 1000,
    cpuUs: over(({ loopCpuNs, events }) => loopCpuNs / events / 1000),
    processCpuUs: over(({ processCpuNs, events }) => processCpuNs / events / 1000),
    switches: over(({ switches, events }) => switches / events),
    sleeps: over(({ sleeps, events }) => sleeps / events),
    systemCalls: systemCalls ?? null,
    guard: rounds.find(({ guard }) => guard !== null)?.guard ?? null,
    percentiles: CURVE.filter((p) => count > 0 && p <= 100 * (1 - 1 / count)).map((p) => [p, (p === 0 ? all.min : all.percentile(p)) / 1000]),
  }
}

/** Rows of one placement and gap, which are to be compared with each other. */
export interface Group {
  placement: PlacementName
  gapUs: number
  rows: Row[]
}

/** All groups, in the order of the rows. */
export function groupsOf(rows: readonly Row[]): Group[] {
  const groups = new Map<string, Group>()
  for (const row of rows) {
    const { placement, gapUs } = row
    const key = `${placement} ${gapUs}`
    if (!groups.has(key)) groups.set(key, { placement, gapUs, rows: [] })
    groups.get(key)?.rows.push(row)
  }
  return [...groups.values()]
}

/** Which rows of a group are soonest, cheapest and slowest, and what is as soon; undefined where there are not two to compare. */
export function verdict({ rows }: Group): { soonest: Row; alike: Row[]; cheapest: Row; slowest: Row } | undefined {
  const good = rows.filter(({ failed }) => failed === null)
  const by = (value: (row: Row) => number): Row[] => good.toSorted((a, b) => value(a) - value(b))
  const [bySpeed, byCost] = [by(({ p50Us }) => p50Us.median), by(({ cpuUs }) => cpuUs.median)]
  const [soonest, cheapest, slowest] = [bySpeed[0], byCost[0], bySpeed.at(-1)]
  if (soonest === undefined || cheapest === undefined || slowest === undefined || good.length < 2) return undefined
  // What the rounds do not tell apart.
  const alike = bySpeed.filter((row) => row !== soonest && row.p50Us.least <= soonest.p50Us.most)
  return { soonest, alike, cheapest, slowest }
}

/** Three significant figures at most: the rest would be noise. */
export function figure(value: number | null): string {
  if (value === null || !Number.isFinite(value)) return '–'
  return value.toFixed(value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2)
}

/** The verdict in words. */
export function sentenceOf(group: Group): string | undefined {
  const found = verdict(group)
  if (found === undefined) return undefined
  const name = ({ policy, monitor }: Row): string => `${policy} on ${monitor}`
  const facts = (row: Row): string => `${name(row)}, ${figure(row.p50Us.median)} µs for ${figure(row.cpuUs.median)} µs of CPU`
  const { soonest, alike, cheapest, slowest } = found
  const parts = [soonest === cheapest ? `soonest and cheapest: ${facts(soonest)}` : `soonest: ${facts(soonest)}`]
  if (alike.length === group.rows.length - 1) parts.push('no other row differs by more than the spread')
  else if (alike.length > 3) parts.push(`${alike.length} rows are within its spread`)
  else if (alike.length > 0) parts.push(`within its spread: ${alike.map(name).join(', ')}`)
  if (soonest !== cheapest) parts.push(`cheapest: ${facts(cheapest)}`)
  if (slowest !== cheapest && slowest !== soonest && !alike.includes(slowest)) parts.push(`slowest: ${facts(slowest)}`)
  return parts.join('; ')
}
