// ④ Timers: nanoseconds on the monotonic clock, kept alive by their context while they are pending.
import { inspect } from 'node:util'
import { Loop } from './batch.js'
import { checkDeadlineNs, checkNs } from './check.js'
import { closed, FdmonError } from './errors.js'
import { asyncContext, Slot } from './slot.js'

/**
 * A one-shot timer of a context, made by `ctx.timer()`. Armed again it starts anew; its callback may re-arm it. It is never
 * early. While it is pending the context keeps it alive; dropped while it is not, it is collected.
 *
 * @example
 * ```ts
 * import { AioContext } from 'fdmon'
 *
 * using ctx = new AioContext()
 * let ticks = 0
 * using timer = ctx.timer(() => {
 *   if (++ticks < 3) timer.arm(1_000_000)
 * })
 * timer.arm(1_000_000) // one millisecond
 * ctx.pollUntil(() => ticks === 3)
 * console.log(ticks, timer.pending) // 3 false
 * ```
 */
export class Timer implements Disposable {
  readonly #loop: Loop
  readonly #slot: Slot

  /** @internal `counted`: a timer of the user's, which `close()` reports when it is pending. */
  static create(loop: Loop, callback: () => unknown, counted = true): Timer {
    return new Timer(loop, callback, counted)
  }

  private constructor(loop: Loop, callback: () => unknown, counted: boolean) {
    if (!(loop instanceof Loop)) {
      throw new FdmonError('ERR_FDMON_INVALID_ARG', 'Timer has no public constructor; call ctx.timer(callback)')
    }
    const slot = new Slot()
    slot.callback = callback
    slot.resource = asyncContext()
    slot.timer = counted
    slot.slot = loop.allocate(() => loop.native.timer())
    // The slot is in the table only while the timer is pending, and leads to the timer: that is what keeps it alive.
    slot.owner = this
    this.#loop = loop
    this.#slot = slot
    loop.dropped.register(this, slot.slot, slot)
  }

  /** Whether it will run. */
  get pending(): boolean {
    return this.#slot.live && !this.#loop.closed && this.#loop.native.timerPending(this.#slot.slot)
  }

  /** Runs the callback this many nanoseconds from now; 0 = in the next turn. */
  arm(delayNs: number | bigint): void {
    this.#live()
    const checked = checkNs('delayNs', delayNs)
    if (typeof checked === 'number') this.#loop.hot.arm(this.#slot.slot, checked)
    else this.#loop.native.timerArm(this.#slot.slot, checked)
    this.#loop.table[this.#slot.slot] = this.#slot
  }

  /** Runs the callback at a point on the clock of `process.hrtime.bigint()`; one in the past = in the next turn. */
  armAt(deadlineNs: bigint): void {
    this.#live()
    const checked = checkDeadlineNs('deadlineNs', deadlineNs)
    this.#loop.native.timerArmAt(this.#slot.slot, checked)
    this.#loop.table[this.#slot.slot] = this.#slot
  }

  /** Takes an `arm()` back; the timer can be armed again. */
  cancel(): void {
    const slot = this.#slot
    if (!slot.live || this.#loop.closed) return
    this.#loop.native.timerCancel(slot.slot)
    this.#loop.table[slot.slot] = undefined
  }

  /** Cancels it and frees it; afterwards it cannot be armed. */
  [Symbol.dispose](): void {
    const slot = this.#slot
    if (!slot.live || this.#loop.closed) return
    slot.live = false
    this.#loop.dropped.unregister(slot)
    this.#loop.table[slot.slot] = undefined
    this.#loop.native.timerDelete(slot.slot)
  }

  /** @internal */
  [inspect.custom](): string {
    return `Timer { pending: ${this.pending} }`
  }

  #live(): void {
    this.#loop.open()
    if (!this.#slot.live) throw closed('the timer', 'make a new one with ctx.timer(callback)')
  }
}
