// A context as other threads see it.
import { inspect } from 'node:util'
import type { ContextStats } from './context.js'
import { checkInteger } from './check.js'
import { native, wasi } from './native.js'
import { checkAioParams, checkPollParams, type AioParams, type NativePollParams, type PollParams } from './options.js'

/**
 * A context as any thread may use it, found by its id with `AioContext.remote(id)`. What it asks for is done by the
 * context's own thread; nothing here waits for that. Once the context is closed every call throws ERR_FDMON_CLOSED.
 *
 * @example
 * ```ts
 * import { AioContext } from 'fdmon'
 * import { Worker } from 'node:worker_threads'
 *
 * using ctx = new AioContext()
 * const worker = new Worker(
 *   `const { AioContext } = require('fdmon')
 *    AioContext.remote(require('node:worker_threads').workerData).stop()`,
 *   { eval: true, workerData: ctx.id },
 * )
 * ctx.run() // blocks this thread until the worker says stop
 * await worker.terminate()
 * ```
 */
export interface RemoteContext {
  /** The context's id. */
  readonly id: number
  /** Wakes the loop: its turn ends and looks at everything anew. */
  notify(): void
  /** Ends the `run()` and `pollUntil()` that are under way, or else the next one. */
  stop(): void
  /** The statistics as they are now. */
  stats(): ContextStats
  /**
   * Changes how the context spins, from its next turn on. That turn throws when `kernelBusyPoll` cannot be had, and
   * nothing of what was asked for is changed then.
   */
  setPollParams(params: PollParams): void
  /** Changes how the context does async I/O. */
  setAioParams(params: AioParams): void
  /** Schedules the bottom half with this id. */
  schedule(bottomHalfId: number): void
}

/** What the binding has for a remote. */
export interface NativeRemote {
  notify(): void
  stop(): void
  stats(): ContextStats
  setPollParams(params: NativePollParams): void
  setAioParams(params: AioParams): void
  schedule(bottomHalfId: number): void
  release(): void
}

/** It can give up what it holds of its context before it is collected. */
export class Remote implements RemoteContext {
  readonly id: number
  readonly #native: NativeRemote

  constructor(id: number) {
    this.id = id
    this.#native = native.NativeRemote.open(id) as unknown as NativeRemote
  }

  notify(): void {
    this.#native.notify()
  }

  stop(): void {
    this.#native.stop()
  }

  stats(): ContextStats {
    return this.#native.stats()
  }

  setPollParams(params: PollParams): void {
    this.#native.setPollParams(checkPollParams('params', params ?? null))
  }

  setAioParams(params: AioParams): void {
    this.#native.setAioParams(checkAioParams('params', params ?? null))
  }

  schedule(bottomHalfId: number): void {
    this.#native.schedule(checkInteger('bottomHalfId', bottomHalfId, 0, Number.MAX_SAFE_INTEGER))
  }

  release(): void {
    this.#native.release()
  }

  [inspect.custom](): string {
    return `RemoteContext { id: ${this.id} }`
  }
}

/** Finds a live context by its id, from any thread. */
export function openRemote(id: unknown): Remote {
  const checked = checkInteger('id', id, 0, Number.MAX_SAFE_INTEGER)
  wasi?.checkId(checked)
  return new Remote(checked)
}
