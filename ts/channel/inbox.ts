// What `for await` takes messages from.
import type { Link } from './link.js'

type Result = IteratorResult<Uint8Array, undefined>

/** One iteration. As much as fits into the ring may wait here besides; then the ring fills, and the other side waits. */
export class Inbox implements AsyncIterator<Uint8Array, undefined> {
  /** It wants messages now. */
  open = false
  readonly #link: Link
  readonly #watch: () => void
  readonly #gone: () => void
  readonly #messages: Uint8Array[] = []
  #bytes = 0
  readonly #waiting: { resolve: (result: Result) => void; reject: (error: unknown) => void }[] = []
  #over = false

  constructor(link: Link, watch: () => void, gone: () => void) {
    this.#link = link
    this.#watch = watch
    this.#gone = gone
  }

  next(): Promise<Result> {
    const message = this.#messages.shift()
    if (message !== undefined) {
      this.#bytes -= message.length
      return Promise.resolve({ done: false, value: message })
    }
    const fresh = this.#over ? undefined : this.#link.receive()?.slice()
    if (fresh !== undefined) return Promise.resolve({ done: false, value: fresh })
    if (this.#over || this.#link.end !== undefined) return this.#finished()
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject })
      if (this.open) return
      this.open = true
      this.#link.consumer = (view) => this.#take(view)
      try {
        this.#watch()
      } catch (error) {
        this.end(error)
      }
    })
  }

  return(): Promise<Result> {
    this.#over = true
    this.end()
    return Promise.resolve({ done: true, value: undefined })
  }

  #take(view: Uint8Array): void {
    const message = view.slice()
    const waiting = this.#waiting.shift()
    if (waiting !== undefined) return waiting.resolve({ done: false, value: message })
    this.#messages.push(message)
    this.#bytes += message.length + 8
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
    if (this.#link.end === 'corrupt' && !this.#over) return Promise.reject(this.#link.gone())
    return Promise.resolve({ done: true, value: undefined })
  }

  /** Nothing comes any more. */
  end(error?: unknown): void {
    this.#pause()
    for (const { resolve, reject } of this.#waiting.splice(0)) {
      if (error === undefined) this.#finished().then(resolve, reject)
      else reject(error)
    }
    if (error !== undefined || this.#over) this.#gone()
  }
}
