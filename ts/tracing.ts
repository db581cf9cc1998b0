// What a context tells of itself: points that native notes, published on channels of node:diagnostics_channel.
//
// Native never calls into JavaScript for a point. It notes them while it spins, and this file publishes them when the turn
// is over. Whether a channel has subscribers is asked once a turn, here, without a call into native.
import { channel } from 'node:diagnostics_channel'
import type { Loop } from './batch.js'
import type { NativePoint } from './native-context.js'
import type { MonitorName } from './options.js'

/**
 * What a message on any channel of fdmon says. See `TraceMessages` for the channels.
 *
 * @example
 * ```ts
 * import { subscribe } from 'node:diagnostics_channel'
 * import type { TraceMessage } from 'fdmon'
 *
 * subscribe('fdmon:window', (message) => {
 *   const { contextName, timeNs } = message as TraceMessage
 *   console.log(contextName, process.hrtime.bigint() - timeNs, 'ns ago')
 * })
 * ```
 */
export interface TraceMessage {
  /** The `id` of the context. */
  readonly contextId: number
  /** Its `name`. */
  readonly contextName: string
  /** When it happened, on the clock of `process.hrtime.bigint()`. */
  readonly timeNs: bigint
}

/**
 * `fdmon:poll:begin`: a turn begins to spin.
 *
 * @example
 * ```ts
 * import { subscribe } from 'node:diagnostics_channel'
 * import type { PollBeginMessage } from 'fdmon'
 *
 * let longest = 0
 * subscribe('fdmon:poll:begin', (message) => {
 *   longest = Math.max(longest, (message as PollBeginMessage).windowNs)
 * })
 * ```
 */
export interface PollBeginMessage extends TraceMessage {
  /** How long it spins at most. */
  readonly windowNs: number
}

/**
 * `fdmon:poll:end`: a turn stops spinning.
 *
 * @example
 * ```ts
 * import { subscribe } from 'node:diagnostics_channel'
 * import type { PollEndMessage } from 'fdmon'
 *
 * let wastedNs = 0
 * subscribe('fdmon:poll:end', (message) => {
 *   const { result, spentNs } = message as PollEndMessage
 *   if (result === 'miss') wastedNs += spentNs
 * })
 * ```
 */
export interface PollEndMessage extends TraceMessage {
  /** How long it might have spun. */
  readonly windowNs: number
  /** How long it spun. */
  readonly spentNs: number
  /**
   * What ended it: a `poll` that said yes, the kernel that has something, another thread's notification; the window's end
   * with nothing found (`'miss'`), the turn's timeout; Node's loop or another outer one that has something else to do; or a
   * `poll` that threw.
   */
  readonly result: 'hit' | 'ready' | 'notified' | 'miss' | 'timeout' | 'interrupted' | 'failed'
}

/**
 * `fdmon:window`: the policy changed how long turns spin.
 *
 * @example
 * ```ts
 * import { subscribe } from 'node:diagnostics_channel'
 * import { AioContext, type WindowMessage } from 'fdmon'
 *
 * using ctx = new AioContext({ poll: { maxNs: 32_768, policy: 'classic' } })
 * subscribe('fdmon:window', (message) => {
 *   const { change, fromNs, toNs } = message as WindowMessage
 *   console.log(change, fromNs, toNs) // grown 0 4000
 * })
 * ctx.timer(() => {}).arm(10_000)
 * ctx.poll()
 * ```
 */
export interface WindowMessage extends TraceMessage {
  /** Which way. */
  readonly change: 'grown' | 'shrunk'
  /** The window before. */
  readonly fromNs: number
  /** The window from now on. */
  readonly toNs: number
}

/**
 * `fdmon:handler`: a handler joined or left the spin list, whose members are asked while a turn spins.
 *
 * @example
 * ```ts
 * import { subscribe } from 'node:diagnostics_channel'
 * import type { HandlerMessage } from 'fdmon'
 *
 * const spinning = new Set<number>()
 * subscribe('fdmon:handler', (message) => {
 *   const { change, fd } = message as HandlerMessage
 *   if (change === 'added') spinning.add(fd)
 *   else spinning.delete(fd)
 * })
 * ```
 */
export interface HandlerMessage extends TraceMessage {
  /** Which of the two. */
  readonly change: 'added' | 'removed'
  /** The descriptor of the handler. */
  readonly fd: number
}

/**
 * `fdmon:monitor`: the context moved to another monitor.
 *
 * @example
 * ```ts
 * import { subscribe } from 'node:diagnostics_channel'
 * import type { MonitorMessage } from 'fdmon'
 *
 * subscribe('fdmon:monitor', (message) => {
 *   const { from, to, reason } = message as MonitorMessage
 *   console.log(`from ${from} to ${to}: ${reason}`)
 * })
 * ```
 */
export interface MonitorMessage extends TraceMessage {
  /** The one before. */
  readonly from: MonitorName
  /** The one that runs now. */
  readonly to: MonitorName
  /** Why, in words. */
  readonly reason: string
}

/**
 * The channels of `node:diagnostics_channel` on which the contexts of this thread publish, and what.
 *
 * A context notices subscribers at its next turn, or when something of it is changed; while attached, at the next turn that
 * calls back. Messages are published in the order in which things happened, when the turn is over: a spin is never
 * interrupted for them. What a subscriber throws is an uncaught exception and breaks no turn. Without subscribers nothing is
 * noted, and nothing costs time.
 *
 * @example
 * ```ts
 * import { subscribe } from 'node:diagnostics_channel'
 * import { AioContext, type TraceMessages } from 'fdmon'
 *
 * function on<Name extends keyof TraceMessages>(name: Name, listen: (message: TraceMessages[Name]) => void) {
 *   subscribe(name, (message) => listen(message as TraceMessages[Name]))
 * }
 *
 * using ctx = new AioContext({ name: 'mine', poll: { maxNs: 100_000, grow: 1_000, policy: 'classic', guards: false } })
 * on('fdmon:poll:begin', ({ windowNs }) => console.log(`spins for ${windowNs} ns`))
 * on('fdmon:poll:end', ({ result }) => console.log(result)) // timeout, miss, …
 * for (let turn = 0; turn < 4; turn++) {
 *   ctx.timer(() => {}).arm(50_000)
 *   ctx.poll()
 * }
 * ```
 */
export interface TraceMessages {
  /** A spin begins. */
  'fdmon:poll:begin': PollBeginMessage
  /** A spin ends. */
  'fdmon:poll:end': PollEndMessage
  /** The spin window grew or shrank. */
  'fdmon:window': WindowMessage
  /** A handler joined or left the spin list. */
  'fdmon:handler': HandlerMessage
  /** Another monitor runs. */
  'fdmon:monitor': MonitorMessage
}

// Held here, or they would be collected while nobody listens, and made anew for who does.
const pollBegin = channel('fdmon:poll:begin')
const pollEnd = channel('fdmon:poll:end')
const window = channel('fdmon:window')
const handler = channel('fdmon:handler')
const monitor = channel('fdmon:monitor')

// The kinds of points, as native has them.
const SPIN_BEGIN = 1
const SPIN_END = 2
const WINDOW = 4
const SPIN_LIST = 8
const MONITOR = 16

/** Whether any channel has subscribers. Asked once a turn. */
export function hasSubscribers(): boolean {
  return (
    pollBegin.hasSubscribers ||
    pollEnd.hasSubscribers ||
    window.hasSubscribers ||
    handler.hasSubscribers ||
    monitor.hasSubscribers
  )
}

/** Tells native which points to note from now on, if that has changed. */
export function trace(loop: Loop): void {
  const kinds =
    (pollBegin.hasSubscribers ? SPIN_BEGIN : 0) |
    (pollEnd.hasSubscribers ? SPIN_END : 0) |
    (window.hasSubscribers ? WINDOW : 0) |
    (handler.hasSubscribers ? SPIN_LIST : 0) |
    (monitor.hasSubscribers ? MONITOR : 0)
  if (kinds === loop.traced) return
  loop.native.trace(kinds)
  loop.traced = kinds
}

/** Publishes what was noted. What subscribers cause meanwhile is published after the next turn. */
export function publish(loop: Loop): void {
  const context = { contextId: loop.native.id, contextName: loop.life.name }
  for (const point of loop.native.takePoints()) publishOne(context, point)
}

function publishOne(context: { contextId: number; contextName: string }, point: NativePoint): void {
  const { kind, timeNs } = point
  const message = { ...context, timeNs }
  if (kind === SPIN_BEGIN) {
    pollBegin.publish({ ...message, windowNs: point.windowNs } as PollBeginMessage)
  } else if (kind === SPIN_END) {
    const { windowNs, spentNs, result } = point
    pollEnd.publish({ ...message, windowNs, spentNs, result } as PollEndMessage)
  } else if (kind === WINDOW) {
    const { fromNs = 0, toNs = 0 } = point
    window.publish({ ...message, change: toNs > fromNs ? 'grown' : 'shrunk', fromNs, toNs } as WindowMessage)
  } else if (kind === SPIN_LIST) {
    const change = point.joined === true ? 'added' : 'removed'
    handler.publish({ ...message, change, fd: point.fd } as HandlerMessage)
  } else {
    const { from, to, reason } = point
    monitor.publish({ ...message, from, to, reason } as MonitorMessage)
  }
}
