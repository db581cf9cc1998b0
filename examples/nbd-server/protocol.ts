// The words of the NBD protocol that this server speaks: fixed newstyle negotiation, simple replies. All numbers are big-endian.

/** What the server says first: "NBDMAGIC", "IHAVEOPT", and its handshake flags. */
export const GREETING = Buffer.from('NBDMAGICIHAVEOPT\0\x03', 'latin1')
/** Magic of every option that a client sends. */
export const OPTION_MAGIC = Buffer.from('IHAVEOPT', 'latin1')
/** magic, option, length of the data */
export const OPTION_HEADER = 16

/** Flags by which the client answers the greeting. */
export const ClientFlag = { FIXED_NEWSTYLE: 1, NO_ZEROES: 2 } as const

export const Option = { EXPORT_NAME: 1, ABORT: 2, LIST: 3, INFO: 6, GO: 7 } as const

export const OptionReply = {
  ACK: 1,
  SERVER: 2,
  INFO: 3,
  ERR_UNSUP: 0x8000_0001,
  ERR_INVALID: 0x8000_0003,
  ERR_UNKNOWN: 0x8000_0006,
  ERR_TOO_BIG: 0x8000_0009,
} as const

/** Pieces of information about an export, in answers to `INFO` and `GO`. */
export const Info = { EXPORT: 0, NAME: 1, BLOCK_SIZE: 3 } as const

/** What an export can do. */
export const Transmission = {
  HAS_FLAGS: 1 << 0,
  READ_ONLY: 1 << 1,
  SEND_FLUSH: 1 << 2,
  SEND_FUA: 1 << 3,
  SEND_TRIM: 1 << 5,
  SEND_WRITE_ZEROES: 1 << 6,
  CAN_MULTI_CONN: 1 << 8,
} as const

export const REQUEST_MAGIC = 0x2560_9513
/** magic, flags, type, cookie, offset, length */
export const REQUEST_HEADER = 28
export const REPLY_MAGIC = 0x6744_6698
/** magic, error, cookie */
export const REPLY_HEADER = 16

export const Command = { READ: 0, WRITE: 1, DISC: 2, FLUSH: 3, TRIM: 4, WRITE_ZEROES: 6 } as const
export const CommandFlag = { FUA: 1, NO_HOLE: 2 } as const

/** The errors that a reply may carry: numbers of the protocol, whatever they are on this machine. */
export const NbdError = { EPERM: 1, EIO: 5, ENOMEM: 12, EINVAL: 22, ENOSPC: 28 } as const

/** The longest payload of a request or a reply, and the longest name of an export. */
export const MAX_PAYLOAD = 32 * 1024 * 1024
export const MAX_NAME = 4096

/** The error of the protocol for one of this machine. A full disk, an exceeded quota and a limit on files are all "no space". */
export function nbdErrorOf(errno: number | undefined): number {
  switch (errno) {
    case 1: // EPERM
    case 13: // EACCES
    case 30: // EROFS
      return NbdError.EPERM
    case 12:
      return NbdError.ENOMEM
    case 22:
      return NbdError.EINVAL
    case 27: // EFBIG
    case 28: // ENOSPC
    case 122: // EDQUOT
      return NbdError.ENOSPC
    default:
      return NbdError.EIO
  }
}

/** The client broke the protocol: nothing that comes from it can be made sense of any more. */
export class ProtocolError extends Error {}
