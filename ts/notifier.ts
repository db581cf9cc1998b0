// A wake-up as a descriptor, for other threads and for word conditions that need a doorbell.
import { inspect } from 'node:util'
import { checkInteger, checkKeys, checkObject } from './check.js'
import { closed, invalidArg } from './errors.js'
import { failed } from './fd/fd.js'
import { fdHot, native, wasi } from './native.js'

/** What a handle says that it is. */
export const TYPE = 'fdmon.EventNotifier'
/** Says to the constructor that the number is an eventfd already; no option of a caller can be this object. */
const adopted = new WeakMap<object, number>()

/**
 * What goes to another thread: plain data that `postMessage` and `workerData` copy. It names the sender's descriptor, so
 * the sender keeps its notifier open until {@link EventNotifier.from} has run there.
 *
 * @example
 * ```ts
 * import { EventNotifier, type EventNotifierHandle } from 'fdmon'
 *
 * using notifier = new EventNotifier()
 * const handle: EventNotifierHandle = structuredClone(notifier.handle)
 * using twin = EventNotifier.from(handle)
 * twin.set()
 * console.log(notifier.testAndClear()) // true
 * ```
 */
export interface EventNotifierHandle {
  /** What this is: `'fdmon.EventNotifier'`. */
  readonly type: string
  /** The process that it belongs to; a number means nothing in another. */
  readonly pid: number
  /** The sender's descriptor. */
  readonly fd: number
  /** The kernel's number of the eventfd, by which a reused descriptor is found out; -1 = unknown. */
  readonly id: number
  /** Of a WebAssembly build: the word that both sides use. */
  readonly memory?: SharedArrayBuffer
}

/**
 * A counter in the kernel with a descriptor (eventfd(2)): set in one thread, it makes the descriptor readable in another.
 *
 * @example
 * ```ts
 * import { AioContext, EventNotifier } from 'fdmon'
 *
 * using ctx = new AioContext()
 * using notifier = new EventNotifier()
 * let rings = 0
 * ctx.setEventNotifier(notifier, { read: () => void (rings += notifier.testAndClear() ? 1 : 0) })
 * notifier.set()
 * ctx.pollUntil(() => rings === 1)
 * ctx.setEventNotifier(notifier, null)
 * ```
 */
export class EventNotifier implements Disposable {
  #fd: number

  /**
   * Makes an eventfd, close-on-exec and non-blocking.
   *
   * @param options - `value`: the counter's first value, 0 by default; anything else is set already
   */
  constructor(options: { value?: number } = {}) {
    const fd = adopted.get(checkObject('options', options, 'an object, for example { value: 1 }'))
    if (fd === undefined) {
      checkKeys('', options, ['value'])
      const value = options.value === undefined ? 0 : checkInteger('value', options.value, 0, 0xffff_ffff)
      this.#fd = native.eventfdCreate(value)
    } else {
      this.#fd = fd
    }
  }

  /** The number, or -1 once closed. */
  get fd(): number {
    return this.#fd
  }

  /** What to send to another thread for {@link EventNotifier.from}; keep this notifier open until it has run there. */
  get handle(): EventNotifierHandle {
    const fd = this.#open()
    const handle = { type: TYPE, pid: process.pid, fd, id: native.eventfdId(fd) }
    return wasi === null ? handle : { ...handle, memory: wasi.notifiers.share(fd) }
  }

  /** A notifier for the same counter, with a descriptor of its own made at once: each side closes its own. */
  static from(handle: EventNotifierHandle): EventNotifier {
    const { type, pid, fd, id, memory } = checkObject('handle', handle, 'the handle of an EventNotifier') as Partial<EventNotifierHandle>
    if (type !== TYPE) throw invalidArg('handle', handle, 'pass the handle of an EventNotifier')
    const theirs = checkInteger('handle.fd', fd, 0, 0x7fff_ffff)
    const identity = checkInteger('handle.id', id, -1, 0x7fff_ffff)
    if (pid !== process.pid) {
      throw invalidArg('handle.pid', pid, `a handle works in its own process only, and this one is ${process.pid}: make the notifier here`)
    }
    const options = {}
    adopted.set(options, wasi === null ? native.eventfdDuplicate(theirs, identity) : wasi.notifiers.adopt(memory))
    return new EventNotifier(options)
  }

  /** Adds 1 to the counter: the descriptor becomes readable, for everybody who has it. */
  set(): void {
    const fd = this.#open()
    const result = fdHot.set(fd)
    if (result < 0) throw failed('write', result, 'fd', fd)
  }

  /** Sets the counter to 0; true if it was not 0. */
  testAndClear(): boolean {
    const fd = this.#open()
    const result = fdHot.testAndClear(fd)
    if (result < 0) throw failed('read', result, 'fd', fd)
    return result === 1
  }

  /**
   * Closes this side's descriptor; closing it again does nothing. Remove its handler first. One that a worker leaves open is
   * closed when the worker ends.
   */
  close(): void {
    const fd = this.#fd
    if (fd < 0) return
    this.#fd = -1
    const result = native.fdClose(fd)
    if (result < 0) throw failed('close', result, 'fd', fd)
  }

  /** {@link EventNotifier.close}, for `using`. */
  [Symbol.dispose](): void {
    this.close()
  }

  /** @internal */
  [inspect.custom](): string {
    return `EventNotifier { ${this.#fd < 0 ? 'closed' : `fd: ${this.#fd}`} }`
  }

  #open(): number {
    if (this.#fd < 0) throw closed('EventNotifier', 'make a new one')
    return this.#fd
  }
}
