// An append-only log of keys and values with group commit: what `set()` and `delete()` have acknowledged is on the disk.
//
//   record.ts         what lies in the file
//   replay.ts         reading it back, and what to do about a tail
//   group-commit.ts   one writev and one fdatasync for everything that came together
//   lock.ts           one writer a file
import { constants } from 'node:fs'
import { open, type FileHandle } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { defaultContext } from 'fdmon'
import { KvLogError } from './errors.js'
import { GroupCommit, type LogContext } from './group-commit.js'
import { lock } from './lock.js'
import { apply, replay, type Replay } from './replay.js'

export { KvLogError, type KvLogErrorCode } from './errors.js'
export type { LogContext } from './group-commit.js'
export type { Replay } from './replay.js'

export interface KvLogOptions {
  /** Does the reads, writes and syncs; attached to Node's loop if it is not yet. @default defaultContext() */
  context?: LogContext
}

export class KvLog implements AsyncDisposable {
  /** Bytes of a torn commit that `open()` has cut off. */
  readonly torn: number
  readonly #file: FileHandle
  readonly #entries: Map<string, string>
  readonly #commits: GroupCommit
  #closed: Promise<void> | undefined

  private constructor(context: LogContext, file: FileHandle, found: Replay) {
    this.torn = found.torn
    this.#file = file
    this.#entries = found.entries
    this.#commits = new GroupCommit(context, file, found, ({ key, value }) => apply(this.#entries, key, value))
  }

  /**
   * Opens a log, or creates it. Cuts off what a crash has left of the last commit; everything that is there then is durable.
   *
   * @throws KvLogError ERR_KVLOG_LOCKED, and ERR_KVLOG_CORRUPT when what was acknowledged is damaged: then nothing is changed
   */
  static async open(path: string, options: KvLogOptions = {}): Promise<KvLog> {
    const context = options.context ?? defaultContext()
    context.attach()
    const file = await open(path, constants.O_RDWR | constants.O_CREAT, 0o644)
    try {
      lock(path, file.fd)
      const found = await replayFile(context, file)
      if (found.torn > 0) await file.truncate(found.end)
      // Records that a killed process had written are read from the page cache, and the cut is there alone as well. Without
      // this, a power failure could still take those back that were shown, and mix the tail that was cut off with new records.
      await context.fsync(file)
      // A file is there after a crash only once its directory is synced. Nobody has written to one before that.
      if (found.records === 0) await syncDirectory(context, dirname(resolve(path)))
      return new KvLog(context, file, found)
    } catch (error) {
      await file.close()
      throw error
    }
  }

  /** Resolves when it is durable; until then `get()` has the value from before. */
  set(key: string, value: string): Promise<void> {
    return this.#append(key, value)
  }

  /** Resolves when it is durable. A key that is not there is no error. */
  delete(key: string): Promise<void> {
    return this.#append(key, null)
  }

  /** What is durable of this key, if anything. */
  get(key: string): string | undefined {
    return this.#entries.get(key)
  }

  /** What is durable, keys in the order in which they came. */
  entries(): IterableIterator<[string, string]> {
    return this.#entries.entries()
  }

  /** How many keys are durable. */
  get size(): number {
    return this.#entries.size
  }

  /** How often it wrote and synced since it was opened. */
  get commits(): number {
    return this.#commits.commits
  }

  /** Commits what waits, then closes the file. What fails is told to those who wait for it. */
  close(): Promise<void> {
    this.#closed ??= this.#commits.idle().then(() => this.#file.close())
    return this.#closed
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #append(key: string, value: string | null): Promise<void> {
    if (this.#closed) throw new KvLogError('ERR_KVLOG_CLOSED', 'the log is closed; open it again')
    await this.#commits.append({ key, value })
  }
}

/**
 * Reads a log without changing it, also while another process writes to it: then what it shows last may not be durable yet.
 *
 * @throws KvLogError ERR_KVLOG_CORRUPT when what was acknowledged is damaged
 */
export async function readLog(path: string, options: KvLogOptions = {}): Promise<Replay> {
  const context = options.context ?? defaultContext()
  context.attach()
  const file = await open(path, constants.O_RDONLY)
  try {
    return await replayFile(context, file)
  } finally {
    await file.close()
  }
}

async function replayFile(context: LogContext, file: FileHandle): Promise<Replay> {
  const { size } = await file.stat()
  return replay({ size, read: (buffer, position) => context.read(file, buffer, position) })
}

async function syncDirectory(context: LogContext, path: string): Promise<void> {
  const directory = await open(path, constants.O_RDONLY | constants.O_DIRECTORY)
  try {
    await context.fsync(directory)
  } finally {
    await directory.close()
  }
}
