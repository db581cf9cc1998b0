// Memory that somebody else has written into: 'corrupt', never a wrong message, never anything outside the ring.
import test, { type ExecutionContext } from 'ava'
import { AioContext, Channel, type ChannelPort } from 'fdmon'
import { dice } from './dice.js'
import { refuses } from './on-each.js'

// Words of docs/CHANNEL-LAYOUT.md.
const PORT1 = 16
const PORT2 = 32
const [STATE, SUPPRESS, RUNG, ROOM] = [0, 1, 2, 3]
const HEAD1 = 48
const TAIL1 = 64
const DATA1 = 112

interface Pair {
  readonly words: Int32Array
  readonly port1: ChannelPort
  readonly port2: ChannelPort
}

/** Two ports and the memory of both, by the only way to it: a handle. */
function open(capacity: number): Pair {
  const { port1, port2 } = new Channel({ capacity })
  return { words: new Int32Array(port1.handle.buffer!), port1, port2 }
}

function close({ port1, port2 }: Pair): void {
  port1.close()
  port2.close()
}

const LIES: [string, (words: Int32Array) => void][] = [
  ['head is beyond the ring', (words) => void (words[HEAD1] = 1000)],
  ['head is before tail', (words) => void (words[HEAD1] = -8)],
  ['head is not a multiple of 8', (words) => void words[HEAD1]!++],
  ['a length is above the capacity', (words) => void (words[DATA1] = 101)],
  ['a length is negative', (words) => void (words[DATA1] = -1)],
  ['a message reaches beyond head', (words) => void (words[DATA1] = 64)],
  ['the second word of a record is not 0', (words) => void (words[DATA1 + 1] = 1)],
  ['its own tail has moved', (words) => void (words[TAIL1] = 8)],
]

for (const [what, lie] of LIES) {
  for (const way of ['receive', 'listen', 'iterate'] as const) {
    test(`${way}: ${what}`, async (t) => {
      const pair = open(100)
      pair.port1.send(new Uint8Array(10))
      lie(pair.words)
      const fail = (): never => t.fail() as never
      if (way === 'receive') {
        t.is(pair.port2.receive(), undefined)
      } else if (way === 'listen') {
        using ctx = new AioContext()
        const ends: string[] = []
        pair.port2.listen(ctx, fail, { closed: (end) => ends.push(end) })
        ctx.poll()
        t.deepEqual(ends, ['corrupt'])
        t.false(ctx.poll(false))
      } else {
        await t.throwsAsync(async () => {
          for await (const _ of pair.port2) fail()
        }, { code: 'ERR_FDMON_CLOSED', message: /makes no sense/ })
      }
      t.is(await pair.port2.closed, 'corrupt')
      refuses(t, () => pair.port2.send(new Uint8Array(1)), ['makes no sense'], 'ERR_FDMON_CLOSED')
      t.is(pair.words[PORT2 + STATE!], 2, 'the other side hears that it is closed')
      close(pair)
    })
  }
}

test('a tail that lies is seen by who sends', async (t) => {
  for (const tail of [112, -1, 3, 2000]) {
    const pair = open(100)
    pair.port1.send(new Uint8Array(90))
    pair.words[TAIL1] = tail
    refuses(t, () => pair.port1.send(new Uint8Array(90)), ['makes no sense'], 'ERR_FDMON_CLOSED')
    t.is(await pair.port1.closed, 'corrupt')
    close(pair)
  }
})

test('a head of the own ring that has moved is seen when the ring seems full', async (t) => {
  const pair = open(100)
  pair.port1.send(new Uint8Array(90))
  pair.words[HEAD1] = 0
  refuses(t, () => pair.port1.send(new Uint8Array(90)), ['makes no sense'], 'ERR_FDMON_CLOSED')
  t.is(await pair.port1.closed, 'corrupt')
  close(pair)
})

test('a state that is none is corrupt', async (t) => {
  for (const state of [4, -1]) {
    const pair = open(100)
    using ctx = new AioContext()
    const ends: string[] = []
    pair.port2.listen(ctx, () => {}, { closed: (end) => ends.push(end) })
    pair.port1.send(new Uint8Array(1))
    pair.words[PORT1 + STATE!] = state
    ctx.poll()
    t.deepEqual(ends, ['corrupt'])
    close(pair)
  }
})

test('a liar about suppress, rung and room only misses its own wake-ups', (t) => {
  const pair = open(100)
  for (const lie of [1, -1, 0x7fff_ffff, 0]) {
    for (const word of [SUPPRESS!, RUNG!, ROOM!]) {
      pair.words[PORT1 + word] = lie
      pair.words[PORT2 + word] = lie
      t.true(pair.port1.send(new Uint8Array(50)))
      t.is(pair.port2.receive()?.length, 50)
      t.true(pair.port2.send(new Uint8Array(60)))
      t.is(pair.port1.receive()?.length, 60)
    }
  }
  close(pair)
})

function attempt(call: () => void): void {
  try {
    call()
  } catch (error) {
    if ((error as { code?: string }).code !== 'ERR_FDMON_CLOSED') throw error
  }
}

test('any words in any place: nothing but messages of a possible size, and an end', async (t: ExecutionContext) => {
  let corrupt = 0
  for (let seed = 1; seed <= 400; seed++) {
    const roll = dice(seed)
    const pair = open(100)
    using ctx = new AioContext()
    const seen = (message: Uint8Array): void => void t.true(message.length <= 100)
    pair.port2.listen(ctx, seen)
    for (let step = 0; step < 30; step++) {
      const what = roll(4)
      if (what === 0) attempt(() => void pair.port1.send(new Uint8Array(roll(101))))
      else if (what === 1) attempt(() => void pair.port2.send(new Uint8Array(roll(101))))
      else if (what === 2) attempt(() => void pair.port1.receive())
      else ctx.poll(false)
      if (step > 10) pair.words[4 + roll(pair.words.length - 4)] = roll(2) === 0 ? roll(300) : roll(2 ** 31)
    }
    const end = await Promise.race([pair.port2.closed, Promise.resolve('open')])
    if (end === 'corrupt') corrupt++
    close(pair)
  }
  t.true(corrupt > 50, `${corrupt} of 400 were found out`)
})
