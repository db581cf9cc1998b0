// What the binding offers to the loop. Types only; native.ts loads it.
import type { ContextStats, LeakReport } from './context.js'
import type { NativeAioParams, NativePollParams } from './options.js'

/** What the binding's class offers; every argument has been checked. */
export interface NativeContext {
  readonly id: number
  readonly closed: boolean
  monitor(): string
  monitorReason(): string
  setWords(words: Int32Array): void
  addFrame(frame: Int32Array): void
  register(
    fd: number,
    interest: number,
    callbacks: number,
    flags: number,
    word: NativeWord | null,
    replaces: number,
    name: string | undefined,
  ): number
  remove(slot: number): void
  setInterest(slot: number, bits: number): void
  hot(): NativeHot
  more(depth: number): number
  dispatch(depth: number): number
  end(): void
  takeErrors(): { slot: number; error: Error }[]
  startTrace(file: string, events: number): string
  endTrace(): void
  /** Events, and how many of them were dropped; empty = there was no trace. */
  traceCounts(): number[]
  trace(kinds: number): void
  takePoints(): NativePoint[]
  suspend(): void
  notify(): void
  stop(): void
  stopRequested(): boolean
  loopBegin(): void
  loopEnd(): void
  setPollParams(params: NativePollParams): void
  setAioParams(params: NativeAioParams): void
  disableExternal(): void
  enableExternal(): void
  bottomHalf(): number
  bhId(slot: number): number
  bhScheduleIdle(slot: number): void
  bhCancel(slot: number): void
  bhDelete(slot: number): void
  timer(): number
  timerArm(slot: number, delayNs: number | bigint): void
  timerArmAt(slot: number, deadlineNs: bigint): void
  timerCancel(slot: number): void
  timerPending(slot: number): boolean
  timerDelete(slot: number): void
  setResults(results: Int32Array): void
  ioSlot(): number
  transfer(slot: number, op: number, fd: number, pieces: Uint8Array[], position: bigint): void
  ioCancel(slot: number): void
  ioSubmit(): void
  prepare(): number
  check(): boolean
  backendFd(): number
  attach(run: (answer: number) => void): void
  detach(): void
  setReferenced(on: boolean): void
  keep(on: boolean): void
  stats(): ContextStats
  close(): LeakReport
}

/** A point of tracing, with the fields that belong to its kind. */
export interface NativePoint {
  kind: number
  timeNs: bigint
  windowNs?: number
  spentNs?: number
  result?: string
  fromNs?: number
  toNs?: number
  fd?: number
  joined?: boolean
  from?: string
  to?: string
  reason?: string
}

/** The native calls that are made all the time, as plain functions: a method costs five times as much. */
export interface NativeHot {
  /** `request` is depth * 2 + blocking. */
  turn(request: number): number
  /** Of a context that is traced: 0 a turn that does not wait, 1 one that does, 2 a dispatch. */
  stepBegins(what: number): void
  /** `progress` is 0 or 1. */
  stepEnds(progress: number): void
  callbackBegins(slot: number, word: number): void
  callbackEnds(): void
  /** Of a bottom half. */
  schedule(slot: number): void
  /** Of a timer; other delays go through `timerArm()`. */
  arm(slot: number, delayNs: number): void
  /** Of file I/O: 0 read, 1 write, 2 fsync, 3 fdatasync. */
  transfer(slot: number, op: number, fd: number, view: Uint8Array, position: number): void
}

/** A `WordCondition` after the checks. */
export interface NativeWord {
  memory: Int32Array | Uint32Array | BigInt64Array | BigUint64Array
  index: number
  notEqual: number | bigint | undefined
  otherIndex: number | undefined
  suppressIndex: number | undefined
}
