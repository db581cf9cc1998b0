// For most users: handlers, and readiness to wait for, on a context that is attached to Node's loop.
import { attach } from './attach.js'
import type { Loop } from './batch.js'
import { checkBoolean, checkKeys, checkObject, checkSignal } from './check.js'
import { AioContext, loopOf } from './context.js'
import { invalidArg } from './errors.js'
import { fdOf, type FdLike } from './fd-like.js'
import { checkHandlers, Events, register, type FdHandlers } from './handlers.js'
import { native } from './native.js'
import { FdRegistration, type Registration } from './registration.js'
import { Slot } from './slot.js'

let shared: AioContext | undefined

/** @internal The context of an I/O thread is also its default one. */
export function setDefaultContext(ctx: AioContext): void {
  shared = ctx
}

/**
 * The context that {@link watch} and {@link readable} use: attached to Node's loop, made at first use, one for the main
 * thread and each worker. It keeps the process alive only while something is registered with it. In an `IoThread` it is
 * the thread's own: `currentContext()`.
 *
 * @throws FdmonError ERR_FDMON_UNSUPPORTED in Bun and Deno, whose loops are not libuv
 * @example
 * ```ts
 * import { defaultContext } from 'fdmon'
 *
 * defaultContext().setPollParams({ maxNs: 200_000 }) // let it spin
 * console.log(defaultContext().monitor)
 * ```
 */
export function defaultContext(): AioContext {
  if (shared !== undefined && !loopOf(shared).closed) return shared
  const ctx = new AioContext({ name: 'default' })
  try {
    ctx.attach()
  } catch (error) {
    ctx.close()
    throw error
  }
  shared = ctx
  return ctx
}

/**
 * Calls handlers when a file descriptor is ready, in Node's own event loop. One call for most users.
 *
 * An fd has one set of handlers in a context: a second `watch()` or `readable()` of it ends the first, so pass `read` and
 * `write` in one call. Remove them before closing the fd: nobody tells the loop that it is closed.
 *
 * @param fd - stays the caller's to close, after the registration was removed
 * @param handlers - as for `setFdHandler()`; those that the fd had in this context are replaced
 * @param options - `context`: which context, attached if it is not yet; default is {@link defaultContext}. `signal`: removes
 * the handlers when it aborts; nothing is registered with one that is aborted already. `ref: false`: the process may end while they are registered
 * @returns what removes the handlers again
 * @throws FdmonError ERR_FDMON_UNSUPPORTED in Bun and Deno, whose loops are not libuv
 * @example
 * ```ts
 * import { watch } from 'fdmon'
 * import { timerfd } from 'fdmon/fd'
 *
 * const clock = timerfd({ intervalNs: 1_000_000 })
 * const registration = watch(clock, {
 *   read() {
 *     console.log(`${clock.read()} ms`)
 *     registration.remove()
 *     clock.close()
 *   },
 * })
 * ```
 */
export function watch(
  fd: FdLike,
  handlers: FdHandlers,
  options?: { context?: AioContext | undefined; signal?: AbortSignal | undefined; ref?: boolean | undefined },
): Registration {
  const given = options === undefined ? {} : checkObject('options', options, 'an object, for example { signal }')
  checkKeys('options.', given, ['context', 'signal', 'ref'])
  const signal = checkSignal('options.signal', given['signal'])
  const ref = given['ref'] === undefined || checkBoolean('options.ref', given['ref'])
  return add(attachedLoop(given['context']), fd, handlers, signal, ref, () => {})
}

/**
 * Waits for a file descriptor to be readable: each step of the iteration is one time that it is, with the event mask. What
 * there is must be read before the next step, or it comes at once. An error that is pending, ECONNRESET say, is a step of its
 * own: `read()` throws it.
 *
 * Ends when the other side has hung up and all is read, when the signal aborts (without an AbortError: look at
 * `signal.aborted`), and when the fd's handlers are removed, replaced or closed with their context; not when the fd is closed
 * under it: break first. A socket whose other side only sends no more (shutdown(2), `socket.end()`) has not hung up: `read()`
 * gives 0 there, at each step; break then.
 *
 * @param options - `context`: which context, attached if it is not yet; default is {@link defaultContext}
 * @throws FdmonError ERR_FDMON_UNSUPPORTED in Bun and Deno, whose loops are not libuv
 * @example
 * ```ts
 * import { readable } from 'fdmon'
 * import { timerfd } from 'fdmon/fd'
 *
 * using clock = timerfd({ intervalNs: 1_000_000 })
 * let ticks = 0n
 * for await (const _events of readable(clock)) {
 *   ticks += clock.read()
 *   if (ticks >= 3n) break
 * }
 * console.log('three ticks')
 * ```
 */
export function readable(
  fd: FdLike,
  options?: { context?: AioContext | undefined; signal?: AbortSignal | undefined },
): AsyncIterable<number> {
  const given = options === undefined ? {} : checkObject('options', options, 'an object, for example { signal }')
  checkKeys('options.', given, ['context', 'signal'])
  const signal = checkSignal('options.signal', given['signal'])
  fdOf('fd', fd)
  const loop = attachedLoop(given['context'])
  return { [Symbol.asyncIterator]: () => new Readiness(loop, fd, signal) }
}

/** One iteration. Interest is given up when an event finds nobody waiting, so that a slow consumer costs no turns. */
class Readiness implements AsyncIterator<number, undefined> {
  readonly #registration: Registration
  readonly #waiting: ((result: IteratorResult<number, undefined>) => void)[] = []
  #interested = true
  /** The last step was one for an error. */
  #failed = false
  #over = false

  constructor(loop: Loop, fd: FdLike, signal: AbortSignal | undefined) {
    const read = (number: number, events: number): void => this.#ready(number, events)
    this.#registration = add(loop, fd, { read }, signal, true, () => this.#end())
    if (signal?.aborted === true) this.#end()
  }

  next(): Promise<IteratorResult<number, undefined>> {
    if (this.#over) return Promise.resolve({ done: true, value: undefined })
    return new Promise((resolve) => {
      this.#waiting.push(resolve)
      this.#want(true)
    })
  }

  return(): Promise<IteratorResult<number, undefined>> {
    this.#registration.remove()
    this.#end()
    return Promise.resolve({ done: true, value: undefined })
  }

  #ready(fd: number, events: number): void {
    const resolve = this.#waiting.shift()
    if (resolve === undefined) {
      this.#want(false)
      return
    }
    // An error is a step of its own, so that read() throws it: a stream that was cut off must not look like one that ended.
    const failed = (events & Events.ERR) !== 0 && !this.#failed
    const hungUp = (events & Events.HUP) !== 0 && native.fdPending(fd) <= 0
    if (failed || ((events & Events.IN) !== 0 && !hungUp)) {
      this.#failed = failed
      resolve({ done: false, value: events })
    } else {
      resolve({ done: true, value: undefined })
      this.#registration.remove()
    }
  }

  #want(on: boolean): void {
    if (this.#interested === on) return
    this.#interested = on
    this.#registration.setInterest({ read: on })
  }

  #end(): void {
    this.#over = true
    for (const resolve of this.#waiting.splice(0)) resolve({ done: true, value: undefined })
  }
}

/** Registers, until the signal aborts. `gone` is called when the handlers are, whoever removed them. */
function add(
  loop: Loop,
  fd: FdLike,
  handlers: unknown,
  signal: AbortSignal | undefined,
  keeps: boolean,
  gone: () => void,
): Registration {
  const slot = new Slot()
  slot.keeps = keeps
  if (signal?.aborted === true) {
    slot.fd = fdOf('fd', fd)
    checkHandlers(handlers)
    slot.live = false
    return new FdRegistration(loop, slot)
  }
  const registration = register(loop, fd, handlers, slot)
  const abort = (): void => registration.remove()
  slot.gone = () => {
    signal?.removeEventListener('abort', abort)
    gone()
  }
  signal?.addEventListener('abort', abort, { once: true })
  return registration
}

function attachedLoop(context: unknown): Loop {
  if (context !== undefined && !(context instanceof AioContext)) {
    throw invalidArg('options.context', context, 'pass an AioContext, or leave it out for defaultContext()')
  }
  const loop = loopOf(context ?? defaultContext())
  loop.open()
  if (!loop.attached) attach(loop, undefined)
  return loop
}
