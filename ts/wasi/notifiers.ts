// Notifiers of a WebAssembly build: a word of shared memory each, 1 = set. Whoever has the memory can set it, in any thread.
//
// Native sees them through `state`, which it asks before and after each sleep. One that no other thread has is set by this
// thread alone, so nothing can happen to it in a sleep; for one that was handed out native sleeps in slices.
import { constants } from 'node:os'
import { invalidArg } from '../errors.js'

/** The part of the build that gives out numbers. */
interface Numbers {
  notifierCreate(): number
  notifierClose(fd: number): boolean
  setNotifierState(state: (fd: number) => number): void
}

interface Notifier {
  word: Int32Array
  /** Other threads may have it. */
  shared: boolean
}

const SET = 1
const SHARED = 2

export class Notifiers {
  readonly #numbers: Numbers
  readonly #all = new Map<number, Notifier>()

  constructor(numbers: Numbers) {
    this.#numbers = numbers
    numbers.setNotifierState((fd) => this.#state(fd))
  }

  has(fd: number): boolean {
    return this.#all.has(fd)
  }

  create(value: number): number {
    const word = new Int32Array(new SharedArrayBuffer(4))
    word[0] = Number(value !== 0)
    return this.#add({ word, shared: false })
  }

  /** What another thread needs for {@link Notifiers.adopt}. */
  share(fd: number): SharedArrayBuffer {
    const notifier = this.#all.get(fd)!
    notifier.shared = true
    return notifier.word.buffer as SharedArrayBuffer
  }

  /** A number here for the same word. */
  adopt(memory: unknown): number {
    if (!(memory instanceof SharedArrayBuffer) || memory.byteLength !== 4) {
      throw invalidArg('handle.memory', memory, 'pass the handle of an EventNotifier of a WebAssembly build')
    }
    return this.#add({ word: new Int32Array(memory), shared: true })
  }

  /** 0, or the negative errno. */
  set(fd: number): number {
    const notifier = this.#all.get(fd)
    if (notifier === undefined) return -constants.errno.EBADF
    Atomics.store(notifier.word, 0, 1)
    return 0
  }

  /** 1 if it was set, 0 if not, or the negative errno. */
  testAndClear(fd: number): number {
    const notifier = this.#all.get(fd)
    if (notifier === undefined) return -constants.errno.EBADF
    return Atomics.exchange(notifier.word, 0, 0)
  }

  close(fd: number): number {
    this.#all.delete(fd)
    return this.#numbers.notifierClose(fd) ? 0 : -constants.errno.EBADF
  }

  #add(notifier: Notifier): number {
    const fd = this.#numbers.notifierCreate()
    this.#all.set(fd, notifier)
    return fd
  }

  #state(fd: number): number {
    const notifier = this.#all.get(fd)
    if (notifier === undefined) return 0
    return (Atomics.load(notifier.word, 0) === 0 ? 0 : SET) | (notifier.shared ? SHARED : 0)
  }
}
