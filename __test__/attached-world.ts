// Attached contexts under fire, in a process of its own: node --import=tsx attached-world.ts FROM TO MONITORS
import { AsyncLocalStorage, createHook } from 'node:async_hooks'
import { writeSync } from 'node:fs'
import { createRequire } from 'node:module'
import { connect, createServer, type AddressInfo } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import { Worker } from 'node:worker_threads'
import { AioContext, EventNotifier, type BottomHalf, type FdHandlers, type MonitorName, type PollParams, type Registration } from 'fdmon'
import { read, socketpair, type Fd } from 'fdmon/fd'
import { dice } from './dice.js'

const from = Number(process.argv[2])
const to = Number(process.argv[3])
const monitors = process.argv[4]!.split(',') as MonitorName[]
const LATE_MS = Number(process.env['FDMON_SLOW'] === '1' ? 60_000 : 10_000)

// Of a source: what was published and what was taken, the producer's word, and how often its bottom half was made anew.
const HEAD = 0
const TAIL = 1
const SUPPRESS = 2
const GENERATION = 3
const WIDTH = 4
const SOURCES = 8
// Of all: what the worker is to do, how long the slowest item took in µs, and a word to nap on.
const ORDER = SOURCES * WIDTH
const WORST = ORDER + 1
const STATE = ORDER + 2

const KINDS = ['word', 'predicate', 'plain', 'kernel', 'half', 'socket', 'word', 'predicate'] as const

const shared = new Int32Array(new SharedArrayBuffer(4 * (STATE + 1)))
const ids = new Float64Array(new SharedArrayBuffer(8 * 2 * SOURCES))

const producer = `
  const { workerData: { shared, ids, bells, sockets, kinds, fdmon, fds, lateMs, width } } = require('node:worker_threads')
  const { AioContext, EventNotifier } = require(fdmon)
  const { write } = require(fds)
  const [HEAD, TAIL, SUPPRESS, GENERATION] = [0, 1, 2, 3]
  const ORDER = kinds.length * width, WORST = ORDER + 1, STATE = ORDER + 2
  const NL = String.fromCharCode(10)
  const notifiers = bells.map((handle) => handle && EventNotifier.from(handle))
  const at = (source, what) => Atomics.load(shared, source * width + what)
  const now = () => performance.now()
  const sent = kinds.map(() => ({ since: 0, generation: 0 }))
  const die = (why) => { require('node:fs').writeSync(2, why + NL); process.kill(process.pid, 'SIGKILL') }
  const half = (source) => {
    sent[source].generation = at(source, GENERATION)
    try { AioContext.remote(ids[2 * source]).schedule(ids[2 * source + 1]) } catch {}
  }
  const publish = (source) => {
    sent[source].since = now()
    Atomics.add(shared, source * width + HEAD, 1)
    if (kinds[source] === 'half') half(source)
    else if (kinds[source] === 'socket') write(sockets[source], new Uint8Array(1))
    else if (at(source, SUPPRESS) === 0) notifiers[source].set()
  }
  const check = (source) => {
    const open = at(source, HEAD) !== at(source, TAIL)
    const took = now() - sent[source].since
    if (open && kinds[source] === 'half' && at(source, GENERATION) !== sent[source].generation) half(source)
    if (open && took > lateMs) die('lost: ' + kinds[source] + ' ' + source + ' suppress ' + at(source, SUPPRESS))
    if (!open && sent[source].since !== 0) {
      if (took * 1000 > Atomics.load(shared, WORST)) Atomics.store(shared, WORST, took * 1000)
      sent[source].since = 0
    }
    return open
  }
  const nap = (ms) => Atomics.wait(shared, STATE, Atomics.load(shared, STATE), ms)
  for (;;) {
    Atomics.wait(shared, ORDER, 0)
    const order = Atomics.load(shared, ORDER)
    if (order < 0) { // all is quiet: nobody spins, so nobody is told not to signal
      // It may spin for a moment whenever Node's own timer has woken it.
      const dark = () => kinds.flatMap((kind, source) => at(source, SUPPRESS) !== 0 ? [kind + ' ' + source] : [])
      let looks = 0
      do nap(1); while (dark().length !== 0 && ++looks < 100)
      if (looks === 100) die('suppressed while the loop sleeps: ' + dark())
    }
    for (let left = order; left > 0;) {
      const source = Math.floor(Math.random() * kinds.length)
      if (!check(source)) { publish(source); left-- }
      const dice = Math.random()
      if (dice < 0.3) { const until = now() + Math.random() * 0.06; while (now() < until); }
      else if (dice < 0.6) nap(Math.random() * 0.3)
      else if (dice < 0.7) nap(Math.random() * 3)
    }
    if (order > 0) while (kinds.filter((_, source) => check(source)).length !== 0) nap(0.2)
    Atomics.store(shared, ORDER, 0)
    Atomics.notify(shared, ORDER)
  }
`

interface Source {
  index: number
  kind: (typeof KINDS)[number]
  ctx: Home
  registration: Registration | undefined
  half: BottomHalf | undefined
  begun: number
  generation: number
  /** `write` is owed since this time. */
  writes: number
}

interface Home {
  ctx: AioContext
  /** Calls of `poll` on the stack. */
  polls: number
  hooks: number
  disabled: number
  closed: boolean
  /** Not run and not cancelled. */
  open: number
}

class Thrown extends Error {}

const storage = new AsyncLocalStorage<string>()
const bells: (EventNotifier | undefined)[] = KINDS.map((kind) => (kind === 'half' || kind === 'socket' ? undefined : new EventNotifier()))
const pairs: ([Fd, Fd] | undefined)[] = KINDS.map((kind) => (kind === 'socket' ? socketpair() : undefined))
const server = createServer((socket) => socket.on('error', () => {}).pipe(socket))
const port = await new Promise<number>((resolve) => server.listen(0, '127.0.0.1', () => resolve((server.address() as AddressInfo).port)))
server.unref()

let world: World | undefined
let seed = from

function fail(why: string): never {
  writeSync(2, `seed ${seed}: ${why}\n`)
  process.kill(process.pid, 'SIGKILL')
  throw new Error(why)
}

process.on('uncaughtException', (error) => {
  for (const one of error instanceof AggregateError ? error.errors : [error]) {
    if (one instanceof Thrown && world !== undefined) world.caught++
    else fail(`uncaught ${one instanceof Error ? one.stack : String(one)}`)
  }
  world?.fire()
})

class World {
  readonly roll: (sides: number) => number
  readonly homes: Home[] = []
  readonly sources: Source[]
  budget: number
  depth = 0
  thrown = 0
  caught = 0
  /** Things of Node's that have to happen yet. */
  node = 0

  constructor(of: number) {
    this.roll = dice(of)
    this.budget = 40 + this.roll(150)
    const count = 2 + this.roll(2)
    for (let index = 0; index < count; index++) this.homes.push(this.home())
    this.sources = KINDS.map((kind, index) => {
      const source: Source = { index, kind, ctx: this.homes[this.roll(count)]!, registration: undefined, half: undefined, begun: 0, generation: 0, writes: 0 }
      this.register(source)
      return source
    })
  }

  params(): PollParams {
    return { maxNs: [0, 20_000, 200_000, 2_000_000][this.roll(4)]!, grow: [0, 2, 1000][this.roll(3)]!, shrink: this.roll(3), guards: this.roll(8) === 0 }
  }

  home(): Home {
    const monitor = monitors[this.roll(monitors.length)]!
    const ctx = new AioContext({ monitor, poll: this.params() })
    if (this.roll(4) === 0) ctx.poll(false)
    ctx.attach()
    return { ctx, polls: 0, hooks: 0, disabled: 0, closed: false, open: 0 }
  }

  word(source: Source, what: number): number {
    return Atomics.load(shared, source.index * WIDTH + what)
  }

  take(source: Source, items: number): void {
    const at = source.index * WIDTH + TAIL
    Atomics.add(shared, at, items)
    if (this.word(source, TAIL) > this.word(source, HEAD)) fail(`${source.kind} was taken more often than it was published`)
  }

  register(source: Source): void {
    const generation = ++source.generation
    const home = source.ctx
    const { ctx } = home
    const { index, kind } = source
    const store = `${index} ${generation}`
    const all = (): void => this.take(source, this.word(source, HEAD) - this.word(source, TAIL))
    const enter = (name: string, body: () => void): void => {
      if (source.generation !== generation) fail(`${kind}: ${name} after its removal`)
      // In a turn of the user's the context may be detached, and everything runs in the caller's.
      if (home.polls === 0 && storage.getStore() !== store) fail(`${kind}: ${name} in the context of ${storage.getStore()}, not of ${store}`)
      body()
      this.fire()
      this.toss()
    }
    ids[2 * index] = ctx.id
    if (kind === 'half') {
      source.half?.delete()
      source.half = storage.run(store, () => ctx.bottomHalf(() => enter('bottom half', all)))
      ids[2 * index] = ctx.id
      ids[2 * index + 1] = source.half.id
      Atomics.add(shared, index * WIDTH + GENERATION, 1)
      return
    }
    const bell = bells[index]
    const fd = pairs[index]?.[0] ?? bell!
    const clear = (): void => {
      bell!.testAndClear()
      all()
    }
    const written = (): void => {
      source.writes = 0
      source.registration?.setInterest({ write: false })
    }
    const hook = (what: string, by: number): void => {
      if (source.generation !== generation) {
        if (by > 0) fail(`${kind}: ${what} after its removal`)
        return
      }
      source.begun += by
      if (source.begun !== Math.max(by, 0)) fail(`${kind}: ${what} out of balance`)
      if (kind === 'predicate') Atomics.store(shared, index * WIDTH + SUPPRESS, by > 0 ? 1 : 0)
      home.hooks++
      try {
        if (this.roll(6) === 0) this.fire()
        if (this.roll(6) === 0) this.toss()
      } finally {
        home.hooks--
      }
    }
    const hooks = { pollBegin: () => hook('pollBegin', 1), pollEnd: () => hook('pollEnd', -1) }
    const external = this.roll(2) === 0
    const handlers: FdHandlers =
      kind === 'socket'
        ? {
            read: () => enter('read', () => this.take(source, Math.max(read(fd, new Uint8Array(64)), 0))),
            write: () => enter('write', written),
            external,
          }
        : kind === 'word'
          ? {
              read: () => enter('read', clear),
              poll: { memory: shared, index: index * WIDTH + HEAD, notEqual: { index: index * WIDTH + TAIL }, suppress: { index: index * WIDTH + SUPPRESS } },
              pollReady: () => enter('pollReady', all),
              external,
              ...(this.roll(2) === 0 ? hooks : {}),
            }
          : kind === 'predicate'
            ? {
                read: () => enter('read', clear),
                poll: () => this.word(source, HEAD) !== this.word(source, TAIL),
                pollReady: () => enter('pollReady', all),
                external,
                ...hooks,
              }
            : { read: () => enter('read', clear), external, ...(kind === 'kernel' ? { poll: 'kernel' } : {}) }
    source.begun = 0
    source.registration = undefined
    // What a hook of the handler before throws comes once the new one is in place.
    this.attempt(() => void (source.registration = storage.run(store, () => ctx.setFdHandler(fd, handlers))))
    if (source.generation !== generation) return
    source.registration ??= storage.run(store, () => ctx.setFdHandler(fd, handlers))
    // A registration that replaces one runs its hooks under the old generation.
    if (kind === 'predicate' && source.begun === 0) Atomics.store(shared, index * WIDTH + SUPPRESS, 0)
    if (kind === 'socket') {
      if (source.writes === 0) source.registration.setInterest({ write: false })
    }
  }

  toss(): void {
    if (this.budget > 0 && this.roll(25) === 0) {
      this.thrown++
      throw new Thrown(`number ${this.thrown}`)
    }
  }

  /** Runs what may throw out of a call of fdmon. */
  attempt(body: () => void): void {
    try {
      body()
    } catch (error) {
      for (const one of error instanceof AggregateError ? error.errors : [error]) {
        if (!(one instanceof Thrown)) fail(`${one instanceof Error ? one.stack : String(one)}`)
        this.caught++
      }
    }
  }

  fire(): void {
    if (this.depth >= 4) return
    this.depth++
    for (let times = this.roll(3); times > 0 && this.budget > 0; times--) {
      this.budget--
      this.attempt(() => this.act())
    }
    this.depth--
  }

  later(body: () => void): void {
    this.node++
    const run = (): void => {
      this.node--
      this.attempt(body)
      this.fire()
    }
    const how = this.roll(6)
    if (how === 0) process.nextTick(run)
    else if (how === 1) void Promise.resolve().then(run)
    else if (how === 2) setImmediate(run)
    else if (how === 3) setTimeout(run, this.roll(4))
    else if (how === 4) queueMicrotask(run)
    else {
      this.node--
      this.attempt(body)
    }
  }

  poll(home: Home, blocking: boolean): void {
    home.polls++
    try {
      home.ctx.poll(blocking)
    } finally {
      home.polls--
    }
  }

  act(): void {
    const source = this.sources[this.roll(this.sources.length)]!
    const home = this.homes[this.roll(this.homes.length)]!
    const { ctx } = home
    const free = home.hooks === 0
    switch (this.roll(22)) {
      case 0:
      case 1:
        home.open++
        ctx.schedule(() => {
          if (home.closed) fail('a bottom half after close')
          home.open--
          this.fire()
          this.toss()
        })
        break
      case 2:
      case 3: {
        const delay = this.roll(3) * this.roll(1_000_000)
        const due = process.hrtime.bigint() + BigInt(delay)
        home.open++
        const timer = ctx.timer(() => {
          if (home.closed) fail('a timer after close')
          if (process.hrtime.bigint() < due) fail('a timer came early')
          home.open--
          this.fire()
          this.toss()
        })
        timer.arm(delay)
        if (this.roll(4) === 0) {
          this.later(() => {
            if (!home.closed && timer.pending) {
              timer.cancel()
              home.open--
            }
          })
        }
        break
      }
      case 4:
        if (free) this.poll(home, false)
        break
      case 5:
        if (!free) break
        home.open++
        ctx.schedule(() => void home.open--)
        this.poll(home, true)
        break
      case 6:
        ctx.setPollParams(this.params())
        break
      case 7:
        if (free) ctx.suspend()
        break
      case 8:
        if (source.ctx.closed) break
        this.register(source)
        break
      case 9:
        this.move(source, home)
        break
      case 10:
      case 11:
        if (!free) break
        this.attempt(() => ctx.detach())
        this.later(() => {
          if (!home.closed && home.hooks === 0) ctx.attach()
          else if (!home.closed) this.again(home)
        })
        break
      case 12:
        this.attempt(() => ctx.disableExternal())
        home.disabled++
        this.later(() => {
          if (home.closed) return
          home.disabled--
          ctx.enableExternal()
        })
        break
      case 13:
        if (this.roll(3) === 0) this.close(home)
        break
      case 14: {
        const { registration, generation } = source
        if (registration === undefined) break
        registration.setInterest({ read: false })
        this.later(() => {
          if (source.generation === generation) source.registration?.setInterest({ read: true })
        })
        break
      }
      case 15: {
        const socket = this.sources.find(({ kind }) => kind === 'socket')!
        socket.writes ||= performance.now()
        socket.registration?.setInterest({ write: true })
        break
      }
      case 16:
        ctx.notify()
        break
      case 17:
        AioContext.remote(ctx.id).setPollParams(this.params())
        break
      case 18:
        globalThis.gc?.()
        if (globalThis.gc === undefined) this.later(() => {})
        break
      case 19:
        if (this.roll(4) === 0) this.talk()
        break
      default:
        this.later(() => {})
    }
  }

  again(home: Home): void {
    this.node++
    setImmediate(() => {
      this.node--
      if (home.closed) return
      if (home.hooks === 0) this.attempt(() => void home.ctx.attach())
      else this.again(home)
    })
  }

  move(source: Source, home: Home): void {
    const { generation } = source
    this.attempt(() => source.registration?.remove())
    if (source.generation !== generation) return // by a hook
    source.registration = undefined
    source.half?.delete()
    source.half = undefined
    source.generation++
    source.ctx = home.closed ? this.homes[0]! : home
    this.register(source)
  }

  close(home: Home): void {
    const at = this.homes.indexOf(home)
    if (at < 0) return
    home.closed = true
    for (const source of this.sources) {
      if (source.ctx !== home) continue
      source.half = undefined
    }
    const fresh = this.home()
    this.homes[at] = fresh
    this.attempt(() => void home.ctx.close())
    for (const source of this.sources) {
      if (source.ctx !== home) continue
      source.registration = undefined
      source.generation++
      source.ctx = fresh
      this.register(source)
    }
  }

  /** A new socket of Node's has its turn. */
  talk(): void {
    this.node++
    const since = performance.now()
    const socket = connect(port, '127.0.0.1', () => socket.write('x'))
    socket.on('error', (error) => fail(String(error)))
    socket.on('data', () => socket.destroy())
    socket.on('close', () => {
      this.node--
      const took = performance.now() - since
      if (took > LATE_MS) fail(`a socket took ${took} ms`)
    })
  }

  idle(): boolean {
    return this.node === 0 && this.homes.every(({ open }) => open === 0) && this.sources.every(({ writes }) => writes === 0)
  }
}

async function ordered(order: number): Promise<void> {
  Atomics.store(shared, ORDER, order)
  Atomics.notify(shared, ORDER)
  // Asked rarely, so that the loop sleeps for its contexts alone.
  while (Atomics.load(shared, ORDER) !== 0) await pause(30)
}

async function quiet(of: World): Promise<string | undefined> {
  const turns = (): number => of.homes.reduce((sum, { ctx }) => sum + ctx.stats().turns, 0)
  const before = turns()
  const cpu = process.cpuUsage()
  await pause(300)
  const { user, system } = process.cpuUsage(cpu)
  const grown = turns() - before
  if (user + system > 15_000) return `${(user + system) / 1000} ms of CPU in 300 ms of nothing, ${grown} turns`
  // One pass for the timer of this function, and one more that a context may ask for.
  if (grown > 8 * of.homes.length) return `${grown} turns in 300 ms of nothing`
  return undefined
}

const require = createRequire(import.meta.url)
const worker = new Worker(producer, {
  eval: true,
  execArgv: [],
  workerData: {
    shared,
    ids,
    bells: bells.map((bell) => bell?.handle),
    sockets: pairs.map((pair) => pair?.[1].fd),
    kinds: KINDS,
    fdmon: require.resolve('fdmon'),
    fds: require.resolve('fdmon/fd'),
    lateMs: LATE_MS,
    width: WIDTH,
  },
})
worker.on('error', (error) => fail(`the worker: ${String(error)}`))

const hook = createHook({ before() {}, after() {} })
let worst = 0
for (seed = from; seed <= to; seed++) {
  if (seed % 2 === 0) hook.enable()
  else hook.disable()
  Atomics.store(shared, WORST, 0)
  const here = new World(seed)
  world = here
  setImmediate(() => here.fire())
  const nudge = setInterval(() => here.fire(), 1 + here.roll(5))
  await ordered(80)
  here.budget = 0
  clearInterval(nudge)
  const since = performance.now()
  while (!here.idle()) {
    if (performance.now() - since > LATE_MS) fail(`never ended: ${here.node} of Node's, ${here.homes.map(({ open }) => open).join()} of the contexts', written ${here.sources.map(({ writes }) => writes).join()}`)
    await pause(20)
  }
  if (here.caught !== here.thrown) fail(`${here.thrown} were thrown and ${here.caught} caught`)
  // Nobody but the contexts wakes the loop for these.
  await ordered(20)
  const slowest = Atomics.load(shared, WORST) / 1000
  if (slowest > worst) {
    worst = slowest
    writeSync(1, `seed ${seed}: slowest ${worst} ms\n`)
  }
  if (seed % 8 === 0) {
    const why = (await quiet(here)) === undefined ? undefined : await quiet(here)
    if (why !== undefined) fail(why)
    await ordered(-1)
  }
  for (const home of here.homes) {
    const { handlers, bottomHalves, timers } = home.ctx.close()
    const expected = here.sources.filter(({ ctx, kind }) => ctx === home && kind !== 'half').length
    if (handlers !== expected || timers !== 0 || bottomHalves > 1) fail(`left: ${handlers} handlers of ${expected}, ${bottomHalves} bottom halves, ${timers} timers`)
  }
  for (const source of here.sources) {
    if (source.begun !== 0 || here.word(source, SUPPRESS) !== 0) fail(`${source.kind}: begun ${source.begun}, suppress ${here.word(source, SUPPRESS)}`)
  }
}
world = undefined
writeSync(1, `done ${to - from + 1} seeds, slowest ${worst} ms\n`)
await worker.terminate()
for (const bell of bells) bell?.close()
for (const pair of pairs) pair?.forEach((fd) => fd.close())
server.close()
