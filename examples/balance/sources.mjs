// The descriptors: socket pairs that this thread feeds, and timerfds. What was taken of each is counted in shared memory, so
// that nothing has to go along when a descriptor moves.
import { socketpair, timerfd, write } from 'fdmon/fd'

const TICK_MS = 5
const FASTEST = 12
/** Words of shared memory of a source: what was taken, and what came in the wrong order. */
export const WORDS = 2

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

export class Sources {
  /** Each has `number`, `kind`, `rate` in events a tick, `fd`, and the member of the pool that has it. */
  list = []
  counters

  constructor(count) {
    this.counters = new Int32Array(new SharedArrayBuffer(4 * WORDS * count))
    for (let number = 0; number < count; number++) {
      const rate = Math.max(1, Math.round(FASTEST * (1 - number / count)))
      const made = number % 5 === 3 ? openTimer(rate) : openSocket()
      this.list.push({ number, rate, member: undefined, ...made })
    }
  }

  taken(source) {
    return Atomics.load(this.counters, source.number * WORDS)
  }

  /** Numbered records into each socket, at its rate, for so long. */
  async feed(ms) {
    for (let tick = 0; tick < ms / TICK_MS; tick++) {
      for (const source of this.list) for (let at = 0; at < source.rate; at++) this.send(source)
      await pause(TICK_MS)
    }
  }

  send(source) {
    if (source.kind !== 'socket') return
    source.word[0] = source.sent + 1
    if (write(source.feeder, source.record) > 0) source.sent++ // else it is full: not sent, not lost
  }

  async allTaken() {
    const sockets = this.list.filter(({ kind }) => kind === 'socket')
    const end = performance.now() + 20_000
    while (sockets.some((source) => this.taken(source) < source.sent)) {
      if (performance.now() > end) return // `totals()` says what is missing
      await pause(1)
    }
  }

  /** When no thread reads any more. */
  totals() {
    let [sent, taken, lost] = [0, 0, 0]
    for (const source of this.list) {
      const count = this.taken(source) + (source.kind === 'timer' ? Number(source.clock.read()) : 0)
      const [least, most] = source.kind === 'timer' ? expirations(source) : [source.sent, source.sent]
      taken += count
      sent += Math.min(Math.max(count, least), most)
      lost += Math.max(least - count, count - most, 0) + Atomics.load(this.counters, source.number * WORDS + 1)
      for (const fd of source.fds) fd.close()
    }
    return { sent, taken, lost }
  }
}

function openSocket() {
  const [one, feeder] = socketpair()
  const word = new Uint32Array(1)
  const record = new Uint8Array(word.buffer)
  return { kind: 'socket', fd: one.fd, fds: [one, feeder], feeder, sent: 0, word, record }
}

function openTimer(rate) {
  const intervalNs = BigInt(Math.round((TICK_MS * 1_000_000) / rate))
  const before = process.hrtime.bigint()
  const clock = timerfd({ intervalNs, delayNs: intervalNs })
  return { kind: 'timer', fd: clock.fd, fds: [clock], clock, intervalNs, armed: [before, process.hrtime.bigint()] }
}

/** How often a timer has expired, at least and at most: the clock was read before and after it was armed, and now. */
function expirations({ armed: [from, to], intervalNs }) {
  const now = process.hrtime.bigint()
  const late = 1n // what is due this very moment, the kernel may raise a little later
  return [Number((now - to) / intervalNs - late), Number((now - from) / intervalNs)]
}
