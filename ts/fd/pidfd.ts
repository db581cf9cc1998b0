// Processes as descriptors.
import { checkInteger } from '../check.js'
import { native } from '../native.js'
import { Fd, OWN } from './fd.js'

/**
 * A process as a descriptor: readable once it has exited. Made by {@link pidfd}.
 *
 * @example
 * ```ts
 * import { pidfd, type PidFd } from 'fdmon/fd'
 *
 * const self: PidFd = pidfd(process.pid)
 * console.log(self.pid === process.pid) // true
 * self.close()
 * ```
 */
export class PidFd extends Fd {
  /** The process that it was made for. */
  readonly pid: number

  /** @internal */
  constructor(own: symbol, fd: number, pid: number) {
    super(own, fd)
    this.pid = pid
  }
}

/**
 * A process as a descriptor (pidfd_open(2)), readable once the process has exited. Of a child of Node it tells the exit
 * only: Node takes the status and gives it to the `exit` event of the child.
 *
 * @example
 * ```ts
 * import { spawn } from 'node:child_process'
 * import { AioContext } from 'fdmon'
 * import { pidfd } from 'fdmon/fd'
 *
 * const child = spawn('true')
 * if (child.pid === undefined) throw new Error('no such program')
 * using ctx = new AioContext()
 * using exit = pidfd(child.pid)
 * let ended = false
 * ctx.setFdHandler(exit, { read: () => void (ended = true) })
 * ctx.pollUntil(() => ended)
 * ctx.setFdHandler(exit, null)
 * ```
 */
export function pidfd(pid: number): PidFd {
  checkInteger('pid', pid, 1, 0x7fff_ffff)
  return new PidFd(OWN, native.pidfdOpen(pid), pid)
}
