// Two looks at a process, and what it did between them.
import type { ContextNumbers, HandlerNumbers, Snapshot } from './page.js'

/** What stands in the page and is shown as it is. */
type AsItIs = 'id' | 'name' | 'monitor' | 'reason' | 'guard' | 'policy' | 'maxNs' | 'windowNs' | 'live'
/** Counters, of which a rate is shown. */
type Counted = 'turns' | 'events' | 'sleeps' | 'spinHits' | 'spinMisses'

/** A context between two looks. Rates are a second; shares are of one CPU. */
export interface ContextRates extends Pick<ContextNumbers, AsItIs | Counted> {
  /** The window at each update so far, the latest last. */
  windows: number[]
  cpu: number
  /** The part of it that was spun in vain. */
  wasted: number
  handlers: HandlerRates[]
}

/** As in the page, with a rate for each counter. */
export type HandlerRates = HandlerNumbers

/** As many windows as a terminal is wide, at most. */
const HISTORY = 200

/** Keeps what was seen before. */
export class Watch {
  #first: Snapshot
  #last: Snapshot
  readonly #windows = new Map<number, number[]>()

  constructor(first: Snapshot) {
    this.#first = this.#last = first
    this.#note(first)
  }

  /** Another look; the same update again says nothing. */
  look(snapshot: Snapshot): void {
    if (snapshot.updates === this.#last.updates) return
    this.#last = snapshot
    this.#note(snapshot)
  }

  #note({ contexts }: Snapshot): void {
    for (const { id, windowNs } of contexts) {
      const windows = this.#windows.get(id) ?? []
      windows.push(windowNs)
      if (windows.length > HISTORY) windows.shift()
      this.#windows.set(id, windows)
    }
    for (const id of this.#windows.keys()) if (!contexts.some((context) => context.id === id)) this.#windows.delete(id)
  }

  /** The time that the rates are of, in seconds; 0 = there is one update only. */
  get seconds(): number {
    return (this.#last.timeNs - this.#first.timeNs) / 1e9
  }

  get leftOut(): number {
    return this.#last.leftOut
  }

  /** The latest numbers as they stand in the page. */
  get numbers(): readonly ContextNumbers[] {
    return this.#last.contexts
  }

  /** Since the first look. */
  rates(): ContextRates[] {
    return this.#last.contexts.map((now) => {
      const before = this.#first.contexts.find(({ id }) => id === now.id)
      return contextRates(before, now, [...(this.#windows.get(now.id) ?? [])])
    })
  }

  /** From now on rates begin at the latest look. */
  next(): void {
    this.#first = this.#last
  }
}

/** A context that was not there before has no rates yet. */
function contextRates(before: ContextNumbers | undefined, now: ContextNumbers, windows: number[]): ContextRates {
  const since = before ?? now
  const rate = rateOver((now.timeNs - since.timeNs) / 1e9)
  const { id, name, monitor, reason, guard, policy, maxNs, windowNs, live } = now
  const count = (key: Counted): number => rate(since[key], now[key])
  return {
    ...{ id, name, monitor, reason, guard, policy, maxNs, windowNs, windows, live },
    ...{ turns: count('turns'), events: count('events'), sleeps: count('sleeps'), spinHits: count('spinHits'), spinMisses: count('spinMisses') },
    cpu: rate(since.cpuNs, now.cpuNs) / 1e9,
    wasted: rate(since.spinWastedNs, now.spinWastedNs) / 1e9,
    handlers: handlerRates(since.handlers, now.handlers, rate),
  }
}

/** The busiest first. */
function handlerRates(before: readonly HandlerNumbers[], now: readonly HandlerNumbers[], rate: (before: number, now: number) => number): HandlerRates[] {
  const known = new Map(before.map((row) => [row.fd, row]))
  const rows = now.map((row): HandlerRates => {
    const was = known.get(row.fd)
    const count = (key: 'reads' | 'writes' | 'pollHits'): number => (was === undefined ? 0 : rate(was[key], row[key]))
    return { ...row, reads: count('reads'), writes: count('writes'), pollHits: count('pollHits') }
  })
  const busy = ({ reads, writes, pollHits }: HandlerRates): number => reads + writes + pollHits
  return rows.sort((a, b) => busy(b) - busy(a) || a.fd - b.fd)
}

/** A counter that went back is another one: its descriptor was closed, and the number used again. */
function rateOver(seconds: number) {
  return (before: number, now: number): number => (seconds <= 0 || now < before ? 0 : (now - before) / seconds)
}
