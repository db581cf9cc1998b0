// ⓪ The edge: every option and argument is checked here, once; nothing below checks it again.
import { invalidArg } from './errors.js'

/** A day in nanoseconds: the longest time that a parameter may name. */
export const DAY_NS = 86_400_000_000_000

const MAX_NS = 0x7fff_ffff_ffff_ffffn

/** A plain bag of options: an object that is neither an array nor a function. */
export function checkObject(name: string, value: unknown, what: string): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw invalidArg(name, value, `pass ${what}`)
  return value as Record<string, unknown>
}

/** Refuses a key that is not in `allowed`, so that a misspelt option is never ignored. */
export function checkKeys(prefix: string, object: object, allowed: readonly string[]): void {
  for (const key of Object.keys(object)) {
    if (allowed.includes(key)) continue
    const value: unknown = (object as Record<string, unknown>)[key]
    throw invalidArg(`${prefix}${key}`, value, `remove it or use one of ${allowed.join(', ')}`)
  }
}

/** A whole number from `min` to `max`, both included. */
export function checkInteger(name: string, value: unknown, min: number, max: number, unit = ''): number {
  if (typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max) return value
  throw invalidArg(name, value, `pass an integer from ${min} to ${max}${unit === '' ? '' : ` ${unit}`}`)
}

/** A finite number from `min` to `max`, both included. */
export function checkNumber(name: string, value: unknown, min: number, max: number): number {
  if (typeof value === 'number' && value >= min && value <= max) return value
  throw invalidArg(name, value, `pass a number from ${min} to ${max}`)
}

/** `true` or `false`, nothing that merely looks like it. */
export function checkBoolean(name: string, value: unknown): boolean {
  if (typeof value === 'boolean') return value
  throw invalidArg(name, value, 'pass true or false')
}

/** A function; `example` is shown to whoever passed something else. */
export function checkFunction(name: string, value: unknown, example: string): (...args: never[]) => unknown {
  if (typeof value === 'function') return value as (...args: never[]) => unknown
  throw invalidArg(name, value, `pass a function, for example ${example}`)
}

/** One of a few words. */
export function checkOneOf<T extends string>(name: string, value: unknown, words: readonly T[]): T {
  if (typeof value === 'string' && (words as readonly string[]).includes(value)) return value as T
  throw invalidArg(name, value, `pass ${words.map((word) => `'${word}'`).join(', ')}`)
}

/** A length of time in nanoseconds; a fraction is rounded up, so that nothing is ever early. */
export function checkNs(name: string, value: unknown): number | bigint {
  if (typeof value === 'number' && value >= 0 && value <= Number.MAX_SAFE_INTEGER) return Math.ceil(value)
  if (typeof value === 'bigint' && value >= 0n && value <= MAX_NS) return value
  throw invalidArg(name, value, `pass nanoseconds from 0 to ${Number.MAX_SAFE_INTEGER} as a number or a bigint`)
}

/** A point on the clock of `process.hrtime.bigint()`. */
export function checkDeadlineNs(name: string, value: unknown): bigint {
  if (typeof value === 'bigint' && value >= 0n && value <= MAX_NS) return value
  throw invalidArg(name, value, 'pass a bigint, for example process.hrtime.bigint() + 1_000_000n')
}

/** An AbortSignal, of this realm or another. */
export function checkSignal(name: string, value: unknown): AbortSignal | undefined {
  if (value === undefined) return undefined
  const signal = value as Partial<AbortSignal> | null
  if (
    typeof signal === 'object' &&
    signal !== null &&
    typeof signal.aborted === 'boolean' &&
    typeof signal.addEventListener === 'function'
  ) {
    return value as AbortSignal
  }
  throw invalidArg(name, value, 'pass the signal of an AbortController')
}
