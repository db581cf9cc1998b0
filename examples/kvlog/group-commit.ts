// Group commit: everything appended within a turn, or while a commit is in flight, becomes one writev and one fdatasync.
//
// One commit is in flight at a time, so what a record calls durable is, and a crash can tear the last commit alone.
import { KvLogError } from './errors.js'
import { encode, MAX_GROUP_BYTES, recordBytes, type Change } from './record.js'

/** Linux takes so many buffers in one writev (IOV_MAX). */
const MAX_GROUP_RECORDS = 1024

type FdLike = number | { readonly fd: number }

/** What the log asks of a context: an `AioContext` has it. Tests hand in one that records or fails. */
export interface LogContext {
  attach(): unknown
  read(fd: FdLike, buffer: Uint8Array, position: number): Promise<number>
  writev(fd: FdLike, buffers: readonly Uint8Array[], position: number): Promise<number>
  fsync(fd: FdLike): Promise<void>
  fdatasync(fd: FdLike): Promise<void>
}

/** The file, open for writing. */
export interface LogFile {
  readonly fd: number
  truncate(bytes: number): Promise<void>
}

interface Append {
  change: Change
  bytes: number
  resolve: () => void
  reject: (error: unknown) => void
}

export class GroupCommit {
  /** Commits that became durable. */
  commits = 0
  readonly #context: LogContext
  readonly #file: LogFile
  readonly #onDurable: (change: Change) => void
  #queue: Append[] = []
  #busy = false
  #failure: unknown
  #onIdle: (() => void)[] = []
  /** Of what is durable. */
  #end: number
  #sequence: number

  constructor(context: LogContext, file: LogFile, { end, sequence }: { end: number; sequence: number }, onDurable: (change: Change) => void) {
    this.#context = context
    this.#file = file
    this.#end = end
    this.#sequence = sequence
    this.#onDurable = onDurable
  }

  /** Resolves when the record is durable. */
  append(change: Change): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#failure !== undefined) throw refused(this.#failure)
      this.#queue.push({ change, bytes: recordBytes(change), resolve, reject })
      if (!this.#busy) this.#commitSoon()
    })
  }

  /** Resolves when nothing is queued or in flight any more. */
  idle(): Promise<void> {
    return this.#busy ? new Promise((resolve) => this.#onIdle.push(resolve)) : Promise.resolve()
  }

  /** At the end of the turn of Node's loop: whatever else it runs can still join. */
  #commitSoon(): void {
    this.#busy = true
    setImmediate(() => void this.#commit())
  }

  async #commit(): Promise<void> {
    const group = this.#take()
    const first = this.#sequence + 1
    const bytes = group.reduce((sum, append) => sum + append.bytes, 0)
    try {
      const buffers = group.map(({ change }, index) => encode(change, first + index, this.#sequence))
      const written = await this.#context.writev(this.#file, buffers, this.#end)
      if (written !== bytes) throw new Error(`writev wrote ${written} of ${bytes} bytes`)
      await this.#context.fdatasync(this.#file)
    } catch (error) {
      await this.#fail(error, group)
      return
    }
    this.#end += bytes
    this.#sequence += group.length
    this.commits++
    for (const { change, resolve } of group) {
      this.#onDurable(change)
      resolve()
    }
    if (this.#queue.length > 0) this.#commitSoon()
    else this.#becomeIdle()
  }

  #take(): Append[] {
    let bytes = 0
    const over = this.#queue.findIndex((append, index) => index === MAX_GROUP_RECORDS || (bytes += append.bytes) > MAX_GROUP_BYTES)
    return this.#queue.splice(0, over < 0 ? this.#queue.length : over)
  }

  /**
   * Nothing is tried again. After a failed fsync Linux takes the pages for clean although they were not written, so that a
   * second one succeeds without them; and what is in the page cache then is no longer what is on the disk.
   *
   * For the same reason what was rejected is cut off: the next open would read it from the page cache and believe it.
   */
  async #fail(error: unknown, group: readonly Append[]): Promise<void> {
    this.#failure = error
    const later = this.#queue.splice(0)
    // Where even that is refused, records that were rejected may be there after the next open, whole.
    await this.#file.truncate(this.#end).catch(() => {})
    for (const { reject } of group) reject(error)
    for (const { reject } of later) reject(refused(error))
    this.#becomeIdle()
  }

  #becomeIdle(): void {
    this.#busy = false
    for (const resolve of this.#onIdle.splice(0)) resolve()
  }
}

function refused(cause: unknown): KvLogError {
  const why = cause instanceof Error ? cause.message : String(cause)
  return new KvLogError('ERR_KVLOG_FAILED', `a commit failed (${why}), so the log takes nothing more; close it, mend the cause and open it again`, cause)
}
