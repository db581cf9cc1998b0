// The WebAssembly build as the native addon: what it does another way, and what it refuses.
//
// Its memory is its own. So integers that both sides use lie there and native is told their address; counters of notifiers
// are JavaScript's, in memory that workers can share; conditions on words are asked here (words.ts).
import { threadId } from 'node:worker_threads'
import { availableParallelism } from 'node:os'
import { unsupported } from '../errors.js'
import type { Binding } from '../loader.js'
import * as files from './files.js'
import { Notifiers } from './notifiers.js'

/** What the WebAssembly build has that the native one has not. */
export interface WasiBinding extends Pick<Binding, 'init' | 'NativeContext' | 'NativeRemote' | 'VERSION'> {
  monitorRefusal(name: string): string | null
  notifierCreate(): number
  notifierClose(fd: number): boolean
  integersAllocate(length: number): number
  integersFree(address: number): void
  startIds(at: number): void
  /** A view of its memory; of its loader. */
  integers(address: number, length: number): Int32Array
  /** Who answers for notifiers; of its loader. */
  setNotifierState(state: (fd: number) => number): void
}

/** The ids of contexts begin with the number of their thread: each thread has a memory of its own. */
const IDS = 2 ** 32

/** What this build cannot do: the name of the native function, and what its user called. */
const REFUSED = {
  canCreate: 'canSocket()',
  fdPending: 'readable()',
  fdSetNonblock: 'setNonblock()',
  fdsReceive: 'receiveFds()',
  fdsSend: 'sendFds()',
  inotifyCreate: 'inotify()',
  memfdAdopt: 'MemFd.from()',
  memfdCreate: 'memfd()',
  misalignment: 'alignedBuffer()',
  pidfdOpen: 'pidfd()',
  signalCreate: 'signalfd()',
  socketAccept: 'accept()',
  socketPair: 'socketpair()',
  timerfdCreate: 'timerfd()',
  unixConnect: 'connectUnix()',
  unixListen: 'listenUnix()',
  NativeReservation: 'IoThread',
} as const satisfies Partial<Record<keyof Binding, string>>

/** A call that this build cannot do. */
export function refused(what: string): Error {
  return unsupported(`${what} is not possible in a WebAssembly build, which has no such system call; use the native addon`)
}

export function isWasi(loaded: object): loaded is WasiBinding {
  return 'integersAllocate' in loaded
}

/** Everything that the rest of TypeScript needs of a WebAssembly build. */
export class Wasi {
  readonly binding: Binding
  readonly notifiers: Notifiers
  readonly #own: WasiBinding
  readonly #freed: FinalizationRegistry<number>

  constructor(own: WasiBinding) {
    this.#own = own
    this.notifiers = new Notifiers(own)
    this.#freed = new FinalizationRegistry((address) => own.integersFree(address))
    own.startIds(threadId * IDS)
    this.binding = this.#adapt()
  }

  /** Integers that this side and native use: zeroes. */
  integers(length: number): Int32Array {
    const address = this.#own.integersAllocate(length)
    const view = this.#own.integers(address, length)
    this.#freed.register(view, address)
    return view
  }

  /** Refuses the id of a context of another thread. */
  checkId(id: number): void {
    if (Math.floor(id / IDS) === threadId) return
    const why = 'each thread of a WebAssembly build has contexts of its own; use an EventNotifier, or the native addon'
    throw unsupported(`id = ${id} is a context of another thread; ${why}`)
  }

  /** Refuses a number that means nothing to this build. */
  checkFd(fd: number): void {
    if (fd <= 2 || this.notifiers.has(fd)) return
    const which = 'standard input, output and error (0, 1 and 2) and EventNotifiers'
    throw unsupported(`fd = ${fd} cannot be watched in a WebAssembly build, which knows only ${which}; use the native addon`)
  }

  capabilities(): object {
    const monitor = (name: string): object => {
      const why = this.#own.monitorRefusal(name)
      if (why === null) return { available: true, reason: 'works here' }
      const [reason, advice] = why.slice(why.indexOf(': ') + 2).split('; ')
      return { available: false, reason, advice }
    }
    const names = ['io_uring', 'epoll', 'poll', 'wasi']
    const features = [
      ...['eventfd', 'timerfd', 'inotify', 'pidfd', 'memfd', 'epollBusyPoll', 'ioUringDeferTaskrun', 'ioUringCooperative'],
      ...['ioUringExtArg', 'ioUringNoIowait', 'ioUringNoSqarray', 'ioUringRegisteredRing', 'ioUringRestrictions', 'ioUringNapi'],
      ...['ioUringMultishotPoll', 'ioUringMinTimeout', 'ioUringSkipSuccess'],
    ]
    return {
      native: false,
      monitors: Object.fromEntries(names.map((name) => [name, monitor(name)])),
      features: Object.fromEntries(features.map((name) => [name, false])),
      cpus: availableParallelism(),
      cpuQuota: null,
    }
  }

  #adapt(): Binding {
    const { notifiers } = this
    const refusals = Object.entries(REFUSED).map(([name, what]) => [name, refuse(what)] as const)
    const adapted: Partial<Binding> = {
      NativeContext: byAddress(this.#own.NativeContext),
      eventfdCreate: (value) => notifiers.create(value),
      eventfdId: () => -1,
      fdClose: (fd) => notifiers.close(fd),
      capabilities: () => this.capabilities() as ReturnType<Binding['capabilities']>,
      fdHot: () => ({ ...files, set: (fd) => notifiers.set(fd), testAndClear: (fd) => notifiers.testAndClear(fd) }),
    }
    return { ...this.#own, ...Object.fromEntries(refusals), ...adapted } as unknown as Binding
  }
}

/** A function, and a constructor, that throws. */
function refuse(what: string): () => never {
  return function () {
    throw refused(what)
  }
}

/** What takes an array in a native build takes the address of {@link Wasi.integers} here; there is no file I/O. */
function byAddress(own: WasiBinding['NativeContext']): WasiBinding['NativeContext'] {
  const passed = (integers: Int32Array): Int32Array => integers.byteOffset as unknown as Int32Array
  return class NativeContext extends own {
    override setWords(words: Int32Array): void {
      super.setWords(passed(words))
    }

    override addFrame(frame: Int32Array): void {
      super.addFrame(passed(frame))
    }

    override setResults(): never {
      throw refused('file I/O')
    }
  }
}
