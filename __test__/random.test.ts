// Any order of operations, also from inside callbacks: nothing lost, nothing doubled, nothing after its removal.
import type { AioContext, FdHandlers, Registration } from 'fdmon'
import { read, write, type Fd } from 'fdmon/fd'
import { dice } from './dice.js'
import { Kit, onEach } from './on-each.js'

const SEEDS = Number(process.env['FDMON_SEEDS'] ?? 60)

interface Source {
  left: Fd
  right: Fd
  words: Int32Array
  /** Bytes in the socket; what the word says is in `words[0]`. */
  bytes: number
  registration: Registration | undefined
  /** Of the registered handler: begun and not ended, and running now. */
  begun: number
  busy: boolean
  generation: number
}

class World {
  readonly roll: (sides: number) => number
  readonly sources: Source[]
  readonly problems: string[] = []
  /** No more operations inside callbacks. */
  calm = false
  depth = 0
  thrown = 0
  caught = 0
  disabled = 0
  scheduled = 0
  ran = 0

  constructor(
    readonly ctx: AioContext,
    kit: Kit,
    seed: number,
  ) {
    this.roll = dice(seed)
    this.sources = Array.from({ length: 6 }, () => {
      const [left, right] = kit.pair()
      const words = new Int32Array(new SharedArrayBuffer(16))
      return { left, right, words, bytes: 0, registration: undefined, begun: 0, busy: false, generation: 0 }
    })
  }

  pick(): Source {
    return this.sources[this.roll(this.sources.length)]!
  }

  put(source: Source): void {
    if (write(source.right, new Uint8Array(1)) === 1) source.bytes++
  }

  register(source: Source): void {
    const generation = ++source.generation
    source.begun = 0
    const enter = (name: string, body: () => void): void => {
      if (source.generation !== generation) this.problems.push(`${name} after its removal`)
      if (source.busy) this.problems.push(`${name} entered twice`)
      source.busy = true
      try {
        body()
        if (this.calm) return
        if (this.depth < 4) this.act(this.roll(3))
        if (this.roll(20) === 0) {
          this.thrown++
          throw new Error(name)
        }
      } finally {
        if (source.generation === generation) source.busy = false
      }
    }
    const take = (): void => {
      source.bytes -= Math.max(read(source.left, new Uint8Array(64)), 0)
      source.words[0] = 0
    }
    const hooks = {
      pollBegin: () => void (source.generation === generation && source.begun++),
      pollEnd: () => void (source.generation === generation && source.begun--),
    }
    const kinds: FdHandlers[] = [
      { read: () => enter('read', take) },
      { read: () => enter('read', take), external: true },
      {
        read: () => enter('read', take),
        poll: { memory: source.words, index: 0, notEqual: 0, suppress: { index: 1 } },
        pollReady: () => enter('pollReady', take),
        ...hooks,
      },
      {
        read: () => enter('read', take),
        poll: () => source.words[0] !== 0,
        pollReady: () => enter('pollReady', take),
        external: this.roll(2) === 0,
        ...hooks,
      },
    ]
    source.busy = false
    source.registration = this.ctx.setFdHandler(source.left, kinds[this.roll(kinds.length)]!)
  }

  remove(source: Source): void {
    source.registration?.remove()
    source.registration = undefined
    source.generation++
    source.busy = false
  }

  turn(blocking: boolean): void {
    this.depth++
    try {
      this.ctx.poll(blocking)
    } catch (error) {
      this.caught += error instanceof AggregateError ? error.errors.length : 1
    }
    this.depth--
  }

  act(times: number): void {
    for (let time = 0; time < times; time++) {
      const source = this.pick()
      const what = this.roll(14)
      if (what < 4) this.put(source)
      else if (what < 6) this.register(source)
      else if (what === 6) this.remove(source)
      else if (what === 7) source.words[0] = 1
      else if (what === 8) {
        this.scheduled++
        this.ctx.schedule(() => {
          this.ran++
          if (!this.calm && this.depth < 4) this.act(this.roll(2))
        })
      } else if (what === 9) {
        const timer = this.ctx.timer(() => void this.ran++)
        this.scheduled++
        timer.arm(this.roll(2) * 10_000)
      } else if (what === 10) {
        if (this.disabled > 0) this.ctx.enableExternal()
        else this.ctx.disableExternal()
        this.disabled = this.disabled > 0 ? 0 : 1
      } else if (what === 11) {
        this.ctx.suspend()
      } else if (what === 12) {
        source.registration?.setInterest({ read: this.roll(2) === 0 })
      } else {
        if (this.roll(2) === 0) this.ctx.notify()
        else this.ctx.schedule(() => {})
        this.turn(this.roll(2) === 0)
      }
    }
  }
}

onEach('thousands of operations in any order lose nothing and double nothing [SPEC 3] [SPEC 10] [SPEC 19] [SPEC 25]', (t, { monitor }) => {
  for (let seed = 1; seed <= SEEDS; seed++) {
    const kit = new Kit(monitor)
    const ctx = kit.context({
      poll: { maxNs: seed % 3 === 0 ? 0 : 20_000, policy: 'classic', guards: false },
    })
    const world = new World(ctx, kit, seed)
    for (let step = 0; step < 60; step++) {
      world.act(3)
      world.turn(false)
    }
    // At the end everything is on and has a way to be taken.
    if (world.disabled > 0) ctx.enableExternal()
    for (const source of world.sources) {
      if (source.registration === undefined) world.register(source)
      source.registration?.setInterest({ read: true })
      world.put(source)
    }
    world.calm = true
    for (let turn = 0; turn < 50; turn++) world.turn(false)
    while (world.ran < world.scheduled) world.turn(true)
    ctx.suspend()
    const name = `seed ${seed}`
    t.deepEqual(world.problems, [], name)
    t.deepEqual(
      world.sources.map(({ bytes }) => bytes),
      world.sources.map(() => 0),
      `${name}: bytes left`,
    )
    t.true(world.sources.every(({ begun }) => begun === 0), `${name}: begin and end`)
    t.true(world.sources.every(({ words }) => words[1] === 0), `${name}: suppress`)
    t.is(world.ran, world.scheduled, `${name}: bottom halves and timers`)
    t.is(world.caught, world.thrown, `${name}: errors`)
    for (const source of world.sources) source.registration?.remove()
    t.deepEqual({ ...ctx.close() }, { handlers: 0, bottomHalves: 0, timers: 0, io: 0 }, name)
    kit.close()
  }
})
