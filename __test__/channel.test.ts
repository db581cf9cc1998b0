// Messages between the two ports of a channel, in one thread.
import { readdirSync, readFileSync } from 'node:fs'
import test, { type ExecutionContext } from 'ava'
import { AioContext, Channel, ChannelPort, FdmonError, type ChannelHandle, type ChannelOptions } from 'fdmon'
import { dice } from './dice.js'
import { onEach, refuses } from './on-each.js'

const KINDS = ['shared', 'memfd'] as const

/** A test for each kind of memory, with a channel that is closed at the end. */
function onBoth(title: string, options: ChannelOptions, body: (t: ExecutionContext, channel: Channel) => unknown): void {
  for (const memory of KINDS) {
    test(`${memory}: ${title}`, async (t) => {
      const channel = new Channel({ ...options, memory })
      try {
        await body(t, channel)
      } finally {
        channel.port1.close()
        channel.port2.close()
      }
    })
  }
}

/** Bytes that tell their place and their message. */
function pattern(size: number, seed: number): Uint8Array {
  return Uint8Array.from({ length: size }, (_, index) => index * 7 + seed)
}

/** Times that the bell of this port was rung and not cleared; of 'shared' memory. */
function rings(bell: number): number {
  return Number(/eventfd-count:\s*([0-9a-f]+)/.exec(readFileSync(`/proc/self/fdinfo/${bell}`, 'utf8'))?.[1] ?? Number.NaN)
}

/** The bells of both ports, asked before they are used. */
function bells({ port1, port2 }: Channel): [number, number] {
  return [port1.handle.fds[0] as number, port2.handle.fds[0] as number]
}

onBoth('messages of every size arrive whole and in order, however they lie in the ring', { capacity: 100 }, (t, { port1, port2 }) => {
  let seed = 0
  for (let size = 0; size <= 100; size++) {
    for (const [from, to] of [[port1, port2], [port2, port1]] as const) {
      const message = pattern(size, ++seed)
      t.true(from.send(message))
      t.deepEqual(to.receive(), message)
    }
  }
  t.is(port1.receive(), undefined)
  t.is(port2.receive(), undefined)
})

onBoth('the largest message fits into an empty ring wherever it begins', { capacity: 61 }, (t, { port1, port2 }) => {
  for (let round = 0; round < 40; round++) {
    t.true(port1.send(pattern(61, round)))
    t.false(port1.send(pattern(61, 0)))
    t.deepEqual(port2.receive(), pattern(61, round))
    t.true(port1.send(pattern(round % 9, 1)))
    t.deepEqual(port2.receive(), pattern(round % 9, 1))
  }
})

onBoth('random sends and receives on both sides agree with two queues', { capacity: 777 }, (t, { port1, port2 }) => {
  for (let seed = 1; seed <= 20; seed++) {
    const roll = dice(seed)
    const ways = [
      { from: port1, to: port2, queue: [] as Uint8Array[], used: 0 },
      { from: port2, to: port1, queue: [] as Uint8Array[], used: 0 },
    ]
    for (let step = 0; step < 400; step++) {
      const way = ways[roll(2)]!
      if (roll(2) === 0) {
        const message = pattern(roll(roll(2) === 0 ? 778 : 40), step)
        const size = 8 + Math.ceil(message.length / 8) * 8
        const fits = way.used + size <= 792
        t.is(way.from.send(message), fits, `seed ${seed} step ${step}`)
        if (!fits) continue
        way.queue.push(message)
        way.used += size
      } else {
        const message = way.queue.shift()
        t.deepEqual(way.to.receive(), message, `seed ${seed} step ${step}`)
        if (message !== undefined) way.used -= 8 + Math.ceil(message.length / 8) * 8
      }
    }
    for (const { to, queue } of ways) for (const message of queue) t.deepEqual(to.receive(), message)
  }
})

test('options and messages that cannot be are refused by name', (t) => {
  refuses(t, () => new Channel({ capacity: 0 }), ['capacity', '0'])
  refuses(t, () => new Channel({ capacity: 2 ** 30 }), ['capacity'])
  refuses(t, () => new Channel({ memory: 'disk' as 'shared' }), ['memory', "'disk'"])
  refuses(t, () => new Channel({ size: 1 } as ChannelOptions), ['size'])
  const { port1, port2 } = new Channel({ capacity: 10 })
  refuses(t, () => port1.send(new Uint8Array(11)), ['message.length', '11', '10'])
  refuses(t, () => port1.send('hello' as unknown as Uint8Array), ['message'])
  refuses(t, () => port1.listen({} as AioContext, () => {}), ['context'])
  const Port = ChannelPort as unknown as new () => ChannelPort
  refuses(t, () => new Port(), ['new Channel()'])
  port1.close()
  port2.close()
})

onEach('a listener gets a view of private memory, which the next message overwrites', (t, kit) => {
  const ctx = kit.context()
  const { port1, port2 } = new Channel()
  const views: Uint8Array[] = []
  const texts: string[] = []
  port2.listen(ctx, (view) => {
    views.push(view)
    texts.push(Buffer.from(view).toString())
  })
  for (const text of ['one', 'two', 'three']) port1.send(Buffer.from(text))
  t.true(ctx.poll())
  t.deepEqual(texts, ['one', 'two', 'three'])
  t.false(views[0]!.buffer instanceof SharedArrayBuffer)
  t.is(views[0], views[1], 'a view is made once for each length')
  t.is(Buffer.from(views[0]!).toString(), 'thr')
  port1.close()
  port2.close()
})

onEach('a message whose memory the handler gives away leaves the next one whole', (t, kit) => {
  const ctx = kit.context()
  const { port1, port2 } = new Channel()
  const got: number[][] = []
  port2.listen(ctx, (view) => {
    got.push([...view])
    structuredClone(view, { transfer: [view.buffer as ArrayBuffer] })
  })
  for (let i = 1; i <= 3; i++) port1.send(new Uint8Array([i, i]))
  ctx.poll()
  t.deepEqual(got, [[1, 1], [2, 2], [3, 3]])
  port1.close()
  port2.close()
})

onEach('a sleeper is rung once, and not again until it has looked [SPEC 25]', (t, kit) => {
  const ctx = kit.context()
  const channel = new Channel()
  const [, bell] = bells(channel)
  const { port1, port2 } = channel
  let got = 0
  port2.listen(ctx, () => void got++)
  ctx.poll(false)
  t.is(rings(bell), 0)
  for (let i = 0; i < 10; i++) port1.send(new Uint8Array(8))
  t.is(rings(bell), 1)
  t.true(ctx.poll())
  t.is(got, 10)
  t.is(rings(bell), 0)
  port1.send(new Uint8Array(8))
  t.is(rings(bell), 1)
  port1.close()
  port2.close()
})

onEach('who spins is not rung at all, and is rung again once it may sleep [SPEC 25]', (t, kit) => {
  const ctx = kit.spinning()
  const channel = new Channel()
  const [, bell] = bells(channel)
  const { port1, port2 } = channel
  let got = 0
  port2.listen(ctx, () => void got++)
  // The first hit puts it on the spin list, the second finds it there: spin mode has begun. A bell that was rung before
  // that is cleared by a look at the kernel, sooner or later.
  for (let round = 0; round < 2 || rings(bell) !== 0; round++) {
    port1.send(new Uint8Array(8))
    t.true(ctx.poll())
  }
  const before = got
  for (let i = 0; i < 5; i++) port1.send(new Uint8Array(8))
  t.is(rings(bell), 0, 'spinning')
  t.true(ctx.poll())
  t.is(got, before + 5)
  ctx.suspend()
  port1.send(new Uint8Array(8))
  t.is(rings(bell), 1, 'suspended')
  ctx.poll()
  t.is(got, before + 6)
  port1.close()
  port2.close()
})

onEach('what a handler throws is thrown by the turn, and stops no other message [SPEC 21]', (t, kit) => {
  const ctx = kit.context()
  const { port1, port2 } = new Channel()
  const got: number[] = []
  port2.listen(ctx, ([number]) => {
    got.push(number!)
    if (number! % 2 === 1) throw new Error(`odd ${number}`)
  })
  for (let i = 1; i <= 4; i++) port1.send(new Uint8Array([i]))
  const error = t.throws(() => ctx.poll(), { instanceOf: AggregateError })
  t.deepEqual((error as AggregateError).errors.map(({ message }: Error) => message), ['odd 1', 'odd 3'])
  t.deepEqual(got, [1, 2, 3, 4])
  port1.close()
  port2.close()
})

onEach('a listener may reply, stop, and close from within; what it did not take waits', (t, kit) => {
  const ctx = kit.context()
  const { port1, port2 } = new Channel()
  const got: number[] = []
  const listening = port2.listen(ctx, ([number]) => {
    got.push(number!)
    port2.send(new Uint8Array([number! + 100]))
    if (number === 2) listening[Symbol.dispose]()
  })
  for (let i = 1; i <= 3; i++) port1.send(new Uint8Array([i]))
  ctx.poll()
  t.deepEqual(got, [1, 2])
  t.deepEqual([port1.receive(), port1.receive()], [new Uint8Array([101]), new Uint8Array([102])])
  t.false(ctx.poll(false))
  port2.listen(ctx, ([number]) => {
    got.push(number!)
    port2.close()
  })
  t.true(ctx.poll(), 'what came before is found without a bell')
  t.deepEqual(got, [1, 2, 3])
  t.deepEqual(ctx.close(), { handlers: 0, bottomHalves: 0, timers: 0, io: 0 })
  port1.close()
})

onEach('a nested turn does not enter the handler that runs it; the messages come afterwards [SPEC 19]', (t, kit) => {
  const ctx = kit.context()
  const { port1, port2 } = new Channel()
  const got: number[] = []
  let inside = 0
  port2.listen(ctx, ([number]) => {
    t.is(++inside, 1)
    got.push(number!)
    if (number === 1) {
      port1.send(new Uint8Array([3]))
      ctx.poll(false)
    }
    inside--
  })
  port1.send(new Uint8Array([1]))
  port1.send(new Uint8Array([2]))
  while (got.length < 3) ctx.poll()
  t.deepEqual(got, [1, 2, 3])
  port1.close()
  port2.close()
})

onEach('a full ring: the drain event comes once there is room, by one ring of the bell', (t, kit) => {
  const ctx = kit.context()
  const channel = new Channel({ capacity: 792 })
  const [bell] = bells(channel)
  const { port1, port2 } = channel
  let drained = 0
  port1.listen(ctx, () => {}, { drain: () => void drained++ })
  port2.receive() // it has an owner from here on, of which the other side is told
  ctx.poll(false)
  while (port1.send(new Uint8Array(72)));
  const inRing = 10
  for (let taken = 1; taken <= inRing; taken++) {
    t.is(port2.receive()?.length, 72)
    t.is(rings(bell), taken >= inRing / 2 ? 1 : 0, `${taken} taken`)
  }
  t.is(port2.receive(), undefined)
  t.is(drained, 0)
  ctx.poll()
  t.is(drained, 1)
  t.true(port1.send(new Uint8Array(792)))
  t.false(ctx.poll(false))
  port1.close()
  port2.close()
})

onBoth('drain() resolves when there is room, and at once when nothing waits', { capacity: 100 }, async (t, { port1, port2 }) => {
  await port1.drain()
  t.true(port1.send(new Uint8Array(100)))
  t.false(port1.send(new Uint8Array(100)))
  let drained = false
  const drain = port1.drain().then(() => (drained = true))
  await new Promise(setImmediate)
  t.false(drained)
  port2.receive()
  await drain
  t.true(port1.send(new Uint8Array(100)))
})

onBoth('sendAsync() keeps the order, before any later send()', { capacity: 100 }, async (t, { port1, port2 }) => {
  const sent = Array.from({ length: 20 }, (_, index) => port1.sendAsync(pattern(90, index)))
  t.false(port1.send(new Uint8Array(1)), 'it does not overtake')
  const got: Uint8Array[] = []
  for await (const message of port2) {
    got.push(message)
    if (got.length === 20) break
  }
  await Promise.all(sent)
  t.deepEqual(got, got.map((_, index) => pattern(90, index)))
  t.true(port1.send(new Uint8Array(1)))
})

onBoth('an aborted sendAsync() is not sent, and the others are', { capacity: 100 }, async (t, { port1, port2 }) => {
  const control = new AbortController()
  const first = port1.sendAsync(pattern(90, 1))
  const second = port1.sendAsync(pattern(90, 2), { signal: control.signal })
  const third = port1.sendAsync(pattern(90, 3))
  control.abort(new Error('enough'))
  await t.throwsAsync(second, { message: 'enough' })
  await t.throwsAsync(port1.sendAsync(pattern(90, 4), { signal: control.signal }), { message: 'enough' })
  await first
  t.deepEqual(port2.receive(), pattern(90, 1))
  await third
  t.deepEqual(port2.receive(), pattern(90, 3))
  t.is(port2.receive(), undefined)
})

onBoth('closing: what was sent can be taken, then it is closed, and nobody sends to it', { capacity: 100 }, async (t, { port1, port2 }) => {
  port1.send(pattern(3, 1))
  port1.send(pattern(4, 2))
  const got: number[] = []
  port1.close()
  refuses(t, () => port2.send(new Uint8Array(1)), ['closed'], 'ERR_FDMON_CLOSED')
  for await (const message of port2) got.push(message.length)
  t.deepEqual(got, [3, 4])
  t.is(await port2.closed, 'closed')
  t.is(await port1.closed, 'closed')
  for (const call of [() => port1.send(new Uint8Array(1)), () => port1.receive(), () => port1.handle]) {
    refuses(t, call, ['ChannelPort is closed'], 'ERR_FDMON_CLOSED')
  }
  port1.close()
})

onBoth('closing rejects what waits on both sides', { capacity: 100 }, async (t, { port1, port2 }) => {
  port1.send(new Uint8Array(100))
  const waiting = [port1.sendAsync(new Uint8Array(100)), port1.drain()]
  port2.close()
  for (const promise of waiting) {
    t.is((await t.throwsAsync<FdmonError>(promise, { instanceOf: FdmonError }))?.code, 'ERR_FDMON_CLOSED')
  }
  const other = new Channel({ capacity: 100 })
  other.port1.send(new Uint8Array(100))
  const own = other.port1.sendAsync(new Uint8Array(100))
  other.port1.close()
  t.is((await t.throwsAsync<FdmonError>(own, { instanceOf: FdmonError }))?.code, 'ERR_FDMON_CLOSED')
  other.port2.close()
})

onEach('the end comes after the last message, in one turn', (t, kit) => {
  const ctx = kit.context()
  const { port1, port2 } = new Channel()
  const said: unknown[] = []
  port2.listen(ctx, (message) => said.push(message.length), { closed: (end) => said.push(end) })
  for (let i = 1; i <= 3; i++) port1.send(new Uint8Array(i))
  port1.close()
  ctx.poll()
  t.deepEqual(said, [1, 2, 3, 'closed'])
  t.false(ctx.poll(false))
  port2.close()
  t.deepEqual(said, [1, 2, 3, 'closed'])
})

onBoth('a port has one owner', { capacity: 100 }, (t, { port1, port2 }) => {
  const handle = structuredClone(port2.handle)
  const twin = ChannelPort.from(handle)
  refuses(t, () => ChannelPort.from(handle), ['port 2', 'used elsewhere'], 'ERR_FDMON_IN_USE')
  refuses(t, () => port2.send(new Uint8Array(1)), ['port 2'], 'ERR_FDMON_IN_USE')
  refuses(t, () => twin.handle, ['used here'], 'ERR_FDMON_IN_USE')
  port1.send(pattern(5, 5))
  port2.close() // only its descriptors
  t.deepEqual(twin.receive(), pattern(5, 5))
  t.true(twin.send(pattern(6, 6)))
  t.deepEqual(port1.receive(), pattern(6, 6))
  twin.close()
})

onBoth('a port has one consumer', { capacity: 100 }, (t, { port1 }) => {
  const ctx = new AioContext()
  const listening = port1.listen(ctx, () => {})
  refuses(t, () => port1.listen(ctx, () => {}), ['a listener'], 'ERR_FDMON_IN_USE')
  refuses(t, () => port1.receive(), ['a listener'], 'ERR_FDMON_IN_USE')
  refuses(t, () => port1[Symbol.asyncIterator](), ['a listener'], 'ERR_FDMON_IN_USE')
  listening[Symbol.dispose]()
  t.is(port1.receive(), undefined)
  const iterator = port1[Symbol.asyncIterator]()
  refuses(t, () => port1.receive(), ['an iteration'], 'ERR_FDMON_IN_USE')
  void iterator.return?.()
  t.is(port1.receive(), undefined)
  ctx.close()
})

test('the largest capacity there is', (t) => {
  const { port1, port2 } = new Channel({ capacity: 2 ** 30 - 64, memory: 'memfd' })
  for (const [from, to] of [[port1, port2], [port2, port1]] as const) {
    t.true(from.send(pattern(1000, 3)))
    t.deepEqual(to.receive(), pattern(1000, 3))
  }
  port1.close()
  port2.close()
})

test('handles that are none are refused by name', (t) => {
  const { port1, port2 } = new Channel()
  const handle = port1.handle
  const wrong: [Partial<Record<keyof ChannelHandle, unknown>>, string][] = [
    [{ type: 'x' }, 'handle'],
    [{ port: 3 }, 'handle.port'],
    [{ memory: 'x' }, 'handle.memory'],
    [{ buffer: new SharedArrayBuffer(8) }, 'handle'],
    [{ buffer: new SharedArrayBuffer(8192) }, 'handle'],
    [{ buffer: undefined }, 'handle.buffer'],
    [{ pid: 1 }, 'handle.pid'],
    [{ fds: [1] }, 'handle.fds'],
  ]
  for (const [change, name] of wrong) refuses(t, () => ChannelPort.from({ ...handle, ...change } as ChannelHandle), [name])
  refuses(t, () => ChannelPort.from({ ...handle, fds: [1_000_000, handle.fds[1]!] }), ['1000000'], 'ERR_FDMON_BAD_FD')
  const other = new Channel({ memory: 'memfd' })
  const memfd = other.port1.handle
  refuses(t, () => ChannelPort.from({ ...memfd, pid: 1 }), ['handle.fds', 'receiveFds'])
  refuses(t, () => ChannelPort.from({ ...memfd, fds: [memfd.fds[1]!, memfd.fds[0]!] }), ['memfd'])
  refuses(t, () => ChannelPort.from({ ...memfd, fds: [memfd.fds[0]!, memfd.fds[0]!] }), ['socket'])
  refuses(t, () => ChannelPort.from({ ...memfd, ids: [memfd.ids[0]!, 12] }), ['another file'], 'ERR_FDMON_BAD_FD')
  for (const port of [port1, port2, other.port1, other.port2]) port.close()
})

test('an iteration takes no more than another ringful ahead of a slow consumer', async (t) => {
  const { port1, port2 } = new Channel({ capacity: 1000 })
  const iterator = port2[Symbol.asyncIterator]()
  const first = iterator.next()
  let sent = 0
  while (sent < 100_000) {
    if (port1.send(new Uint8Array(92))) sent++
    else await Promise.race([port1.drain(), new Promise((resolve) => setTimeout(resolve, 50))])
    if (!port1.send(new Uint8Array(0)) && sent > 15) break
  }
  t.true(sent >= 10 && sent <= 35, `${sent} messages of 100 bytes with room for 10`)
  t.is((await first).value?.length, 92)
  await iterator.return?.()
  port1.close()
  port2.close()
})

test('a context that is closed under a port says so to what waits', async (t) => {
  const ctx = new AioContext().attach()
  const { port1, port2 } = new Channel({ capacity: 100 })
  const twin = ChannelPort.from(port2.handle, { context: ctx })
  const next = twin[Symbol.asyncIterator]().next()
  ctx.close()
  t.is((await t.throwsAsync<FdmonError>(next, { instanceOf: FdmonError }))?.code, 'ERR_FDMON_CLOSED')
  port1.send(pattern(4, 4))
  t.deepEqual(twin.receive(), pattern(4, 4), 'the port itself lives on')
  for (const port of [port1, port2, twin]) port.close()
})

test.serial('channels leave no descriptor behind, nor do handles that are refused', (t) => {
  const open = (): number => readdirSync('/proc/self/fd').length
  const use = (): void => {
    for (const memory of KINDS) {
      const { port1, port2 } = new Channel({ memory })
      t.throws(() => ChannelPort.from({ ...port1.handle, ids: [1, 1] }))
      const twin = ChannelPort.from(port2.handle)
      port1.send(new Uint8Array(1))
      t.is(twin.receive()?.length, 1)
      for (const port of [port1, port2, twin]) port.close()
    }
  }
  use()
  const before = open()
  for (let i = 0; i < 20; i++) use()
  t.is(open(), before)
})
