// Conditions on words of shared memory, read natively while spinning.
import { type AioContext, EventNotifier } from 'fdmon'
import { memfd } from 'fdmon/fd'
import { ended, inWorker, message } from './in-worker.js'
import { onEach, refuses, type Kit } from './on-each.js'

type Words = Int32Array | Uint32Array | BigInt64Array | BigUint64Array

const shared = (bytes: number): SharedArrayBuffer => new SharedArrayBuffer(bytes)
const mapped = (kit: Kit, bytes: number): ArrayBuffer => kit.own(memfd('words', bytes), (file) => file.close()).map()

/** The first hit puts the handler on the spin list, the second finds it there: spin mode has begun. */
function spin(ctx: AioContext, words: Int32Array): void {
  for (let round = 0; round < 2; round++) {
    words[0] = 1
    ctx.poll(true)
  }
}

for (const kind of ['shared', 'memfd'] as const) {
  for (const type of [Int32Array, Uint32Array, BigInt64Array, BigUint64Array]) {
    onEach(`a word of a ${type.name} over ${kind} memory that differs from a value is a hit [SPEC 22] [SPEC 24]`, (t, kit) => {
      const memory = new type((kind === 'shared' ? shared(4096) : mapped(kit, 4096)) as any) as any
      const value = (number: number) => (type.BYTES_PER_ELEMENT === 8 ? BigInt(number) : number)
      const ctx = kit.spinning()
      let hits = 0
      ctx.setFdHandler(kit.notifier(), {
        poll: { memory, index: 3, notEqual: value(7) as any },
        pollReady() {
          hits++
          memory[3] = value(7)
        },
      })
      memory[3] = value(8)
      t.true(ctx.poll(true))
      t.false(ctx.poll(false))
      memory[3] = value(9)
      t.true(ctx.poll(true))
      t.is(hits, 2)
      t.is(ctx.stats().sleeps, 0)
    })
  }
}

onEach('the bits above a word of 32 do not matter, nor does its sign', (t, kit) => {
  for (const [memory, value] of [
    [new Int32Array(shared(8)), -1],
    [new Uint32Array(shared(8)), 0xffff_ffff],
    [new Int32Array(shared(8)), -0x8000_0000],
  ] as [Int32Array | Uint32Array, number][]) {
    const ctx = kit.spinning()
    memory[1] = value
    ctx.setFdHandler(kit.notifier(), { poll: { memory, index: 1, notEqual: value }, pollReady: () => t.fail() })
    t.false(ctx.poll(false))
    ctx.close()
  }
  const memory = new BigInt64Array(shared(8))
  memory[0] = -(2n ** 63n)
  const ctx = kit.spinning()
  ctx.setFdHandler(kit.notifier(), { poll: { memory, index: 0, notEqual: -(2n ** 63n) }, pollReady: () => t.fail() })
  t.false(ctx.poll(false))
})

onEach('two words that differ are a hit', (t, kit) => {
  const ring = new Int32Array(shared(64))
  const ctx = kit.spinning()
  let taken = 0
  ctx.setFdHandler(kit.notifier(), {
    poll: { memory: ring, index: 0, notEqual: { index: 8 } },
    pollReady() {
      taken++
      Atomics.add(ring, 8, 1)
    },
  })
  Atomics.store(ring, 0, 3)
  while (ctx.poll(false));
  t.is(taken, 3)
})

onEach('an array that begins inside its buffer is read at the right place', (t, kit) => {
  for (const buffer of [shared(4096), mapped(kit, 4096)]) {
    const all = new Int32Array(buffer as ArrayBuffer)
    const memory = new Int32Array(buffer as ArrayBuffer, 128, 4)
    const ctx = kit.spinning()
    let hits = 0
    ctx.setFdHandler(kit.notifier(), {
      poll: { memory, index: 2, notEqual: 0, suppress: { index: 3 } },
      pollReady: () => void (hits++, (all[34] = 0)),
    })
    for (let round = 0; round < 2; round++) {
      all[34] = 1
      t.true(ctx.poll(true))
    }
    t.is(hits, 2)
    t.is(all[35], 1)
    ctx.suspend()
    t.is(all[35], 0)
    ctx.close()
  }
})

onEach('suppress is 1 from begin to end, without a call into JavaScript [SPEC 25]', (t, kit) => {
  const words = new Int32Array(shared(64))
  const ctx = kit.spinning()
  ctx.setFdHandler(kit.notifier(), {
    poll: { memory: words, index: 0, notEqual: 0, suppress: { index: 1 } },
    pollReady: () => void Atomics.store(words, 0, 0),
  })
  t.is(words[1], 0)
  spin(ctx, words)
  t.is(words[1], 1)
  ctx.suspend()
  t.is(words[1], 0)
})

for (const how of ['remove', 'replace', 'close'] as const) {
  onEach(`suppress is 0 again after: ${how} [SPEC 11] [SPEC 25]`, (t, kit) => {
    const words = new Int32Array(shared(64))
    const notifier = kit.notifier()
    const ctx = kit.spinning()
    const registration = ctx.setFdHandler(notifier, {
      poll: { memory: words, index: 0, notEqual: 0, suppress: { index: 1 } },
      pollReady: () => void Atomics.store(words, 0, 0),
    })
    spin(ctx, words)
    t.is(words[1], 1)
    if (how === 'remove') registration.remove()
    if (how === 'replace') ctx.setFdHandler(notifier, { read() {} })
    if (how === 'close') ctx.close()
    t.is(words[1], 0)
  })
}

onEach('JavaScript hooks run beside a suppress word', (t, kit) => {
  const words = new Int32Array(shared(64))
  const ctx = kit.spinning()
  const order: string[] = []
  ctx.setFdHandler(kit.notifier(), {
    poll: { memory: words, index: 0, notEqual: 0, suppress: { index: 1 } },
    pollReady: () => void Atomics.store(words, 0, 0),
    pollBegin: () => void order.push('begin'),
    pollEnd: () => void order.push('end'),
  })
  spin(ctx, words)
  ctx.suspend()
  t.deepEqual(order, ['begin', 'end'])
})

onEach('one suppress word belongs to one handler of one context [SPEC 25]', (t, kit) => {
  const words = new Int32Array(shared(64))
  const poll = { memory: words, index: 0, notEqual: 0, suppress: { index: 1 } }
  const pollReady = (): void => {}
  const ctx = kit.context()
  const other = kit.context()
  const registration = ctx.setFdHandler(kit.notifier(), { poll, pollReady })
  refuses(t, () => ctx.setFdHandler(kit.notifier(), { poll, pollReady }), ['suppress'], 'ERR_FDMON_IN_USE')
  refuses(t, () => other.setFdHandler(kit.notifier(), { poll, pollReady }), ['suppress'], 'ERR_FDMON_IN_USE')
  registration.remove()
  t.notThrows(() => other.setFdHandler(kit.notifier(), { poll, pollReady }))
})

onEach('a handler is replaced by one with the same suppress word, also inside a callback [SPEC 7] [SPEC 25]', (t, kit) => {
  const words = new Int32Array(shared(64))
  const notifier = kit.notifier()
  const poll = { memory: words, index: 0, notEqual: 0, suppress: { index: 1 } }
  const ctx = kit.spinning()
  const taken: string[] = []
  const take = (name: string) => () => void (taken.push(name), Atomics.store(words, 0, 0))
  ctx.setFdHandler(notifier, { poll, pollReady: take('first') })
  ctx.setFdHandler(notifier, {
    poll,
    pollReady() {
      take('second')()
      ctx.setFdHandler(notifier, { poll, pollReady: take('third') })
    },
  })
  spin(ctx, words)
  spin(ctx, words)
  t.deepEqual(taken, ['second', 'third', 'third', 'third'])
  t.is(words[1], 1)
  ctx.suspend()
  t.is(words[1], 0)
})

onEach('memory stays in place while a handler watches it, whoever else lets go', (t, kit) => {
  const ctx = kit.spinning()
  const notifier = kit.notifier()
  let hits = 0
  ;(() => {
    const file = memfd('gone', 4096)
    const memory = new Int32Array(file.map())
    file.close()
    memory[0] = 1
    ctx.setFdHandler(notifier, { poll: { memory, index: 0, notEqual: 0 }, pollReady: () => void hits++ })
  })()
  for (let turn = 0; turn < 100; turn++) {
    new Array(10_000).fill(turn)
    ctx.poll(false)
  }
  t.is(hits, 100)
})

onEach('1,000 messages between threads through a ring with a doorbell, none lost [SPEC 25] [SPEC 35]', async (t, kit) => {
  const words = new Int32Array(shared(64))
  const notifier = kit.notifier()
  const ctx = kit.context({ poll: { maxNs: 50_000, policy: 'classic' } })
  let taken = 0
  const take = (): void => {
    const head = Atomics.load(words, 0)
    taken = head
    Atomics.store(words, 8, head)
    Atomics.notify(words, 8)
  }
  ctx.setEventNotifier(notifier, {
    poll: { memory: words, index: 0, notEqual: { index: 8 }, suppress: { index: 1 } },
    pollReady: take,
    read() {
      notifier.testAndClear()
      take()
    },
  })
  const worker = inWorker(
    `const words = data.words
     const bell = fdmon.EventNotifier.from(data.handle)
     parentPort.postMessage('ready')
     for (let at = 1; at <= 1000; at++) {
       Atomics.store(words, 0, at)
       if (Atomics.load(words, 1) === 0) bell.set()
       while (Atomics.load(words, 8) < at) Atomics.wait(words, 8, at - 1)
     }
     bell.close()`,
    { words, handle: notifier.handle },
  )
  t.is(await message(worker), 'ready')
  ctx.pollUntil(() => taken === 1000)
  t.is(await ended(worker), 0)
})

onEach('every field of a word condition is checked [SPEC 13]', (t, kit) => {
  const ctx = kit.context()
  const notifier = kit.notifier()
  const good = { memory: new Int32Array(shared(16)) as Words, index: 0, notEqual: 0 as unknown }
  const wide = { memory: new BigInt64Array(shared(16)), index: 0, notEqual: 0n as unknown }
  const unsigned = { memory: new BigUint64Array(shared(16)), index: 0, notEqual: 0n as unknown }
  const bad: [object, string[]][] = [
    [{ ...good, memory: new Int32Array(4) }, ['handlers.poll.memory', 'SharedArrayBuffer']],
    [{ ...good, memory: new Float64Array(shared(16)) }, ['handlers.poll.memory', 'Int32Array']],
    [{ ...good, memory: shared(16) }, ['handlers.poll.memory', 'Int32Array']],
    [{ ...good, memory: new Int32Array(shared(16), 0, 0) }, ['handlers.poll.memory']],
    [{ ...good, memory: undefined }, ['handlers.poll.memory', 'undefined']],
    [{ ...good, index: 4 }, ['handlers.poll.index', '4', '3']],
    [{ ...good, index: -1 }, ['handlers.poll.index', '-1']],
    [{ ...good, index: 0.5 }, ['handlers.poll.index', '0.5']],
    [{ ...good, index: NaN }, ['handlers.poll.index', 'NaN']],
    [{ ...good, index: undefined }, ['handlers.poll.index', 'undefined']],
    [{ ...good, notEqual: 0n }, ['handlers.poll.notEqual', '0n', 'integer']],
    [{ ...good, notEqual: 2 ** 31 }, ['handlers.poll.notEqual', '2147483648']],
    [{ ...good, notEqual: 1.5 }, ['handlers.poll.notEqual', '1.5']],
    [{ ...good, notEqual: undefined }, ['handlers.poll.notEqual', 'undefined']],
    [{ ...good, notEqual: { index: 4 } }, ['handlers.poll.notEqual.index', '4']],
    [{ ...good, notEqual: { index: 0 } }, ['handlers.poll.notEqual.index', 'another index']],
    [{ ...good, notEqual: { at: 1 } }, ['handlers.poll.notEqual.at']],
    [{ ...good, suppress: 1 }, ['handlers.poll.suppress', '{ index }']],
    [{ ...good, suppress: { index: 0 } }, ['handlers.poll.suppress.index', '0']],
    [{ ...good, suppress: { index: 9 } }, ['handlers.poll.suppress.index', '9']],
    [{ ...good, notEquals: 1 }, ['handlers.poll.notEquals', 'notEqual']],
    [{ ...wide, notEqual: 0 }, ['handlers.poll.notEqual', 'bigint']],
    [{ ...wide, notEqual: 2n ** 63n }, ['handlers.poll.notEqual', '9223372036854775808n']],
    [{ ...unsigned, notEqual: -1n }, ['handlers.poll.notEqual', '-1n']],
  ]
  for (const [poll, words] of bad) {
    refuses(t, () => ctx.setFdHandler(notifier, { poll: poll as any, pollReady() {} }), words)
  }
  t.false(ctx.poll(false))
})

onEach('a word whose notifier belongs to another thread still works by its number', (t, kit) => {
  const ctx = kit.spinning()
  const words = new Int32Array(shared(16))
  using twin = EventNotifier.from(kit.notifier().handle)
  let hits = 0
  ctx.setFdHandler(twin.fd, {
    poll: { memory: words, index: 0, notEqual: 0 },
    pollReady: () => void (hits++, (words[0] = 0)),
  })
  words[0] = 1
  t.true(ctx.poll(true))
  t.is(hits, 1)
  ctx.setFdHandler(twin.fd, null)
})
