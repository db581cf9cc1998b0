// Power failures for the tests of examples/kvlog: a context that records what is written and synced, and what a disk may hold
// after a failure at any moment of that.
//
// A disk holds what was written before an fdatasync was asked for that has succeeded. Of everything else it holds any part, by
// sectors of 512 bytes, in any order; the size of the file may have grown without its data.
import type { LogContext } from '../../examples/kvlog/log.js'

const SECTOR = 512

type Event =
  | { what: 'write'; id: number; position: number; bytes: Buffer }
  | { what: 'written'; id: number }
  | { what: 'synced'; writes: readonly number[] }
  | { what: 'acknowledged' }

export class Recorder implements LogContext {
  readonly events: Event[] = []
  readonly #written: number[] = []
  #writes = 0

  constructor(readonly inner: LogContext) {}

  attach(): unknown {
    return this.inner.attach()
  }

  read(...args: Parameters<LogContext['read']>): Promise<number> {
    return this.inner.read(...args)
  }

  async writev(...[fd, buffers, position]: Parameters<LogContext['writev']>): Promise<number> {
    const id = this.#writes++
    this.events.push({ what: 'write', id, position, bytes: Buffer.concat(buffers) })
    const bytes = await this.inner.writev(fd, buffers, position)
    this.#written.push(id)
    this.events.push({ what: 'written', id })
    return bytes
  }

  async fdatasync(fd: Parameters<LogContext['fdatasync']>[0]): Promise<void> {
    const writes = [...this.#written]
    await this.inner.fdatasync(fd)
    this.events.push({ what: 'synced', writes })
  }

  /** Of the file and its directory, at open(), when nothing was written. */
  fsync(fd: Parameters<LogContext['fsync']>[0]): Promise<void> {
    return this.inner.fsync(fd)
  }

  /** To be called when the log has acknowledged a record. */
  acknowledged(): void {
    this.events.push({ what: 'acknowledged' })
  }
}

/** What a disk may hold after a power failure. */
export interface CrashState {
  /** How many events were before it. */
  at: number
  image: Buffer
  /** How many records had been acknowledged. */
  acknowledged: number
  /** What has become of the writes that no sync covers; `all` also where there are none. */
  kept: 'none' | 'all' | 'some'
}

/** For each moment: nothing of what is not synced is kept, all of it, and `samples` times some. */
export function* crashStates(events: readonly Event[], samples: number, dice: (sides: number) => number): Generator<CrashState> {
  const durable: (Event & { what: 'write' })[] = []
  let pending: (Event & { what: 'write' })[] = []
  let acknowledged = 0
  for (let at = 0; at <= events.length; at++) {
    const all = [...durable, ...pending]
    yield { at, image: imageOf(all, () => true, true), acknowledged, kept: 'all' }
    if (pending.length > 0) {
      yield { at, image: imageOf(durable, () => true, true), acknowledged, kept: 'none' }
      for (let sample = 0; sample < samples; sample++) {
        const share = [1, 5, 9][dice(3)]!
        const grown = dice(2) === 0
        const image = imageOf(all, (write) => durable.includes(write) || dice(10) < share, grown)
        yield { at, image, acknowledged, kept: 'some' }
      }
    }
    const event = events[at]
    if (event?.what === 'write') pending.push(event)
    if (event?.what === 'acknowledged') acknowledged++
    if (event?.what === 'synced') {
      durable.push(...pending.filter(({ id }) => event.writes.includes(id)))
      pending = pending.filter(({ id }) => !event.writes.includes(id))
    }
  }
}

/** The file with those sectors of the writes that `keeps`; as long as all of them (`grown`), or as what is kept. */
function imageOf(writes: readonly (Event & { what: 'write' })[], keeps: (write: Event & { what: 'write' }) => boolean, grown: boolean): Buffer {
  const image = Buffer.alloc(writes.reduce((size, { position, bytes }) => Math.max(size, position + bytes.length), 0))
  let size = 0
  for (const write of writes) {
    const end = write.position + write.bytes.length
    for (let from = write.position, to; from < end; from = to) {
      to = Math.min(end, (Math.floor(from / SECTOR) + 1) * SECTOR)
      if (!keeps(write)) continue
      write.bytes.copy(image, from, from - write.position, to - write.position)
      size = Math.max(size, to)
    }
  }
  return grown ? image : image.subarray(0, size)
}
