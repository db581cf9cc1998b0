// What a port is made of, where it begins and where it arrives: memory, and the descriptors of its bell.
import { checkInteger, checkKeys, checkObject, checkOneOf } from '../check.js'
import { badFd, invalidArg, show } from '../errors.js'
import { fdOf, type FdLike } from '../fd-like.js'
import { OWN, SocketFd, socketpair, type Fd } from '../fd/fd.js'
import { memfd, MemFd } from '../fd/memfd.js'
import { native } from '../native.js'
import { EventNotifier, TYPE as NOTIFIER } from '../notifier.js'
import { format, memoryBytes, open, type ChannelMemory, type PortNumber } from './layout.js'

const TYPE = 'fdmon.Channel'
/** The number of a file of which no program said it: of one that arrived by receiveFds, nobody else can close it. */
const UNKNOWN = -1
const KEYS = ['type', 'port', 'memory', 'buffer', 'pid', 'fds', 'ids'] as const

/**
 * What goes to where a port is to be used: plain data that `postMessage` and `workerData` copy. It names the sender's
 * descriptors, so the sender keeps its port open until {@link ChannelPort.from} has run there.
 *
 * With `memory: 'memfd'` it is JSON too, for another process: send that with the descriptors (`sendFds`), and put those
 * that arrived (`receiveFds`) in the place of `fds`.
 *
 * @example
 * ```ts
 * import { Channel, ChannelPort, type ChannelHandle } from 'fdmon'
 *
 * const { port1, port2 } = new Channel()
 * const handle: ChannelHandle = structuredClone(port2.handle) // as postMessage does
 * const twin = ChannelPort.from(handle)
 * port1.send(new Uint8Array([1, 2, 3]))
 * console.log(twin.receive()) // Uint8Array(3) [ 1, 2, 3 ]
 * port1.close()
 * twin.close()
 * port2.close() // its descriptors; the port is the twin's
 * ```
 */
export interface ChannelHandle {
  /** What this is: `'fdmon.Channel'`. */
  readonly type: string
  /** Which of the two ports. */
  readonly port: PortNumber
  /** The kind of memory. */
  readonly memory: 'shared' | 'memfd'
  /** The memory itself, if it is `'shared'`. */
  readonly buffer?: SharedArrayBuffer
  /** The process in which the numbers of `fds` mean something. */
  readonly pid: number
  /** Of a memfd: the memory and the bell, to hand to `sendFds`. Otherwise the bells of both ports. */
  readonly fds: readonly FdLike[]
  /** The kernel's numbers of these files, by which a reused descriptor is found out; -1 = unknown. */
  readonly ids: readonly number[]
}

/** A descriptor that a port owns. */
interface Owned {
  readonly fd: number
  close(): void
}

/** One port's side of a channel. The descriptors are its own. */
export interface Parts {
  readonly port: PortNumber
  readonly memory: ChannelMemory
  /** Readable when the other port rings. */
  readonly bell: Owned
  /** Rings in the other port's loop; the same as `bell` where it is a socket. */
  readonly theirs: Owned
  /** Where the memory is, unless it is a SharedArrayBuffer. */
  readonly file: Owned | null
}

/** Makes a channel: the parts of its two ports. */
export function makeParts(kind: 'shared' | 'memfd', capacity: number): [Parts, Parts] {
  return collect((own) => {
    const bytes = memoryBytes(capacity)
    if (kind === 'shared') {
      const memory = format(new SharedArrayBuffer(bytes), capacity)
      const [bell1, bell2] = [own(new EventNotifier()), own(new EventNotifier())]
      const [theirs1, theirs2] = [own(EventNotifier.from(bell2.handle)), own(EventNotifier.from(bell1.handle))]
      return [
        { port: 1, memory, bell: bell1, theirs: theirs1, file: null },
        { port: 2, memory, bell: bell2, theirs: theirs2, file: null },
      ]
    }
    const file1 = own(memfd('fdmon channel', bytes))
    const file2 = own(MemFd.from(file1))
    const [bell1, bell2] = socketpair().map(own) as [Fd, Fd]
    const memory = format(file1.map(), capacity)
    return [
      { port: 1, memory, bell: bell1, theirs: bell1, file: file1 },
      { port: 2, memory, bell: bell2, theirs: bell2, file: file2 },
    ]
  })
}

/** What a handle says of these parts. */
export function handleOf({ port, memory, bell, theirs, file }: Parts): ChannelHandle {
  const common = { type: TYPE, port, pid: process.pid }
  if (file === null) {
    const fds = [bell.fd, theirs.fd]
    return { ...common, memory: 'shared', buffer: memory.words.buffer as SharedArrayBuffer, fds, ids: fds.map(native.eventfdId) }
  }
  const fds = [file.fd, bell.fd]
  return { ...common, memory: 'memfd', fds, ids: fds.map(native.fdInode) }
}

/** The parts that a handle names, with descriptors of their own. */
export function partsOf(handle: unknown): Parts {
  const given = checkObject('handle', handle, 'the handle of a ChannelPort')
  if (given['type'] !== TYPE) throw invalidArg('handle', handle, 'pass the handle of a ChannelPort')
  checkKeys('handle.', given, KEYS)
  const port = checkInteger('handle.port', given['port'], 1, 2) as PortNumber
  const kind = checkOneOf('handle.memory', given['memory'], ['shared', 'memfd'])
  const [fds, ids] = [checkTwo('handle.fds', given['fds']), checkTwo('handle.ids', given['ids'])]
  const here = given['pid'] === process.pid
  return collect((own) => {
    if (kind === 'shared') {
      if (!here) {
        const whatToDo = "make the channel with memory: 'memfd' to reach another process"
        throw invalidArg('handle.pid', given['pid'], whatToDo)
      }
      const { buffer } = given
      if (!(buffer instanceof SharedArrayBuffer)) throw invalidArg('handle.buffer', buffer, 'pass the handle as it was')
      const [bell, theirs] = [own(eventfd(fds[0], ids[0])), own(eventfd(fds[1], ids[1]))]
      return { port, memory: open(buffer), bell, theirs, file: null }
    }
    for (const fd of fds) {
      if (here || typeof fd === 'object') continue
      const whatToDo = `put what receiveFds() gave in the place of handle.fds: these are numbers of process ${show(given['pid'])}`
      throw invalidArg('handle.fds', fds, whatToDo)
    }
    const file = own(MemFd.from(fds[0] as FdLike))
    const bell = own(new SocketFd(OWN, native.socketAdopt(fdOf('handle.fds[1]', fds[1]))))
    if (here) [file, bell].forEach(({ fd }, index) => checkSame(fd, fds[index], ids[index]))
    return { port, memory: open(file.map()), bell, theirs: bell, file }
  })
}

/** An own descriptor for the eventfd of a handle. */
function eventfd(fd: unknown, id: unknown): EventNotifier {
  return EventNotifier.from({ type: NOTIFIER, pid: process.pid, fd: fd as number, id: id as number })
}

/** Whether a number that arrived in a handle still led to the sender's file when it was duplicated. */
function checkSame(own: number, fd: unknown, id: unknown): void {
  if (id === UNKNOWN || native.fdInode(own) === id) return
  throw badFd('handle.fds', fd, "it was closed, and its number is another file now: keep the sender's port open until ChannelPort.from() has run")
}

function checkTwo(name: string, value: unknown): readonly unknown[] {
  if (Array.isArray(value) && value.length === 2) return value
  throw invalidArg(name, value, 'pass the handle as it was, or with the two descriptors that arrived')
}

/** Runs `make`; closes what it has made by then when it fails. */
function collect<T>(make: (own: <O extends Owned>(thing: O) => O) => T): T {
  const made: Owned[] = []
  try {
    return make((thing) => {
      made.push(thing)
      return thing
    })
  } catch (error) {
    for (const thing of made) thing.close()
    throw error
  }
}
