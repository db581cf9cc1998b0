// read(2) and write(2) where there is no addon for them: node:fs, with the errno as a negative number.
import { readSync, writeSync } from 'node:fs'
import { constants } from 'node:os'

/** The number of bytes, or the negative errno. */
export function read(fd: number, buffer: Uint8Array): number {
  return counted(() => readSync(fd, buffer))
}

/** The number of bytes, or the negative errno. */
export function write(fd: number, buffer: Uint8Array): number {
  return counted(() => writeSync(fd, buffer))
}

function counted(call: () => number): number {
  try {
    return call()
  } catch (error) {
    const { errno } = error as NodeJS.ErrnoException
    return errno !== undefined && errno < 0 ? errno : -constants.errno.EIO
  }
}
