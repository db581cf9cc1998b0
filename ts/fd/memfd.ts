// Files in memory, and the memory that contexts may poll words in.
import { constants } from 'node:buffer'
import { checkInteger } from '../check.js'
import { invalidArg } from '../errors.js'
import { fdOf, type FdLike } from '../fd-like.js'
import { native } from '../native.js'
import { other } from '../runtime.js'
import { Fd, openFd, OWN } from './fd.js'

const mappings = new WeakSet<ArrayBufferLike>()

/** Whether a buffer lies over memory that {@link MemFd.map} mapped. */
export function isMapping(buffer: ArrayBufferLike): boolean {
  return mappings.has(buffer)
}

/**
 * A file in memory. Made by {@link memfd}.
 *
 * @example
 * ```ts
 * import { memfd, type MemFd } from 'fdmon/fd'
 *
 * const file: MemFd = memfd('numbers', 4096)
 * const one = new Int32Array(file.map())
 * const other = new Int32Array(file.map())
 * one[0] = 7
 * console.log(other[0]) // 7
 * file.close()
 * ```
 */
export class MemFd extends Fd {
  /** The name that it was made with; it shows in /proc and need not be unique. */
  readonly name: string
  /** Its size in bytes; the file never shrinks. */
  readonly size: number

  /** @internal */
  constructor(own: symbol, fd: number, name: string, size: number) {
    super(own, fd)
    this.name = name
    this.size = size
  }

  /**
   * The file of a descriptor that came from elsewhere, by {@link receiveFds} or from another thread, with a descriptor of its
   * own: each side closes its own.
   *
   * @param fd - of a memfd that {@link memfd} made, in whichever process
   * @throws FdmonError ERR_FDMON_INVALID_ARG when it is no memfd, or one that may shrink
   */
  static from(fd: FdLike): MemFd {
    const own = native.memfdAdopt(fdOf('fd', fd))
    return new MemFd(OWN, own.fd, own.name, own.size)
  }

  /**
   * Maps the whole file, shared: every mapping of it, in every process that has the descriptor, is the same memory. Each
   * call makes a new mapping. It stays until the ArrayBuffer is collected and no context polls a word in it; closing
   * the descriptor does not end it. Use `Atomics` where several threads or processes meet. The ArrayBuffer cannot be
   * transferred to another thread or process: give it the descriptor, and map what {@link MemFd.from} makes of it there.
   */
  map(): ArrayBuffer {
    const limit = constants.MAX_LENGTH
    if (this.size > limit) {
      throw invalidArg('size', this.size, `this Node maps at most ${limit} bytes: make a smaller memfd`)
    }
    const buffer = native.memfdMap(openFd(this), this.size, other() === 'Deno')
    // Node makes no ArrayBuffer over foreign memory transferable, and must not be asked to: marked once more by
    // markAsUntransferable(), it aborts the process at the end of a worker (Node 24 and 26).
    mappings.add(buffer)
    return buffer
  }
}

/**
 * A file in memory (memfd_create(2)) to share with workers and other processes.
 *
 * @param name - shows in /proc; at most 249 bytes
 * @param size - bytes, at least 1; all zero at first
 * @example
 * ```ts
 * import { memfd } from 'fdmon/fd'
 *
 * using file = memfd('ring', 65_536)
 * const words = new Int32Array(file.map())
 * Atomics.store(words, 0, 1)
 * ```
 */
export function memfd(name: string, size: number): MemFd {
  if (typeof name !== 'string' || name.includes('\0') || Buffer.byteLength(name) > 249) {
    throw invalidArg('name', name, 'pass a string of at most 249 bytes without NUL')
  }
  checkInteger('size', size, 1, Number.MAX_SAFE_INTEGER, 'bytes')
  return new MemFd(OWN, native.memfdCreate(name, size), name, size)
}
