// What `fdmon tune` tries: each policy with the windows that come into question, against a loop that never spins.
import type { PollParams } from '../../options.js'

/** What a bare context does. */
export const BASELINE: PollParams = { maxNs: 0 }

const RULES: readonly PollParams[] = [
  { policy: 'cost' },
  { policy: 'cost', latencyWeight: 4 },
  { policy: 'handler' },
  { policy: 'classic', shrink: 2 },
  { policy: 'fixed' },
]
const WINDOWS_NS = [16_384, 65_536, 262_144, 1_048_576]
const QUICK_WINDOWS_NS = [32_768, 262_144]

/** All candidates; those of `quick` are half as many. */
export function candidatesFor(quick: boolean): PollParams[] {
  const windows = quick ? QUICK_WINDOWS_NS : WINDOWS_NS
  return windows.flatMap((maxNs) => RULES.map((rule) => ({ maxNs, ...rule })))
}

/** In a word or two. */
export function nameOf({ maxNs = 0, policy, latencyWeight }: PollParams): string {
  if (maxNs === 0) return 'never spins'
  return `${policy ?? 'cost'}${latencyWeight === undefined ? '' : `, latencyWeight ${latencyWeight}`}, ${Math.round(maxNs / 1000)} µs`
}

/** As JavaScript, to be pasted. */
export function codeOf(params: PollParams): string {
  const fields = Object.entries(params).map(([key, value]) => `${key}: ${typeof value === 'string' ? `'${value}'` : digits(value as number)}`)
  return `new AioContext({ poll: { ${fields.join(', ')} } })`
}

function digits(value: number): string {
  return `${value}`.replace(/\B(?=(\d{3})+$)/g, '_')
}

/** As an environment variable, for a shell. */
export function variableOf(params: PollParams): string {
  return `FDMON_POLL='${JSON.stringify(params)}'`
}
