// What counts as a file descriptor, wherever one is taken.
import { badFd, invalidArg } from './errors.js'

/**
 * A file descriptor, or anything that has one: a `FileHandle`, an `Fd` of `fdmon/fd`, an `EventNotifier`.
 *
 * @example
 * ```ts
 * import { AioContext, type FdLike } from 'fdmon'
 * import { timerfd } from 'fdmon/fd'
 *
 * using timer = timerfd({ intervalNs: 1_000_000 })
 * const source: FdLike = timer // or timer.fd
 * using ctx = new AioContext()
 * ctx.setFdHandler(source, { read: () => timer.read() })
 * ctx.poll()
 * ```
 */
export type FdLike = number | { readonly fd: number }

/** The number of an {@link FdLike}; whether it is open is for the system call to say. */
export function fdOf(name: string, value: unknown): number {
  const fd: unknown = typeof value === 'number' ? value : fdProperty(value)
  if (typeof fd !== 'number' || !Number.isInteger(fd) || fd > 0x7fff_ffff) {
    throw invalidArg(name, value, 'pass the number of an open file descriptor, or an object whose property fd is one')
  }
  if (fd < 0) throw badFd(name, fd, 'pass one that has not been closed')
  return fd
}

function fdProperty(value: unknown): unknown {
  return typeof value === 'object' && value !== null ? (value as { fd?: unknown }).fd : undefined
}
