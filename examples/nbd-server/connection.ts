// One client: bytes in, requests to the disk, replies out. Whatever goes wrong with it ends this connection and no other.
//
// What a client can make the server hold is bounded: so many requests, so many bytes of data. At the bound its socket is not
// read any more, until replies have gone out.
import { FdmonError, type AioContext, type Registration } from 'fdmon'
import { read, type Fd } from 'fdmon/fd'
import { Handshake, hex, type Export } from './handshake.js'
import { Outbox } from './outbox.js'
import {
  Command,
  CommandFlag,
  GREETING,
  MAX_PAYLOAD,
  NbdError,
  ProtocolError,
  REQUEST_HEADER,
  REQUEST_MAGIC,
  Transmission,
} from './protocol.js'
import type { Owner, Pool, Request } from './request.js'

/** What all connections of a server share. */
export interface Shared {
  readonly context: AioContext
  readonly export: Export
  readonly pool: Pool
  /** Calls `flush()` of this connection before the turn's handlers run. */
  flushLater(connection: Connection): void
  /** `reason` is undefined where the client left as it should. */
  left(connection: Connection, reason: string | undefined): void
}

const IN_SIZE = 256 * 1024
const MAX_REQUESTS = 256
const MAX_HELD = 64 * 1024 * 1024

export class Connection implements Owner {
  readonly poll = 'kernel'
  readonly id: number
  readonly #shared: Shared
  readonly #socket: Fd
  readonly #registration: Registration
  readonly #in = Buffer.allocUnsafeSlow(IN_SIZE)
  readonly #view = new DataView(this.#in.buffer)
  readonly #outbox: Outbox
  readonly #handshake: Handshake
  /** What was received and not yet taken lies in `#in` from `#from` to `#to`. */
  #from = 0
  #to = 0
  /** A write whose payload is still coming, and how much of that there is. */
  #receiving: Request | undefined
  #received = 0
  /** Requests that hold memory: in flight, or with a reply that is to be sent. */
  #held = 0
  #heldBytes = 0
  #inFlight = 0
  /** The client said goodbye: what is in flight is answered, and then the connection ends. */
  #leaving = false
  #full = false
  #reads = true
  #writes = false
  ended = false

  constructor(shared: Shared, socket: Fd, id: number) {
    this.#shared = shared
    this.#socket = socket
    this.id = id
    this.#outbox = new Outbox(socket, MAX_REQUESTS, (request) => this.#release(request))
    this.#handshake = new Handshake(shared.export, (bytes) => this.#outbox.add(bytes))
    this.#registration = shared.context.setFdHandler(socket, this)
    this.#registration.setInterest({ write: false })
    this.#outbox.add(GREETING)
    this.flush()
  }

  /** Whether a request is with the kernel still. */
  get busy(): boolean {
    return this.#inFlight > 0
  }

  /** There is something to read. */
  read(): void {
    if (!this.#reads) return
    try {
      if (this.#receive()) this.#work()
    } catch (error) {
      this.#fail(error)
    }
  }

  /** There is room for more replies. */
  write(): void {
    this.flush()
  }

  /** Of a request that was carried out, also for a client that is gone. The last one in flight takes all replies along. */
  finished(request: Request): void {
    this.#inFlight -= 1
    if (this.ended) return this.#release(request)
    this.#outbox.push(request)
    if (this.#inFlight === 0) this.flush()
    else this.#shared.flushLater(this)
  }

  /** Sends what there is to be sent, and goes on with what had to wait for that. */
  flush(): void {
    if (this.ended) return
    try {
      this.#outbox.flush()
      if (this.#full && this.#hasRoom()) this.#work()
      else this.#settle()
    } catch (error) {
      this.#fail(error)
    }
  }

  /** Takes no more requests; ends when those in flight are answered. */
  leave(): void {
    this.#leaving = true
    this.flush()
  }

  /** Ends the connection now. Requests in flight keep their memory until the kernel is done with them. */
  end(reason?: string): void {
    if (this.ended) return
    this.ended = true
    this.#registration.remove()
    this.#socket.close()
    this.#outbox.drop()
    if (this.#receiving !== undefined) this.#release(this.#receiving)
    this.#receiving = undefined
    this.#shared.left(this, reason)
  }

  /** A client that said goodbye may be gone before the answer. */
  #fail(error: unknown): void {
    const isGone = error instanceof FdmonError && error.syscall !== undefined
    if (isGone && this.#leaving) return this.end()
    const message = error instanceof Error ? error.message : String(error)
    this.end(isGone ? `the client is gone: ${message.split(';')[0]}` : message)
  }

  // --- Bytes ------------------------------------------------------------------------------------------------------------

  /** Reads from the socket, once: what is left there is reported again. False = there was nothing. */
  #receive(): boolean {
    const request = this.#receiving
    if (request !== undefined && request.error === 0 && request.length - this.#received >= IN_SIZE) {
      const bytes = read(this.#socket, request.data.subarray(this.#received))
      if (bytes === 0) this.#gone()
      this.#received += Math.max(bytes, 0)
      return bytes > 0
    }
    if (this.#from < this.#to) this.#in.copyWithin(0, this.#from, this.#to)
    this.#to -= this.#from
    this.#from = 0
    const bytes = read(this.#socket, this.#to === 0 ? this.#in : this.#in.subarray(this.#to))
    if (bytes === 0) this.#gone()
    this.#to += Math.max(bytes, 0)
    return bytes > 0
  }

  #gone(): never {
    if (this.#receiving !== undefined || this.#to > this.#from) throw new ProtocolError('the client left in the middle of a message')
    throw new ProtocolError('the client left without a disconnect')
  }

  /** Takes what was received, and sends what that led to, until one of both has to wait. */
  #work(): void {
    do {
      this.#full = false
      this.#shared.context.plug(this.#take)
      this.#outbox.flush()
    } while (this.#full && this.#hasRoom())
    this.#settle()
  }

  /** All that is complete in `#in`: one batch for the kernel. */
  readonly #take = (): void => {
    while (!this.#leaving && this.#handshake.stage !== 'transmission') {
      if (this.#outbox.room < IN_SIZE / 2) return void (this.#full = true)
      const bytes = this.#handshake.take(this.#in.subarray(this.#from, this.#to))
      if (bytes === 0) return
      this.#from += bytes
      this.#leaving = this.#handshake.stage === 'aborted'
    }
    for (;;) {
      if (this.#receiving !== undefined && !this.#takePayload(this.#receiving)) return
      if (this.#leaving || this.#to - this.#from < REQUEST_HEADER) return
      if (!this.#hasRoom()) return void (this.#full = true)
      this.#takeRequest()
    }
  }

  #hasRoom(): boolean {
    return this.#held < MAX_REQUESTS && this.#heldBytes < MAX_HELD && this.#outbox.room >= IN_SIZE / 2
  }

  /** After each step: asks for what can be gone on with, and for nothing else. */
  #settle(): void {
    const writes = this.#outbox.waiting
    if (this.#leaving && this.#inFlight === 0 && !writes) return this.end()
    const reads = !this.#full && !this.#leaving
    if (reads === this.#reads && writes === this.#writes) return
    this.#reads = reads
    this.#writes = writes
    this.#registration.setInterest({ read: reads, write: writes })
  }

  // --- Requests ---------------------------------------------------------------------------------------------------------

  #takeRequest(): void {
    const view = this.#view
    const at = this.#from
    const magic = view.getUint32(at)
    if (magic !== REQUEST_MAGIC) throw new ProtocolError(`a request begins with ${hex(magic)} in place of ${hex(REQUEST_MAGIC)}`)
    const flags = view.getUint16(at + 4)
    const command = view.getUint16(at + 6)
    const offset = view.getUint32(at + 16) * 0x1_0000_0000 + view.getUint32(at + 20)
    const length = view.getUint32(at + 24)
    this.#from = at + REQUEST_HEADER
    if (command === Command.DISC) return void (this.#leaving = true)
    if (command === Command.WRITE && length > MAX_PAYLOAD) {
      throw new ProtocolError(`a write has ${length} bytes, more than ${MAX_PAYLOAD}`)
    }
    const error = this.#check(command, flags, offset, length)
    const hasData = error === 0 && (command === Command.READ || command === Command.WRITE)
    const request = this.#shared.pool.take(this, hasData ? length : 0)
    request.command = command
    request.flags = flags
    request.cookieHigh = view.getUint32(at + 8)
    request.cookieLow = view.getUint32(at + 12)
    request.offset = offset
    request.length = length
    request.error = error
    this.#held += 1
    this.#heldBytes += request.capacity
    if (command === Command.WRITE) {
      this.#receiving = request
      this.#received = 0
    } else {
      this.#submit(request)
    }
  }

  /** The error with which the request is refused; 0 = it can be carried out. */
  #check(command: number, flags: number, offset: number, length: number): number {
    const { size, flags: can } = this.#shared.export
    const isWrite = command === Command.WRITE || command === Command.WRITE_ZEROES
    if ((flags & ~(command === Command.WRITE_ZEROES ? CommandFlag.FUA | CommandFlag.NO_HOLE : CommandFlag.FUA)) !== 0) {
      return NbdError.EINVAL
    }
    if (isWrite || command === Command.TRIM) {
      if ((can & Transmission.READ_ONLY) !== 0) return NbdError.EPERM
      if (offset + length > size) return isWrite ? NbdError.ENOSPC : NbdError.EINVAL
      return 0
    }
    if (command === Command.READ) return offset + length > size || length > MAX_PAYLOAD ? NbdError.EINVAL : 0
    return command === Command.FLUSH ? 0 : NbdError.EINVAL
  }

  /** The payload of a write, as far as it is there; false = there is more to come. What is refused is taken and thrown away. */
  #takePayload(request: Request): boolean {
    const bytes = Math.min(request.length - this.#received, this.#to - this.#from)
    if (bytes > 0 && request.error === 0) {
      this.#in.copy(request.data, this.#received, this.#from, this.#from + bytes)
    }
    this.#received += bytes
    this.#from += bytes
    if (this.#received < request.length) return false
    this.#receiving = undefined
    this.#submit(request)
    return true
  }

  /** To the kernel, where there is something to do. A trim is a hint, and Node cannot punch holes: it does nothing. */
  #submit(request: Request): void {
    const { command, length } = request
    const isDone = request.error !== 0 || command === Command.TRIM || (length === 0 && command !== Command.FLUSH)
    if (isDone) return this.#outbox.push(request)
    this.#inFlight += 1
    request.submit()
  }

  #release(request: Request): void {
    this.#held -= 1
    this.#heldBytes -= request.capacity
    this.#shared.pool.release(request)
  }
}
