// ⑥ A batch: native puts the slots that are due into shared memory, this file runs their callbacks.
//
// The hot path. One native call a turn, no allocation for an event, one shape of object for everything that a slot can
// be. The truth about what is due is one word a slot, shared with native: whoever takes it (reads it, sets 0) runs it, so
// a removal is one store and a nested turn and the turn around it never run one event twice.
import type { AsyncResource } from 'node:async_hooks'
import { closed, FdmonError, invalidArg } from './errors.js'
import type { LeakReport } from './context.js'
import { FileIo } from './file-io.js'
import { integers, native } from './native.js'
import type { NativeContext, NativeHot } from './native-context.js'
import { asyncContext, nothing, Slot, type Callbacks, type Life } from './slot.js'
import { hasSubscribers, publish, trace } from './tracing.js'

// --- The pending word -----------------------------------------------------------------------------------------------

const EVENTS_MASK = 0xffff
const RUN_READ = 1 << 17
const RUN_WRITE = 1 << 18
const RUN_PRIORITY = 1 << 19
const RUN_READY = 1 << 20
const BOTTOM_HALF = 1 << 21
const IDLE = 1 << 22
const TIMER = 1 << 23
const IO = 1 << 24

// --- What native answers to `turn`, `more` and `dispatch` -----------------------------------------------------------

const COUNT = 0xf_ffff
const MORE = 1 << 20
const ERRORS = 1 << 21
const STOP = 1 << 22
const PROGRESS = 1 << 23
const CLEANUP = 1 << 24
/** Instead of a batch: the context had to leave Node's loop. */
const LEFT = 1 << 25

/** Slots that one frame can carry. */
const FRAME_SLOTS = 1023

/** What a trace is told of the rest of a turn whose first steps were around an outer loop's sleep. */
const DISPATCH = 2

/** Slots that a new context has room for; doubled when they run out. */
const FIRST_WORDS = 256

/** One-shot bottom halves that stay allocated for the next `schedule()`. */
const SPARE_MAX = 64

// What native asks `invoke` for; the third is `pollEnd`.
const PREDICATE = 0
const BEGIN = 1

/**
 * Everything behind an `AioContext`. Timers, bottom halves and registrations hold this, not the context, so that the
 * context itself can be collected when nobody can run it any more.
 */
export class Loop {
  readonly native: NativeContext
  readonly hot: NativeHot
  readonly life: Life
  words: Int32Array
  readonly frames: Int32Array[] = []
  /** By slot. Native knows slots, only this side knows what they call. */
  readonly table: (Slot | undefined)[] = []
  readonly handlers = new Map<number, Slot>()
  readonly io = new FileIo(this)
  /** Thrown by callbacks and hooks of the turns that run now; each turn takes what lies above its base. */
  readonly errors: unknown[] = []
  /** Thrown by hooks of `prepareNs()` and `check()`; the next `dispatch()` reports them. */
  readonly deferred: unknown[] = []
  /** Turns on the stack. */
  depth = 0
  /** Native is in the middle of something and has called a predicate, `pollBegin` or `pollEnd`. */
  hooks = 0
  /** `run()` and `pollUntil()` on the stack. */
  loops = 0
  stopping = false
  closed = false
  /** Node's own loop runs the turns. */
  attached = false
  /** …and may live for this context's sake. */
  referenced = true
  /** Handlers for whose sake the process lives while attached. */
  keeping = 0
  /** The kinds of points of tracing that native notes. */
  traced = 0
  /** A trace is written: native is told of each turn and callback. */
  recording = false
  /** Called after the next attached turn, with whether it made progress. */
  readonly waiting: ((progress: boolean) => void)[] = []
  /** Tells native which timers nobody holds any more. */
  readonly dropped = new FinalizationRegistry<number>((slot) => {
    if (!this.closed) this.native.timerDelete(slot)
  })
  /** Whose callback threw last in an attached turn. */
  #culprit: AsyncResource | undefined
  readonly #running: { loop: Loop | undefined } = { loop: undefined }
  readonly #spare: Slot[] = []
  readonly #own: Slot[] = []

  constructor(create: (invoke: (kind: number, slot: number) => number) => NativeContext, name: string) {
    // Native holds this function strongly; a strong path from it back to here would keep every context alive for ever.
    // While a turn runs the path is strong, because a `deref()` costs more than most predicates.
    const self = new WeakRef(this)
    const running = this.#running
    this.native = create((kind, slot) => (running.loop ?? self.deref())?.invoke(kind, slot) ?? 0)
    this.hot = this.native.hot()
    this.life = { name, handlers: 0, ran: false }
    this.words = integers(FIRST_WORDS)
    this.native.setWords(this.words)
  }

  // --- Turns --------------------------------------------------------------------------------------------------------

  /** One turn. True = something visible to the user ran. */
  turn(blocking: boolean): boolean {
    this.enter('poll()')
    if (this.traced !== 0 || hasSubscribers()) trace(this)
    const base = this.errors.length
    const recording = this.recording
    if (recording) this.hot.stepBegins(Number(blocking))
    const depth = this.#begin()
    let progress = false
    try {
      const frame = this.frames[depth] ?? this.#addFrame()
      progress = this.#drain(this.hot.turn(depth * 2 + Number(blocking)), frame, depth)
    } catch (error) {
      this.#failed(error)
    }
    if (recording) this.hot.stepEnds(Number(progress))
    this.#unwind(depth)
    if (this.traced !== 0) publish(this)
    if (this.errors.length !== base) this.throwFrom(base)
    return progress
  }

  /** The dispatch half of a turn that an outer loop waits for. */
  dispatch(): boolean {
    this.enter('dispatch()')
    if (this.traced !== 0 || hasSubscribers()) trace(this)
    const base = this.errors.length
    if (this.deferred.length !== 0) this.errors.push(...this.deferred.splice(0))
    const recording = this.recording
    if (recording) this.hot.stepBegins(DISPATCH)
    const depth = this.#begin()
    let progress = false
    try {
      const frame = this.frames[depth] ?? this.#addFrame()
      progress = this.#drain(this.native.dispatch(depth), frame, depth)
    } catch (error) {
      this.#failed(error)
    }
    if (recording) this.hot.stepEnds(Number(progress))
    this.#unwind(depth)
    if (this.traced !== 0) publish(this)
    if (this.errors.length !== base) this.throwFrom(base)
    return progress
  }

  #begin(): number {
    const depth = this.depth
    if (depth === 0) {
      this.#running.loop = this
      this.life.ran = true
    }
    this.depth = depth + 1
    return depth
  }

  #unwind(depth: number): void {
    this.depth = depth
    if (depth === 0 && !this.attached) this.#running.loop = undefined
  }

  // --- Inside Node's loop -------------------------------------------------------------------------------------------

  /** From here on Node's loop runs the turns. */
  attach(): void {
    if (this.frames.length === 0) this.#addFrame()
    // The loop is held by this function, so an attached context lives until it is detached or closed.
    this.observed(() => this.native.attach((answer) => this.#attachedTurn(answer)))
    this.attached = true
    this.life.ran = true
    this.#running.loop = this
    this.native.keep(this.keeping > 0)
    this.native.setReferenced(this.referenced)
  }

  detach(): void {
    this.attached = false
    if (this.depth === 0) this.#running.loop = undefined
    try {
      this.withHooks(() => this.native.detach())
    } finally {
      this.#wake(false)
    }
  }

  /** A batch that native has put into the first frame. What its callbacks threw is an uncaught exception. */
  #attachedTurn(answer: number): void {
    if (answer === LEFT) {
      if (this.native.closed) this.#empty() // by a panic
      this.attached = false
      this.#running.loop = undefined
      this.#wake(false)
      return
    }
    const recording = this.recording
    if (recording) this.hot.stepBegins(DISPATCH)
    const depth = this.#begin()
    let progress = false
    try {
      progress = this.#drain(answer, this.frames[depth]!, depth)
    } catch (error) {
      this.#failed(error)
    }
    if (recording) this.hot.stepEnds(Number(progress))
    this.#unwind(depth)
    if (this.traced !== 0 || hasSubscribers()) this.#trace()
    if (progress) this.#wake(true)
    const culprit = this.#culprit
    this.#culprit = undefined
    if (this.errors.length === 0) return
    const error = this.takeErrors(0)
    // In the asynchronous context of who threw it, which the listeners may look at, as Node has it.
    if (culprit === undefined || error instanceof AggregateError) native.uncaughtException(error)
    else culprit.runInAsyncScope(native.uncaughtException, undefined, error)
  }

  /** After an attached turn: publishes, and looks who listens from now on. */
  #trace(): void {
    if (this.traced !== 0) publish(this)
    if (!this.closed) trace(this)
  }

  #wake(progress: boolean): void {
    if (this.waiting.length === 0) return
    for (const resolve of this.waiting.splice(0)) resolve(progress)
  }

  /** While attached it keeps its thread alive, though nothing is registered. */
  hold(): void {
    this.#keep(1)
  }

  /** Counts the handlers for whose sake the process lives. */
  #keep(by: number): void {
    const before = this.keeping > 0
    this.keeping += by
    if (this.attached && before !== this.keeping > 0) this.native.keep(!before)
  }

  /** Runs the batches of one turn. */
  #drain(first: number, frame: Int32Array, depth: number): boolean {
    let answer = first
    let flags = first
    let ran = 0
    for (;;) {
      const count = answer & COUNT
      if (count !== 0) ran += this.recording ? this.#runRecorded(frame, count) : this.#run(frame, count)
      if ((answer & MORE) === 0 || this.closed) break
      answer = this.native.more(depth)
      flags |= answer
    }
    if ((flags & (ERRORS | STOP | CLEANUP)) !== 0 || this.closed) this.#afterwards(flags, depth)
    return ran !== 0 || (flags & PROGRESS) !== 0
  }

  /** Runs one batch, or a part of it; how many visible callbacks ran. */
  #run(frame: Int32Array, count: number, first = 1): number {
    const table = this.table
    const attached = this.attached
    let ran = 0
    for (let at = first; at <= count; at++) {
      const slot = frame[at]!
      const word = this.words[slot]!
      if (word === 0) continue
      this.words[slot] = 0
      const target = table[slot]
      if (target === undefined) continue
      // Where this walk is: a nested turn reads which slot is busy and which are still to come.
      frame[0] = at
      if (attached && target.resource !== undefined) {
        const known = this.errors.length
        ran += target.resource.runInAsyncScope(this.#runSlot, this, target, word)
        if (this.errors.length !== known) this.#culprit = target.resource
      } else {
        ran += this.#runSlot(target, word)
      }
    }
    frame[0] = -1
    return ran
  }

  /** …one slot after the other, each of them a step of the trace. */
  #runRecorded(frame: Int32Array, count: number): number {
    let ran = 0
    for (let at = 1; at <= count; at++) {
      const slot = frame[at]!
      const word = this.words[slot]!
      if (word === 0) continue
      const known = this.table[slot] !== undefined
      if (known) this.hot.callbackBegins(slot, word)
      ran += this.#run(frame, at, at)
      if (known) this.hot.callbackEnds()
    }
    return ran
  }

  /** Runs what is due of one slot; 1 = it is visible to the user. */
  #runSlot(target: Slot, word: number): number {
    if ((word & (RUN_READ | RUN_READY)) !== 0) {
      if ((word & RUN_READY) !== 0) {
        try {
          target.handlers.pollReady(target.fd)
        } catch (error) {
          this.errors.push(error)
        }
      }
      if ((word & RUN_READ) !== 0 && target.live) {
        try {
          target.handlers.read(target.fd, word & EVENTS_MASK)
        } catch (error) {
          this.errors.push(error)
        }
      }
      if ((word & (RUN_WRITE | RUN_PRIORITY)) !== 0) this.#runRest(target, word)
      return 1
    }
    if ((word & (RUN_WRITE | RUN_PRIORITY)) !== 0) {
      this.#runRest(target, word)
      return 1
    }
    this.#runOwn(target, word)
    return (word & IDLE) === 0 ? 1 : 0
  }

  /** `write` and `priority`: not when an earlier callback removed the handler or took the interest away. */
  #runRest(target: Slot, word: number): void {
    if ((word & RUN_WRITE) !== 0 && target.live && (target.interest & 2) !== 0) {
      try {
        target.handlers.write(target.fd, word & EVENTS_MASK)
      } catch (error) {
        this.errors.push(error)
      }
    }
    if ((word & RUN_PRIORITY) !== 0 && target.live && (target.interest & 4) !== 0) {
      try {
        target.handlers.priority(target.fd, word & EVENTS_MASK)
      } catch (error) {
        this.errors.push(error)
      }
    }
  }

  /** A bottom half, a timer or a completion. */
  #runOwn(target: Slot, word: number): void {
    const callback = target.callback
    if ((word & TIMER) !== 0) {
      this.table[target.slot] = undefined
    } else if ((word & (BOTTOM_HALF | IO)) === 0) {
      return
    } else if (target.oneShot) {
      this.#recycle(target)
    }
    try {
      callback()
    } catch (error) {
      this.errors.push(error)
    }
  }

  /** What happens in few turns: errors of native, a stop, memory to free. */
  #afterwards(flags: number, depth: number): void {
    if ((flags & STOP) !== 0 && this.loops !== 0) this.stopping = true
    if ((flags & ERRORS) !== 0 && !this.closed) {
      for (const { slot, error } of this.native.takeErrors()) {
        const target = slot < 0 ? undefined : this.table[slot]
        if (target !== undefined) this.forget(target)
        this.errors.push(error)
      }
      if (this.native.closed) this.#empty() // by a panic
    }
    if (depth === 0) this.native.end()
  }

  /** Native itself threw. After an internal error it has closed the context. */
  #failed(error: unknown): void {
    this.errors.push(error)
    if (this.native.closed && !this.closed) this.#empty()
  }

  #addFrame(): Int32Array {
    const frame = integers(1 + FRAME_SLOTS)
    frame[0] = -1
    this.native.addFrame(frame)
    this.frames.push(frame)
    return frame
  }

  // --- Hooks --------------------------------------------------------------------------------------------------------

  /** Native calls this for what it cannot do itself. Never throws. Predicate: 1 hit, 0 miss, 2 it threw. */
  invoke(kind: number, slot: number): number {
    const target = this.table[slot]
    if (target === undefined) return 0
    this.hooks++
    try {
      if (kind === PREDICATE) {
        const hit = target.handlers.poll(target.fd)
        if (typeof hit === 'object') throw notBoolean(hit)
        return hit ? 1 : 0
      }
      target.begun = kind === BEGIN
      if (target.begun) target.handlers.pollBegin(target.fd)
      else target.handlers.pollEnd(target.fd)
      return 0
    } catch (error) {
      this.errors.push(error)
      return 2
    } finally {
      if (target.begun && !target.live) this.#endOf(target)
      this.hooks--
    }
  }

  /** Native has nobody to call `pollEnd` of: the handler was removed by its own hook. */
  #endOf(target: Slot): void {
    target.begun = false
    const { pollEnd } = target.handlers as Partial<Callbacks>
    if (pollEnd === undefined) return
    try {
      target.handlers.pollEnd(target.fd)
    } catch (error) {
      this.errors.push(error)
    }
  }

  // --- Errors -------------------------------------------------------------------------------------------------------

  /** Throws what was collected above `base`. */
  throwFrom(base: number): never {
    throw this.takeErrors(base)
  }

  /** What was collected above `base`: one error as it is, several as an AggregateError. */
  takeErrors(base: number): unknown {
    const errors = this.errors.splice(base)
    if (errors.length === 1) return errors[0]
    return new AggregateError(
      errors,
      `${errors.length} callbacks of one turn threw; see each in .errors, and catch inside the callbacks`,
    )
  }

  /**
   * Runs a call into native that may run hooks. Outside a turn their errors are thrown once the call's own work is done;
   * inside one the turn reports them after its other callbacks.
   */
  withHooks<T>(call: () => T): T {
    const base = this.errors.length
    let result: T
    try {
      result = this.observed(call)
    } catch (error) {
      if (this.depth !== 0 || this.hooks !== 0 || this.errors.length === base) throw error
      this.errors.push(error)
      this.throwFrom(base)
    }
    if (this.depth === 0 && this.hooks === 0 && this.errors.length !== base) this.throwFrom(base)
    return result
  }

  /** Runs a call into native that may do what tracing follows, and publishes that unless a turn does. */
  observed<T>(call: () => T): T {
    if (this.traced === 0 && !hasSubscribers()) return call()
    if (!this.closed) trace(this)
    try {
      return call()
    } finally {
      if (this.depth === 0 && this.hooks === 0) publish(this)
    }
  }

  /** Keeps what hooks threw outside a turn for the next `dispatch()`; whether there is something to report. */
  defer(base: number): boolean {
    if (this.errors.length !== base) this.deferred.push(...this.errors.splice(base))
    return this.deferred.length !== 0
  }

  /** Refuses the call when the context is closed. */
  open(): void {
    if (this.closed) throw closed(`AioContext '${this.life.name}'`, 'create a new AioContext')
  }

  /** Refuses a turn when the context is closed or a hook runs. */
  enter(call: string): void {
    if (this.closed) this.open()
    if (this.hooks !== 0) {
      throw new FdmonError(
        'ERR_FDMON_IN_USE',
        `${call} was called from poll, pollBegin or pollEnd of a handler of the same context; call it from read, write, pollReady, a bottom half or a timer`,
      )
    }
  }

  // --- Slots --------------------------------------------------------------------------------------------------------

  /** Calls `allocate` until there is room; -1 from native means that the words are full. */
  allocate(allocate: () => number): number {
    for (;;) {
      const slot = allocate()
      if (slot >= 0) return slot
      const words = integers(this.words.length * 2)
      this.native.setWords(words)
      this.words = words
    }
  }

  /** A handler that native has taken. */
  adopt(target: Slot): void {
    this.table[target.slot] = target
    this.handlers.set(target.fd, target)
    this.life.handlers = this.handlers.size
    if (target.keeps) this.#keep(1)
  }

  /** Marks a handler as gone: nothing of it runs any more. */
  forget(target: Slot): void {
    target.live = false
    target.interest = 0
    target.released()
    if (this.table[target.slot] === target) this.table[target.slot] = undefined
    // What is registered under its number next is not busy, although this handler's callback is.
    for (let depth = 0; depth < this.depth; depth++) {
      const frame = this.frames[depth]
      const at = frame?.[0] ?? -1
      if (frame !== undefined && at > 0 && frame[at] === target.slot) frame[at] = -1
    }
    if (this.handlers.get(target.fd) === target) {
      this.handlers.delete(target.fd)
      this.life.handlers = this.handlers.size
      if (target.keeps) this.#keep(-1)
      target.resource?.emitDestroy()
      target.gone()
    }
  }

  /** A one-shot bottom half, scheduled. */
  schedule(callback: () => unknown): void {
    let target = this.#spare.pop()
    if (target === undefined) {
      target = new Slot()
      target.oneShot = true
      target.slot = this.allocate(() => this.native.bottomHalf())
      this.table[target.slot] = target
    }
    target.callback = callback
    target.resource = this.attached ? asyncContext() : undefined
    this.hot.schedule(target.slot)
  }

  /** A bottom half of the package's own, which no leak report counts. */
  ownHalf(callback: () => unknown): Slot {
    const target = new Slot()
    target.callback = callback
    target.slot = this.allocate(() => this.native.bottomHalf())
    this.table[target.slot] = target
    this.#own.push(target)
    return target
  }

  #recycle(target: Slot): void {
    target.callback = nothing
    if (this.#spare.length < SPARE_MAX) {
      this.#spare.push(target)
    } else {
      this.table[target.slot] = undefined
      this.native.bhDelete(target.slot)
    }
  }

  // --- The end ------------------------------------------------------------------------------------------------------

  /** Closes, at any depth; callbacks that are still in a batch do not run. */
  close(): LeakReport {
    const base = this.errors.length
    for (const target of [...this.#spare.splice(0), ...this.#own.splice(0)]) this.native.bhDelete(target.slot)
    // In the table are the pending ones; native would also count those that nobody dropped yet.
    const timers = this.table.reduce((count, target) => count + Number(target?.timer ?? false), 0)
    if (this.traced !== 0 || hasSubscribers()) trace(this)
    this.closed = true
    // Inside a hook a turn of native is under way, which must not sleep now.
    if (this.hooks !== 0) this.native.notify()
    // `pollEnd` of begun handlers runs in here, so the table is emptied after it.
    let report: LeakReport
    try {
      report = { ...this.native.close(), timers }
    } finally {
      this.#empty()
    }
    if (this.traced !== 0 && this.depth === 0 && this.hooks === 0) publish(this)
    if (this.depth === 0 && this.errors.length !== base) this.throwFrom(base)
    return report
  }

  #empty(): void {
    this.closed = true
    this.attached = false
    this.words.fill(0)
    for (const target of this.table) if (target !== undefined) target.live = false
    this.table.length = 0
    const handlers = [...this.handlers.values()]
    this.handlers.clear()
    this.life.handlers = 0
    if (this.depth === 0) this.#running.loop = undefined
    for (const target of handlers) {
      target.released()
      target.gone()
    }
    this.io.end()
    this.#wake(false)
  }
}

function notBoolean(value: unknown): FdmonError {
  return invalidArg('the result of handlers.poll', value, 'return true or false, and do not make the function async')
}
