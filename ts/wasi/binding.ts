// The WebAssembly build as the native addon: what it does another way, and what it refuses.
//
// Its memory is its own. So integers that both sides use lie there and native is told their address; counters of notifiers
// are JavaScript's, in memory that workers can share; conditions on words are asked here (words.ts).
import { fstatSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { threadId } from 'node:worker_threads'
import { badFd, unsupported } from '../errors.js'
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
  /** Makes a descriptor of the process known, by another number; of its loader. */
  takeFd(fd: number): number
  releaseFd(fd: number): void
  /** A view of its memory; of its loader. */
  integers(address: number, length: number): Int32Array
  /** Who answers for notifiers; of its loader. */
  setNotifierState(state: (fd: number) => number): void
}

/** Descriptors of the process besides 0, 1 and 2 have their number plus this in the build. */
const HOST = 2 ** 12
/** …and notifiers begin here. */
const NOTIFIERS = 2 ** 30

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

/** The descriptor as its user knows it. */
function hostOf(fd: number): number {
  return fd >= HOST && fd < NOTIFIERS ? fd - HOST : fd
}

/** …in a message. */
export function withHostFds(message: string): string {
  return message.replace(/\bfd (= )?(\d+)/g, (_, sign: string | undefined, fd: string) => `fd ${sign ?? ''}${hostOf(Number(fd))}`)
}

/** Refuses what WASI cannot wait for: an eventfd, a timer, a signalfd have no type. */
function checkKind(fd: number): void {
  let stat
  try {
    stat = fstatSync(fd)
  } catch {
    throw badFd('fd', fd, 'pass the number of an open one')
  }
  if (stat.isFIFO() || stat.isSocket() || stat.isCharacterDevice() || stat.isFile()) return
  const which = 'pipes, sockets, terminals, files and EventNotifiers'
  throw unsupported(`fd = ${fd} cannot be watched in a WebAssembly build, which waits for ${which} alone; use the native addon`)
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

  /** The number by which this build knows a descriptor, and what forgets it. */
  take(fd: number): { number: number; release: () => void } {
    if (fd <= 2 || this.notifiers.has(fd)) return { number: fd, release() {} }
    checkKind(fd)
    return { number: this.#own.takeFd(fd), release: () => this.#own.releaseFd(fd) }
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

    override stats(): ReturnType<InstanceType<WasiBinding['NativeContext']>['stats']> {
      const stats = super.stats()
      for (const handler of stats.handlers) handler.fd = hostOf(handler.fd)
      return stats
    }

    override takePoints(): ReturnType<InstanceType<WasiBinding['NativeContext']>['takePoints']> {
      const points = super.takePoints()
      for (const point of points) if (point.fd !== undefined) point.fd = hostOf(point.fd)
      return points
    }
  }
}
