// A ring of 64-byte messages in shared memory, one producer and one consumer, with a doorbell for a consumer that sleeps.
const SLOTS = 64
const WORDS = 16 // of a message: 64 bytes
// Each word on a cache line of its own.
const HEAD = 0
const TAIL = 16
const SUPPRESS = 32
const DATA = 48

export const MESSAGE_WORDS = WORDS

/** Memory for one ring. */
export function ringMemory() {
  return new SharedArrayBuffer(4 * (DATA + SLOTS * WORDS))
}

export class Ring {
  #words
  #bell
  #message = new Int32Array(WORDS)

  /** @param memory made by `ringMemory()` @param bell an EventNotifier, set for a consumer that may sleep */
  constructor(memory, bell) {
    this.#words = new Int32Array(memory)
    this.#bell = bell
  }

  /** False = full. */
  send(message) {
    const words = this.#words
    const head = words[HEAD]
    if (head - Atomics.load(words, TAIL) === SLOTS) return false
    words.set(message, DATA + (head % SLOTS) * WORDS)
    // Publish, full barrier (Atomics are), then look whether the consumer may be asleep.
    Atomics.store(words, HEAD, head + 1)
    if (Atomics.load(words, SUPPRESS) === 0) this.#bell.set()
    return true
  }

  /**
   * Registers with a context; `onMessage` gets each message, valid until it returns. `spin` says on what: 'words' of the
   * ring, the 'kernel' and its readiness of the doorbell, which then rings for each message, or nothing.
   */
  listen(context, onMessage, spin = 'words') {
    const words = this.#words
    const message = this.#message
    const take = () => {
      let tail = words[TAIL]
      while (tail !== Atomics.load(words, HEAD)) {
        const from = DATA + (tail % SLOTS) * WORDS
        for (let i = 0; i < WORDS; i++) message[i] = words[from + i]
        Atomics.store(words, TAIL, ++tail)
        onMessage(message)
      }
    }
    const condition = { memory: words, index: HEAD, notEqual: { index: TAIL }, suppress: { index: SUPPRESS } }
    return context.setEventNotifier(this.#bell, {
      ...(spin === 'words' && { poll: condition, pollReady: take }),
      ...(spin === 'kernel' && { poll: 'kernel' }),
      read: () => {
        this.#bell.testAndClear()
        take()
      },
    })
  }
}
