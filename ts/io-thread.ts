// I/O threads, as the thread that starts them has them. What runs in them is io-thread-worker.ts.
import { existsSync } from 'node:fs'
import { isAbsolute, join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { inspect, types } from 'node:util'
import { MessageChannel, receiveMessageOnPort, Worker, type MessagePort, type Transferable, type WorkerOptions } from 'node:worker_threads'
import { needLibuv } from './attach.js'
import { checkKeys, checkObject } from './check.js'
import type { AioContext, ContextStats } from './context.js'
import { FdmonError, invalidArg, unsupported } from './errors.js'
import { native } from './native.js'
import { checkContext, CONTEXT_KEYS, type AioParams, type MonitorName, type PollParams, type RingParams } from './options.js'
import { openRemote, type Remote } from './remote.js'

/** The longest spin of an I/O thread, unless told otherwise. */
const MAX_NS = 32_768

const WORKER = 'io-thread-worker.js'

/** The file that the thread begins with; it is a module of its own, so a bundle does not have it. */
function findBootstrap(): string {
  // A bundle of ES modules has no such name.
  const path = typeof __dirname === 'string' ? join(__dirname, WORKER) : undefined
  if (path !== undefined && existsSync(path)) return path
  throw unsupported(`an IoThread begins with the file ${WORKER} of the package, which is not in this bundle; leave fdmon out of the bundle (external)`)
}

/** What a Worker takes besides, in any version of Node. */
const WORKER_KEYS = [
  'argv',
  'env',
  'eval',
  'execArgv',
  'resourceLimits',
  'stderr',
  'stdin',
  'stdout',
  'trackUnmanagedFds',
  'transferList',
  'workerData',
]

/**
 * Options of `new IoThread()`: those of its context, and those of Node's `Worker` less `eval`.
 *
 * @example
 * ```ts
 * import { IoThread, type IoThreadOptions } from 'fdmon'
 *
 * const options: IoThreadOptions = { name: 'sensors', poll: { maxNs: 10_000 }, workerData: { device: 'can0' } }
 * const module = new URL('data:text/javascript,console.log("a module of its own")')
 * await using thread = new IoThread(module, options)
 * await thread.ready()
 * ```
 */
export interface IoThreadOptions extends WorkerOptions {
  /** Of the thread, and of its context. @default `io-thread-<id>`, of the context */
  name?: string
  /** Which monitor; of 'auto', FDMON_MONITOR in the thread's environment decides, else an attached context has epoll. @default 'auto' */
  monitor?: 'auto' | MonitorName
  /** How to spin; where it is not given, FDMON_POLL in the environment of the maker decides. `maxNs` is 32768 by default. */
  poll?: PollParams
  /** How to do async I/O. */
  aio?: AioParams
  /** What kind of io_uring ring to make, or none. */
  ring?: RingParams
}

/** @internal What the worker is given in place of the user's `workerData`. */
export interface Boot {
  id: number
  module: string
  context: { name: string; monitor: 'auto' | MonitorName; ring: RingParams }
  port: MessagePort
  workerData: unknown
}

/** @internal What it says: by which bottom half it is stopped, and that its module is evaluated. */
export type Word = { half: number } | 'ready'

/**
 * A worker thread whose event loop has an attached context. Its parameters change and its statistics are read from
 * outside while it runs.
 *
 * The module is a file or URL as for `new Worker()`, CommonJS or ESM. It finds its context with {@link currentContext}, and
 * has everything else that a module in a Worker has: `parentPort`, its own `workerData`, timers, promises. The thread
 * lives until {@link IoThread.stop}, also when it has nothing to do; it may end by itself when the module calls
 * `currentContext().unref()` or closes the context.
 *
 * What the thread throws is told to those who wait for {@link IoThread.ready} or {@link IoThread.stop}, and is the event
 * 'error' of `worker`. If nobody listens it is an uncaught exception here, as of any Worker. Then its context is
 * closed, and what asks for it fails with ERR_FDMON_CLOSED.
 *
 * @example
 * ```ts
 * import { IoThread } from 'fdmon'
 *
 * // A module of its own in earnest: new URL('./ticks.mjs', import.meta.url), which imports 'fdmon'.
 * const ticks = `
 *   import { createRequire } from 'node:module'
 *   const { currentContext } = createRequire(${JSON.stringify(import.meta.url)})('fdmon')
 *   const timer = currentContext().timer(() => timer.arm(1_000_000))
 *   timer.arm(1_000_000)`
 * await using thread = new IoThread(new URL(`data:text/javascript,${encodeURIComponent(ticks)}`), { poll: { maxNs: 50_000 } })
 * await thread.ready()
 * thread.setPollParams({ maxNs: 0 }) // while it runs
 * while (thread.stats().events < 3) await new Promise((resolve) => setTimeout(resolve, 1))
 * console.log('three ticks in another thread')
 * ```
 */
export class IoThread implements AsyncDisposable {
  /** The id of its context, known before the thread has it: `AioContext.remote(id)` works from any thread, at once. */
  readonly contextId: number
  /** The worker: messages, its events, `terminate()`, `unref()`. */
  readonly worker: Worker
  readonly #name: string
  readonly #remote: Remote
  /** Of the context as long as the thread has not built it. */
  readonly #reservation: InstanceType<typeof native.NativeReservation>
  readonly #port: MessagePort
  readonly #ready = withResolvers()
  readonly #over = withResolvers()
  /** The bottom half that stops it, once there is one. */
  #half: number | undefined
  #state: 'starting' | 'ready' | 'ended' = 'starting'
  #stopping = false
  #awaited = false
  /** What it died of. */
  #failure: { error: unknown; told: boolean } | undefined

  /**
   * Starts the thread.
   *
   * @param module - as for `new Worker()`: a path that is absolute or begins with ./ or ../ (from the working directory), or a
   * URL with file: or data:
   * @throws FdmonError ERR_FDMON_UNSUPPORTED in Bun and Deno, whose loops are not libuv, and in a bundle, which has not the file
   * that the thread begins with
   */
  constructor(module: URL | string, options?: IoThreadOptions) {
    const url = checkModule(module)
    const given = options === undefined ? {} : checkObject('options', options, 'an object, for example { workerData }')
    checkKeys('options.', given, [...CONTEXT_KEYS, ...WORKER_KEYS])
    if (given['eval'] !== undefined && given['eval'] !== false) {
      throw invalidArg('options.eval', given['eval'], "leave it out; pass the code as new URL('data:text/javascript,…') or as a file")
    }
    const { monitor, name, poll, aio, ring } = checkContext(given)
    needLibuv('an IoThread')
    const bootstrap = findBootstrap()
    const reservation = new native.NativeReservation(name, { maxNs: MAX_NS, ...poll }, aio)
    const { port1, port2 } = new MessageChannel()
    const id = reservation.id
    const boot: Boot = {
      id,
      module: url,
      context: { name: name === '' ? `io-thread-${id}` : name, monitor: monitor as 'auto' | MonitorName, ring },
      port: port2,
      workerData: given['workerData'],
    }
    const passed = Object.fromEntries(Object.entries(given).filter(([key]) => key === 'name' || WORKER_KEYS.includes(key)))
    const transferList = [...((given['transferList'] as Transferable[] | undefined) ?? []), port2]
    try {
      this.worker = new Worker(bootstrap, { ...passed, workerData: boot, transferList })
    } catch (error) {
      reservation.release()
      port1.close()
      throw error
    }
    this.contextId = id
    this.#name = boot.context.name
    this.#reservation = reservation
    this.#remote = openRemote(id)
    this.#port = port1
    // Whoever waits is told; that nobody does is no mistake.
    this.#ready.promise.catch(() => {})
    port1.on('message', (word: Word) => this.#heard(word)).unref()
    this.worker.on('error', (error) => this.#failed(error)).on('exit', (code) => this.#ended(code))
  }

  /**
   * Resolves when the module has been evaluated, with its top-level `await`s. Rejects when the thread ends before that: with
   * what it threw, or with ERR_FDMON_CLOSED. It may be called at any time, also when it is over.
   */
  ready(): Promise<void> {
    if (this.#state === 'starting') this.#awaited = true
    return this.#ready.promise.then(() => {})
  }

  /**
   * Changes how its context spins, from its next turn on; while the thread starts, how it will begin. When `kernelBusyPoll`
   * cannot be had, that turn throws, in the thread.
   */
  setPollParams(params: PollParams): void {
    this.#open().setPollParams(params)
  }

  /** Changes how its context does async I/O, likewise. */
  setAioParams(params: AioParams): void {
    this.#open().setAioParams(params)
  }

  /** The statistics of its context as they are now. While the thread starts they are all zero, and `monitorReason` says so. */
  stats(): ContextStats {
    return this.#open().stats()
  }

  /**
   * Ends the thread, and resolves when it has ended. In the thread, after what was asked of the context before: a `run()` or
   * `pollUntil()` that is under way ends; the context closes, which ends its registrations and file I/O; promise
   * reactions run; then the thread ends as by `process.exit()`, with its 'exit' listeners. Other things that the module has
   * under way end with it: let it finish them before. A rejection with ERR_FDMON_CLOSED that this causes and nobody
   * handles is no failure.
   *
   * Code of the module that does not return is waited for; `worker.terminate()` ends that. A second call waits for the
   * same end.
   *
   * Rejects when the thread died and nobody was told: with what it threw, or with ERR_FDMON_CLOSED if it had ended by itself
   * with an exit code other than 0. It is told once.
   */
  async stop(): Promise<void> {
    if (!this.#stopping && this.#state !== 'ended') {
      this.#stopping = true
      // The message for a thread that has not come so far, has detached or closed its context; the bottom half for one that
      // is in a loop of the context, which no message reaches.
      this.#port.postMessage('stop')
      this.#drain()
      this.#scheduleStop()
    }
    await this.#over.promise
    const failure = this.#failure
    if (failure === undefined || failure.told) return
    failure.told = true
    throw failure.error
  }

  /** The same as `stop()`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.stop()
  }

  /** @internal */
  [inspect.custom](): string {
    const state = this.#stopping && this.#state !== 'ended' ? 'stopping' : this.#state
    return `IoThread { name: '${this.#name}', contextId: ${this.contextId}, state: '${state}' }`
  }

  #open(): Remote {
    if (this.#state !== 'ended') return this.#remote
    throw this.#closed('has ended; start a new one', this.#failure?.error)
  }

  #heard(word: Word): void {
    if (word !== 'ready') {
      this.#half = word.half
    } else if (this.#state === 'starting') {
      this.#state = 'ready'
      this.#ready.resolve()
    }
  }

  /** What the thread has said and no event has brought yet. */
  #drain(): void {
    for (;;) {
      const received = receiveMessageOnPort(this.#port) as { message: Word } | undefined
      if (received === undefined) return
      this.#heard(received.message)
    }
  }

  #scheduleStop(): void {
    if (this.#half === undefined) return
    try {
      this.#remote.schedule(this.#half)
    } catch (error) {
      // The module has closed its context: the message does.
      if (!(error instanceof FdmonError)) throw error
    }
  }

  #failed(error: unknown): void {
    this.#drain()
    const told = (this.#awaited && this.#state === 'starting') || this.worker.listenerCount('error') > 1
    this.#failure = { error: revived(error), told }
    if (told || this.#stopping) return
    this.#failure.told = true
    throw error // as an event 'error' without listeners
  }

  #ended(code: number): void {
    this.#drain()
    const early = this.#state === 'starting'
    this.#state = 'ended'
    this.#reservation.release()
    this.#remote.release()
    this.#port.close()
    if (this.#failure === undefined && this.#stopping) {
      this.#ready.reject(this.#closed('was stopped before its module was evaluated; await ready() before stop()'))
    } else {
      const when = early ? ' before its module was evaluated' : ''
      const what = `ended by itself${when}, with exit code ${code}; look for process.exit() in its module, or for worker.terminate()`
      if (early || code !== 0) this.#failure ??= { error: this.#closed(what), told: early && this.#awaited }
      this.#ready.reject(this.#failure?.error)
    }
    this.#over.resolve()
  }

  #closed(what: string, cause?: unknown): FdmonError {
    return new FdmonError('ERR_FDMON_CLOSED', `IoThread '${this.#name}' ${what}`, { cause })
  }
}

/** What the module of an I/O thread runs in. Of this thread. */
let current: AioContext | undefined

/** @internal For io-thread-worker.ts. */
export function setCurrentContext(ctx: AioContext): void {
  current = ctx
}

/**
 * The context of the {@link IoThread} that this code runs in: in its module and everything that this loads. It is attached.
 *
 * @throws FdmonError ERR_FDMON_WRONG_THREAD in any other thread, also in a Worker that an I/O thread has started
 * @example
 * ```ts
 * import { currentContext, FdmonError } from 'fdmon'
 *
 * try {
 *   currentContext()
 * } catch (error) {
 *   if (error instanceof FdmonError) console.log(error.code) // ERR_FDMON_WRONG_THREAD: this is the main thread
 * }
 * ```
 */
export function currentContext(): AioContext {
  if (current !== undefined) return current
  throw new FdmonError(
    'ERR_FDMON_WRONG_THREAD',
    'currentContext() was called in a thread that is no IoThread, or in another copy of fdmon than the one that started it; ' +
      'call it in the module of new IoThread(module), and elsewhere use defaultContext() or new AioContext()',
  )
}

/** The module as a URL, by the rules of `new Worker()`. */
function checkModule(module: unknown): string {
  if (module instanceof URL) {
    if (module.protocol === 'file:' || module.protocol === 'data:') return module.href
    throw invalidArg('module', module.href, 'pass a URL with file: or data:')
  }
  if (typeof module === 'string' && !module.includes('\0') && (isAbsolute(module) || /^\.\.?\//.test(module))) {
    return pathToFileURL(resolve(module)).href
  }
  throw invalidArg('module', module, 'pass a path that is absolute or begins with ./ or ../, or a URL: new URL(…, import.meta.url)')
}

/** What another thread threw comes as an object that only looks like an error, and those of fdmon have lost their class. */
function revived(error: unknown): unknown {
  if (!(error instanceof Error) || error instanceof FdmonError) return error
  const own = Object.getOwnPropertyDescriptors(error)
  const ours = String(own['code' as keyof typeof own]?.value).startsWith('ERR_FDMON_')
  if (types.isNativeError(error) && !ours) return error
  const prototype: unknown = ours ? FdmonError.prototype : Object.getPrototypeOf(error)
  return Object.setPrototypeOf(Object.defineProperties(new Error(), own), prototype as object)
}

function withResolvers(): { promise: Promise<void>; resolve: () => void; reject: (error: unknown) => void } {
  let resolve!: () => void
  let reject!: (error: unknown) => void
  const promise = new Promise<void>((yes, no) => ([resolve, reject] = [yes, no]))
  return { promise, resolve, reject }
}
