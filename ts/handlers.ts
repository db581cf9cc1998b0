// ① Handlers: what a user hands over for a file descriptor, checked and put into a slot.
import type { Loop } from './batch.js'
import { checkBoolean, checkFunction, checkInteger, checkKeys } from './check.js'
import { FdmonError, invalidArg } from './errors.js'
import { isMapping } from './fd/memfd.js'
import { fdOf } from './fd-like.js'
import { wasi } from './native.js'
import type { NativeWord } from './native-context.js'
import { FdRegistration, removeHandler, type Registration } from './registration.js'
import { asyncContext, Slot, type Callbacks } from './slot.js'
import type { Wasi } from './wasi/binding.js'
import { asked } from './wasi/words.js'

/**
 * Ready when a word of shared memory differs from a value, or from another word of the same array. While the loop spins
 * it is read natively, without a call into JavaScript.
 *
 * The memory is a SharedArrayBuffer or a mapping of `fdmon/fd`. With `suppress`, that word is 1 while the loop spins and 0
 * while it may sleep, so the producer need not signal the fd while it is 1: publish the data, then (with `Atomics`) read
 * the word, and signal when it is 0. One suppress word belongs to one handler.
 *
 * @example
 * ```ts
 * import { AioContext, EventNotifier, type WordCondition } from 'fdmon'
 *
 * const ring = new Int32Array(new SharedArrayBuffer(64))
 * const head: WordCondition = { memory: ring, index: 0, notEqual: { index: 1 }, suppress: { index: 2 } }
 * using ctx = new AioContext({ poll: { maxNs: 32_768 } })
 * using doorbell = new EventNotifier()
 * ctx.setFdHandler(doorbell, {
 *   poll: head,
 *   pollReady() {
 *     Atomics.store(ring, 1, Atomics.load(ring, 0)) // taken
 *   },
 *   read() {
 *     doorbell.testAndClear()
 *   },
 * })
 * Atomics.store(ring, 0, 1)
 * console.log(ctx.poll(false)) // true
 * ```
 */
export type WordCondition =
  | {
      memory: Int32Array | Uint32Array
      index: number
      notEqual: number | { index: number }
      suppress?: { index: number }
    }
  | {
      memory: BigInt64Array | BigUint64Array
      index: number
      notEqual: bigint | { index: number }
      suppress?: { index: number }
    }

/**
 * What runs for a file descriptor. `read`, `write` and `priority` are called with the fd and the mask of `Events`. All of
 * them are called as methods of this object, so `this` works; which there are is settled when it is registered.
 *
 * `poll` makes the fd spinnable: a condition on shared memory, a function without side effects that says whether there is
 * something to do, or `'kernel'` to spin on the kernel's own readiness. `pollReady` runs on a hit.
 *
 * Readiness is level-triggered: a callback runs again in each turn until what made the fd ready is gone. So read before
 * returning or awaiting, or turn the interest off first by `setInterest({ read: false })`; `write` runs as long as there is
 * room, so turn it off while there is nothing to send. A regular file is always ready.
 *
 * Callbacks run inside the turn, before any promise reaction. An exception does not stop the others; after them it is
 * thrown from `poll()`, or is an uncaught exception where the context is attached.
 *
 * @example
 * ```ts
 * import { AioContext, Events, type FdHandlers } from 'fdmon'
 * import { read, socketpair, write } from 'fdmon/fd'
 *
 * const [left, right] = socketpair()
 * const echo: FdHandlers = {
 *   read(fd, events) {
 *     const bytes = Buffer.alloc(64)
 *     const size = read(fd, bytes)
 *     console.log(bytes.toString('utf8', 0, size), (events & Events.IN) !== 0) // hello true
 *   },
 * }
 * using ctx = new AioContext()
 * ctx.setFdHandler(left, echo)
 * write(right, Buffer.from('hello'))
 * ctx.poll()
 * left.close()
 * right.close()
 * ```
 */
export type FdHandlers = {
  /** There is data, the other side hung up, or an error is pending. */
  read?(fd: number, events: number): void
  /** There is room to write, or an error is pending. */
  write?(fd: number, events: number): void
  /** Urgent data: GPIO edges, out-of-band data, changes of cgroup files. */
  priority?(fd: number, events: number): void
  /** The loop begins to spin on this fd: the producer may stop signalling it. */
  pollBegin?(fd: number): void
  /** The loop stops spinning on this fd: the producer must signal again. */
  pollEnd?(fd: number): void
  /** Fed by outside clients: silent while `disableExternal()` is in force. @default false */
  external?: boolean
  /** What traces call its callbacks, of which they show the first 40 bytes; otherwise they say `fd 5`. */
  name?: string
} & (
  | { poll: WordCondition | ((fd: number) => boolean); pollReady(fd: number): void }
  | { poll: 'kernel'; pollReady?: undefined }
  | { poll?: undefined; pollReady?: undefined }
)

/**
 * The bits of the event mask, as the kernel has them.
 *
 * @example
 * ```ts
 * import { Events } from 'fdmon'
 *
 * const names = (mask: number) => Object.entries(Events).filter(([, bit]) => (mask & bit) !== 0).map(([name]) => name)
 * console.log(names(0x11)) // [ 'IN', 'HUP' ]
 * ```
 */
export const Events: {
  /** There is data to read. */
  readonly IN: number
  /** There is urgent data to read. */
  readonly PRI: number
  /** Writing does not block. */
  readonly OUT: number
  /** An error is pending; reported unasked. */
  readonly ERR: number
  /** The other side hung up; reported unasked. */
  readonly HUP: number
  /** The other side shut down its writing half. */
  readonly RDHUP: number
} = Object.freeze({ IN: 0x1, PRI: 0x2, OUT: 0x4, ERR: 0x8, HUP: 0x10, RDHUP: 0x2000 })

// What native gets of a handler: which callbacks there are, and how it is spun.
const READ = 1
const WRITE = 2
const PRIORITY = 4
const POLL_READY = 8
const EXTERNAL = 1
const JS_PREDICATE = 2
const JS_BEGIN = 4
const JS_END = 8
const KERNEL = 16

const KEYS = ['read', 'write', 'priority', 'poll', 'pollReady', 'pollBegin', 'pollEnd', 'external', 'name'] as const

/** `setFdHandler()`: replaces, removes or adds. */
export function setHandler(loop: Loop, fdLike: unknown, handlers: unknown): Registration | undefined {
  loop.open()
  if (handlers === null) {
    removeFd(loop, fdLike)
    return undefined
  }
  return register(loop, fdLike, handlers, new Slot())
}

/** Puts handlers into a new slot and registers it. */
export function register(loop: Loop, fdLike: unknown, handlers: unknown, slot: Slot): Registration {
  const fd = fdOf('fd', fdLike)
  slot.fd = fd
  if (typeof fdLike === 'object' && fdLike !== null) {
    slot.owner = fdLike
    numbers.set(fdLike, fd)
  }
  const filled = fill(slot, handlers)
  return loop.withHooks(() => {
    const { flags, name, word, number } = wasi === null ? { ...filled, number: fd } : onWasi(wasi, loop, slot, filled)
    const known = loop.handlers.get(fd)
    const replaces = known?.slot ?? -1
    try {
      slot.slot = loop.allocate(() =>
        loop.native.register(number, slot.interest, slot.callbacks, flags, word, replaces, name),
      )
    } catch (error) {
      slot.released()
      // The old handler stays, unless it had to go before the new one could be tried.
      const code = error instanceof FdmonError ? error.code : ''
      const gone = code === 'ERR_FDMON_SYSCALL' || (code === 'ERR_FDMON_BAD_FD' && word !== null)
      if (gone && known !== undefined) removeHandler(loop, known)
      throw error
    }
    // Asked anew: hooks of the old handler have run meanwhile.
    const replaced = loop.handlers.get(fd)
    if (replaced !== undefined) loop.forget(replaced)
    slot.resource = asyncContext()
    loop.adopt(slot)
    return new FdRegistration(loop, slot)
  })
}

/** A WebAssembly build has other numbers, and cannot see the word of a condition: that is asked here. */
function onWasi(wasi: Wasi, loop: Loop, slot: Slot, { flags, name, word }: Filled): Filled & { number: number } {
  const { number, release } = wasi.take(slot.fd)
  slot.released = release
  if (word === null) return { flags, name, word, number }
  // The handler that it replaces may have the same suppress word.
  const known = loop.handlers.get(slot.fd)
  if (known !== undefined) removeHandler(loop, known)
  try {
    const condition = asked(slot.handlers, word)
    slot.handlers = condition.handlers
    slot.released = () => {
      condition.release()
      release()
    }
  } catch (error) {
    release()
    throw error
  }
  return { flags: flags | JS_PREDICATE | JS_BEGIN | JS_END, name, word: null, number }
}

/** The number that an object had when it was registered: once closed, it does not know it any more. */
const numbers = new WeakMap<object, number>()

/** Removing what is not there does nothing. */
function removeFd(loop: Loop, fdLike: unknown): void {
  const isObject = typeof fdLike === 'object' && fdLike !== null
  const value = isObject ? (fdLike as { fd?: unknown }).fd : fdLike
  if (typeof value === 'number' && Number.isInteger(value) && value < 0) {
    const known = isObject ? loop.handlers.get(numbers.get(fdLike) ?? -1) : undefined
    if (known !== undefined && known.owner === fdLike) removeHandler(loop, known)
    return
  }
  const known = loop.handlers.get(fdOf('fd', fdLike))
  if (known !== undefined) removeHandler(loop, known)
}

/** Refuses what cannot be registered. */
export function checkHandlers(value: unknown): void {
  fill(new Slot(), value)
}

interface Filled {
  flags: number
  name: string | undefined
  word: NativeWord | null
}

/** Puts the callbacks into the slot; what native has to know besides comes back. */
function fill(slot: Slot, value: unknown): Filled {
  if (typeof value !== 'object' || value === null) {
    throw invalidArg('handlers', value, 'pass an object such as { read(fd, events) {} }, or null to remove the handler')
  }
  const given = value as Partial<Record<(typeof KEYS)[number], unknown>>
  // An instance of a class has state of its own; in a literal an unknown key is a misspelt one.
  const prototype: unknown = Object.getPrototypeOf(value)
  if (prototype === Object.prototype || prototype === null) checkKeys('handlers.', value, KEYS)

  const { read, write, priority, poll, pollReady, pollBegin, pollEnd, external, name } = given
  let flags = 0
  let word: NativeWord | null = null
  slot.handlers = value as Callbacks
  if (read !== undefined) {
    checkFunction('handlers.read', read, '(fd, events) => {}')
    slot.callbacks |= READ
  }
  if (write !== undefined) {
    checkFunction('handlers.write', write, '(fd, events) => {}')
    slot.callbacks |= WRITE
  }
  if (priority !== undefined) {
    checkFunction('handlers.priority', priority, '(fd, events) => {}')
    slot.callbacks |= PRIORITY
  }
  slot.interest = slot.callbacks
  if (pollReady !== undefined) {
    checkFunction('handlers.pollReady', pollReady, '(fd) => {}')
    slot.callbacks |= POLL_READY
  }
  if (pollBegin !== undefined) {
    checkFunction('handlers.pollBegin', pollBegin, '(fd) => {}')
    flags |= JS_BEGIN
  }
  if (pollEnd !== undefined) {
    checkFunction('handlers.pollEnd', pollEnd, '(fd) => {}')
    flags |= JS_END
  }
  if (external !== undefined && checkBoolean('handlers.external', external)) flags |= EXTERNAL

  if (name !== undefined && typeof name !== 'string') throw invalidArg('handlers.name', name, 'pass a string')

  if (poll === 'kernel') {
    if (pollReady !== undefined) {
      throw invalidArg('handlers.pollReady', pollReady, "leave it out with poll: 'kernel', where read and write run")
    }
    flags |= KERNEL
  } else if (poll !== undefined) {
    if (pollReady === undefined) {
      throw invalidArg('handlers.pollReady', pollReady, 'pass a function that runs when poll says yes')
    }
    if (typeof poll === 'function') {
      flags |= JS_PREDICATE
    } else {
      word = checkWord('handlers.poll', poll)
    }
  } else if (pollReady !== undefined) {
    throw invalidArg('handlers.poll', poll, 'pass a function or a condition on a word, or leave pollReady out')
  }
  if (slot.callbacks === 0) {
    throw invalidArg('handlers', value, 'pass at least one of read, write, priority, or poll with pollReady')
  }
  return { flags, name, word }
}

const INT32 = { min: -0x8000_0000, max: 0x7fff_ffff }
const UINT32 = { min: 0, max: 0xffff_ffff }
const INT64 = { min: -0x8000_0000_0000_0000n, max: 0x7fff_ffff_ffff_ffffn }
const UINT64 = { min: 0n, max: 0xffff_ffff_ffff_ffffn }

function checkWord(name: string, value: unknown): NativeWord {
  if (typeof value !== 'object' || value === null) {
    throw invalidArg(name, value, "pass a function, { memory, index, notEqual } or 'kernel'")
  }
  checkKeys(`${name}.`, value, ['memory', 'index', 'notEqual', 'suppress'])
  const given = value as { memory?: unknown; index?: unknown; notEqual?: unknown; suppress?: unknown }
  const memory = checkMemory(`${name}.memory`, given.memory)
  const last = memory.length - 1
  const index = checkInteger(`${name}.index`, given.index, 0, last)
  let notEqual: number | bigint | undefined
  let otherIndex: number | undefined
  if (typeof given.notEqual === 'object' && given.notEqual !== null) {
    otherIndex = checkIndexObject(`${name}.notEqual`, given.notEqual, last)
    if (otherIndex === index) {
      throw invalidArg(`${name}.notEqual.index`, otherIndex, 'pass another index: a word never differs from itself')
    }
  } else {
    notEqual = checkValue(`${name}.notEqual`, given.notEqual, memory)
  }
  let suppressIndex: number | undefined
  if (given.suppress !== undefined) {
    suppressIndex = checkIndexObject(`${name}.suppress`, given.suppress, last)
    if (suppressIndex === index || suppressIndex === otherIndex) {
      throw invalidArg(`${name}.suppress.index`, suppressIndex, 'pass the index of a word that nothing else uses')
    }
  }
  return { memory, index, notEqual, otherIndex, suppressIndex }
}

function checkMemory(name: string, value: unknown): NativeWord['memory'] {
  if (
    value instanceof Int32Array ||
    value instanceof Uint32Array ||
    value instanceof BigInt64Array ||
    value instanceof BigUint64Array
  ) {
    if (value.buffer instanceof SharedArrayBuffer || isMapping(value.buffer)) {
      if (value.length > 0) return value
      throw invalidArg(name, value, 'pass an array that has at least one word')
    }
    throw invalidArg(
      name,
      value,
      'pass an array over a SharedArrayBuffer or over memfd().map(): other memory is not shared and may move',
    )
  }
  throw invalidArg(name, value, 'pass an Int32Array, Uint32Array, BigInt64Array or BigUint64Array')
}

function checkIndexObject(name: string, value: unknown, last: number): number {
  if (typeof value !== 'object' || value === null) throw invalidArg(name, value, 'pass an object { index }')
  checkKeys(`${name}.`, value, ['index'])
  return checkInteger(`${name}.index`, (value as { index?: unknown }).index, 0, last)
}

function checkValue(name: string, value: unknown, memory: NativeWord['memory']): number | bigint {
  if (memory instanceof Int32Array || memory instanceof Uint32Array) {
    const { min, max } = memory instanceof Int32Array ? INT32 : UINT32
    if (typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max) return value
    throw invalidArg(name, value, `pass an integer from ${min} to ${max}, as the array holds, or { index }`)
  }
  const { min, max } = memory instanceof BigInt64Array ? INT64 : UINT64
  if (typeof value === 'bigint' && value >= min && value <= max) return value
  throw invalidArg(name, value, `pass a bigint from ${min}n to ${max}n, as the array holds, or { index }`)
}
