// The I/O threads: what they are asked and when they have done it, what they had to do, and how a descriptor moves.
import { IoThread } from 'fdmon'

class Member {
  /** By the number of a request: who waits for it. */
  #waiting = new Map()
  #requests = 0

  constructor(number, counters) {
    this.name = `io-${number}`
    this.thread = new IoThread(new URL('worker.mjs', import.meta.url), { name: this.name, workerData: counters })
    this.thread.worker.on('message', (request) => {
      this.#waiting.get(request)()
      this.#waiting.delete(request)
    })
  }

  /** Resolves when the thread has done it. What fails there is an uncaught exception here. */
  ask(what) {
    const request = ++this.#requests
    this.thread.worker.postMessage({ request, ...what })
    return new Promise((resolve) => this.#waiting.set(request, resolve))
  }
}

export class Pool {
  members
  #sources
  #then = []
  #thenNs = 0n

  static async start(count, sources) {
    const pool = new Pool()
    pool.#sources = sources
    pool.members = Array.from({ length: count }, (_, number) => new Member(number, sources.counters))
    await Promise.all(pool.members.map(({ thread }) => thread.ready()))
    return pool
  }

  async add(source, member) {
    const { number, kind, fd } = source
    await member.ask({ add: { number, kind, fd } })
    source.member = member
  }

  /**
   * Out of one thread, and when that has said so, into the other. What comes in between waits in the descriptor, whose
   * readiness is level-triggered: the other thread finds it ready.
   */
  async move(source, to) {
    await source.member.ask({ remove: source.number })
    this.#sources.send(source) // nobody has it now
    await this.add(source, to)
  }

  /** From here on is measured. */
  mark() {
    this.#then = this.members.map(({ thread }) => thread.stats())
    this.#thenNs = process.hrtime.bigint()
  }

  /** What each thread had to do since `mark()`: the share of a CPU, and the events of each of its descriptors. */
  measure() {
    const ns = Number(process.hrtime.bigint() - this.#thenNs)
    return this.members.map((member, at) => {
      const then = this.#then[at]
      const now = member.thread.stats()
      const spunInVain = now.spinWastedNs - then.spinWastedNs
      const load = (now.cpuNs - then.cpuNs - spunInVain) / ns
      const reads = (stats, fd) => stats.handlers.find((handler) => handler.fd === fd)?.reads ?? 0
      const sources = this.#sources.list
        .filter((source) => source.member === member)
        .map((source) => ({ number: source.number, events: reads(now, source.fd) - reads(then, source.fd) }))
      return { name: member.name, load, events: now.events - then.events, sources }
    })
  }

  byName(name) {
    return this.members.find((member) => member.name === name)
  }

  async stop() {
    await Promise.all(this.members.map(({ thread }) => thread.stop()))
  }
}
