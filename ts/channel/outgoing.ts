// The ring that a port produces. The hot half of sending: no call into native code, nothing allocated.
import { CORRUPT, HEADER, headWord, portWords, PREFIX, recordBytes, ROOM, TAIL, type ChannelMemory, type PortNumber } from './layout.js'

/** The producer's side: `head` is its own, `tail` the other port's. */
export class Outgoing {
  readonly #words: Int32Array
  readonly #bytes: Uint8Array
  readonly #ring: number
  /** The data's first byte, and the byte after the last. */
  readonly #from: number
  readonly #to: number
  readonly #headWord: number
  readonly #roomWord: number
  #head = 0
  /** The byte where the next record begins. */
  #at: number
  /** Bytes that are free at least: the consumer may have taken more since. */
  #free: number

  constructor({ words, bytes, ring }: ChannelMemory, port: PortNumber) {
    this.#words = words
    this.#bytes = bytes
    this.#ring = this.#free = ring
    this.#from = this.#at = port === 1 ? HEADER : HEADER + ring
    this.#to = this.#from + ring
    this.#headWord = headWord(port)
    this.#roomWord = portWords(port) + ROOM
  }

  /** Puts a message into the ring and publishes it. False = full; CORRUPT. `length` is the message's, checked. */
  send(message: Uint8Array, length: number): boolean | typeof CORRUPT {
    const size = recordBytes(length)
    if (size > this.#free) {
      if (!this.#look()) return CORRUPT
      if (size > this.#free) return false
    }
    const words = this.#words
    const bytes = this.#bytes
    const at = this.#at
    words[at >>> 2] = length
    words[(at >>> 2) + 1] = 0
    let end = at + size
    if (end <= this.#to) {
      bytes.set(message, at + PREFIX)
      if (end === this.#to) end = this.#from
    } else {
      end -= this.#ring
      this.#copyAround(message, length, at + PREFIX)
    }
    this.#at = end
    this.#free -= size
    this.#head = (this.#head + size) | 0
    // Sequentially consistent: the caller's look whether the consumer may sleep comes after it.
    Atomics.store(words, this.#headWord, this.#head)
    return true
  }

  /** Asks the consumer to say when `wanted` bytes are free. True = those that are needed are already, but it is asked; CORRUPT. */
  awaitRoom(needed: number, wanted: number): boolean | typeof CORRUPT {
    Atomics.store(this.#words, this.#roomWord, wanted)
    if (!this.#look()) return CORRUPT
    return this.#free >= needed
  }

  /** The consumer need not say anything. */
  forgetRoom(): void {
    Atomics.store(this.#words, this.#roomWord, 0)
  }

  /** How far the consumer is. False = the words make no sense. */
  #look(): boolean {
    const words = this.#words
    const used = (this.#head - Atomics.load(words, this.#headWord + TAIL)) >>> 0
    if (used > this.#ring || (used & 7) !== 0 || words[this.#headWord] !== this.#head) return false
    this.#free = this.#ring - used
    return true
  }

  /** A message that goes on at the beginning of the data. */
  #copyAround(message: Uint8Array, length: number, from: number): void {
    const bytes = this.#bytes
    const first = this.#to - from
    if (first >= length) {
      bytes.set(message, from)
      return
    }
    // Not by the message's own subarray(): a subclass may have another one.
    bytes.set(Uint8Array.prototype.subarray.call(message, 0, first), from)
    bytes.set(Uint8Array.prototype.subarray.call(message, first), this.#from)
  }
}

