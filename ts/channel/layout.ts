// Where everything of a channel lies in its memory: docs/CHANNEL-LAYOUT.md, in words of 32 bits.
import { checkInteger } from '../check.js'
import { invalidArg } from '../errors.js'

/** One of the two ends. */
export type PortNumber = 1 | 2

// --- The states of a port -------------------------------------------------------------------------------------------

export const FREE = 0
export const CLAIMED = 1
export const CLOSED = 2
export const DIED = 3

// --- The words of a port, from the first one on ---------------------------------------------------------------------

export const SUPPRESS = 1
export const RUNG = 2
export const ROOM = 3

/** What a call on a ring answers besides yes and no. */
export const CORRUPT = -1

/** The largest `capacity`. */
export const MOST = 2 ** 30 - 64
/** Bytes before the data of ring 1. */
export const HEADER = 448
/** Bytes of a record before its message. */
export const PREFIX = 8

const MAGIC = 0x436d6466
const VERSION = 1

/** The four words of a port. */
export const portWords = (port: PortNumber): number => port * 16

/** Word `head` of the ring that this port produces; `tail` is {@link TAIL} words later. */
export const headWord = (port: PortNumber): number => 16 + port * 32
export const TAIL = 16

/** The other end. */
export const otherPort = (port: PortNumber): PortNumber => (port === 1 ? 2 : 1)

/** Bytes that a message takes in a ring. */
export const recordBytes = (length: number): number => PREFIX + ((length + 7) & ~7)

/** The memory of a channel, checked, and the two ways to look at it. */
export interface ChannelMemory {
  readonly words: Int32Array
  readonly bytes: Uint8Array
  /** Bytes of the largest message. */
  readonly capacity: number
  /** Bytes of the data of a ring. */
  readonly ring: number
}

/** Bytes that a channel needs. */
export function memoryBytes(capacity: number): number {
  return HEADER + 2 * recordBytes(capacity)
}

/** Writes the header of a new channel into memory that is all zero. */
export function format(buffer: ArrayBufferLike, capacity: number): ChannelMemory {
  const words = new Int32Array(buffer)
  words.set([MAGIC, VERSION, capacity, recordBytes(capacity)])
  return open(buffer)
}

/** Refuses memory that is not a channel's. */
export function open(buffer: ArrayBufferLike): ChannelMemory {
  const words = new Int32Array(buffer, 0, buffer.byteLength >>> 2)
  const [magic, version, capacity, ring] = words
  if (buffer.byteLength < HEADER || magic !== MAGIC) {
    throw invalidArg('handle', 'memory without a channel in it', 'pass the handle of a ChannelPort')
  }
  if (version !== VERSION) {
    const whatToDo = `use one version of fdmon on both sides: this one knows version ${VERSION}`
    throw invalidArg('handle', `memory of a channel of version ${version}`, whatToDo)
  }
  checkInteger('the capacity in the memory of handle', capacity, 1, MOST, 'bytes')
  if (ring !== recordBytes(capacity!) || memoryBytes(capacity!) > buffer.byteLength) {
    const whatToDo = 'make the channel anew: its header does not hold together'
    throw invalidArg('handle', `${buffer.byteLength} bytes for capacity ${capacity} and rings of ${ring}`, whatToDo)
  }
  return { words, bytes: new Uint8Array(buffer), capacity: capacity!, ring: ring! }
}
