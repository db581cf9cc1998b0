// The errors of the log. What the kernel refuses comes as it is: an FdmonError, or an error of node:fs, with errno and system call.

export type KvLogErrorCode =
  /** A key or a value that no record can hold. */
  | 'ERR_KVLOG_INVALID_ARG'
  /** What was acknowledged is damaged. Nothing was changed. */
  | 'ERR_KVLOG_CORRUPT'
  /** Another log, of this process or another one, has the file open. */
  | 'ERR_KVLOG_LOCKED'
  /** A write or fdatasync failed before: nothing more is taken. `cause` is that failure. */
  | 'ERR_KVLOG_FAILED'
  /** The log is closed. */
  | 'ERR_KVLOG_CLOSED'

export class KvLogError extends Error {
  override readonly name = 'KvLogError'

  constructor(readonly code: KvLogErrorCode, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause })
  }
}
