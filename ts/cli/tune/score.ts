// What makes one run better than another.
import type { Part, Sample } from './workload.js'

export interface Goal {
  /** What a nanosecond of the time is worth, in nanoseconds of CPU time. */
  latencyWeight: number
  /** The share of one CPU that it may use. */
  cpuBudget: number
  /** Of the program's own score, more is better. */
  higher: boolean
}

/** Time and CPU time together; in place of both, what the program says of itself. Less is better. */
function costOf({ timeNs, cpuNs, score }: Part, { latencyWeight, higher }: Goal): number {
  if (score !== null) return higher ? 1 / score : score
  return latencyWeight * timeNs + cpuNs
}

/**
 * A run over the baseline of the same round: below 1 it is better. Over several parts it is the geometric mean, so that none
 * counts for more because its times are longer. A run over the budget is out of the question.
 */
export function resultOf(sample: Sample, baseline: Sample, goal: Goal): number {
  const logs = sample.map((part, at) => {
    const base = baseline[at]
    if (base === undefined) return Infinity
    // What needs more even without a spin is not the candidate's fault.
    if (part.share > Math.max(goal.cpuBudget, base.share)) return Infinity
    return Math.log(costOf(part, goal) / costOf(base, goal))
  })
  return Math.exp(logs.reduce((sum, log) => sum + log, 0) / logs.length)
}
