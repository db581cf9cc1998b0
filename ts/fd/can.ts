// Sockets of a CAN bus.
import { invalidArg } from '../errors.js'
import { native } from '../native.js'
import { SocketFd, OWN, type Fd } from './fd.js'

/**
 * A raw socket of a CAN interface: each `read()` gets and each `write()` sends one frame, 16 bytes laid out as `struct can_frame`
 * (linux/can.h): the id, whose upper bits are flags, in 4 bytes of the machine's order, the length, 3 bytes of 0, 8 bytes
 * of data. Filters and CAN FD are off, as the kernel makes such sockets.
 *
 * @param interface_ - its name, for example `can0`; at most 15 bytes
 * @throws FdmonError `ERR_FDMON_UNSUPPORTED` where the kernel has no CAN, with the reason; with `errno` `ENODEV` when there is
 * no such interface, or it is not one of CAN
 * @example
 * ```ts
 * import { FdmonError } from 'fdmon'
 * import { canSocket, read } from 'fdmon/fd'
 *
 * try {
 *   using bus = canSocket('vcan0')
 *   console.log(read(bus, new Uint8Array(16)) < 0) // true: no frame yet
 * } catch (error) {
 *   if (!(error instanceof FdmonError)) throw error
 *   console.log(error.message) // without CAN, or without vcan0
 * }
 * ```
 */
export function canSocket(interface_: string): Fd {
  if (typeof interface_ !== 'string' || interface_ === '' || /[\0/\s]/.test(interface_) || Buffer.byteLength(interface_) > 15) {
    throw invalidArg('interface_', interface_, "pass the name of an interface, for example 'can0': 1 to 15 bytes without spaces")
  }
  return new SocketFd(OWN, native.canCreate(interface_))
}
