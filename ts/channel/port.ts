// A port as users have it: what is checked, what waits, and in which loop.
import { inspect } from 'node:util'
import { checkFunction, checkKeys, checkObject, checkSignal } from '../check.js'
import { AioContext, loopOf } from '../context.js'
import { closed, FdmonError, invalidArg } from '../errors.js'
import type { IoOptions } from '../file-io.js'
import { wasi } from '../native.js'
import { refused } from '../wasi/binding.js'
import { defaultContext } from '../watch.js'
import { Inbox } from './inbox.js'
import { Link, type ChannelEnd } from './link.js'
import { handleOf, partsOf, type ChannelHandle, type Parts } from './parts.js'

/** Tells two ports of each other. */
export let pair: (one: ChannelPort, other: ChannelPort) => void

/** Only this package makes ports, by `new Channel()` and `ChannelPort.from()`. */
export const OWN = Symbol('made by Channel')

/**
 * What {@link ChannelPort.listen} tells besides messages; all of it runs within turns of its context.
 *
 * @example
 * ```ts
 * import { AioContext, Channel, type ChannelEvents } from 'fdmon'
 *
 * using ctx = new AioContext()
 * const { port1, port2 } = new Channel()
 * const events: ChannelEvents = { closed: (end) => console.log(end) } // closed
 * port1.listen(ctx, (message) => console.log(message.length), events) // 3
 * port2.send(new Uint8Array(3))
 * port2.close()
 * ctx.poll()
 * port1.close()
 * ```
 */
export interface ChannelEvents {
  /** A `send()` returned false, and now there is room: half of the ring, or what that message needs. */
  drain?(): void
  /**
   * The other side closed or died, or the memory makes no sense; all that it had sent was given out before. Also from within
   * `close()` of this side, at once.
   */
  closed?(end: 'closed' | 'peer-died' | 'corrupt'): void
}

/** A message that waits for room. */
interface Sending {
  readonly message: Uint8Array
  readonly length: number
  readonly settle: (error?: unknown) => void
}

/**
 * One end of a {@link Channel}: messages of bytes to the other end and from it, each in the order in which it was sent.
 *
 * While both sides are busy nothing here makes a system call. A side that sleeps is woken by its bell, once. One side has one
 * consumer: `listen()`, or `for await`, or calls of `receive()`.
 *
 * `sendAsync()`, `drain()`, `closed` and `for await` wait in the context of `listen()`, otherwise in the one given to
 * {@link ChannelPort.from}, otherwise in {@link defaultContext}; their promises settle only where Node's own loop runs the
 * turns, or between turns. While something waits for messages or for room, the process is kept alive.
 *
 * @example
 * ```ts
 * import { AioContext, Channel } from 'fdmon'
 *
 * using ctx = new AioContext({ poll: { maxNs: 200_000 } })
 * const { port1, port2 } = new Channel()
 * port2.listen(ctx, (message) => port2.send(message.map((byte) => byte + 1)))
 * port1.send(new Uint8Array([1, 2, 3]))
 * ctx.poll()
 * console.log(port1.receive()) // Uint8Array(3) [ 2, 3, 4 ]
 * port1.close()
 * port2.close()
 * ```
 */
export class ChannelPort implements Disposable, AsyncIterable<Uint8Array> {
  readonly #link: Link
  readonly #capacity: number
  readonly #context: AioContext | undefined
  /** Why nothing comes any more; never rejects. It does not keep the process alive. */
  readonly #closed: Promise<ChannelEnd>
  /** Somebody wants to know of the end. */
  #watched = false
  #listener: { context: AioContext; events: ChannelEvents } | undefined
  #inbox: Inbox | undefined
  readonly #sending: Sending[] = []
  readonly #draining: Sending['settle'][] = []

  /** @internal */
  constructor(own: symbol, parts: Parts, context: AioContext | undefined) {
    if (own !== OWN) {
      throw new FdmonError('ERR_FDMON_INVALID_ARG', 'a ChannelPort cannot be constructed; call new Channel() or ChannelPort.from(handle)')
    }
    this.#link = new Link(parts)
    this.#capacity = parts.memory.capacity
    this.#context = context
    this.#closed = new Promise((resolve) => {
      this.#link.ended = (end) => {
        resolve(end)
        this.#end(end)
      }
    })
    this.#link.room = () => this.#room()
    this.#link.lost = () => this.#lost()
  }

  static {
    pair = (one, other) => {
      one.#link.sibling = other.#link
      other.#link.sibling = one.#link
    }
  }

  /**
   * The port of a handle that came from another thread, or from another process. It has descriptors of its own: each side
   * closes its own.
   *
   * @param options - `context`: where promises and iterations of this port wait; default is {@link defaultContext}
   * @throws FdmonError ERR_FDMON_IN_USE when the port has an owner already
   * @example
   * ```ts
   * import { Channel } from 'fdmon'
   * import { Worker } from 'node:worker_threads'
   *
   * const { port1, port2 } = new Channel()
   * const code = `
   *   const { ChannelPort } = require('fdmon')
   *   const port = ChannelPort.from(require('node:worker_threads').workerData)
   *   port.send(Buffer.from('hello'))
   *   port.close()`
   * new Worker(code, { eval: true, workerData: port2.handle })
   * for await (const message of port1) console.log(Buffer.from(message).toString()) // hello
   * port1.close()
   * ```
   */
  static from(handle: ChannelHandle, options?: { context?: AioContext | undefined }): ChannelPort {
    const given = options === undefined ? {} : checkObject('options', options, 'an object, for example { context }')
    checkKeys('options.', given, ['context'])
    const { context } = given
    if (context !== undefined) checkContext('options.context', context)
    if (wasi !== null) throw refused('a Channel')
    const port = new ChannelPort(OWN, partsOf(handle), context as AioContext | undefined)
    try {
      port.#link.claim()
    } catch (error) {
      port.#link.close()
      throw error
    }
    return port
  }

  /** What to send to where this port is to be used. From then on use it there only; close it here once it has arrived. */
  get handle(): ChannelHandle {
    const link = this.#link
    if (link.released) throw closed('the ChannelPort', 'make a new Channel')
    if (link.claimed) {
      throw new FdmonError('ERR_FDMON_IN_USE', 'the port is used here already; take the handle before anything else of it')
    }
    return handleOf(link.parts)
  }

  /**
   * Sends a copy of the message. The other side sees it at once when it is awake, and is woken otherwise.
   *
   * @param message - at most as many bytes as the channel's capacity; none at all is a message too
   * @returns false = full, and not sent: try again after {@link ChannelPort.drain}
   * @throws FdmonError ERR_FDMON_CLOSED when this side or the other one is closed
   */
  send(message: Uint8Array): boolean {
    const length = this.#check(message)
    return this.#sending.length === 0 && this.#link.send(message, length)
  }

  /**
   * Sends the message as soon as there is room, after those that wait already. Leave its bytes alone until then.
   *
   * @param options - `signal`: gives up, if it still waits
   */
  sendAsync(message: Uint8Array, options?: IoOptions): Promise<void> {
    try {
      const length = this.#check(message)
      const given = options === undefined ? {} : checkObject('options', options, 'an object, for example { signal }')
      checkKeys('options.', given, ['signal'])
      const signal = checkSignal('options.signal', given['signal'])
      signal?.throwIfAborted()
      if (this.#sending.length === 0 && this.#link.send(message, length)) return Promise.resolve()
      return this.#wait(this.#sending, (settle) => ({ message, length, settle }), signal)
    } catch (error) {
      return Promise.reject(error as Error)
    }
  }

  /** Once `send()` has returned false: when it is worth to try again, and all of `sendAsync()` has been sent. */
  drain(): Promise<void> {
    if (this.#link.end !== undefined) return Promise.reject(this.#link.gone())
    if (!this.#link.waits) return Promise.resolve()
    return this.#wait(this.#draining, (settle) => settle, undefined)
  }

  /** The next message if there is one, copied. What the other side sent before it closed or died is still there. */
  receive(): Uint8Array | undefined {
    if (this.#listener !== undefined || this.#inbox !== undefined) throw this.#inUse()
    this.#open()
    this.#link.claim()
    return this.#link.receive()?.slice()
  }

  /**
   * Calls back for each message, in turns of this context: while it spins, without any call into the kernel.
   *
   * @param onMessage - gets a view that is valid until it returns: copy what is to be kept. The other side cannot change it.
   * What it throws does not stop the messages after it, and is thrown by the turn
   * @returns what stops it; messages that come later wait
   */
  listen(context: AioContext, onMessage: (message: Uint8Array) => void, events: ChannelEvents = {}): Disposable {
    checkContext('context', context)
    checkFunction('onMessage', onMessage, '(message) => {}')
    checkKeys('events.', checkObject('events', events, 'an object, for example { closed(end) {} }'), ['drain', 'closed'])
    for (const [name, value] of Object.entries(events)) {
      if (value !== undefined) checkFunction(`events.${name}`, value, '() => {}')
    }
    if (this.#listener !== undefined || this.#inbox !== undefined) throw this.#inUse()
    this.#open()
    const listener = { context, events }
    const stop = (): void => {
      if (this.#listener !== listener) return
      this.#listener = undefined
      this.#link.consumer = undefined
      this.#watch()
    }
    this.#listener = listener
    this.#link.consumer = onMessage
    try {
      this.#watch()
    } catch (error) {
      this.#listener = this.#link.consumer = undefined
      this.#watch() // where it did before
      throw error
    }
    if (this.#link.end !== undefined) loopOf(context).schedule(() => this.#rest(listener))
    return { [Symbol.dispose]: stop }
  }

  /**
   * Resolves once: `'closed'` when this side or the other one closes, `'peer-died'` when the other one ended without that,
   * `'corrupt'` when the memory makes no sense. Messages that were sent before can still be taken, unless it is corrupt. To
   * wait for it does not keep the process alive.
   */
  get closed(): Promise<'closed' | 'peer-died' | 'corrupt'> {
    if (!this.#watched) {
      this.#watched = true
      try {
        this.#watch()
      } catch (error) {
        this.#watched = false
        throw error
      }
    }
    return this.#closed
  }

  /** Closes this side, and tells the other one. What waits to be sent is rejected; what was not received is lost. */
  close(): void {
    this.#link.close()
  }

  /** {@link ChannelPort.close}, for `using`. */
  [Symbol.dispose](): void {
    this.close()
  }

  /**
   * The messages, copied, until the other side has closed or died: `closed` says which. Throws when the memory makes no sense.
   * What an iteration that is ended early had taken ahead is there for the next consumer.
   */
  [Symbol.asyncIterator](): AsyncIterator<Uint8Array> {
    if (this.#listener !== undefined || this.#inbox !== undefined) throw this.#inUse()
    this.#open()
    this.#link.claim()
    const inbox = new Inbox(
      this.#link,
      () => this.#watch(),
      () => {
        if (this.#inbox !== inbox) return
        this.#inbox = undefined
        this.#watch()
      },
    )
    this.#inbox = inbox
    return inbox
  }

  /** @internal */
  [inspect.custom](): string {
    const { end, claimed, released, parts } = this.#link
    const state = end ?? (released ? 'used elsewhere' : claimed ? 'open' : 'not used yet')
    return `ChannelPort { port: ${parts.port}, capacity: ${parts.memory.capacity}, state: '${state}' }`
  }

  // --- What waits, and where ----------------------------------------------------------------------------------------

  /** The length, read once. That of a subclass, or one that was defined anew, may be anything; the elements never lie. */
  #check(message: Uint8Array): number {
    if (!(message instanceof Uint8Array) || !ArrayBuffer.isView(message)) throw invalidArg('message', message, 'pass a Uint8Array')
    const length: number = message.length
    if (length > this.#capacity || length >>> 0 !== length || message[length] !== undefined) {
      throw invalidArg('message.length', length, `pass at most ${this.#capacity} bytes, the capacity of the channel`)
    }
    return length
  }

  #open(): void {
    if (this.#link.released && this.#link.end !== undefined) throw this.#link.gone()
  }

  #inUse(): FdmonError {
    const what = this.#listener === undefined ? 'an iteration' : 'a listener'
    return new FdmonError('ERR_FDMON_IN_USE', `the port has ${what} already, and one consumer at a time; end that first`)
  }

  /** Registers with the right loop for what waits now, or not at all. */
  #watch(): void {
    const link = this.#link
    if (link.end !== undefined) return
    const busy = this.#listener !== undefined || this.#inbox?.open === true || this.#sending.length + this.#draining.length > 0
    if (!busy && !this.#watched) return link.unwatch()
    const loop = loopOf(this.#listener?.context ?? this.#context ?? defaultContext())
    // `closed` resolves at any rate.
    link.watch(busy || !loop.closed ? loop : loopOf(defaultContext()), busy)
  }

  #wait<T>(queue: T[], make: (settle: Sending['settle']) => T, signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const settle = (error?: unknown): void => {
        signal?.removeEventListener('abort', abort)
        if (error === undefined) resolve()
        else reject(error as Error)
      }
      const waiting = make(settle)
      const abort = (): void => {
        queue.splice(queue.indexOf(waiting), 1)
        settle(signal!.reason)
        this.#flush() // perhaps there is room for the one after it
        this.#watch()
      }
      queue.push(waiting)
      signal?.addEventListener('abort', abort, { once: true })
      try {
        this.#watch()
      } catch (error) {
        queue.splice(queue.indexOf(waiting), 1)
        settle(error)
      }
    })
  }

  /** There is room again. */
  #room(): void {
    if (!this.#flush()) return
    for (const settle of this.#draining.splice(0)) settle()
    this.#watch()
    this.#listener?.events.drain?.()
  }

  /** Sends what waits. False = not all of it. */
  #flush(): boolean {
    const sending = this.#sending
    while (sending.length > 0) {
      const { message, length, settle } = sending[0]!
      if (message.length === length) {
        try {
          if (!this.#link.send(message, length)) return false
        } catch (error) {
          this.#fail(error)
          return false
        }
        sending.shift()
        settle()
      } else {
        sending.shift()
        settle(invalidArg('message.length', message.length, `leave the ${length} bytes of the message alone until they are sent`))
      }
    }
    return true
  }

  #fail(error: unknown): void {
    for (const { settle } of this.#sending.splice(0)) settle(error)
    for (const settle of this.#draining.splice(0)) settle(error)
  }

  #end(end: ChannelEnd): void {
    this.#link.consumer = undefined
    this.#fail(this.#link.gone())
    this.#inbox?.end()
    this.#tell(end)
  }

  #tell(end: ChannelEnd): void {
    const listener = this.#listener
    this.#listener = undefined
    listener?.events.closed?.(end)
  }

  /** For a listener that came after the end: what was sent before it, and the end. */
  #rest(listener: { context: AioContext }): void {
    if (this.#listener !== listener) return
    this.#link.rest(loopOf(listener.context))
    if (this.#listener !== listener) return
    this.#link.consumer = undefined
    this.#tell(this.#link.end!)
  }

  /** The context in which it waited was closed. */
  #lost(): void {
    this.#listener = undefined
    this.#link.consumer = undefined
    const error = closed('the context in which the port waited', 'let it wait in another one')
    this.#fail(error)
    this.#inbox?.fail(error)
    this.#watch()
  }
}

function checkContext(name: string, value: unknown): asserts value is AioContext {
  if (!(value instanceof AioContext)) throw invalidArg(name, value, 'pass an AioContext')
  loopOf(value).open()
}
