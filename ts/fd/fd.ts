// What every descriptor of fdmon/fd is, and the calls that take any descriptor.
import { constants } from 'node:os'
import { inspect } from 'node:util'
import { isUint8Array } from 'node:util/types'
import { checkBoolean } from '../check.js'
import { badFd, closed, FdmonError, invalidArg } from '../errors.js'
import { fdOf, type FdLike } from '../fd-like.js'
import { fdHot, native } from '../native.js'

/** The negative number by which a read or write says: not now. */
export const NOT_NOW = -constants.errno.EAGAIN
const EBADF = constants.errno.EBADF
/** Only the functions of fdmon/fd make descriptors of its classes; these are exported for their types and `instanceof`. */
export const OWN = Symbol('made by fdmon/fd')

/**
 * An open file descriptor that this object owns: {@link Fd.close} closes it, and nothing else does.
 *
 * Remove it from a context before closing it. With `using`, it is closed at the end of the block. One that a worker leaves
 * open is closed when the worker ends.
 *
 * @example
 * ```ts
 * import { Fd, timerfd } from 'fdmon/fd'
 *
 * using timer = timerfd()
 * console.log(timer instanceof Fd, timer.fd > 2) // true true
 * ```
 */
export abstract class Fd implements Disposable {
  #fd: number

  /** @internal */
  constructor(own: symbol, fd: number) {
    if (own !== OWN) {
      const message = `a ${new.target.name} cannot be constructed; call a function of fdmon/fd, for example timerfd()`
      throw new FdmonError('ERR_FDMON_INVALID_ARG', message)
    }
    this.#fd = fd
  }

  /** The number, or -1 once closed, so that a number that was given out again is never used by mistake. */
  get fd(): number {
    return this.#fd
  }

  /** Closes the descriptor; closing it again does nothing. */
  close(): void {
    const fd = this.#fd
    if (fd < 0) return
    this.#fd = -1
    const result = native.fdClose(fd)
    if (result < 0) throw failed('close', result, 'fd', fd)
  }

  /** {@link Fd.close}, for `using`. */
  [Symbol.dispose](): void {
    this.close()
  }

  /** @internal */
  [inspect.custom](): string {
    return `${this.constructor.name} { ${this.#fd < 0 ? 'closed' : `fd: ${this.#fd}`} }`
  }
}

/** A descriptor with no methods of its own. */
export class SocketFd extends Fd {}

/**
 * Reads what there is into `buffer`.
 *
 * @returns the number of bytes, 0 at the end of the file, or `-EAGAIN` (a negative number) when there is nothing yet
 * @throws FdmonError with `errno` and `syscall` for every other failure
 * @example
 * ```ts
 * import { read, socketpair, write } from 'fdmon/fd'
 *
 * const [one, other] = socketpair()
 * const buffer = new Uint8Array(64)
 * console.log(read(other, buffer) < 0) // true: nothing yet
 * write(one, new TextEncoder().encode('hello'))
 * console.log(read(other, buffer)) // 5
 * one.close()
 * other.close()
 * ```
 */
export function read(fd: FdLike, buffer: Uint8Array): number {
  const number = fdOf('fd', fd)
  const bytes = fdHot.read(number, checkBuffer(buffer))
  if (bytes < 0 && bytes !== NOT_NOW) throw failed('read', bytes, 'fd', number)
  return bytes
}

/**
 * Writes as much of `buffer` as goes now. A server catches what it throws: EPIPE and ECONNRESET are the peer's doing.
 *
 * @returns the number of bytes taken, which may be less than the buffer has, or `-EAGAIN` (a negative number) when
 * nothing goes now
 * @throws FdmonError with `errno` and `syscall` for every other failure
 * @example
 * ```ts
 * import { socketpair, write } from 'fdmon/fd'
 *
 * const [one, other] = socketpair()
 * console.log(write(one, new Uint8Array(10))) // 10
 * one.close()
 * other.close()
 * ```
 */
export function write(fd: FdLike, buffer: Uint8Array): number {
  const number = fdOf('fd', fd)
  const bytes = fdHot.write(number, checkBuffer(buffer))
  if (bytes < 0 && bytes !== NOT_NOW) throw failed('write', bytes, 'fd', number)
  return bytes
}

/**
 * Makes reads and writes of a descriptor return at once, or wait again. The mode belongs to the open file: it changes
 * for every process that shares it, as standard input and output often are.
 *
 * @param on - true: never wait
 * @defaultValue `on` is true
 * @example
 * ```ts
 * import { setNonblock, socketpair } from 'fdmon/fd'
 *
 * const [one, other] = socketpair()
 * setNonblock(one, false)
 * setNonblock(one)
 * one.close()
 * other.close()
 * ```
 */
export function setNonblock(fd: FdLike, on = true): void {
  native.fdSetNonblock(fdOf('fd', fd), checkBoolean('on', on))
}

/**
 * Two connected stream sockets (socketpair(2)): what is written to one is read from the other.
 *
 * @example
 * ```ts
 * import { socketpair, write } from 'fdmon/fd'
 *
 * const [one, other] = socketpair()
 * write(one, new Uint8Array([1, 2, 3]))
 * one.close()
 * other.close()
 * ```
 */
export function socketpair(): [Fd, Fd] {
  const [one, other] = native.socketPair()
  if (one === undefined || other === undefined) {
    throw new FdmonError('ERR_FDMON_INTERNAL', 'socketpair made no two sockets; report this')
  }
  return [new SocketFd(OWN, one), new SocketFd(OWN, other)]
}

/** The number of a descriptor that must be open still. */
export function openFd(of: Fd): number {
  if (of.fd < 0) throw closed(of.constructor.name, 'make a new one')
  return of.fd
}

/** A view that bytes are read into or written from. */
export function checkBuffer(buffer: unknown): Uint8Array {
  if (isUint8Array(buffer)) return buffer
  throw invalidArg('buffer', buffer, 'pass a Uint8Array or Buffer')
}

const advice: Record<string, string> = {
  EBADF: 'pass one that is open for this, and that nobody else has closed',
  EINVAL: 'pass a buffer that is large enough for this kind of file (8 bytes for an eventfd or a timer)',
  EISDIR: 'pass a file, not a directory',
  EPIPE: 'the other side is closed: remove the handler and close the descriptor',
  ECONNRESET: 'the other side is gone: remove the handler and close the descriptor',
  ENOTCONN: 'connect the socket first',
  ENETDOWN: 'bring the network interface up first (ip link set NAME up)',
  ENOSPC: 'free space on the device',
  EFBIG: 'write less: the file has reached its limit',
  EIO: 'look into the kernel log: the device failed',
}

const errnoNames = new Map(Object.entries(constants.errno).map(([name, value]) => [value, name]))

/** The error of a native call that returned a negative errno. */
export function failed(syscall: string, result: number, name: string, fd: number): FdmonError {
  const errno = -result
  const word = errnoNames.get(errno) ?? `errno ${errno}`
  if (errno === EBADF) return badFd(name, fd, advice['EBADF'] ?? '', { errno, syscall })
  const message = `${syscall} failed for ${name} = ${fd}: ${word}; ${advice[word] ?? `see ${syscall}(2)`}`
  return new FdmonError('ERR_FDMON_SYSCALL', message, { errno, syscall })
}
