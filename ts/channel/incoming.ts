// The ring that a port consumes. Messages are copied out of the shared memory before anybody sees them, so that the other
// side cannot change what is being read; each of them in memory that is used again for the next one.
import {
  CORRUPT,
  HEADER,
  headWord,
  otherPort,
  portWords,
  PREFIX,
  recordBytes,
  ROOM,
  TAIL,
  type ChannelMemory,
  type PortNumber,
} from './layout.js'

/** Up to here a loop over words copies as fast as a call. */
const SMALL = 512
/** Views of messages up to here are made once for each length. */
const VIEWS = 4096

/** The consumer's side: `tail` is its own, `head` the other port's. */
export class Incoming {
  readonly #words: Int32Array
  readonly #bytes: Uint8Array
  readonly #capacity: number
  readonly #ring: number
  readonly #from: number
  readonly #to: number
  readonly #headWord: number
  readonly #tailWord: number
  /** The producer's. */
  readonly #roomWord: number
  #tail = 0
  /** The tail that the producer knows. */
  #published = 0
  /** Bytes after which it is told, within a batch. */
  readonly #step: number
  #at: number
  /** Where a message is while its handler runs, and the views of it by length. */
  #copy = new Uint8Array(0)
  #copyWords = new Int32Array(0)
  #views: (Uint8Array | undefined)[] = []

  constructor({ words, bytes, capacity, ring }: ChannelMemory, port: PortNumber) {
    this.#words = words
    this.#bytes = bytes
    this.#capacity = capacity
    this.#ring = ring
    this.#step = ring >>> 3
    const producer = otherPort(port)
    this.#from = this.#at = producer === 1 ? HEADER : HEADER + ring
    this.#to = this.#from + ring
    this.#headWord = headWord(producer)
    this.#tailWord = this.#headWord + TAIL
    this.#roomWord = portWords(producer) + ROOM
  }

  /** Bytes of messages that wait; CORRUPT. */
  waiting(): number {
    const words = this.#words
    const pending = (Atomics.load(words, this.#headWord) - this.#tail) >>> 0
    const sound = pending <= this.#ring && (pending & 7) === 0 && words[this.#tailWord] === this.#published
    return sound ? pending : CORRUPT
  }

  /**
   * Takes the first message, of which `pending` says that it is there: a view that is good until the next one is taken;
   * or nothing, when the words make no sense.
   */
  take(pending: number): Uint8Array | undefined {
    const words = this.#words
    const at = this.#at
    const length = words[at >>> 2]! >>> 0
    if (length > this.#capacity || words[(at >>> 2) + 1] !== 0) return undefined
    const size = recordBytes(length)
    if (size > pending) return undefined
    const view = this.#view(length)
    let end = at + size
    const from = at + PREFIX
    if (end <= this.#to) {
      if (length <= SMALL) {
        const copy = this.#copyWords
        const first = from >>> 2
        const count = (length + 3) >> 2
        for (let i = 0; i < count; i++) copy[i] = words[first + i]!
      } else {
        this.#copy.set(this.#bytes.subarray(from, from + length))
      }
      if (end === this.#to) end = this.#from
    } else {
      end -= this.#ring
      const first = Math.min(this.#to - from, length)
      this.#copy.set(this.#bytes.subarray(from, from + first))
      this.#copy.set(this.#bytes.subarray(this.#from, this.#from + length - first), first)
    }
    this.#at = end
    this.#tail = (this.#tail + size) | 0
    return view
  }

  /**
   * Whether so much was taken that the producer should know before the rest is. Not after each message: a store that the other
   * CPU is to see costs as much as a message.
   */
  get mayPublish(): boolean {
    return ((this.#tail - this.#published) >>> 0) >= this.#step
  }

  /**
   * Gives the room of what was taken back to the producer. True = it waits for that, and must be told. Of the bytes that were
   * there, `pending` are left.
   */
  publish(pending: number): boolean {
    if (this.#published === this.#tail) return false
    const words = this.#words
    this.#published = this.#tail
    Atomics.store(words, this.#tailWord, this.#tail)
    const wanted = Atomics.load(words, this.#roomWord)
    // What has come since `pending` was read is not free; only the producer knows, and looks again.
    return wanted !== 0 && this.#ring - pending >= wanted >>> 0 && Atomics.exchange(words, this.#roomWord, 0) !== 0
  }

  #view(length: number): Uint8Array {
    // 0 also when somebody has transferred it away.
    if (this.#copyWords.length << 2 < length || this.#copyWords.length === 0) this.#grow(length)
    if (length > VIEWS) return new Uint8Array(this.#copy.buffer, 0, length)
    return (this.#views[length] ??= new Uint8Array(this.#copy.buffer, 0, length))
  }

  #grow(length: number): void {
    const size = Math.max(256, (length + 7) & ~7, Math.min(2 * this.#copy.length, this.#ring))
    this.#copy = new Uint8Array(size)
    this.#copyWords = new Int32Array(this.#copy.buffer)
    this.#views = new Array<Uint8Array | undefined>(Math.min(size, VIEWS) + 1).fill(undefined)
  }
}
