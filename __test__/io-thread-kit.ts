// I/O threads for tests.
import { fileURLToPath } from 'node:url'
import { AioContext, FdmonError, IoThread, type IoThreadOptions } from 'fdmon'

/** The module of an I/O thread that runs a piece of code with `ctx`, `data`, `fdmon`, `fds` and `threads` at hand. */
export const sourceModule = fileURLToPath(new URL('io-thread/source.mjs', import.meta.url))

/** An I/O thread that runs this piece of code, which may await. */
export function inThread(source: string, options: Omit<IoThreadOptions, 'workerData'> & { data?: unknown } = {}): IoThread {
  const { data, ...rest } = options
  return new IoThread(sourceModule, { execArgv: [], workerData: { source, data }, ...rest })
}

/** The next message of a thread. */
export function said(thread: IoThread): Promise<any> {
  return new Promise((resolve) => thread.worker.once('message', resolve))
}

/** Looks again and again, until it is so. */
export async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 1))
}

/** No context has this id any more. */
export function isGone(id: number): boolean {
  try {
    AioContext.remote(id).notify()
    return false
  } catch (error) {
    return error instanceof FdmonError && error.code === 'ERR_FDMON_CLOSED'
  }
}
