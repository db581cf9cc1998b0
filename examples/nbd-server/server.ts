// A file as a block device at a Unix socket: who connects, what all connections share, and the end.
import { closeSync, fstatSync, lstatSync, openSync, readFileSync, rmSync } from 'node:fs'
import { constants } from 'node:os'
import { FdmonError, type AioContext, type Registration } from 'fdmon'
import { accept, connectUnix, listenUnix, type Fd } from 'fdmon/fd'
import { Connection, type Shared } from './connection.js'
import type { Export } from './handshake.js'
import { Transmission } from './protocol.js'
import { Pool } from './request.js'

export interface ServerOptions {
  file: string
  socket: string
  name: string
  readOnly: boolean
  /** Takes a line about something that went wrong. */
  log(line: string): void
}

/** When to try again to let somebody in where no descriptor was left. */
const FULL_NS = 100_000_000
const SECTOR = 512

export class Server implements Shared {
  readonly context: AioContext
  readonly export: Export
  readonly pool: Pool
  readonly poll = 'kernel'
  readonly #options: ServerOptions
  readonly #file: number
  readonly #listener: Fd
  readonly #registration: Registration
  readonly #connections = new Set<Connection>()
  #known = 0
  #isFull = false
  /** Connections with replies that the end of this turn's completions sends. */
  readonly #late: Connection[] = []
  readonly #flush

  constructor(context: AioContext, options: ServerOptions) {
    this.context = context
    this.#options = options
    this.#file = openSync(options.file, options.readOnly ? 'r' : 'r+')
    try {
      this.export = { name: options.name, size: sizeOf(this.#file, options.file), flags: flagsFor(options.readOnly) }
      this.#listener = listenAt(options.socket)
    } catch (error) {
      closeSync(this.#file)
      throw error
    }
    this.pool = new Pool({ context, fd: this.#file })
    this.#flush = context.bottomHalf(() => this.#flushLate())
    this.#registration = context.setFdHandler(this.#listener, this)
  }

  /** Somebody connects. */
  read(): void {
    try {
      for (let socket = accept(this.#listener); socket !== undefined; socket = accept(this.#listener)) this.#add(socket)
      this.#isFull = false
    } catch (error) {
      // No descriptor is left (EMFILE): who waits goes on waiting, and is asked for again when one may be free.
      if (!this.#isFull) this.#options.log(`nobody is let in for now: ${messageOf(error)}`)
      this.#isFull = true
      this.#registration.setInterest({ read: false })
      this.context.timer(() => this.#registration.setInterest({ read: true })).arm(FULL_NS)
    }
  }

  flushLater(connection: Connection): void {
    if (this.#late.length === 0) this.#flush.schedule()
    if (!this.#late.includes(connection)) this.#late.push(connection)
  }

  left(connection: Connection, reason: string | undefined): void {
    this.#connections.delete(connection)
    if (reason !== undefined) this.#options.log(`connection ${connection.id}: ${reason}`)
  }

  /** Lets nobody in, answers what is in flight, and ends. Not from inside a turn. */
  close(): void {
    this.#registration.remove()
    this.#listener.close()
    rmSync(this.#options.socket, { force: true })
    for (const connection of this.#connections) connection.leave()
    this.context.pollUntil(() => [...this.#connections].every((connection) => !connection.busy))
    for (const connection of this.#connections) connection.end('it does not take its replies, and the server ends')
    this.context.close()
    closeSync(this.#file)
  }

  #add(socket: Fd): void {
    this.#known += 1
    const connection = new Connection(this, socket, this.#known)
    if (!connection.ended) this.#connections.add(connection)
  }

  #flushLate(): void {
    for (const connection of this.#late) connection.flush()
    this.#late.length = 0
  }
}

/** All connections share one file and its cache, so a flush on one covers the writes of all: clients may use several. */
function flagsFor(readOnly: boolean): number {
  const { HAS_FLAGS, READ_ONLY, SEND_FLUSH, SEND_FUA, SEND_TRIM, SEND_WRITE_ZEROES, CAN_MULTI_CONN } = Transmission
  const always = HAS_FLAGS | SEND_FLUSH | SEND_FUA | CAN_MULTI_CONN
  return always | (readOnly ? READ_ONLY : SEND_TRIM | SEND_WRITE_ZEROES)
}

function sizeOf(fd: number, path: string): number {
  const stat = fstatSync(fd)
  if (stat.isFile()) return stat.size
  if (!stat.isBlockDevice()) throw new Error(`${path} is neither a file nor a block device`)
  const [major, minor] = [(stat.rdev >> 8) & 0xfff, (stat.rdev & 0xff) | ((stat.rdev >> 12) & 0xfff00)]
  return Number(readFileSync(`/sys/dev/block/${major}:${minor}/size`, 'utf8')) * SECTOR
}

/** A socket file stays when its server is killed: one that nobody listens at is replaced. */
function listenAt(path: string): Fd {
  try {
    return listenUnix(path)
  } catch (error) {
    if (!(error instanceof FdmonError) || error.errno !== constants.errno.EADDRINUSE || !isStale(path)) throw error
    rmSync(path)
    return listenUnix(path)
  }
}

function isStale(path: string): boolean {
  if (!lstatSync(path).isSocket()) return false
  try {
    connectUnix(path).close()
    return false
  } catch (error) {
    return error instanceof FdmonError && error.errno === constants.errno.ECONNREFUSED
  }
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
