// Two ports, two contexts, and a queue for each way: any order of operations loses, doubles and reorders nothing.
import { Channel, type AioContext, type ChannelPort } from 'fdmon'
import { dice } from './dice.js'
import { Kit, onEach } from './on-each.js'

const SEEDS = Number(process.env['FDMON_SEEDS'] ?? 25)
const CAPACITIES = [1, 8, 61, 1000]
/** Words of docs/CHANNEL-LAYOUT.md. */
const SUPPRESS = [17, 33]

type Iterator = AsyncIterator<Uint8Array>

/** A port, and what the other one has to get from it. */
class Side {
  peer!: Side
  /** What this one has sent, by number, and what it waits to send. */
  readonly queue: Uint8Array[] = []
  readonly waiting: Uint8Array[] = []
  /** Ends it; what consumes now. */
  listening: Disposable | undefined
  iterator: Iterator | undefined
  drains = 0
  ends = 0
  busy = false

  constructor(readonly port: ChannelPort) {}
}

class World {
  readonly roll: (sides: number) => number
  readonly channel: Channel
  readonly words: Int32Array | undefined
  readonly sides: [Side, Side]
  readonly problems: string[] = []
  calm = false
  depth = 0
  sent = 0
  got = 0
  thrown = 0
  caught = 0

  constructor(
    readonly contexts: readonly AioContext[],
    seed: number,
  ) {
    this.roll = dice(seed)
    const capacity = CAPACITIES[this.roll(CAPACITIES.length)]!
    this.channel = new Channel({ capacity, memory: seed % 4 === 0 ? 'memfd' : 'shared' })
    const { buffer } = this.channel.port1.handle
    this.words = buffer === undefined ? undefined : new Int32Array(buffer)
    const [one, other] = [new Side(this.channel.port1), new Side(this.channel.port2)]
    one.peer = other
    other.peer = one
    this.sides = [one, other]
    this.capacity = capacity
  }

  readonly capacity: number

  message(): Uint8Array {
    const bytes = new Uint8Array(this.roll(this.capacity + 1))
    this.sent++
    return bytes.map((_, index) => this.sent * 31 + index)
  }

  /** `to` got it: it is the first that the other side has sent, or that was waiting to be sent. */
  arrive(to: Side, bytes: Uint8Array): void {
    this.got++
    const from = to.peer
    let expected = from.queue.shift()
    if (expected === undefined) expected = from.waiting.shift()
    const same = expected?.length === bytes.length && bytes.every((byte, index) => byte === expected[index])
    if (!same) this.problems.push(`${bytes.length} bytes instead of ${expected?.length}`)
  }

  send(side: Side): void {
    const message = this.message()
    if (!side.port.send(message)) return
    // It does not overtake what waits, so that has been sent before.
    side.queue.push(...side.waiting.splice(0), message)
  }

  sendLater(side: Side): void {
    const message = this.message()
    side.waiting.push(message)
    side.port.sendAsync(message).catch((error: unknown) => this.expect(error))
  }

  drain(side: Side): void {
    side.drains++
    side.port.drain().then(
      () => side.drains--,
      (error: unknown) => this.expect(error),
    )
  }

  expect(error: unknown): void {
    this.problems.push(String(error))
  }

  listen(side: Side): void {
    this.stop(side)
    const token = {}
    let current: unknown = token
    const enter = (body: () => void): void => {
      if (current !== token) this.problems.push('called after it was stopped')
      if (side.busy) this.problems.push('entered twice')
      side.busy = true
      try {
        body()
        if (this.calm) return
        if (this.depth < 3) this.act(this.roll(3))
        if (this.roll(15) === 0) {
          this.thrown++
          throw new Error('mine')
        }
      } finally {
        if (current === token) side.busy = false
      }
    }
    const listening = side.port.listen(
      this.contexts[this.roll(2)]!,
      (bytes) => enter(() => this.arrive(side, bytes)),
      { drain: () => enter(() => this.send(side)), closed: () => void side.ends++ },
    )
    side.listening = {
      [Symbol.dispose]: () => {
        current = undefined
        side.busy = false
        listening[Symbol.dispose]()
      },
    }
  }

  stop(side: Side): void {
    side.listening?.[Symbol.dispose]()
    side.listening = undefined
    void side.iterator?.return?.()
    side.iterator = undefined
  }

  receive(side: Side): void {
    this.stop(side)
    const message = side.port.receive()
    if (message !== undefined) this.arrive(side, message)
  }

  turn(ctx: AioContext): void {
    this.depth++
    try {
      ctx.poll(false)
    } catch (error) {
      this.caught += error instanceof AggregateError ? error.errors.length : 1
    }
    this.depth--
  }

  act(times: number): void {
    for (let time = 0; time < times; time++) {
      const side = this.sides[this.roll(2)]!
      const what = this.roll(12)
      if (what < 4) this.send(side)
      else if (what === 4) this.sendLater(side)
      else if (what === 5) this.drain(side)
      else if (what < 8) this.listen(side)
      else if (what === 8) this.stop(side)
      else if (what === 9) this.receive(side)
      else if (what === 10) this.contexts[this.roll(2)]!.suspend()
      else this.turn(this.contexts[this.roll(2)]!)
    }
  }

  /** Asks for the next message of an iteration, as `for await` does. */
  async iterate(side: Side): Promise<void> {
    this.stop(side)
    const iterator = (side.iterator = side.port[Symbol.asyncIterator]())
    const asked = [iterator.next(), iterator.next()]
    this.send(side.peer)
    this.send(side.peer)
    await new Promise(setImmediate)
    // In this order, as both were asked at once.
    void iterator.return?.()
    side.iterator = undefined
    for (const { done, value } of await Promise.all(asked)) if (done !== true) this.arrive(side, value)
  }
}

onEach('any order of sends, receivers, turns and moves loses no message, no wake-up and no end [SPEC 19] [SPEC 21] [SPEC 25]', async (t, { monitor }) => {
  let [got, thrown] = [0, 0]
  for (let seed = 1; seed <= SEEDS; seed++) {
    const kit = new Kit(monitor)
    const poll = { maxNs: seed % 3 === 0 ? 0 : 20_000, policy: 'classic', guards: false } as const
    const contexts = [kit.context({ poll }), kit.context({ poll })]
    const world = new World(contexts, seed)
    const [one, other] = world.sides
    for (let step = 0; step < 60; step++) {
      world.act(3)
      for (const ctx of contexts) world.turn(ctx)
      if (step % 12 === 11) await world.iterate(world.sides[world.roll(2)]!)
      if (step % 6 === 5) await new Promise(setImmediate)
    }
    world.calm = true
    for (const side of world.sides) world.listen(side)
    const left = (): number[] => world.sides.flatMap(({ queue, waiting, drains }) => [queue.length, waiting.length, drains])
    // While it spins, the kernel is only looked at now and then.
    for (let turn = 0; turn < 10_000 && left().some((count) => count > 0); turn++) {
      for (const ctx of contexts) world.turn(ctx)
      if (turn % 10 === 0) await new Promise(setImmediate)
    }
    const name = `seed ${seed}`
    t.deepEqual(world.problems, [], name)
    t.deepEqual(left(), [0, 0, 0, 0, 0, 0], `${name}: left`)
    t.is(world.caught, world.thrown, `${name}: errors`)
    for (const ctx of contexts) ctx.suspend()
    for (const word of SUPPRESS) t.is(world.words?.[word] ?? 0, 0, `${name}: suppress`)
    one.port.close()
    for (let turn = 0; turn < 10_000 && other.ends === 0; turn++) for (const ctx of contexts) world.turn(ctx)
    t.deepEqual([one.ends, other.ends], [1, 1], `${name}: ends`)
    other.port.close()
    t.is(await other.port.closed, 'closed')
    for (const ctx of contexts) t.deepEqual({ ...ctx.close() }, { handlers: 0, bottomHalves: 0, timers: 0, io: 0 }, name)
    got += world.got
    thrown += world.thrown
    kit.close()
  }
  t.true(got > 50 * SEEDS && thrown > SEEDS / 4, `${got} messages, ${thrown} errors`)
})
