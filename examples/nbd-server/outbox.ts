// Replies on their way to a client: those of a turn go out in one write(2), as far as the socket takes them.
import { write, type Fd } from 'fdmon/fd'
import type { Request } from './request.js'

const SIZE = 256 * 1024
/** A longer reply is sent from the request's own memory. */
const COPIED = 64 * 1024

export class Outbox {
  readonly #socket: Fd
  readonly #release: (request: Request) => void
  /** Where short replies are put together; what is not sent yet lies from `#from` to `#to`. */
  readonly #bytes = new Uint8Array(SIZE)
  #from = 0
  #to = 0
  /** The beginning of `#bytes` that was sent last: turns tend to be alike. */
  #view = this.#bytes
  /** A ring of replies in their order; the first may be sent in part, from its own memory. */
  readonly #replies: Request[]
  readonly #mask: number
  #first = 0
  #last = 0
  #sent = 0

  /** @param most - replies that are pushed and not released at a time; a power of two */
  constructor(socket: Fd, most: number, release: (request: Request) => void) {
    this.#socket = socket
    this.#release = release
    this.#replies = new Array<Request>(most)
    this.#mask = most - 1
  }

  /** Bytes that `add` takes. */
  get room(): number {
    return SIZE - this.#to
  }

  /** Whether something could not be sent yet. */
  get waiting(): boolean {
    return this.#to > 0 || this.#first !== this.#last
  }

  /** Bytes of the negotiation, which has no requests. */
  add(bytes: Uint8Array): void {
    this.#bytes.set(bytes, this.#to)
    this.#to += bytes.length
  }

  push(request: Request): void {
    this.#replies[this.#last & this.#mask] = request
    this.#last += 1
  }

  /** Sends until everything is gone or the socket is full. */
  flush(): void {
    while (this.#to > 0 || this.#first !== this.#last) {
      if (this.#to === 0 && this.#sent === 0) this.#gather()
      if (!(this.#to > 0 ? this.#sendBytes() : this.#sendReply())) return
    }
  }

  /** Forgets everything. */
  drop(): void {
    while (this.#first !== this.#last) this.#release(this.#shift())
    this.#to = 0
  }

  #shift(): Request {
    const request = this.#replies[this.#first & this.#mask]!
    this.#first += 1
    return request
  }

  /** Puts short replies together. One alone is sent from where it is, as a long one is. */
  #gather(): void {
    if (this.#last - this.#first === 1) return
    while (this.#first !== this.#last) {
      const reply = this.#replies[this.#first & this.#mask]!.reply()
      if (reply.length > COPIED || this.#to + reply.length > SIZE) return
      this.#bytes.set(reply, this.#to)
      this.#to += reply.length
      this.#release(this.#shift())
    }
  }

  #sendBytes(): boolean {
    if (this.#from === 0 && this.#view.length !== this.#to) this.#view = this.#bytes.subarray(0, this.#to)
    const bytes = write(this.#socket, this.#from === 0 ? this.#view : this.#bytes.subarray(this.#from, this.#to))
    if (bytes > 0) this.#from += bytes
    if (this.#from < this.#to) return bytes > 0
    this.#from = 0
    this.#to = 0
    return true
  }

  #sendReply(): boolean {
    const reply = this.#replies[this.#first & this.#mask]!.reply()
    const bytes = write(this.#socket, this.#sent === 0 ? reply : reply.subarray(this.#sent))
    if (bytes > 0) this.#sent += bytes
    if (this.#sent < reply.length) return bytes > 0
    this.#sent = 0
    this.#release(this.#shift())
    return true
  }
}
