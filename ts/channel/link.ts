// One side of a channel as it is driven: who owns the port, when the other side is rung, and what is done when it rings.
import type { Loop } from '../batch.js'
import { closed, FdmonError } from '../errors.js'
import { Events, register } from '../handlers.js'
import { fdHot, native } from '../native.js'
import type { Registration } from '../registration.js'
import { nothing, Slot } from '../slot.js'
import { Incoming } from './incoming.js'
import {
  CLAIMED,
  CLOSED,
  CORRUPT,
  DIED,
  FREE,
  headWord,
  otherPort,
  portWords,
  recordBytes,
  RUNG,
  SUPPRESS,
  TAIL,
} from './layout.js'
import { Outgoing } from './outgoing.js'
import type { Parts } from './parts.js'

/** Why nothing comes any more. */
export type ChannelEnd = 'closed' | 'peer-died' | 'corrupt'

/** What drives the two rings of a port; `port.ts` says when. */
export class Link {
  readonly parts: Parts
  /** The local object of the other port, until that is used elsewhere. */
  sibling: Link | undefined
  /** Set once. */
  end: ChannelEnd | undefined
  /** There is the room that a send waits for. */
  room: () => void = nothing
  ended: (end: ChannelEnd) => void = nothing
  /** The context that watched was closed. */
  lost: () => void = nothing
  readonly #words: Int32Array
  /** The four words of this port, and of the other one. */
  readonly #own: number
  readonly #peer: number
  readonly #out: Outgoing
  readonly #in: Incoming
  /** This object is the owner of the port. */
  #claimed = false
  /** The descriptors are closed. */
  #released = false
  #mark = -1
  #consumer: ((message: Uint8Array) => void) | undefined
  /** Another number for each consumer, and each time that it is given messages: who gives them sees that he is to stop. */
  #turn = 0
  /** Taken out of the ring already, and not used. */
  readonly #early: Uint8Array[] = []
  /** Bytes that a send waits for. */
  #needs = 0
  #loop: Loop | undefined
  #keeps = true
  #spins = false
  #registration: Registration | undefined

  constructor(parts: Parts) {
    this.parts = parts
    this.#words = parts.memory.words
    this.#own = portWords(parts.port)
    this.#peer = portWords(otherPort(parts.port))
    this.#out = new Outgoing(parts.memory, parts.port)
    this.#in = new Incoming(parts.memory, parts.port)
  }

  get claimed(): boolean {
    return this.#claimed
  }

  get released(): boolean {
    return this.#released
  }

  /** A send waits for room. */
  get waits(): boolean {
    return this.#needs !== 0
  }

  /** Gets the messages while a loop watches. */
  set consumer(consumer: ((message: Uint8Array) => void) | undefined) {
    this.#consumer = consumer
    this.#turn++
  }

  // --- Ownership ----------------------------------------------------------------------------------------------------

  /** Makes this object the port's owner, for good. */
  claim(): void {
    if (this.#claimed) return
    const mark = this.#released ? null : native.channelClaim(this.#words, this.#own, this.#peer + RUNG, this.parts.theirs.fd)
    if (mark === null) {
      if (this.#released && this.end !== undefined) throw closed('the ChannelPort', 'make a new Channel')
      const message = `port ${this.parts.port} of the channel is used elsewhere already; a port has one owner: use the other port, or make a channel more`
      throw new FdmonError('ERR_FDMON_IN_USE', message)
    }
    this.#claimed = true
    this.#mark = mark
    this.#ring() // so that it lets go of the descriptors that it has of this port
  }

  /** Closes the port, if it is this object's or nobody's, and the descriptors. */
  close(): void {
    if (this.#released) return
    if (this.#claimed || Atomics.compareExchange(this.#words, this.#own, FREE, CLOSED) === FREE) {
      Atomics.store(this.#words, this.#own, CLOSED)
      this.#ring()
      // Last, as a worker can be ended anywhere in here.
      if (this.#mark >= 0) native.channelUnmark(this.#mark)
    }
    this.#release()
    this.#finish('closed')
  }

  /** Lets go of the descriptors of a port that is used elsewhere: copies of them would hide the death of its owner. */
  releaseIfTaken(): boolean {
    if (this.#claimed || Atomics.load(this.#words, this.#own) === FREE) return false
    this.#release()
    return true
  }

  #release(): void {
    if (this.#released) return
    this.#released = true
    this.unwatch()
    const { bell, theirs, file } = this.parts
    bell.close()
    theirs.close()
    file?.close()
  }

  #finish(end: ChannelEnd): void {
    if (this.end !== undefined) return
    this.end = end
    this.unwatch()
    if (end === 'corrupt') this.close()
    this.ended(end)
  }

  // --- Sending ------------------------------------------------------------------------------------------------------

  /** False = full, and {@link Link.room} is called when it is worth to try again. */
  send(message: Uint8Array, length: number): boolean {
    const words = this.#words
    if (this.end !== undefined || !this.#claimed || words[this.#peer]! > CLAIMED) this.#beforeSend()
    const sent = this.#out.send(message, length)
    if (sent === false) return this.#awaitRoom(message, length)
    if (sent === CORRUPT) throw this.#corrupt()
    if (Atomics.load(words, this.#peer + SUPPRESS) === 0) this.#ring()
    return true
  }

  #beforeSend(): void {
    if (this.end === undefined && !this.#claimed) this.claim()
    const state = Atomics.load(this.#words, this.#peer)
    if (this.end === undefined && (state === FREE || state === CLAIMED)) return
    throw this.gone(state)
  }

  /** The error of whoever wants to send to nobody. */
  gone(state = Atomics.load(this.#words, this.#peer)): FdmonError {
    if (this.#released && this.end === 'closed') return closed('the ChannelPort', 'make a new Channel')
    if (this.end === 'corrupt') {
      const message = 'the memory of the channel makes no sense: something else has written into it; make a new Channel'
      return new FdmonError('ERR_FDMON_CLOSED', message)
    }
    const died = this.end === 'peer-died' || state === DIED
    return new FdmonError('ERR_FDMON_CLOSED', `the other port ${died ? 'died' : 'is closed'}; close this one too, and make a new Channel`)
  }

  #awaitRoom(message: Uint8Array, length: number): boolean {
    const size = recordBytes(length)
    const before = this.#needs
    const needs = (this.#needs = Math.max(size, before))
    const answer = this.#out.awaitRoom(size, Math.max(needs, this.parts.memory.ring >>> 1))
    if (answer === CORRUPT) throw this.#corrupt()
    if (!answer) return false
    // There is room just now for this one. What was promised to one before it, which needs more, stays so.
    this.#needs = before
    if (before === 0) this.#out.forgetRoom()
    return this.send(message, length)
  }

  #corrupt(): FdmonError {
    this.#finish('corrupt')
    return this.gone()
  }

  /** The other port has rung: perhaps because there is room. */
  #lookForRoom(loop: Loop | undefined): void {
    const needs = this.#needs
    const answer = this.#out.awaitRoom(needs, Math.max(needs, this.parts.memory.ring >>> 1))
    if (answer === CORRUPT) return this.#finish('corrupt')
    if (!answer) return
    this.#needs = 0
    this.#out.forgetRoom()
    try {
      this.room()
    } catch (error) {
      loop?.errors.push(error) // the end is looked for all the same
    }
  }

  /** Rings the other port, unless it rings already. */
  #ring(): void {
    const words = this.#words
    if (Atomics.load(words, this.#peer + RUNG) !== 0 || Atomics.exchange(words, this.#peer + RUNG, 1) !== 0) return
    // It fails where the other side is gone, which its own bell tells.
    if (!this.#released) fdHot.set(this.parts.theirs.fd)
  }

  // --- Receiving ----------------------------------------------------------------------------------------------------

  /** The next message, good until the one after it is taken. */
  receive(): Uint8Array | undefined {
    if (this.#released) return undefined
    if (this.#early.length > 0) return this.#early.shift()
    const pending = this.#in.waiting()
    if (pending === 0) return undefined
    const message = pending === CORRUPT ? undefined : this.#in.take(pending)
    if (message === undefined) this.#finish('corrupt')
    else if (this.#in.publish(pending - recordBytes(message.length))) this.#ring()
    return message
  }

  /** Messages for whoever comes next, before those in the ring. */
  putBack(messages: Uint8Array[]): void {
    this.#early.unshift(...messages)
  }

  /**
   * Gives the consumer what there is. False = nothing more is to be done: it has ended, or there is another consumer, or
   * none, whose loop does the rest.
   */
  #take(): boolean {
    const consumer = this.#consumer
    if (consumer === undefined) return this.end === undefined
    const loop = this.#loop // the consumer may move it elsewhere
    const turn = ++this.#turn
    while (this.#early.length > 0 && this.#turn === turn) give(consumer, this.#early.shift()!, loop)
    let pending = this.#turn === turn ? this.#in.waiting() : 0
    while (pending > 0) {
      const message = this.#in.take(pending)
      if (message === undefined) break
      pending -= recordBytes(message.length)
      if (this.#in.mayPublish && this.#in.publish(pending)) this.#ring()
      give(consumer, message, loop)
      if (this.#turn !== turn) break
    }
    if (this.#in.publish(pending) && !this.#released) this.#ring()
    if (this.#turn !== turn) return false
    if (pending !== 0) this.#finish('corrupt')
    return pending === 0
  }

  /** The bell has rung. */
  #look(events: number): void {
    if (!this.#take()) return
    const loop = this.#loop
    const cleared = fdHot.testAndClear(this.parts.bell.fd)
    // What comes from here on rings anew; what came before is seen below, or by the loop that watches next.
    Atomics.store(this.#words, this.#own + RUNG, 0)
    if (this.#needs !== 0) this.#lookForRoom(loop)
    if (this.#loop !== loop || !this.#take()) return
    if (this.sibling?.releaseIfTaken() === true) this.sibling = undefined
    const hungUp = (events & Events.HUP) !== 0 || cleared < 0
    const end = this.#peerEnd() ?? (hungUp ? 'peer-died' : undefined)
    // What it has sent before its end was not there yet, perhaps.
    if (this.end === undefined && end !== undefined && this.#take()) this.#finish(end)
  }

  /** How the other port has ended, as it says itself. */
  #peerEnd(): ChannelEnd | undefined {
    switch (Atomics.load(this.#words, this.#peer)) {
      case FREE:
      case CLAIMED:
        return undefined
      case CLOSED:
        return 'closed'
      case DIED:
        return 'peer-died'
      default:
        return 'corrupt'
    }
  }

  /** Gives the consumer what was left when the other side ended, in a turn of this loop. */
  rest(loop: Loop): void {
    this.#loop = loop
    if (!this.#released) this.#take()
  }

  // --- In a loop ----------------------------------------------------------------------------------------------------

  /** Waits in this loop for the bell, and spins there on the ring if there is a consumer. */
  watch(loop: Loop, keeps: boolean): void {
    const spins = this.#consumer !== undefined
    if (this.#registration !== undefined && this.#loop === loop && this.#keeps === keeps && this.#spins === spins) return
    this.claim()
    this.unwatch()
    if (this.end !== undefined) return
    const end = this.#peerEnd()
    // Nobody has to have what was sent before it first.
    if (end !== undefined && !spins) return this.#finish(end)
    const ring = headWord(otherPort(this.parts.port))
    // For what came before, no bell rings; but there is always room to ring one, so the next turn looks, as it does for a bell.
    const late = this.#early.length > 0 || end !== undefined
    const slot = new Slot()
    slot.keeps = keeps
    const registration = register(loop, this.parts.bell, {
      read: (_: number, events: number) => this.#look(events),
      ...(late && {
        write: (_: number, events: number) => {
          registration.setInterest({ write: false })
          this.#look(events)
        },
      }),
      ...(spins && {
        poll: { memory: this.#words, index: ring, notEqual: { index: ring + TAIL }, suppress: { index: this.#own + SUPPRESS } },
        pollReady: () => void this.#take(),
      }),
    }, slot)
    slot.gone = () => {
      if (this.#registration !== registration) return
      this.#registration = undefined
      this.lost()
    }
    this.#registration = registration
    this.#loop = loop
    this.#keeps = keeps
    this.#spins = spins
    if (this.sibling?.releaseIfTaken() === true) this.sibling = undefined
  }

  unwatch(): void {
    const registration = this.#registration
    this.#registration = undefined
    registration?.remove()
  }
}

/** What the consumer throws, the turn throws after its other callbacks. */
function give(consumer: (message: Uint8Array) => void, message: Uint8Array, loop: Loop | undefined): void {
  try {
    consumer(message)
  } catch (error) {
    loop?.errors.push(error)
  }
}
