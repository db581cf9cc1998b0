// What can get lost in a channel: a message, a wake-up or the end, when a callback changes who consumes, throws, or lies.
import test from 'ava'
import { AioContext, Channel, ChannelPort, FdmonError } from 'fdmon'
import { onEach, refuses, settle } from './on-each.js'

const numbered = (...numbers: number[]): Uint8Array[] => numbers.map((number) => new Uint8Array([number]))

/** Both ports of a new channel, closed at the end of the block. */
function open(capacity = 1000): Channel & Disposable {
  const channel = new Channel({ capacity })
  const dispose = (): void => {
    channel.port1.close()
    channel.port2.close()
  }
  return Object.assign(channel, { [Symbol.dispose]: dispose })
}

onEach('a listener that moves itself to another context, and polls that, gets each message once', (t, kit) => {
  const [one, other] = [kit.context(), kit.context()]
  using channel = open()
  const { port1, port2 } = channel
  const got: number[] = []
  const listener = ([number]: Uint8Array): void => {
    got.push(number!)
    if (number !== 2) return
    listening[Symbol.dispose]()
    listening = port2.listen(other, listener)
    other.poll(false)
  }
  let listening = port2.listen(one, listener)
  for (const message of numbered(1, 2, 3, 4)) port1.send(message)
  one.poll()
  t.deepEqual(got, [1, 2, 3, 4])
  port1.send(new Uint8Array([5]))
  t.false(one.poll(false))
  t.true(other.poll())
  t.deepEqual(got, [1, 2, 3, 4, 5])
})

onEach('a listener that stops, receives and listens again gets each message once', (t, kit) => {
  const ctx = kit.context()
  using channel = open()
  const { port1, port2 } = channel
  const got: number[] = []
  const listener = ([number]: Uint8Array): void => {
    got.push(number!)
    if (number !== 1) return
    listening[Symbol.dispose]()
    got.push(...port2.receive()!, ...port2.receive()!)
    listening = port2.listen(ctx, listener)
  }
  let listening = port2.listen(ctx, listener)
  for (const message of numbered(1, 2, 3)) port1.send(message)
  settle(ctx)
  t.deepEqual(got, [1, 2, 3])
})

onEach('what a listener throws after it has moved elsewhere is thrown by the turn in which it ran', (t, kit) => {
  const [one, other] = [kit.context(), kit.context()]
  using channel = open()
  const listening = channel.port2.listen(one, () => {
    listening[Symbol.dispose]()
    channel.port2.listen(other, () => {})
    throw new Error('mine')
  })
  channel.port1.send(new Uint8Array(1))
  t.throws(() => one.poll(), { message: 'mine' })
  t.notThrows(() => settle(other))
})

onEach('the end is told to the next listener when the one before it stopped within the look that would have found it', (t, kit) => {
  const ctx = kit.context()
  using channel = open()
  const { port1, port2 } = channel
  const said: unknown[] = []
  const listening = port2.listen(ctx, ([number]) => {
    said.push(number)
    if (number === 2) return listening[Symbol.dispose]()
    port1.send(new Uint8Array([2])) // found after the bell is cleared
    port1.close()
  })
  port1.send(new Uint8Array([1]))
  settle(ctx)
  t.deepEqual(said, [1, 2])
  port2.listen(ctx, () => {}, { closed: (end) => said.push(end) })
  settle(ctx)
  t.deepEqual(said, [1, 2, 'closed'])
})

test('a send that waits is told of room when the listener stopped within the look that would have found it', async (t) => {
  using ctx = new AioContext()
  using channel = open(100)
  const { port1, port2 } = channel
  t.true(port1.send(new Uint8Array(100)))
  const listening = port1.listen(ctx, ([number]) => {
    if (number === 2) return listening[Symbol.dispose]()
    port2.receive()
    port2.send(new Uint8Array([2]))
  })
  const sent = port1.sendAsync(new Uint8Array(90))
  port2.send(new Uint8Array([1]))
  ctx.poll()
  await sent
  t.is(port2.receive()?.length, 90)
})

onEach('a drain() event that throws hides neither the end nor the messages before it', (t, kit) => {
  const ctx = kit.context()
  using channel = open(100)
  const { port1, port2 } = channel
  const said: unknown[] = []
  port1.listen(ctx, ({ length }) => said.push(length), {
    drain: () => void port1.send(new Uint8Array(100)),
    closed: (end) => said.push(end),
  })
  port1.send(new Uint8Array(100))
  t.false(port1.send(new Uint8Array(100)))
  t.is(port2.receive()?.length, 100)
  port2.send(new Uint8Array(7))
  port2.close()
  const error = t.throws(() => ctx.poll(), { instanceOf: FdmonError })
  t.is(error?.code, 'ERR_FDMON_CLOSED')
  t.deepEqual(said, [7, 'closed'])
})

onEach('a listener that comes after the end hears what was sent before it, and the end', async (t, kit) => {
  const [ctx, other] = [kit.context(), kit.context()]
  using channel = open()
  const { port1, port2 } = channel
  const end = port2.closed
  for (const message of numbered(1, 2, 3)) port1.send(message)
  port1.close()
  t.is(await end, 'closed')
  const said: unknown[] = []
  const listening = port2.listen(ctx, ([number]) => {
    said.push(number)
    listening[Symbol.dispose]()
    port2.listen(other, ([next]) => said.push(next), { closed: (why) => said.push(why) })
  })
  t.deepEqual(said, [])
  t.true(ctx.poll())
  t.deepEqual(said, [1])
  t.false(ctx.poll(false))
  t.true(other.poll())
  t.deepEqual(said, [1, 2, 3, 'closed'])
  t.is(port2.receive(), undefined)
})

test('next() asked several times at once answers in the order of the messages', async (t) => {
  using channel = open()
  const { port1, port2 } = channel
  const iterator = port2[Symbol.asyncIterator]()
  const first = iterator.next()
  for (const message of numbered(1, 2, 3)) port1.send(message)
  const rest = [iterator.next(), iterator.next()]
  t.deepEqual((await Promise.all([first, ...rest])).map(({ value }) => (value as Uint8Array)[0]), [1, 2, 3])
})

for (const how of ['receive', 'listen', 'iterate'] as const) {
  test(`${how}: what an iteration took ahead is there when it is ended`, async (t) => {
    using channel = open()
    const { port1, port2 } = channel
    const iterator = port2[Symbol.asyncIterator]()
    const first = iterator.next()
    for (const message of numbered(1, 2, 3, 4)) port1.send(message)
    t.is((await first).value?.[0], 1)
    await iterator.return?.()
    t.true((await iterator.next()).done)
    port1.send(new Uint8Array([5]))
    const got: number[] = []
    if (how === 'receive') {
      for (let message; (message = port2.receive()) !== undefined; ) got.push(message[0]!)
    } else if (how === 'listen') {
      using ctx = new AioContext()
      port2.listen(ctx, ([number]) => got.push(number!))
      settle(ctx)
    } else {
      for await (const [number] of port2) if (got.push(number!) === 4) break
    }
    t.deepEqual(got, [2, 3, 4, 5])
  })
}

onEach('a listener gets what an iteration took ahead although nothing else comes', async (t, kit) => {
  const ctx = kit.context()
  using channel = open()
  const { port1, port2 } = channel
  const iterator = port2[Symbol.asyncIterator]()
  const first = iterator.next()
  for (const message of numbered(1, 2, 3)) port1.send(message)
  await first
  await iterator.return?.()
  const got: number[] = []
  port2.listen(ctx, ([number]) => got.push(number!))
  t.true(ctx.poll())
  t.deepEqual(got, [2, 3])
})

test('an iteration whose context is closed while nobody waits goes on in another one', async (t) => {
  const ctx = new AioContext().attach()
  using channel = open()
  const { port1, port2 } = channel
  const twin = ChannelPort.from(port2.handle, { context: ctx })
  const iterator = twin[Symbol.asyncIterator]()
  const first = iterator.next()
  for (const message of numbered(1, 2)) port1.send(message)
  t.is((await first).value?.[0], 1)
  ctx.close()
  t.is((await iterator.next()).value?.[0], 2)
  await t.throwsAsync(iterator.next(), { code: 'ERR_FDMON_CLOSED' })
  t.true((await iterator.next()).done, 'and not for ever')
  t.is(twin.receive(), undefined)
  twin.close()
})

test('closed resolves although the contexts of the port are closed', async (t) => {
  const ctx = new AioContext().attach()
  using channel = open()
  const { port1, port2 } = channel
  const twin = ChannelPort.from(port2.handle, { context: ctx })
  const end = twin.closed
  const listening = twin.listen(ctx, () => {})
  ctx.close()
  listening[Symbol.dispose]()
  port1.close()
  t.is(await end, 'closed')
  twin.close()
})

test('closed of a port that is used elsewhere throws each time', (t) => {
  using channel = open()
  const twin = ChannelPort.from(channel.port2.handle)
  for (let i = 0; i < 2; i++) refuses(t, () => channel.port2.closed, ['port 2'], 'ERR_FDMON_IN_USE')
  twin.close()
})

test('an aborted send gives its place to the one after it', async (t) => {
  using channel = open(1000)
  const { port1, port2 } = channel
  t.true(port1.send(new Uint8Array(400)))
  t.true(port1.send(new Uint8Array(400)))
  const control = new AbortController()
  const big = port1.sendAsync(new Uint8Array(1000), { signal: control.signal })
  const small = port1.sendAsync(new Uint8Array(10))
  control.abort(new Error('enough'))
  await t.throwsAsync(big, { message: 'enough' })
  await small
  t.deepEqual([port2.receive(), port2.receive(), port2.receive()].map((message) => message?.length), [400, 400, 10])
})

test('a send that finds room at the last moment takes nothing from a drain() before it, which needs more', async (t) => {
  using channel = open(1000)
  const { port1, port2 } = channel
  for (let i = 0; i < 2; i++) t.true(port1.send(new Uint8Array(400)))
  t.false(port1.send(new Uint8Array(1000)))
  const drained = port1.drain()
  // As if by another thread: the consumer takes a message between the two looks of a send.
  const { store } = Atomics
  Atomics.store = ((...given: Parameters<typeof store>) => {
    Atomics.store = store
    port2.receive()
    return store(...given)
  }) as typeof store
  t.true(port1.send(new Uint8Array(300)))
  t.is(Atomics.store, store)
  t.is(port2.receive()?.length, 400)
  t.is(port2.receive()?.length, 300)
  await drained
  t.true(port1.send(new Uint8Array(1000)))
})

test('a message that changes its length while it waits is not sent, and those after it are', async (t) => {
  for (const change of ['grow', 'shrink', 'transfer'] as const) {
    using channel = open(100)
    const { port1, port2 } = channel
    t.true(port1.send(new Uint8Array(100)))
    const Resizable = ArrayBuffer as unknown as new (length: number, options: object) => ArrayBuffer & { resize(length: number): void }
    const buffer = new Resizable(50, { maxByteLength: 100_000 })
    const changed = port1.sendAsync(new Uint8Array(buffer))
    const next = port1.sendAsync(new Uint8Array(3))
    if (change === 'transfer') structuredClone(buffer, { transfer: [buffer] })
    else buffer.resize(change === 'grow' ? 100_000 : 10)
    t.is(port2.receive()?.length, 100)
    await t.throwsAsync(changed, { code: 'ERR_FDMON_INVALID_ARG', message: /leave the 50 bytes/ })
    await next
    t.is(port2.receive()?.length, 3)
  }
})

test('a message that lies about its length is refused, and harms no ring', (t) => {
  class Liar extends Uint8Array {
    says: unknown = 0
    override get length(): number {
      return this.says as number
    }
    override subarray(): never {
      throw new Error('not to be called')
    }
  }
  using channel = open(100)
  const { port1, port2 } = channel
  for (const says of [0, -1, -16, 1.5, Number.NaN, 2 ** 40, '3', undefined, 50]) {
    const liar = new Liar(1000)
    liar.says = says
    refuses(t, () => port1.send(liar), ['message.length'])
  }
  const own = Object.defineProperty(new Uint8Array(1000), 'length', { value: 8 })
  refuses(t, () => port1.send(own), ['message.length'])
  const reentrant = Object.setPrototypeOf({ length: 1, get 0() { return Number(port1.send(new Uint8Array(9))) } }, Uint8Array.prototype) as Uint8Array
  refuses(t, () => port1.send(reentrant), ['message'])
  refuses(t, () => port1.send(new Proxy(new Uint8Array(8), {})), ['message'])
  t.is(port2.receive(), undefined)
  for (let round = 0; round < 30; round++) {
    const honest = new Liar(37).fill(round)
    honest.says = 37
    t.true(port1.send(honest))
    t.deepEqual(port2.receive(), new Uint8Array(37).fill(round))
  }
})

test('messages over every kind of memory arrive', (t) => {
  using channel = open(100)
  const { port1, port2 } = channel
  const pool = Buffer.from('pooled, at an odd place')
  const shared = new Uint8Array(new SharedArrayBuffer(40), 3, 20).fill(5)
  for (let round = 0; round < 20; round++) {
    for (const message of [pool, pool.subarray(3), shared]) {
      t.true(port1.send(message))
      t.deepEqual(Buffer.from(port2.receive()!), Buffer.from(message))
    }
  }
})

test('what the other side sent is lost with close(), also for an iteration', async (t) => {
  using channel = open()
  const { port1, port2 } = channel
  for (const message of numbered(1, 2, 3)) port1.send(message)
  const got: number[] = []
  for await (const [number] of port2) {
    got.push(number!)
    port2.close()
  }
  t.deepEqual(got, [1])
})
