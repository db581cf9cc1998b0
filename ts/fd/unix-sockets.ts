// Stream sockets with names, and descriptors that travel over them.
import { FdmonError, invalidArg } from '../errors.js'
import { fdOf, type FdLike } from '../fd-like.js'
import { native } from '../native.js'
import { checkBuffer, Fd, NOT_NOW, OWN, SocketFd } from './fd.js'

/** sun_path has 108 bytes: a path and its NUL, or the NUL of an abstract name and the name. */
const LONGEST = 107
/** SCM_MAX_FD of the kernel. */
const MOST_FDS = 253

function checkPath(path: unknown): string {
  if (typeof path !== 'string' || path === '' || path === '\0' || path.indexOf('\0') > 0) {
    const whatToDo = "pass a path without NUL, or '\\0' and a name for an abstract socket"
    throw invalidArg('path', path, whatToDo)
  }
  const bytes = Buffer.byteLength(path.startsWith('\0') ? path.slice(1) : path)
  if (bytes > LONGEST) {
    throw invalidArg('path', path, `it has ${bytes} bytes: pass at most ${LONGEST}, for example relative to the working directory`)
  }
  return path
}

/**
 * A stream socket that listens at a path (unix(7)); readable when somebody connects: take the connection by {@link accept}.
 * The file is made here and stays after closing: remove it before listening there again.
 *
 * @param path - at most 107 bytes; one that begins with `'\0'` is an abstract name, as in Node: it has no file and ends with
 * the socket. To meet sockets of Node up to version 20, which pads such a name, pass `'\0name'.padEnd(108, '\0')` here.
 * @throws FdmonError with `errno` = `os.constants.errno.EADDRINUSE` when the file exists, also when nobody listens there any more
 * @example
 * ```ts
 * import { accept, connectUnix, listenUnix } from 'fdmon/fd'
 *
 * using server = listenUnix(`\0example ${process.pid}`)
 * using client = connectUnix(`\0example ${process.pid}`)
 * using connection = accept(server)
 * console.log(connection !== undefined, client.fd > 2) // true true
 * ```
 */
export function listenUnix(path: string): Fd {
  return new SocketFd(OWN, native.unixListen(checkPath(path)))
}

/**
 * A stream socket that is connected to the one that listens at `path`; see {@link listenUnix}.
 *
 * @throws FdmonError with `errno` `ECONNREFUSED` when nobody listens there, and `EAGAIN` when the server's queue is full
 * @example
 * ```ts
 * import { connectUnix, listenUnix, write } from 'fdmon/fd'
 *
 * using server = listenUnix(`\0example ${process.pid}`)
 * using client = connectUnix(`\0example ${process.pid}`)
 * console.log(write(client, new Uint8Array(3)), server.fd > 2) // 3 true
 * ```
 */
export function connectUnix(path: string): Fd {
  return new SocketFd(OWN, native.unixConnect(checkPath(path)))
}

/**
 * The next connection of a socket that listens (accept4(2)), also of one that {@link listenUnix} did not make.
 *
 * @returns undefined when nobody waits
 * @throws FdmonError with `errno` = `os.constants.errno.EMFILE` when no descriptor is left: the connection stays queued, so the
 * handler runs again at once; turn its interest off for a while
 * @example
 * ```ts
 * import { accept, listenUnix } from 'fdmon/fd'
 *
 * using server = listenUnix(`\0example ${process.pid}`)
 * for (let connection = accept(server); connection !== undefined; connection = accept(server)) connection.close()
 * ```
 */
export function accept(fd: FdLike): Fd | undefined {
  const result = native.socketAccept(fdOf('fd', fd))
  return result === NOT_NOW ? undefined : new SocketFd(OWN, result)
}

class ReceivedFd extends Fd {}

/**
 * Sends bytes over a Unix socket, and descriptors with them (`SCM_RIGHTS`): the other side gets duplicates by
 * {@link receiveFds}, so this side may close its own at once. They go with the first byte. When fewer bytes were taken than
 * the buffer has, send the others by `write()`.
 *
 * @param buffer - at least one byte, without which no descriptor travels
 * @param fds - at most 253
 * @returns the number of bytes taken, or `-EAGAIN` (a negative number) when nothing goes now
 * @example
 * ```ts
 * import { receiveFds, sendFds, socketpair, timerfd } from 'fdmon/fd'
 *
 * const [one, other] = socketpair()
 * const timer = timerfd({ delayNs: 0 })
 * console.log(sendFds(one, new Uint8Array(1), [timer])) // 1
 * const { fds } = receiveFds(other, new Uint8Array(64))
 * for (const fd of [one, other, timer, ...fds]) fd.close()
 * ```
 */
export function sendFds(fd: FdLike, buffer: Uint8Array, fds: readonly FdLike[]): number {
  const socket = fdOf('fd', fd)
  const bytes = checkSome(buffer)
  if (!Array.isArray(fds)) throw invalidArg('fds', fds, 'pass an array of file descriptors')
  if (fds.length > MOST_FDS) throw invalidArg('fds.length', fds.length, `pass at most ${MOST_FDS} in one call`)
  const numbers = (fds as readonly FdLike[]).map((one, index) => fdOf(`fds[${index}]`, one))
  return native.fdsSend(socket, bytes, numbers)
}

/**
 * Receives bytes from a Unix socket, and the descriptors that came with them. Each is an {@link Fd} to close; it is
 * close-on-exec, and shares its mode with the sender ({@link setNonblock}). Descriptors that come to a plain `read()` are lost.
 *
 * @param buffer - at least one byte
 * @returns `bytes` as of `read()`: the number of bytes, 0 at the end, or `-EAGAIN` (a negative number) when there is nothing yet
 * @throws FdmonError with `errno` `EMFILE` when not all descriptors could be opened here: those that could are closed,
 * and the bytes are in the buffer
 * @example
 * ```ts
 * import { readFileSync, writeFileSync } from 'node:fs'
 * import { memfd, receiveFds, sendFds, socketpair } from 'fdmon/fd'
 *
 * const [one, other] = socketpair()
 * const file = memfd('shared', 5)
 * writeFileSync(file.fd, 'hello')
 * sendFds(one, new Uint8Array(1), [file])
 * const { bytes, fds } = receiveFds(other, new Uint8Array(64))
 * console.log(bytes, fds.length) // 1 1
 * console.log(readFileSync(`/proc/self/fd/${fds[0]?.fd}`, 'utf8')) // hello
 * for (const fd of [one, other, file, ...fds]) fd.close()
 * ```
 */
export function receiveFds(fd: FdLike, buffer: Uint8Array): { bytes: number; fds: Fd[] } {
  const [bytes, ...fds] = native.fdsReceive(fdOf('fd', fd), checkSome(buffer))
  if (bytes === undefined) throw new FdmonError('ERR_FDMON_INTERNAL', 'recvmsg told no number of bytes; report this')
  return { bytes, fds: fds.map((number) => new ReceivedFd(OWN, number)) }
}

function checkSome(buffer: unknown): Uint8Array {
  const bytes = checkBuffer(buffer)
  if (bytes.length === 0) throw invalidArg('buffer.length', 0, 'pass at least 1 byte: descriptors travel with it')
  return bytes
}
