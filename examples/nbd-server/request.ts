// A request of a client, from its header to its reply, and the pool that such objects and their memory come from.
//
// A request is served in its own buffer: room for the header of the reply, and the data behind it. So what a read brings is
// sent from where it is, and nothing is allocated for a request once the pool has as many as are in flight at a time.
import type { AioContext, FdmonError } from 'fdmon'
import { Command, CommandFlag, MAX_PAYLOAD, NbdError, nbdErrorOf, REPLY_HEADER, REPLY_MAGIC } from './protocol.js'

/** Who is told that a request was carried out. */
export interface Owner {
  finished(request: Request): void
  /** The connection is gone: nothing more is to be done for it. */
  readonly ended: boolean
}

/** What requests are carried out on. */
export interface Disk {
  readonly context: AioContext
  readonly fd: number
}

const NO_OWNER: Owner = { finished() {}, ended: true }
/** Written again and again by WRITE_ZEROES; never written to. */
const zeroes = new Uint8Array(1024 * 1024)

export class Request {
  command = 0
  flags = 0
  cookieHigh = 0
  cookieLow = 0
  offset = 0
  length = 0
  /** An error of the protocol; 0 = none so far. */
  error = 0
  owner = NO_OWNER
  /** The room for data. */
  readonly capacity: number
  readonly #disk: Disk
  readonly #bytes: Uint8Array
  readonly #view: DataView
  #data: Uint8Array
  #reply: Uint8Array
  /** Zeroes that are to be written yet. */
  #rest = 0

  constructor(disk: Disk, capacity: number) {
    this.#disk = disk
    this.capacity = capacity
    const memory = new ArrayBuffer(REPLY_HEADER + capacity)
    this.#bytes = new Uint8Array(memory)
    this.#view = new DataView(memory, 0, REPLY_HEADER)
    this.#view.setUint32(0, REPLY_MAGIC)
    this.#data = this.#bytes.subarray(REPLY_HEADER)
    this.#reply = this.#bytes
  }

  /** The memory of `length` bytes of data; the view is kept, since requests tend to have the same length. */
  get data(): Uint8Array {
    if (this.#data.length !== this.length) this.#data = this.#bytes.subarray(REPLY_HEADER, REPLY_HEADER + this.length)
    return this.#data
  }

  /** Hands the request to the kernel; `finished` of its owner is called in this turn or a later one, never in here. */
  submit(): void {
    const { context, fd } = this.#disk
    switch (this.command) {
      case Command.READ:
        return context.submitRead(fd, this.data, this.offset, this.#done)
      case Command.WRITE:
        return context.submitWrite(fd, this.data, this.offset, this.#done)
      case Command.WRITE_ZEROES:
        this.#rest = this.length
        return this.#submitZeroes()
      default:
        return context.submitFdatasync(fd, this.#synced)
    }
  }

  /** The reply as it is sent: a header, with the data of a read behind it. */
  reply(): Uint8Array {
    const view = this.#view
    view.setUint32(4, this.error)
    view.setUint32(8, this.cookieHigh)
    view.setUint32(12, this.cookieLow)
    const size = this.command === Command.READ && this.error === 0 ? REPLY_HEADER + this.length : REPLY_HEADER
    if (this.#reply.length !== size) this.#reply = this.#bytes.subarray(0, size)
    return this.#reply
  }

  /** A zero block of at most the size of `zeroes`; the next one follows when it is written. */
  #submitZeroes(): void {
    const block = this.#rest >= zeroes.length ? zeroes : zeroes.subarray(0, this.#rest)
    this.#disk.context.submitWrite(this.#disk.fd, block, this.offset + this.length - this.#rest, this.#done)
  }

  readonly #done = (error: FdmonError | null, bytes: number): void => {
    if (error !== null) {
      this.error = nbdErrorOf(error.errno)
    } else if (this.command === Command.WRITE_ZEROES) {
      this.#rest -= bytes
      if (bytes === 0) this.error = NbdError.EIO
      else if (this.#rest > 0 && !this.owner.ended) return this.#submitZeroes()
    } else if (bytes !== this.length) {
      this.error = NbdError.EIO // the file has become shorter
    }
    if (this.command !== Command.READ && this.error === 0 && (this.flags & CommandFlag.FUA) !== 0) {
      return this.#disk.context.submitFdatasync(this.#disk.fd, this.#synced)
    }
    this.owner.finished(this)
  }

  readonly #synced = (error: FdmonError | null): void => {
    if (error !== null) this.error = nbdErrorOf(error.errno)
    this.owner.finished(this)
  }
}

/** Sizes of buffers, each four times the one before: a request takes the smallest that has room. */
const SIZES = [0, 4096]
while (SIZES[SIZES.length - 1]! < MAX_PAYLOAD) SIZES.push(Math.min(SIZES[SIZES.length - 1]! * 4, MAX_PAYLOAD))
/** Memory that waits for the next request; what is more than that is given back. */
const MAX_IDLE = 64 * 1024 * 1024

export class Pool {
  readonly #disk: Disk
  readonly #idle: Request[][] = SIZES.map(() => [])
  #idleBytes = 0

  constructor(disk: Disk) {
    this.#disk = disk
  }

  take(owner: Owner, length: number): Request {
    const size = sizeFor(length)
    const request = this.#idle[size]!.pop() ?? new Request(this.#disk, SIZES[size]!)
    this.#idleBytes -= request.capacity
    request.owner = owner
    request.error = 0
    return request
  }

  release(request: Request): void {
    request.owner = NO_OWNER
    if (this.#idleBytes + request.capacity > MAX_IDLE) return
    this.#idleBytes += request.capacity
    this.#idle[sizeFor(request.capacity)]!.push(request)
  }
}

function sizeFor(length: number): number {
  let size = 0
  while (SIZES[size]! < length) size++
  return size
}
