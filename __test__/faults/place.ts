// What a row of the addon's table is: where a call is made, which errno comes back, and what then happens.
import type { FdmonErrorCode } from 'fdmon'

/** What is expected of the call of the user that met the fault. */
export type Expected =
  /** It throws an FdmonError with this code, errno and call, whose message has these words. */
  | { throws: FdmonErrorCode; says: string }
  /** The call is made again, and nobody notices. */
  | { again: true }
  /** It answers this, and this is why. */
  | { answers: unknown; because: string }

export interface Row {
  errno: string
  expected: Expected
  /** How many such calls are made then; 1 unless told. */
  calls?: number
}

export interface Place {
  /** As man pages name it. */
  call: string
  /** As `refuse` knows it: the call, and what it is for. */
  rule: string
  what: string
  file: string
  /** Run once before, with `fdmon`, `fd`, `say` and `buffer` at hand. */
  setup?: string
  /** The body of a function whose result is plain data; run once a row, and once more without a fault. */
  run: string
  /** What it answers without a fault; not compared when left out. */
  usual?: unknown
  rows: readonly Row[]
  /** Names of errnos, and why this place never sees them. */
  impossible: Readonly<Record<string, string>>
}

const row = (errno: string, expected: Expected, calls = 1): Row => ({ errno, expected, calls })

/** Each of these errnos is an error that says the same. */
export function failing(errnos: string, says: string, code: FdmonErrorCode = 'ERR_FDMON_SYSCALL'): Row[] {
  return errnos.split(' ').map((errno) => row(errno, { throws: code, says }))
}

export const again = (errno: string): Row => row(errno, { again: true }, 2)

export const answering = (errno: string, answers: unknown, because: string, calls = 1): Row =>
  row(errno, { answers, because }, calls)

/** What every call that makes a descriptor may lack. */
export const short: Row[] = [
  ...failing('EMFILE', 'ulimit -n'),
  ...failing('ENFILE', 'fs.file-max'),
  ...failing('ENOMEM', 'free memory'),
]

export const closed = (says = 'open'): Row[] => failing('EBADF', says, 'ERR_FDMON_BAD_FD')

/** An expectation in words. */
export function words(expected: Expected): string {
  if ('throws' in expected) return `${expected.throws} with errno and call: "${expected.says}"`
  if ('again' in expected) return 'the call is made again'
  return expected.because
}
