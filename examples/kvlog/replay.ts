// Reading a log back: all records up to the first that is not whole, and whether what follows may be cut off.
//
// A crash can only tear the last commit, whose records nobody was told of: the next commit is not begun before the one in
// flight is durable. So a tail is torn, and may go, unless it is longer than a commit, or has a record that was written when
// the missing one was already durable. Then acknowledged data is damaged, which is for a person to look at, not to cut off.
import { KvLogError } from './errors.js'
import { decode, HEADER_BYTES, MAGIC, MAX_GROUP_BYTES } from './record.js'

const CHUNK_BYTES = 1 << 20

/** A file as far as it is read here. */
export interface Source {
  size: number
  /** Fills the buffer from this position; fewer bytes only at the end of the file. */
  read(buffer: Uint8Array, position: number): Promise<number>
}

export interface Replay {
  /** What the keys are, in the order in which they came. */
  entries: Map<string, string>
  records: number
  /** That of the last whole record. */
  sequence: number
  /** Where the last whole record ends. */
  end: number
  /** How many bytes of a torn commit follow it. */
  torn: number
}

export async function replay(source: Source): Promise<Replay> {
  const found: Replay = { entries: new Map(), records: 0, sequence: 0, end: 0, torn: 0 }
  let window: Buffer = Buffer.alloc(0)
  let at = 0
  for (;;) {
    const next = decode(window, at)
    if (next.key !== undefined) {
      if (next.sequence !== found.sequence + 1) break
      apply(found.entries, next.key, next.value)
      found.records++
      found.sequence = next.sequence
      found.end += next.bytes
      at += next.bytes
      continue
    }
    if (next.bytes === 0) break
    const rest = window.subarray(at)
    const more = await part(source, found.end + rest.length, Math.max(CHUNK_BYTES, next.bytes - rest.length))
    if (more.length === 0) break
    window = Buffer.concat([rest, more])
    at = 0
  }
  found.torn = source.size - found.end
  if (found.torn > 0) await refuseDamage(source, found)
  return found
}

export function apply(entries: Map<string, string>, key: string, value: string | null): void {
  if (value === null) entries.delete(key)
  else entries.set(key, value)
}

async function part(source: Source, position: number, bytes: number): Promise<Buffer> {
  const buffer = Buffer.allocUnsafe(Math.max(Math.min(bytes, source.size - position), 0))
  if (buffer.length === 0) return buffer
  return buffer.subarray(0, await source.read(buffer, position))
}

async function refuseDamage(source: Source, { end, sequence, torn }: Replay): Promise<void> {
  const missing = sequence + 1
  const refuse = (why: string): never => {
    throw new KvLogError(
      'ERR_KVLOG_CORRUPT',
      `record ${missing} at byte ${end} is damaged, and ${why}, so it was acknowledged; restore the file from a backup, ` +
        `or cut it to ${end} bytes to go on without what follows`,
    )
  }
  if (torn > MAX_GROUP_BYTES) refuse(`${torn} bytes follow, more than one commit has`)
  const tail = await part(source, end, torn)
  for (let at = tail.indexOf(MAGIC); at >= 0 && at + HEADER_BYTES <= tail.length; at = tail.indexOf(MAGIC, at + 1)) {
    const later = decode(tail, at)
    if (later.key !== undefined && later.durable >= missing) refuse(`record ${later.sequence} at byte ${end + at} was written after it was durable`)
  }
}
