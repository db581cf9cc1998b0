// Descriptors of the process besides 0, 1 and 2. node:wasi gives a program those three alone, but each of them may be any file: so
// every further descriptor is the standard input of a WASI of its own, with a page of memory, and is asked through that.
//
// To WebAssembly it is its number plus 4096, more than node:wasi ever has. The layouts are those of WASI preview 1.
'use strict'
const { WASI } = require('node:wasi')

const FIRST = 2 ** 12
const BADF = 8
const CLOCK = 0
/** Bytes of a subscription and of an event. */
const SUBSCRIPTION = 48
const EVENT = 32
/** Where things lie in a subscription: its kind; its descriptor, or the time of a clock. */
const KIND = 8
const FD = 16
const TIMEOUT = 24
/** In the page: two subscriptions, their events, how many there are; or what a descriptor is. */
const EVENTS = 2 * SUBSCRIPTION
const COUNT = EVENTS + 2 * EVENT
const STAT = 24
/**
 * Node counts in whole milliseconds, and where the time is over when it looks it reports no descriptor, ready or not: within less
 * than one always, and within one if this thread was held up. So a look is made twice.
 */
const LEAST = 1_000_000n
const LOOKS = 2

class HostFd {
  #wasi
  #bytes
  #view
  users = 1

  constructor(fd) {
    const memory = new WebAssembly.Memory({ initial: 1 })
    const wasi = new WASI({ version: 'preview1', stdin: fd })
    wasi.initialize({ exports: { memory } })
    this.#wasi = wasi.wasiImport
    this.#bytes = new Uint8Array(memory.buffer)
    this.#view = new DataView(memory.buffer)
  }

  stat(into) {
    const errno = this.#wasi.fd_fdstat_get(0, 0)
    if (errno === 0) into.set(this.#bytes.subarray(0, STAT))
    return errno
  }

  /** Waits for one subscription, so long at most, and puts the event that has come into `into`; how many: 0 or 1, or the negative errno. */
  wait(subscription, ns, into) {
    const view = this.#view
    this.#bytes.fill(0, 0, COUNT)
    this.#bytes.set(subscription)
    view.setUint32(FD, 0, true)
    view.setUint8(SUBSCRIPTION + KIND, CLOCK)
    view.setUint32(SUBSCRIPTION + FD, 1, true) // the monotonic one
    view.setBigUint64(SUBSCRIPTION + TIMEOUT, ns, true)
    const errno = this.#wasi.poll_oneoff(0, EVENTS, 2, COUNT)
    if (errno === BADF) {
      into.fill(0)
      into.set(subscription.subarray(0, 8)) // whose it is
      into[8] = BADF
      into[10] = subscription[KIND]
      return 1
    }
    if (errno !== 0) return -errno
    for (let at = EVENTS; at < EVENTS + view.getUint32(COUNT, true) * EVENT; at += EVENT) {
      if (view.getUint8(at + 10) === CLOCK) continue
      into.set(this.#bytes.subarray(at, at + EVENT))
      return 1
    }
    return 0
  }
}

/** The calls of `own`, a WASI over `memory`, that know such descriptors besides, and who takes them in. */
exports.hostFds = (own, memory) => {
  const all = new Map()
  /** Who is asked first. */
  let first = 0

  function stat(number, into) {
    if (number < FIRST) return own.fd_fdstat_get(number, into)
    return all.get(number)?.stat(new Uint8Array(memory.buffer, into, STAT)) ?? BADF
  }

  function poll(subscriptions, events, count, came) {
    const bytes = new Uint8Array(memory.buffer)
    const view = new DataView(memory.buffer)
    const guests = []
    const others = []
    let timeout
    for (let at = subscriptions; at < subscriptions + count * SUBSCRIPTION; at += SUBSCRIPTION) {
      const subscription = bytes.slice(at, at + SUBSCRIPTION)
      const number = view.getUint32(at + FD, true)
      if (subscription[KIND] === CLOCK) timeout = view.getBigUint64(at + TIMEOUT, true)
      else if (number >= FIRST && all.has(number)) guests.push({ subscription, host: all.get(number) })
      else others.push(subscription)
    }
    if (timeout === undefined || guests.length + others.length === 0) return own.poll_oneoff(subscriptions, events, count, came)
    const deadline = process.hrtime.bigint() + timeout
    const alone = guests.length + Math.min(others.length, 1) === 1
    for (let looks = 1; ; looks++) {
      const left = deadline - process.hrtime.bigint()
      const ns = alone && left > LEAST ? left : LEAST
      let found = 0
      if (others.length > 0) {
        const mine = [...others, clockOf(ns)]
        mine.forEach((subscription, at) => bytes.set(subscription, subscriptions + at * SUBSCRIPTION))
        const errno = own.poll_oneoff(subscriptions, events, mine.length, came)
        if (errno !== 0) return errno
        found = keepFiles(bytes, events, view.getUint32(came, true))
      }
      // Once one has something the rest is asked the next time, and others first then.
      for (let at = 0; at < guests.length && found === 0; at++) {
        const { subscription, host } = guests[(first + at) % guests.length]
        found = host.wait(subscription, ns, bytes.subarray(events, events + EVENT))
        if (found < 0) return -found
      }
      first = (first + 1) % 0xffff
      if (found > 0 || (looks >= LOOKS && process.hrtime.bigint() >= deadline)) {
        view.setUint32(came, found, true)
        return 0
      }
    }
  }

  return {
    calls: { fd_fdstat_get: stat, poll_oneoff: poll },
    /** The number of this descriptor to WebAssembly. Each call is undone by one of `release`. */
    take(fd) {
      const number = FIRST + fd
      const known = all.get(number)
      if (known !== undefined) known.users++
      else all.set(number, new HostFd(fd))
      return number
    },
    release(fd) {
      const known = all.get(FIRST + fd)
      if (known !== undefined && --known.users === 0) all.delete(FIRST + fd)
    },
  }
}

/** A subscription of the monotonic clock, in so many nanoseconds; nobody's. */
function clockOf(ns) {
  const bytes = new Uint8Array(SUBSCRIPTION)
  const view = new DataView(bytes.buffer)
  view.setBigUint64(0, 2n ** 64n - 1n, true)
  view.setUint32(FD, 1, true)
  view.setBigUint64(TIMEOUT, ns, true)
  return bytes
}

/** Moves the events of descriptors to the front; how many there are. */
function keepFiles(bytes, events, count) {
  let kept = 0
  for (let at = events; at < events + count * EVENT; at += EVENT) {
    if (bytes[at + 10] !== CLOCK) bytes.copyWithin(events + kept++ * EVENT, at, at + EVENT)
  }
  return kept
}
