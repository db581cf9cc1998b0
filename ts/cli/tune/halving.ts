// Successive halving: many candidates are tried a little, the better half of them twice as long, and so on. Pure: who runs a
// candidate is told by the caller.
//
// A machine gets slower and faster while it measures. So in each round everybody who is still in has a turn, beginning with
// another one each time, and so has the baseline; a candidate's result is its score over that of the baseline of the same round.

/** So many candidates have so many rounds. */
export interface Rung {
  candidates: number
  rounds: number
}

/** With so few left there are no more halves. */
const FINALISTS = 3
/** From so many rounds on their spread says something. */
const LEAST_FINAL_ROUNDS = 5

/** Each rung takes about as long as the one before: half as many candidates, twice the rounds. */
export function rungsOf(candidates: number, rounds: number): Rung[] {
  const rungs: Rung[] = []
  let [left, each] = [candidates, rounds]
  for (; left > FINALISTS; left = Math.ceil(left / 2), each *= 2) rungs.push({ candidates: left, rounds: each })
  return [...rungs, { candidates: left, rounds: Math.max(each, LEAST_FINAL_ROUNDS) }]
}

/** Runs that the rungs take, those of the baseline among them. */
export function runsOf(rungs: readonly Rung[]): number {
  return rungs.reduce((sum, { candidates, rounds }) => sum + (candidates + 1) * rounds, 0)
}

/** How one candidate did. */
export interface Standing<C, S> {
  candidate: C
  samples: S[]
  /** A result a round; below 1 it was better than the baseline, and Infinity is out of the question. */
  results: number[]
  /** The rung in which it was last, from 0 on. */
  rung: number
}

export interface Outcome<C, S> {
  /** The best first: the finalists by their results, then those that left later. */
  standings: Standing<C, S>[]
  baseline: S[]
}

/** Lets all of them compete. */
export async function halve<C, S>(
  candidates: readonly C[],
  rungs: readonly Rung[],
  { run, result }: {
    /** Measures a candidate once; null = the baseline. */
    run: (candidate: C | null, rung: number) => Promise<S>
    /** A candidate against the baseline of the same round. */
    result: (sample: S, baseline: S) => number
  },
): Promise<Outcome<C, S>> {
  const all = candidates.map((candidate): Standing<C, S> => ({ candidate, samples: [], results: [], rung: 0 }))
  const baseline: S[] = []
  let left = all
  let turn = 0
  for (const [rung, { candidates: places, rounds }] of rungs.entries()) {
    left = byResult(left).slice(0, places)
    for (const standing of left) standing.rung = rung
    for (let round = 0; round < rounds; round++) {
      const field = rotated([null, ...left], turn++)
      const samples = new Map<Standing<C, S> | null, S>()
      for (const standing of field) samples.set(standing, await run(standing?.candidate ?? null, rung))
      const base = samples.get(null) as S
      baseline.push(base)
      for (const standing of left) {
        const sample = samples.get(standing) as S
        standing.samples.push(sample)
        standing.results.push(result(sample, base))
      }
    }
  }
  return { standings: byResult(all), baseline }
}

function byResult<C, S>(standings: readonly Standing<C, S>[]): Standing<C, S>[] {
  const key = ({ results }: Standing<C, S>): number => (results.length === 0 ? 0 : median(results))
  return standings.toSorted((a, b) => b.rung - a.rung || difference(key(a), key(b)))
}

/** Also of two that are infinite. */
function difference(a: number, b: number): number {
  return a === b ? 0 : a - b
}

/** Of an even number, the mean of the middle two. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const half = sorted.length / 2
  const [low = NaN, high = NaN] = [sorted[Math.ceil(half) - 1], sorted[Math.floor(half)]]
  return low === high ? low : (low + high) / 2
}

function rotated<T>(values: readonly T[], by: number): T[] {
  const first = by % values.length
  return [...values.slice(first), ...values.slice(0, first)]
}

/** Whether it is better than the baseline by more than the rounds differ: three quarters of its results say so. */
export function isGain(results: readonly number[]): boolean {
  const sorted = results.toSorted((a, b) => a - b)
  return (sorted[Math.ceil(sorted.length * 0.75) - 1] ?? Infinity) < 1
}
