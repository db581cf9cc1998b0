// What the command and its child process say to each other, and what the child's two threads share.
import type { PollParams } from '../../options.js'

/** How the child was started: its only argument, as JSON. */
export interface Setup {
  /** CPUs of the loop's thread and of the producer's. */
  pins?: [number, number]
  /** Both share one CPU: a producer that waits for the loop sleeps, since it would keep the loop from running. */
  shared: boolean
}

/** A line that the child reads: measure this. */
export interface Task {
  monitor: string
  policy: string
  windowNs: number
  guards: boolean
  /** The whole of `poll`, in place of policy, window and guards. */
  poll?: PollParams
  gapNs: number
  warmUp: number
  events: number
}

/** A line that it writes then. */
export type Answer = Sample | { failed: string }

/** What one round of one cell has measured. CPU time and switches are totals of the measured events. */
export interface Sample {
  /** Of each event, from the moment at which it was due until its handler ran. */
  latenciesNs: number[]
  /** From the first of them to the last, as a clock on the wall has it. */
  elapsedNs: number
  /** Of the loop's thread. */
  loopCpuNs: number
  /** Of the whole process: the loop, and the producer, which waits awake. */
  processCpuNs: number
  switches: number
  /** Times the loop asked the kernel in such a way that it could sleep. */
  sleeps: number
  spinHits: number
  /** Why it did not spin although it was asked to. */
  guard: string | null
  /** Events that were not taken one by one. */
  lost: number
}

/** Words of the shared memory, each in a cache line of its own. */
export const SENT = 0
export const TAKEN = 16
export const SUPPRESS = 32
/** 0 = not yet, 1 = the loop is about to run, 2 = it cannot. */
export const READY = 48
export const WORDS = 64

/** When the event was due, and when the last one was taken; nanoseconds of CLOCK_MONOTONIC. */
export const DUE = 0
export const TAKEN_AT = 8
export const TIMES = 16

/** What both threads get. */
export interface Shared {
  words: Int32Array<SharedArrayBuffer>
  times: BigInt64Array<SharedArrayBuffer>
  handle: { type: string; pid: number; fd: number; id: number }
  cpu: number | undefined
  shared: boolean
}
