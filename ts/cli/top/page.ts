// The stats page of another process, read as docs/STATS-PAGE.md says: only one that is surely its own user's, and never half
// of an update.
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs'
import { plain } from '../terminal.js'

/** One update of all contexts. Times are nanoseconds of CLOCK_MONOTONIC. */
export interface Snapshot {
  timeNs: number
  updates: number
  contexts: ContextNumbers[]
  /** Contexts that the page has no room for. */
  leftOut: number
}

/** The 20 numbers of a context, in the order of the page. */
const NUMBERS = [
  ...(['turns', 'waits', 'sleeps', 'spinHits', 'spinMisses', 'spinNs', 'spinWastedNs', 'windowNs', 'wakeUpNs', 'events'] as const),
  ...(['dispatchNs', 'cpuNs', 'notifiesSent', 'notifiesElided', 'submissions', 'completions', 'batchMax', 'fallbacks'] as const),
  ...(['ioInFlight', 'ioBatchMax'] as const),
]

/** What a block says of its context. */
export type ContextNumbers = Record<(typeof NUMBERS)[number], number> & {
  id: number
  name: string
  monitor: string
  reason: string
  guard: string | null
  policy: string
  timeNs: number
  maxNs: number
  /** Live handlers; some of them have no row where there are very many. */
  live: number
  handlers: HandlerNumbers[]
}

export interface HandlerNumbers {
  fd: number
  polling: boolean
  reads: number
  writes: number
  pollHits: number
  estimateNs: number
}

/** What does not change of a page. */
export interface Header {
  pid: number
  periodMs: number
  /** When the process began, in clock ticks since the machine did. */
  startTime: number
  version: string
}

const MAGIC = 'fdmonST\0'
const VERSION = 1
const HEADER = 512
const ROWS = 512
const ROW = 40
const TEXT = 128
const MONITORS = ['unknown', 'poll', 'epoll', 'io_uring', 'wasi']
const POLICIES = ['cost', 'handler', 'classic', 'fixed']
const GUARDS = [
  null,
  'one CPU is usable',
  'the cgroup quota is one CPU or less',
  'the CPU budget is used up',
  'a handler has no poll',
  'the producer shares this CPU',
]
/** A block is written in some microseconds; one that stays odd was left by a writer that died. */
const TRIES = 1000

/** Reads `bytes` from `position`; what is behind the end of the file stays 0. */
export type ReadAt = (bytes: Uint8Array, position: number) => void

/** Why a file is no page that can be believed. */
export class Refused extends Error {}

/** The page in a file, opened. */
export class Page {
  readonly #fd: number
  readonly #bytes: DataView
  readonly header: Header

  /** Throws what open(2) says, or {@link Refused}. */
  constructor(readonly path: string) {
    // A pipe that somebody has put there would have us wait.
    this.#fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
    try {
      this.#check()
      this.#bytes = new DataView(new ArrayBuffer(HEADER))
      this.#readAt(new Uint8Array(this.#bytes.buffer), 0)
      this.header = headerOf(this.#bytes)
    } catch (error) {
      this.close()
      throw error
    }
  }

  #check(): void {
    const { uid, mode, nlink } = fstatSync(this.#fd)
    const kind = mode & constants.S_IFMT
    if (kind !== constants.S_IFREG || nlink !== 1) throw new Refused('it is no plain file')
    if (uid !== process.geteuid?.()) throw new Refused('it belongs to another user')
    if ((mode & 0o077) !== 0) throw new Refused('others may read or write it')
  }

  readonly #readAt: ReadAt = (bytes, position) => {
    for (let done = 0; done < bytes.length; ) {
      const read = readSync(this.#fd, bytes, done, bytes.length - done, position + done)
      if (read === 0) return
      done += read
    }
  }

  /** The process has taken it away. */
  get removed(): boolean {
    return fstatSync(this.#fd).nlink === 0
  }

  read(): Snapshot {
    return snapshotOf(this.#readAt)
  }

  close(): void {
    closeSync(this.#fd)
  }
}

function headerOf(view: DataView): Header {
  const magic = textAt(view, 0, 8)
  if (magic !== MAGIC.slice(0, -1)) throw new Refused('it is no stats page')
  const version = view.getUint32(8, true)
  if (version !== VERSION) throw new Refused(`its layout has version ${version}, and this fdmon knows ${VERSION}`)
  return { pid: view.getUint32(24, true), periodMs: view.getUint32(28, true), startTime: wordAt(view, 32), version: textAt(view, 64, TEXT) }
}

/** Everything that the page says now. */
export function snapshotOf(readAt: ReadAt): Snapshot {
  const view = new DataView(new ArrayBuffer(HEADER))
  readAt(new Uint8Array(view.buffer), 0)
  const [size, blocks] = [view.getUint32(16, true), Math.min(view.getUint32(20, true), 64)]
  const contexts: ContextNumbers[] = []
  for (let block = 0; block < blocks; block++) {
    const found = blockOf(readAt, HEADER + block * size, size)
    if (found !== undefined) contexts.push(found)
  }
  contexts.sort((a, b) => a.id - b.id)
  return { timeNs: wordAt(view, 48), updates: wordAt(view, 40), contexts, leftOut: view.getUint32(60, true) }
}

/** Undefined: the block is free, or its writer died while it wrote. */
function blockOf(readAt: ReadAt, position: number, size: number): ContextNumbers | undefined {
  const sequence = new DataView(new ArrayBuffer(8))
  const block = new DataView(new ArrayBuffer(size))
  const look = (): bigint => {
    readAt(new Uint8Array(sequence.buffer), position)
    return sequence.getBigUint64(0, true)
  }
  for (let tries = 0; tries < TRIES; tries++) {
    const before = look()
    if (before % 2n === 1n) continue
    readAt(new Uint8Array(block.buffer), position)
    if (look() === before) return wordAt(block, 8) === 0 ? undefined : contextOf(block)
  }
  return undefined
}

function contextOf(block: DataView): ContextNumbers {
  const numbers = Object.fromEntries(NUMBERS.map((name, at) => [name, wordAt(block, 48 + 8 * at)])) as Record<(typeof NUMBERS)[number], number>
  const rows = Math.min(block.getUint32(24, true), Math.floor((block.byteLength - ROWS) / ROW))
  const handlers = Array.from({ length: rows }, (_, row): HandlerNumbers => {
    const at = ROWS + row * ROW
    const [reads = 0, writes = 0, pollHits = 0, estimateNs = 0] = [8, 16, 24, 32].map((offset) => wordAt(block, at + offset))
    return { fd: block.getInt32(at, true), polling: block.getUint32(at + 4, true) === 1, reads, writes, pollHits, estimateNs }
  })
  return {
    ...numbers,
    id: wordAt(block, 8),
    name: textAt(block, 256, TEXT),
    monitor: MONITORS[block.getUint8(16)] ?? 'unknown',
    reason: textAt(block, 384, TEXT),
    guard: GUARDS[block.getUint8(17)] ?? null,
    policy: POLICIES[block.getUint8(18)] ?? 'unknown',
    timeNs: wordAt(block, 32),
    maxNs: wordAt(block, 40),
    live: block.getUint32(20, true),
    handlers,
  }
}

/** Exact below 2^53. */
function wordAt(view: DataView, at: number): number {
  return Number(view.getBigUint64(at, true))
}

function textAt(view: DataView, at: number, length: number): string {
  const bytes = new Uint8Array(view.buffer, at, length)
  const end = bytes.indexOf(0)
  return plain(new TextDecoder().decode(bytes.subarray(0, end < 0 ? length : end)))
}
