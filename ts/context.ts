// The context as its own thread uses it.
import { inspect, type InspectOptions } from 'node:util'
import { attach, detach, nextTurn, refuseAttached, setReferenced } from './attach.js'
import { Loop } from './batch.js'
import { BottomHalf } from './bottom-half.js'
import { checkBoolean, checkFunction, checkKeys, checkObject, checkSignal } from './check.js'
import { invalidArg } from './errors.js'
import type { FdLike } from './fd-like.js'
import type { IoCallback, IoOptions } from './file-io.js'
import { setHandler, type FdHandlers } from './handlers.js'
import { native } from './native.js'
import type { NativeContext } from './native-context.js'
import { EventNotifier } from './notifier.js'
import {
  checkAioParams,
  checkContextOptions,
  checkPollParams,
  traceOfEnvironment,
  type AioContextOptions,
  type AioParams,
  type MonitorName,
  type PollParams,
} from './options.js'
import type { Registration } from './registration.js'
import { openRemote, type RemoteContext } from './remote.js'
import { pollUntil, run } from './run.js'
import { Timer } from './timer.js'
import { startTrace, type Trace, type TraceOptions } from './trace.js'
import type { Life } from './slot.js'

/**
 * What a context has done so far. Counts are numbers, times nanoseconds.
 *
 * @example
 * ```ts
 * import { AioContext, type ContextStats } from 'fdmon'
 *
 * using ctx = new AioContext()
 * ctx.schedule(() => {})
 * ctx.poll(false)
 * const stats: ContextStats = ctx.stats()
 * console.log(stats.turns, stats.sleeps) // 1 0
 * ```
 */
export interface ContextStats {
  /** The monitor that runs now. */
  monitor: MonitorName
  /** Why it is this one. */
  monitorReason: string
  /** Why the context does not spin although it was asked to, or null. */
  guard: string | null
  /** Passes of the loop. */
  turns: number
  /** Times the kernel was asked. */
  waits: number
  /** Those of them that could sleep. */
  sleeps: number
  /** Spins that found something. */
  spinHits: number
  /** Spins that found nothing. */
  spinMisses: number
  /** Time spent spinning. */
  spinNs: number
  /** The part of it that found nothing. */
  spinWastedNs: number
  /** How long a turn spins now before it sleeps. */
  windowNs: number
  /** What a wake-up takes, as the policies `cost` and `handler` believe and take off; 0 = not measured. */
  wakeUpNs: number
  /** What was due: ready handlers, timers, and bottom halves that are not idle. */
  events: number
  /** Time in callbacks and between turns, counted while spinning is on. */
  dispatchNs: number
  /**
   * CPU time of the context's thread, whatever it did there. What grows of it between two looks, less what grows of
   * `spinWastedNs`, is how long the thread was busy.
   */
  cpuNs: number
  /** Wake-ups that were signalled through the kernel. */
  notifiesSent: number
  /** Wake-ups that needed no signal: the loop was awake, or its sleep had been signalled. */
  notifiesElided: number
  /** Times requests of file I/O were handed over, together. */
  submissions: number
  /** Requests of file I/O that ended. */
  completions: number
  /** The most callbacks that one turn had to run. */
  batchMax: number
  /** Moves to another monitor, or from a ring to threads, because the kernel refused something. */
  fallbacks: number
  /** File I/O. */
  aio: {
    /** What does it; null = nobody has asked for any. */
    engine: 'io_uring' | 'threads' | null
    /** Why it is this one. */
    reason: string
    /** Requests that the engine has now. */
    inFlight: number
    /** The most of them that were handed over together. */
    batchMax: number
  }
  /** Each live handler. */
  handlers: {
    fd: number
    reads: number
    writes: number
    pollHits: number
    /** Whether it is on the spin list. */
    polling: boolean
    /** The policy's estimate of the time between its events, 0 = none. */
    estimateNs: number
  }[]
}

/**
 * What was still alive when a context was closed, and has been released.
 *
 * @example
 * ```ts
 * import { AioContext, type LeakReport } from 'fdmon'
 *
 * const ctx = new AioContext()
 * ctx.bottomHalf(() => {})
 * const leaks: LeakReport = ctx.close()
 * console.log(leaks) // { handlers: 0, bottomHalves: 1, timers: 0, io: 0 }
 * ```
 */
export interface LeakReport {
  /** File descriptors with a handler. */
  handlers: number
  /** Bottom halves that were not deleted, and callbacks of `schedule()` that had not run. */
  bottomHalves: number
  /** Timers that were pending. */
  timers: number
  /** I/O requests that had not completed. */
  io: number
}

/** @internal For the other files of the package: what is behind a context. */
export let loopOf: (ctx: AioContext) => Loop

/** @internal The id that is promised to the context with these options; no options of a caller can be this object. */
export const reservations = new WeakMap<object, number>()

/** Contexts that were collected with handlers that can never have run: almost certainly a mistake. */
const droppedContexts = new FinalizationRegistry<Life>((life) => {
  if (life.ran || life.handlers === 0) return
  process.emitWarning(
    `AioContext '${life.name}' was garbage collected with ${life.handlers} handlers although it never ran; ` +
      'keep a reference to it and call attach(), run() or poll()',
    { type: 'FdmonWarning', code: 'FDMON_NEVER_RAN' },
  )
})

/**
 * An event loop over file descriptors, timers and bottom halves that this thread runs by itself: `poll()` is one turn,
 * `run()` many. It can spin (ask in user space) for a while before it sleeps in the kernel.
 *
 * Inside `poll`, `pollUntil` and `run` no promise reaction, no timer of Node and no signal handler runs.
 *
 * @example
 * ```ts
 * import { AioContext } from 'fdmon'
 * import { timerfd } from 'fdmon/fd'
 *
 * using ctx = new AioContext()
 * using clock = timerfd({ intervalNs: 10_000_000 })
 * let ticks = 0
 * ctx.setFdHandler(clock, {
 *   read() {
 *     ticks += Number(clock.read())
 *     console.log(`tick ${ticks}`)
 *     if (ticks >= 4) ctx.stop()
 *   },
 * })
 * ctx.run()
 * ```
 */
export class AioContext implements Disposable {
  static {
    loopOf = (ctx) => ctx.#loop
  }

  /** Process-wide and never used again; `AioContext.remote(id)` works from any thread. */
  readonly id: number
  /** From the options, or `context-<id>`. */
  readonly name: string
  readonly #loop: Loop
  /** What the getters answer after close. */
  #last = { monitor: 'poll' as MonitorName, reason: '' }

  /**
   * Checks the options; asks the environment variable FDMON_MONITOR when they leave the monitor to 'auto', and FDMON_POLL when
   * they do not say how to spin. A wrong value there is `ERR_FDMON_INVALID_ARG`, as a wrong option is, and named. FDMON_TRACE
   * names a file to which every context of the process is traced, as by `trace()`.
   */
  constructor(options?: AioContextOptions) {
    const checked = checkContextOptions(options)
    const trace = traceOfEnvironment()
    if (trace !== undefined) checked.trace = trace
    const reserved = options && reservations.get(options)
    if (reserved !== undefined) checked.reserved = reserved
    this.#loop = new Loop(
      (invoke) => new native.NativeContext(checked, invoke) as unknown as NativeContext,
      checked.name,
    )
    this.id = this.#loop.native.id
    this.name = checked.name === '' ? `context-${this.id}` : checked.name
    this.#loop.life.name = this.name
    this.#loop.recording = trace !== undefined
    droppedContexts.register(this, this.#loop.life)
  }

  /** A live context by its id, for use from another thread. */
  static remote(id: number): RemoteContext {
    return openRemote(id)
  }

  /** The monitor that runs now; under 'auto' it can change. */
  get monitor(): MonitorName {
    return this.#loop.closed ? this.#last.monitor : (this.#loop.native.monitor() as MonitorName)
  }

  /** Why this monitor runs, in words. */
  get monitorReason(): string {
    return this.#loop.closed ? this.#last.reason : this.#loop.native.monitorReason()
  }

  /** Registers handlers for a file descriptor; it stays the caller's to close, after removal. Replaces those it had. */
  setFdHandler(fd: FdLike, handlers: FdHandlers): Registration
  /** Removes the handlers of a file descriptor; nothing happens when there are none. */
  setFdHandler(fd: FdLike, handlers: null): void
  setFdHandler(fd: FdLike, handlers: FdHandlers | null): Registration | undefined {
    return setHandler(this.#loop, fd, handlers)
  }

  /** As `setFdHandler()`; to clear the notifier's counter is the handler's business. */
  setEventNotifier(notifier: EventNotifier, handlers: FdHandlers): Registration
  /** Removes the notifier's handlers. */
  setEventNotifier(notifier: EventNotifier, handlers: null): void
  setEventNotifier(notifier: EventNotifier, handlers: FdHandlers | null): Registration | undefined {
    if (!(notifier instanceof EventNotifier)) throw invalidArg('notifier', notifier, 'pass an EventNotifier')
    return setHandler(this.#loop, notifier, handlers)
  }

  /**
   * One turn: spins and sleeps until there is something to do, and does it. True = progress: a callback that is not idle
   * ran. What callbacks threw is thrown afterwards, several errors as an AggregateError. `poll(false)` does not wait.
   *
   * The turn may return in spin mode, with producers told not to signal: call it again soon, or `suspend()`. Meanwhile no
   * promise reaction, no timer of Node and no signal handler runs.
   */
  poll(blocking?: boolean): boolean {
    return this.#loop.turn(blocking === undefined || checkBoolean('blocking', blocking))
  }

  /**
   * Turns until the condition is true; it is asked before each turn. Also ends at `stop()` and when the context closes.
   * Meanwhile no promise reaction, no timer of Node and no signal handler runs, so none of them can make it true.
   */
  pollUntil(condition: () => boolean): void {
    pollUntil(this.#loop, condition)
  }

  /**
   * Turns until `stop()`, until the signal aborts, or for this long. Meanwhile no promise reaction, no timer of Node and no
   * signal handler runs: only a callback of this context can abort the signal (`AbortSignal.timeout()` never does), and
   * other threads end it with `AioContext.remote(id).stop()`.
   */
  run(options?: { signal?: AbortSignal; forNs?: number | bigint }): void {
    run(this.#loop, options)
  }

  /** Ends every `run()` and `pollUntil()` of this context that is under way, or else the next one. */
  stop(): void {
    const loop = this.#loop
    loop.open()
    loop.native.stop()
    loop.stopping = loop.loops > 0
    // From a predicate the turn itself must end too, before it sleeps.
    if (loop.hooks !== 0) loop.native.notify()
  }

  /** Leaves spin mode: `pollEnd` runs and producers signal again. For when no further turn follows soon. */
  suspend(): void {
    const loop = this.#loop
    loop.enter('suspend()')
    loop.withHooks(() => loop.native.suspend())
  }

  /**
   * One turn, then Node's own queues: promise reactions, timers and I/O of Node run before the promise is fulfilled.
   *
   * Attached, it waits without blocking for the next turn that makes progress, and rejects when the signal aborts; false =
   * the context was detached or closed. Otherwise the turn blocks this thread as `poll()` does, and it rejects with what
   * the turn threw, or with the reason of a signal that is aborted already.
   */
  async turn(options?: { signal?: AbortSignal }): Promise<boolean> {
    const given =
      options === undefined ? {} : checkObject('options', options, 'an object, for example { signal }')
    checkKeys('options.', given, ['signal'])
    const signal = checkSignal('options.signal', given['signal'])
    signal?.throwIfAborted()
    const loop = this.#loop
    loop.enter('turn()')
    if (loop.attached) return nextTurn(loop, signal)
    try {
      return loop.turn(true)
    } finally {
      await new Promise((resolve) => setImmediate(resolve))
    }
  }

  /** Runs a callback once, in the next turn. */
  schedule(callback: () => void): void {
    this.#loop.open()
    this.#loop.schedule(checkFunction('callback', callback, '() => {}'))
  }

  /** A callback that can be scheduled again and again, also from other threads. */
  bottomHalf(callback: () => void): BottomHalf {
    this.#loop.open()
    return BottomHalf.create(this.#loop, checkFunction('callback', callback, '() => {}'))
  }

  /** A one-shot timer, not armed yet. */
  timer(callback: () => void): Timer {
    this.#loop.open()
    return Timer.create(this.#loop, checkFunction('callback', callback, '() => {}'))
  }

  /** Ends the turn that waits, or the next one that would. */
  notify(): void {
    this.#loop.open()
    this.#loop.native.notify()
  }

  /**
   * Changes how the context spins; parameters that are left out keep their value. The spin state starts anew. Throws
   * when `kernelBusyPoll` cannot be had, and changes nothing then.
   */
  setPollParams(params: PollParams): void {
    const loop = this.#loop
    loop.open()
    const checked = checkPollParams('params', params ?? null)
    loop.withHooks(() => loop.native.setPollParams(checked))
  }

  /** Changes how the context does async I/O; parameters that are left out keep their value. */
  setAioParams(params: AioParams): void {
    const loop = this.#loop
    loop.open()
    loop.native.setAioParams(checkAioParams('params', params ?? null))
  }

  /** Silences handlers with `external: true`; counts. What happens on their fds arrives after the last enable. */
  disableExternal(): void {
    const loop = this.#loop
    loop.open()
    loop.withHooks(() => loop.native.disableExternal())
  }

  /** Takes one `disableExternal()` back. */
  enableExternal(): void {
    const loop = this.#loop
    loop.open()
    loop.withHooks(() => loop.native.enableExternal())
  }

  /**
   * For an outer loop: how many nanoseconds it may wait for `backendFd`; -1 = for ever, 0 = call `dispatch()` at once. Spins
   * first, within the window. Each call is followed by `check()`.
   */
  prepareNs(): number {
    const loop = this.#loop
    loop.enter('prepareNs()')
    refuseAttached(loop, 'prepareNs()')
    const base = loop.errors.length
    const ns = loop.observed(() => loop.native.prepare())
    return loop.defer(base) ? 0 : ns
  }

  /** For an outer loop, after its wait: whether `dispatch()` has something to do. */
  check(): boolean {
    const loop = this.#loop
    loop.enter('check()')
    refuseAttached(loop, 'check()')
    const base = loop.errors.length
    const ready = loop.observed(() => loop.native.check())
    return loop.defer(base) || ready
  }

  /** For an outer loop: the rest of the turn. True = progress. */
  dispatch(): boolean {
    refuseAttached(this.#loop, 'dispatch()')
    return this.#loop.dispatch()
  }

  /** For an outer loop: the descriptor to watch for readability. Stays the same, belongs to the context. */
  get backendFd(): number {
    const loop = this.#loop
    loop.open()
    return loop.observed(() => loop.native.backendFd())
  }

  /**
   * Joins Node's own event loop, in the main thread or a worker: from here on Node runs the turns, and callbacks run as
   * those of Node's own handles do: nextTicks and promise reactions after each turn, in the AsyncLocalStorage context of
   * their registration (`schedule()`: when it is called while attached), and what they throw is an uncaught exception.
   * `poll()` still works, inside callbacks and outside.
   *
   * While attached and not `unref()`ed it keeps the process alive as long as there is something to wait for: a handler, a
   * timer that is pending, a bottom half that is scheduled. It is not collected before `detach()` or `close()`. Under
   * `monitor: 'auto'` it runs on epoll. Attaching an attached context only applies the option.
   *
   * @param options - `ref: false` is the same as `unref()`
   * @throws FdmonError ERR_FDMON_UNSUPPORTED in Bun and Deno, whose loops are not libuv
   * @example
   * ```ts
   * import { AioContext } from 'fdmon'
   * import { timerfd } from 'fdmon/fd'
   *
   * const ctx = new AioContext({ poll: { maxNs: 200_000 } }).attach()
   * const clock = timerfd({ intervalNs: 10_000_000 })
   * ctx.setFdHandler(clock, {
   *   read() {
   *     console.log(`${clock.read()} tick`)
   *     ctx.close() // nothing else keeps the process alive
   *   },
   * })
   * ```
   */
  attach(options?: { ref?: boolean }): this {
    attach(this.#loop, options)
    return this
  }

  /** Leaves Node's event loop, and spin mode. What was found meanwhile runs in the next turn. */
  detach(): void {
    detach(this.#loop)
  }

  /** While attached it keeps the process alive when there is something to wait for. This is the default. */
  ref(): this {
    setReferenced(this.#loop, true)
    return this
  }

  /** It does not keep the process alive. */
  unref(): this {
    setReferenced(this.#loop, false)
    return this
  }

  /**
   * Reads from this position of the file until the buffer is full or the file ends: how many bytes. For files and block
   * devices; of pipes and sockets, a handler reads.
   *
   * Requests are handed to the kernel together: `aio.maxBatch` of them, at the end of `plug()`, or when a turn is about to
   * wait. Until the promise settles, keep the descriptor open and leave the buffer alone: do not transfer it.
   *
   * The promise settles in a turn, and its reactions run when JavaScript returns to Node: so this is for an attached
   * context. In `poll()` and `run()`, use `submitRead()`.
   *
   * @example
   * ```ts
   * import { defaultContext } from 'fdmon'
   * import { openSync } from 'node:fs'
   *
   * const fd = openSync('package.json', 'r')
   * const reads = [0, 64, 128].map((position) => defaultContext().read(fd, Buffer.alloc(64), position))
   * console.log(await Promise.all(reads)) // [ 64, 64, 64 ]
   * ```
   */
  read(fd: FdLike, buffer: NodeJS.ArrayBufferView, position: number | bigint, options?: IoOptions): Promise<number> {
    return this.#loop.io.transfer(false, fd, buffer, position, options)
  }

  /** Writes the whole buffer to the file, from this position on: how many bytes. Otherwise as `read()`. */
  write(fd: FdLike, buffer: NodeJS.ArrayBufferView, position: number | bigint, options?: IoOptions): Promise<number> {
    return this.#loop.io.transfer(true, fd, buffer, position, options)
  }

  /** `read()` into several buffers, one after the other. */
  readv(
    fd: FdLike,
    buffers: readonly NodeJS.ArrayBufferView[],
    position: number | bigint,
    options?: IoOptions,
  ): Promise<number> {
    return this.#loop.io.transferAll(false, fd, buffers, position, options)
  }

  /** `write()` of several buffers, one after the other. */
  writev(
    fd: FdLike,
    buffers: readonly NodeJS.ArrayBufferView[],
    position: number | bigint,
    options?: IoOptions,
  ): Promise<number> {
    return this.#loop.io.transferAll(true, fd, buffers, position, options)
  }

  /** What was written to the file, and whose end was heard of before this call, reaches the disk. */
  fsync(fd: FdLike, options?: IoOptions): Promise<void> {
    return this.#loop.io.sync(false, fd, options)
  }

  /** `fsync()` less the attributes that reading does not need, such as times. */
  fdatasync(fd: FdLike, options?: IoOptions): Promise<void> {
    return this.#loop.io.sync(true, fd, options)
  }

  /**
   * `read()` with a callback, which is called within a turn: before the bottom halves and handlers that are due there.
   *
   * @example
   * ```ts
   * import { AioContext } from 'fdmon'
   * import { openSync } from 'node:fs'
   *
   * using ctx = new AioContext()
   * const buffer = Buffer.alloc(16)
   * ctx.submitRead(openSync('package.json', 'r'), buffer, 0, (error, bytes) => {
   *   if (error !== null) throw error
   *   console.log(bytes) // 16
   *   ctx.stop()
   * })
   * ctx.run()
   * ```
   */
  submitRead(fd: FdLike, buffer: NodeJS.ArrayBufferView, position: number | bigint, done: IoCallback): void {
    this.#loop.io.submit(false, fd, buffer, position, done)
  }

  /** `write()` with a callback. */
  submitWrite(fd: FdLike, buffer: NodeJS.ArrayBufferView, position: number | bigint, done: IoCallback): void {
    this.#loop.io.submit(true, fd, buffer, position, done)
  }

  /** `readv()` with a callback. */
  submitReadv(
    fd: FdLike,
    buffers: readonly NodeJS.ArrayBufferView[],
    position: number | bigint,
    done: IoCallback,
  ): void {
    this.#loop.io.submitAll(false, fd, buffers, position, done)
  }

  /** `writev()` with a callback. */
  submitWritev(
    fd: FdLike,
    buffers: readonly NodeJS.ArrayBufferView[],
    position: number | bigint,
    done: IoCallback,
  ): void {
    this.#loop.io.submitAll(true, fd, buffers, position, done)
  }

  /** `fsync()` with a callback; its number of bytes is 0. */
  submitFsync(fd: FdLike, done: IoCallback): void {
    this.#loop.io.submitSync(false, fd, done)
  }

  /** `fdatasync()` with a callback; its number of bytes is 0. */
  submitFdatasync(fd: FdLike, done: IoCallback): void {
    this.#loop.io.submitSync(true, fd, done)
  }

  /**
   * Runs a section and submits at once what it has asked for, up to its first `await`. Sections nest: the outermost
   * submits. Callbacks of `submit…` run within one, so what they ask for goes with the turn's next wait.
   *
   * @example
   * ```ts
   * import { defaultContext } from 'fdmon'
   * import { openSync } from 'node:fs'
   *
   * const ctx = defaultContext()
   * const fd = openSync('package.json', 'r')
   * const reads = ctx.plug(() => [0, 64].map((position) => ctx.read(fd, Buffer.alloc(64), position)))
   * await Promise.all(reads)
   * console.log(ctx.stats().submissions) // 1
   * ```
   */
  plug<T>(section: () => T): T {
    return this.#loop.io.plug(section)
  }

  /**
   * Writes what the context does from now on to a file for [Perfetto](https://ui.perfetto.dev) or chrome://tracing: turns,
   * spins with their window, result and rounds, sleeps with their timeout and what was ready, callbacks by handler, wake-ups
   * by other threads, batches of file I/O. It ends with `stop()`, or with the context.
   *
   * Contexts whose traces name the same file share it, a track each, also those of other workers; `%p` in the name stands
   * for the number of the process. The environment variable `FDMON_TRACE` names a file for all contexts of a process. A
   * child process that finds that file in use writes `name.<pid>.json`.
   *
   * An event costs some 460 instructions (docs/TRACES.md): two readings of the clock, a record, and its share of what turns
   * take more, which do all their steps; each callback in JavaScript makes two calls into native code besides. A thread of
   * its own writes the file. Without a trace nothing costs anything.
   *
   * @throws FdmonError ERR_FDMON_IN_USE when the context is traced already or another process writes the file;
   *   ERR_FDMON_SYSCALL when it cannot be opened; ERR_FDMON_UNSUPPORTED in a WebAssembly build
   * @example
   * ```ts
   * import { AioContext } from 'fdmon'
   * import { tmpdir } from 'node:os'
   *
   * using ctx = new AioContext()
   * const trace = ctx.trace(`${tmpdir()}/trace-%p.json`)
   * ctx.schedule(() => {})
   * ctx.poll()
   * trace.stop()
   * console.log(trace.dropped) // 0
   * ```
   */
  trace(file: string | URL, options?: TraceOptions): Trace {
    return startTrace(this.#loop, file, options)
  }

  /** What the context has done so far. */
  stats(): ContextStats {
    this.#loop.open()
    return this.#loop.native.stats()
  }

  /**
   * Releases everything and says what was still alive. Inside a callback it stops all further callbacks at once. Closing a
   * closed context does nothing.
   *
   * Requests of file I/O are cancelled, or waited for where they cannot be: each promise settles and each callback of
   * `submit…` runs, with ERR_FDMON_CLOSED for what was cancelled.
   */
  close(): LeakReport {
    const loop = this.#loop
    if (loop.closed) return { handlers: 0, bottomHalves: 0, timers: 0, io: 0 }
    this.#last = { monitor: this.monitor, reason: this.monitorReason }
    return loop.close()
  }

  /** The same as `close()`. */
  [Symbol.dispose](): void {
    this.close()
  }

  /** @internal */
  [inspect.custom](depth: number, options: InspectOptions): string {
    const loop = this.#loop
    const shown = {
      id: this.id,
      name: this.name,
      monitor: this.monitor,
      reason: this.monitorReason,
      handlers: loop.handlers.size,
      mode: loop.closed ? 'closed' : loop.depth > 0 || loop.loops > 0 ? 'running' : loop.attached ? 'attached' : 'idle',
    }
    return depth < 0 ? '[AioContext]' : `AioContext ${inspect(shown, options)}`
  }
}
