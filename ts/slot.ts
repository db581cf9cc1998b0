// ③ A slot: what a number that native reports stands for.
import { AsyncResource } from 'node:async_hooks'

/** The callbacks of a handlers object, all of them functions; which there are, the slot's bits say. */
export interface Callbacks {
  read(fd: number, events: number): unknown
  write(fd: number, events: number): unknown
  priority(fd: number, events: number): unknown
  pollReady(fd: number): unknown
  poll(fd: number): unknown
  pollBegin(fd: number): unknown
  pollEnd(fd: number): unknown
}

/** Stands for a callback that is not there. */
export function nothing(): void {}

const NO_CALLBACKS: Callbacks = {
  read: nothing,
  write: nothing,
  priority: nothing,
  pollReady: nothing,
  poll: () => false,
  pollBegin: nothing,
  pollEnd: nothing,
}

/**
 * What a slot stands for: a handler, a bottom half or a timer. One class and every field always set, so that the
 * dispatch loop sees one shape.
 */
export class Slot {
  /** Of a handler: the object that the user passed. Called as its methods, which the engine can inline. */
  handlers: Callbacks = NO_CALLBACKS
  /** Of a bottom half or a timer. */
  callback: () => unknown = nothing
  /** The user's object for a bottom half or a timer, or what has the handler's fd; the slot keeps it alive. */
  owner: unknown = undefined
  fd = -1
  /** Its number. */
  slot = -1
  /** False once it was removed, replaced or deleted, and after close. */
  live = true
  interest = 0
  callbacks = 0
  /** Of `schedule()`: used again once it has run. */
  oneShot = false
  /** A timer of the user's, which `close()` counts. */
  timer = false
  /** In whose name it is called while the context is attached: AsyncLocalStorage and async_hooks go by it. */
  resource: AsyncResource | undefined = undefined
  /** Of a handler: `pollBegin` was called last, not `pollEnd`. */
  begun = false
  /** Of a handler: an attached context keeps the process alive for it. */
  keeps = true
  /** Of a handler: it is gone, whoever removed it. */
  gone: () => void = nothing
  /** Of a handler: gives back what it had claimed. */
  released: () => void = nothing
}

/** The asynchronous context of who registers now, to be entered by each callback. */
export function asyncContext(): AsyncResource {
  return new AsyncResource('FDMON_HANDLER')
}

/** Outlives a context that was dropped, to say whether it was ever used. */
export interface Life {
  name: string
  handlers: number
  ran: boolean
}
