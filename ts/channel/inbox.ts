// What `for await` takes messages from.
import { recordBytes } from './layout.js'
import type { Link } from './link.js'

type Result = IteratorResult<Uint8Array, undefined>

const DONE: Result = { done: true, value: undefined }

/** One iteration. As much as fits into the ring may wait here besides; then the ring fills, and the other side waits. */
export class Inbox implements AsyncIterator<Uint8Array, undefined> {
  /** It wants messages now. */
  open = false
  readonly #link: Link
  readonly #watch: () => void
  readonly #gone: () => void
  /** Only while nobody waits. */
  readonly #messages: Uint8Array[] = []
  /** What they took in the ring. */
  #bytes = 0
  readonly #waiting: { resolve: (result: Result) => void; reject: (error: unknown) => void }[] = []
  #over = false

  constructor(link: Link, watch: () => void, gone: () => void) {
    this.#link = link
    this.#watch = watch
    this.#gone = gone
  }

  next(): Promise<Result> {
    if (this.#over) return Promise.resolve(DONE)
    const message = this.#messages.shift()
    if (message !== undefined) {
      this.#bytes -= recordBytes(message.length)
      return Promise.resolve({ done: false, value: message })
    }
    // Whoever waits already comes first.
    const fresh = this.#waiting.length > 0 ? undefined : this.#link.receive()?.slice()
    if (fresh !== undefined) return Promise.resolve({ done: false, value: fresh })
    if (this.#link.end !== undefined) return this.#finished()
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject })
      if (this.open) return
      this.open = true
      this.#link.consumer = (view) => this.#take(view)
      try {
        this.#watch()
      } catch (error) {
        this.fail(error)
      }
    })
  }

  /** What it has taken ahead is for whoever consumes next. */
  return(): Promise<Result> {
    this.#over = true
    this.#pause()
    this.#link.putBack(this.#messages.splice(0))
    for (const { resolve } of this.#waiting.splice(0)) resolve(DONE)
    this.#gone()
    return Promise.resolve(DONE)
  }

  /** The port has ended: nothing comes any more. */
  end(): void {
    this.#pause()
    for (const { resolve, reject } of this.#waiting.splice(0)) this.#finished().then(resolve, reject)
  }

  /** It cannot wait where it did. That ends it if somebody was waiting, who is told; otherwise it will wait elsewhere. */
  fail(error: unknown): void {
    this.#pause()
    if (this.#waiting.length === 0) return
    this.#over = true
    for (const { reject } of this.#waiting.splice(0)) reject(error)
    this.#gone()
  }

  #take(view: Uint8Array): void {
    const message = view.slice()
    const waiting = this.#waiting.shift()
    if (waiting !== undefined) return waiting.resolve({ done: false, value: message })
    this.#messages.push(message)
    this.#bytes += recordBytes(message.length)
    if (this.#bytes < this.#link.parts.memory.ring) return
    this.#pause()
    this.#watch()
  }

  #pause(): void {
    this.open = false
    this.#link.consumer = undefined
  }

  #finished(): Promise<Result> {
    this.#gone()
    return this.#link.end === 'corrupt' ? Promise.reject(this.#link.gone()) : Promise.resolve(DONE)
  }
}
