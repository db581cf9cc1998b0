// ④ Bottom halves: callbacks that are scheduled to run in the loop.
import { inspect } from 'node:util'
import { Loop } from './batch.js'
import { closed, FdmonError } from './errors.js'
import { asyncContext, Slot } from './slot.js'

/**
 * A callback that runs in the loop when it was scheduled: in this turn's next pass over the bottom halves, never inline.
 * Scheduled twice before it ran, it runs once. Made by `ctx.bottomHalf()`; lives until `delete()` or the context's end.
 *
 * @example
 * ```ts
 * import { AioContext } from 'fdmon'
 *
 * using ctx = new AioContext()
 * using flush = ctx.bottomHalf(() => console.log('flushed'))
 * flush.schedule()
 * flush.schedule()
 * ctx.poll(false) // flushed, once
 * ```
 */
export class BottomHalf implements Disposable {
  /** Process-wide: `AioContext.remote(contextId).schedule(id)` schedules it from any thread. */
  readonly id: number
  readonly #loop: Loop
  readonly #slot: Slot

  /** @internal */
  static create(loop: Loop, callback: () => unknown): BottomHalf {
    return new BottomHalf(loop, callback)
  }

  private constructor(loop: Loop, callback: () => unknown) {
    if (!(loop instanceof Loop)) {
      throw new FdmonError('ERR_FDMON_INVALID_ARG', 'BottomHalf has no public constructor; call ctx.bottomHalf(callback)')
    }
    const slot = new Slot()
    slot.callback = callback
    slot.resource = asyncContext()
    slot.owner = this
    slot.slot = loop.allocate(() => loop.native.bottomHalf())
    loop.table[slot.slot] = slot
    this.#loop = loop
    this.#slot = slot
    this.id = loop.native.bhId(slot.slot)
  }

  /** Runs the callback in the next turn; overrides an earlier `scheduleIdle()`. */
  schedule(): void {
    this.#live()
    this.#loop.hot.schedule(this.#slot.slot)
  }

  /** Runs the callback when convenient, 10 ms from now at the latest; it is no progress for `poll()`. */
  scheduleIdle(): void {
    this.#live()
    this.#loop.native.bhScheduleIdle(this.#slot.slot)
  }

  /** Takes a `schedule()` back. */
  cancel(): void {
    if (this.#slot.live) this.#loop.native.bhCancel(this.#slot.slot)
  }

  /** Cancels it and frees it, also from its own callback; afterwards it cannot be scheduled. */
  delete(): void {
    const slot = this.#slot
    if (!slot.live) return
    slot.live = false
    this.#loop.table[slot.slot] = undefined
    this.#loop.native.bhDelete(slot.slot)
  }

  /** The same as `delete()`. */
  [Symbol.dispose](): void {
    this.delete()
  }

  /** @internal */
  [inspect.custom](): string {
    return `BottomHalf { id: ${this.id}, live: ${this.#slot.live} }`
  }

  #live(): void {
    this.#loop.open()
    if (!this.#slot.live) throw closed(`bottom half ${this.id}`, 'make a new one with ctx.bottomHalf(callback)')
  }
}
