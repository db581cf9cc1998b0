// A record of the log, as it lies in the file. Numbers are little endian.
//
//   0  magic      4   FF 'k' 'v' 'l': no text in UTF-8 contains an FF, so no key and no value looks like a record
//   4  crc        4   CRC-32 of everything behind it
//   8  sequence   6   1, 2, 3, … without a gap
//  14  durable    6   the last sequence that was durable when this one was written: what tells a torn tail from damage
//  20  kind       2   1 = set, 2 = delete
//  22  keyBytes   2
//  24  valueBytes 4   0 of a delete
//  28  key, value
import { crc32 } from './crc32.js'
import { KvLogError } from './errors.js'

export const MAX_KEY_BYTES = 0xffff
export const MAX_VALUE_BYTES = 8 << 20
/** The most bytes that one commit writes: nothing longer can be torn by a crash. Two of the longest records do not fit. */
export const MAX_GROUP_BYTES = 16 << 20

export const HEADER_BYTES = 28
export const MAGIC = Buffer.from('\xffkvl', 'latin1')
const MAGIC_WORD = MAGIC.readUInt32LE()
const SET = 1
const DELETE = 2
const AT = { crc: 4, sequence: 8, durable: 14, kind: 20, keyBytes: 22, valueBytes: 24 }
const SEQUENCE_BYTES = 6
/** Half of a pair, which UTF-8 cannot express: it would come back as another character. */
const LONE_SURROGATE = /\p{Surrogate}/u

/** What a record says: the value that a key has from now on, or null for none. */
export interface Change {
  key: string
  value: string | null
}

export interface LogRecord extends Change {
  sequence: number
  durable: number
  /** Its length in the file. */
  bytes: number
}

/** Refuses what no record can hold; returns how long the record will be. */
export function recordBytes({ key, value }: Change): number {
  return HEADER_BYTES + textBytes('key', key, MAX_KEY_BYTES) + (value === null ? 0 : textBytes('value', value, MAX_VALUE_BYTES))
}

function textBytes(name: string, text: unknown, most: number): number {
  if (typeof text !== 'string') throw new KvLogError('ERR_KVLOG_INVALID_ARG', `${name} is ${typeof text}; pass a string`)
  if (LONE_SURROGATE.test(text)) throw new KvLogError('ERR_KVLOG_INVALID_ARG', `${name} contains half of a surrogate pair; pass well-formed text`)
  const bytes = Buffer.byteLength(text)
  if (bytes > most) throw new KvLogError('ERR_KVLOG_INVALID_ARG', `${name} has ${bytes} bytes; pass at most ${most}`)
  return bytes
}

export function encode({ key, value }: Change, sequence: number, durable: number): Buffer {
  const keyBytes = Buffer.byteLength(key)
  const valueBytes = value === null ? 0 : Buffer.byteLength(value)
  const buffer = Buffer.allocUnsafe(HEADER_BYTES + keyBytes + valueBytes)
  buffer.writeUInt32LE(MAGIC_WORD)
  buffer.writeUIntLE(sequence, AT.sequence, SEQUENCE_BYTES)
  buffer.writeUIntLE(durable, AT.durable, SEQUENCE_BYTES)
  buffer.writeUInt16LE(value === null ? DELETE : SET, AT.kind)
  buffer.writeUInt16LE(keyBytes, AT.keyBytes)
  buffer.writeUInt32LE(valueBytes, AT.valueBytes)
  buffer.write(key, HEADER_BYTES)
  if (value !== null) buffer.write(value, HEADER_BYTES + keyBytes)
  buffer.writeUInt32LE(crc32(buffer.subarray(AT.sequence)), AT.crc)
  return buffer
}

/**
 * The record that begins at `at`. `bytes` is how long one there would be, as far as can be told: if the buffer ends before
 * that, more of the file decides; otherwise there is none.
 */
export function decode(buffer: Buffer, at: number): LogRecord | { bytes: number; key?: undefined } {
  if (buffer.length - at < HEADER_BYTES) return { bytes: HEADER_BYTES }
  const keyBytes = buffer.readUInt16LE(at + AT.keyBytes)
  const valueBytes = buffer.readUInt32LE(at + AT.valueBytes)
  const kind = buffer.readUInt16LE(at + AT.kind)
  const possible = kind === SET ? valueBytes <= MAX_VALUE_BYTES : kind === DELETE && valueBytes === 0
  if (buffer.readUInt32LE(at) !== MAGIC_WORD || !possible) return { bytes: 0 }
  const bytes = HEADER_BYTES + keyBytes + valueBytes
  if (buffer.length - at < bytes) return { bytes }
  if (buffer.readUInt32LE(at + AT.crc) !== crc32(buffer.subarray(at + AT.sequence, at + bytes))) return { bytes: 0 }
  const keyAt = at + HEADER_BYTES
  return {
    sequence: buffer.readUIntLE(at + AT.sequence, SEQUENCE_BYTES),
    durable: buffer.readUIntLE(at + AT.durable, SEQUENCE_BYTES),
    key: buffer.toString('utf8', keyAt, keyAt + keyBytes),
    value: kind === DELETE ? null : buffer.toString('utf8', keyAt + keyBytes, at + bytes),
    bytes,
  }
}
