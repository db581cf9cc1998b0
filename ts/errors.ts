// The one error class, and the words in which every error is said: what was received, and what to do.
import { inspect } from 'node:util'

/**
 * The stable codes of {@link FdmonError}: programs may compare them; messages may change.
 *
 * @example
 * ```ts
 * import type { FdmonErrorCode } from 'fdmon'
 *
 * const expected: FdmonErrorCode = 'ERR_FDMON_CLOSED'
 * console.log(expected)
 * ```
 */
export type FdmonErrorCode =
  | 'ERR_FDMON_INVALID_ARG'
  | 'ERR_FDMON_BAD_FD'
  | 'ERR_FDMON_UNSUPPORTED'
  | 'ERR_FDMON_CLOSED'
  | 'ERR_FDMON_WRONG_THREAD'
  | 'ERR_FDMON_SYSCALL'
  | 'ERR_FDMON_BINDING'
  | 'ERR_FDMON_ATTACHED'
  | 'ERR_FDMON_IN_USE'
  | 'ERR_FDMON_INTERNAL'

/** What an error may carry besides code and message. */
export interface FdmonErrorDetails {
  errno?: number | undefined
  syscall?: string | undefined
  cause?: unknown
}

/**
 * Every error that fdmon throws. Its message names the option and the value received, and ends with what to do.
 *
 * @example
 * ```ts
 * import { AioContext, FdmonError } from 'fdmon'
 *
 * try {
 *   new AioContext({ poll: { cpuBudget: 7 } })
 * } catch (error) {
 *   if (error instanceof FdmonError) console.log(error.code) // ERR_FDMON_INVALID_ARG
 * }
 * ```
 */
export class FdmonError extends Error {
  /** What kind of error this is; stable. */
  readonly code: FdmonErrorCode
  /** The errno of the system call that failed: a positive number, as in `os.constants.errno`. */
  declare readonly errno?: number
  /** The system call that failed. */
  declare readonly syscall?: string

  /** fdmon makes these itself; programs may, in tests. */
  constructor(code: FdmonErrorCode, message: string, details: FdmonErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause })
    this.code = code
    if (details.errno !== undefined) this.errno = details.errno
    if (details.syscall !== undefined) this.syscall = details.syscall
  }
}

// On the prototype, so that `console.log(error)` does not show it as a field.
Object.defineProperty(FdmonError.prototype, 'name', { value: 'FdmonError', configurable: true, writable: true })

/** How a received value is shown in a message: short, on one line, never failing. */
export function show(value: unknown): string {
  let text: string
  try {
    text = inspect(value, { depth: 0, breakLength: Infinity, maxArrayLength: 3, maxStringLength: 60, getters: false })
  } catch {
    text = typeof value
  }
  text = text.replaceAll('\n', ' ')
  return text.length > 100 ? `${text.slice(0, 97)}...` : text
}

/** An option or argument that cannot be used; `whatToDo` begins with a verb: 'pass true or false'. */
export function invalidArg(name: string, value: unknown, whatToDo: string): FdmonError {
  return new FdmonError('ERR_FDMON_INVALID_ARG', `${name} = ${show(value)} is not valid; ${whatToDo}`)
}

/** A number that is not an open descriptor, or not of the kind asked for. */
export function badFd(name: string, value: unknown, whatToDo: string, details?: FdmonErrorDetails): FdmonError {
  return new FdmonError('ERR_FDMON_BAD_FD', `${name} = ${show(value)} is not an open file descriptor; ${whatToDo}`, details)
}

/** A thing that was closed and then used. */
export function closed(what: string, whatToDo: string): FdmonError {
  return new FdmonError('ERR_FDMON_CLOSED', `${what} is closed; ${whatToDo}`)
}

/** A thing that this kernel, container, runtime or build cannot do. */
export function unsupported(message: string, details?: FdmonErrorDetails): FdmonError {
  return new FdmonError('ERR_FDMON_UNSUPPORTED', message, details)
}
