// Bad input: every option and argument, each with a message that names it, its value and what to do.
import test from 'ava'
import { AioContext, IoThread, type AioContextOptions } from 'fdmon'
import { monitors, onEach, refuses } from './on-each.js'

const make = (options: unknown) => () => new AioContext(options as any).close()

test('every option of a context is checked [SPEC 13]', (t) => {
  const bad: [unknown, string[]][] = [
    [null, ['options', 'null']],
    [1, ['options', '1']],
    [[], ['options']],
    [{ monitors: 'epoll' }, ['options.monitors', 'epoll', 'monitor, poll, aio, ring, name']],
    [{ monitor: 'kqueue' }, ['options.monitor', 'kqueue', "'epoll'"]],
    [{ monitor: null }, ['options.monitor', 'null']],
    [{ monitor: 1 }, ['options.monitor', '1']],
    [{ name: 5 }, ['options.name', '5']],
    [{ name: 'x'.repeat(256) }, ['options.name']],
    [{ name: 'a\0b' }, ['options.name']],
    [{ poll: 5 }, ['options.poll', '5']],
    [{ poll: null }, ['options.poll', 'null']],
    [{ poll: { max: 1 } }, ['options.poll.max', 'maxNs']],
    [{ aio: [] }, ['options.aio']],
    [{ aio: { batch: 1 } }, ['options.aio.batch', 'maxBatch']],
    [{ ring: null }, ['options.ring = null', 'mode']],
    [{ ring: 'off' }, ['options.ring', "'off'"]],
    [{ ring: { modes: 'off' } }, ['options.ring.modes', 'mode, restricted']],
    [{ ring: { mode: 'sqpoll' } }, ["options.ring.mode = 'sqpoll'", "'deferred'", "'off'"]],
    [{ ring: { mode: null } }, ['options.ring.mode = null']],
    [{ ring: { mode: 'off', restricted: 1 } }, ['options.ring.restricted = 1', 'true or false']],
  ]
  for (const [options, words] of bad) refuses(t, make(options), words)
})

/** Values that no number option takes. */
const noNumbers: [unknown, string][] = [
  [NaN, 'NaN'],
  [-1, '-1'],
  [Infinity, 'Infinity'],
  [-Infinity, '-Infinity'],
  [1e300, '1e+300'],
  ['1', "'1'"],
  [null, 'null'],
  [1n, '1n'],
  [true, 'true'],
  [{}, '{}'],
]

const integers = ['maxNs', 'grow', 'shrink', 'weight', 'idleNs'] as const
const others: [string, unknown[]][] = [
  ['latencyWeight', [1e10]],
  ['cpuBudget', [0, 1.0001, 7]],
  ['maxNs', [0.5, 86_400_000_000_001]],
  ['idleNs', [0.5, 86_400_000_000_001]],
  ['weight', [33]],
  ['grow', [2 ** 32, 1.5]],
  ['shrink', [2 ** 32, 1.5]],
  ['policy', ['fast', 1, null, '']],
  ['guards', [0, 1, 'true', null]],
  ['kernelBusyPoll', [1, true, {}, { usecs: 0 }, { usecs: NaN }, { usecs: 1, budget: -1 }, { usecs: 1, prefer: 1 }, { us: 1 }]],
]

test('every spin parameter is checked, in the constructor, the setter and the remote [SPEC 13]', (t) => {
  const ctx = new AioContext()
  const remote = AioContext.remote(ctx.id)
  const tryAll = (option: string, value: unknown, shown: string[]): void => {
    const poll = { [option]: value } as any
    refuses(t, make({ poll }), [`options.poll.${option}`, ...shown])
    refuses(t, () => ctx.setPollParams(poll), [`params.${option}`, ...shown])
    refuses(t, () => remote.setPollParams(poll), [`params.${option}`, ...shown])
  }
  for (const option of [...integers, 'latencyWeight', 'cpuBudget']) {
    for (const [value, shown] of noNumbers) tryAll(option, value, [shown])
  }
  for (const [option, values] of others) for (const value of values) tryAll(option, value, [])
  refuses(t, () => ctx.setPollParams(undefined as any), ['params', 'null'])
  refuses(t, () => ctx.setPollParams({ window: 1 } as any), ['params.window'])
  t.notThrows(() => ctx.setPollParams({}))
  t.notThrows(() => ctx.setPollParams({ maxNs: 86_400_000_000_000, grow: 0, shrink: 4_294_967_295, weight: 32, cpuBudget: 1, idleNs: 0, guards: false, kernelBusyPoll: null, latencyWeight: 0 }))
  t.false(ctx.poll(false))
  ctx.close()
})

test('every I/O parameter is checked, in the constructor, the setter and the remote [SPEC 13]', (t) => {
  const ctx = new AioContext()
  const remote = AioContext.remote(ctx.id)
  const tryAll = (option: string, value: unknown, shown: string[]): void => {
    const aio = { [option]: value } as any
    refuses(t, make({ aio }), [`options.aio.${option}`, ...shown])
    refuses(t, () => ctx.setAioParams(aio), [`params.${option}`, ...shown])
    refuses(t, () => remote.setAioParams(aio), [`params.${option}`, ...shown])
  }
  for (const option of ['maxBatch', 'minBatch', 'minWaitNs', 'threadPoolMin', 'threadPoolMax']) {
    for (const [value, shown] of [...noNumbers, [0.5, '0.5'] as [number, string]]) tryAll(option, value, [shown])
  }
  tryAll('maxBatch', 4097, ['4097', '4096'])
  tryAll('threadPoolMax', 0, ['0'])
  tryAll('engine', 'fibers', ['fibers', "'threads'"])
  refuses(t, () => ctx.setAioParams({ threadPoolMin: 5, threadPoolMax: 4 }), ['threadPoolMin', '5', '4'])
  t.notThrows(() => ctx.setAioParams({ maxBatch: 0, threadPoolMin: 0, threadPoolMax: 64, engine: 'auto' }))
  t.false(ctx.poll(false))
  ctx.close()
})

onEach('every callback and flag of a handlers object is checked [SPEC 5] [SPEC 13]', (t, kit) => {
  const ctx = kit.context()
  const notifier = kit.notifier()
  const read = (): void => {}
  const bad: [unknown, string[]][] = [
    [undefined, ['handlers', 'undefined', 'null to remove']],
    [read, ['handlers']],
    [{}, ['handlers', 'at least one of']],
    [{ external: true }, ['handlers', 'at least one of']],
    [{ pollBegin: read }, ['handlers', 'at least one of']],
    [{ read: 1 }, ['handlers.read', '1', 'function']],
    [{ read: null }, ['handlers.read', 'null', 'function']],
    [{ read: {} }, ['handlers.read', 'function']],
    [{ write: 'w' }, ['handlers.write', "'w'"]],
    [{ priority: true }, ['handlers.priority', 'true']],
    [{ read, pollBegin: 1 }, ['handlers.pollBegin', '1']],
    [{ read, pollEnd: 1 }, ['handlers.pollEnd', '1']],
    [{ read, external: 1 }, ['handlers.external', '1', 'true or false']],
    [{ read, onRead: read }, ['handlers.onRead', 'remove it or use one of']],
    [{ read, poll: () => true }, ['handlers.pollReady', 'undefined']],
    [{ poll: () => true }, ['handlers.pollReady', 'undefined']],
    [{ read, pollReady: read }, ['handlers.poll ', 'undefined']],
    [{ poll: () => true, pollReady: 1 }, ['handlers.pollReady', '1']],
    [{ poll: true, pollReady: read }, ['handlers.poll', 'true']],
    [{ poll: 'memory', pollReady: read }, ['handlers.poll', 'memory', "'kernel'"]],
    [{ poll: null, pollReady: read }, ['handlers.poll', 'null']],
    [{ poll: {}, pollReady: read }, ['handlers.poll.memory', 'undefined']],
    [{ poll: 'kernel' }, ['handlers', 'at least one of']],
    [{ poll: 'kernel', read, pollReady: read }, ['handlers.pollReady', 'kernel']],
  ]
  for (const [handlers, words] of bad) refuses(t, () => ctx.setFdHandler(notifier, handlers as any), words)
  t.false(ctx.poll(false))
  t.is(ctx.close().handlers, 0)
})

onEach('every kind of fd is checked [SPEC 13]', (t, kit) => {
  const ctx = kit.context()
  for (const fd of [NaN, 1.5, 2 ** 31, Infinity, '1', 1n, null, undefined, {}, { fd: '1' }, { fd: NaN }, true, []]) {
    refuses(t, () => ctx.setFdHandler(fd as any, { read() {} }), ['fd'])
    refuses(t, () => ctx.setFdHandler(fd as any, null), ['fd'])
  }
  for (const fd of [-1, { fd: -1 }, 1_000_000]) {
    refuses(t, () => ctx.setFdHandler(fd, { read() {} }), ['fd'], 'ERR_FDMON_BAD_FD')
  }
  for (const notifier of [1, {}, null, undefined]) {
    refuses(t, () => ctx.setEventNotifier(notifier as any, { read() {} }), ['notifier', 'EventNotifier'])
  }
  t.false(ctx.poll(false))
})

onEach('interest is checked [SPEC 8] [SPEC 13]', (t, kit) => {
  const ctx = kit.context()
  const registration = ctx.setFdHandler(kit.notifier(), { read() {} })
  const set = (interest: unknown) => () => registration.setInterest(interest as any)
  refuses(t, set(undefined), ['interest', 'undefined'])
  refuses(t, set(1), ['interest', '1'])
  refuses(t, set({ read: 1 }), ['interest.read', '1'])
  refuses(t, set({ reads: true }), ['interest.reads'])
  refuses(t, set({ write: true }), ['interest.write', 'write callback'])
  t.notThrows(set({ write: false }))
  t.notThrows(set({}))
})

onEach('every argument of the other methods is checked [SPEC 13]', (t, kit) => {
  const ctx = kit.context()
  const any = ctx as any
  const timer = ctx.timer(() => {})
  const bad: [() => unknown, string[]][] = [
    [() => any.poll(1), ['blocking', '1']],
    [() => any.poll(null), ['blocking', 'null']],
    [() => any.pollUntil(), ['condition', 'undefined']],
    [() => any.pollUntil(true), ['condition', 'true']],
    [() => any.run(5), ['options', '5']],
    [() => any.run({ for: 5 }), ['options.for', '5', 'forNs']],
    [() => any.run({ signal: {} }), ['options.signal', '{}', 'AbortController']],
    [() => any.run({ signal: null }), ['options.signal', 'null']],
    [() => any.schedule(), ['callback', 'undefined']],
    [() => any.schedule({}), ['callback', '{}']],
    [() => any.bottomHalf(null), ['callback', 'null']],
    [() => any.timer('f'), ['callback', "'f'"]],
    ...noNumbers.filter(([value]) => value !== 1n).flatMap(([value, shown]): [() => unknown, string[]][] => [
      [() => timer.arm(value as any), ['delayNs', shown]],
      [() => any.run({ forNs: value }), ['options.forNs', shown]],
    ]),
    [() => timer.arm(-1n), ['delayNs', '-1n']],
    [() => timer.arm(2n ** 63n), ['delayNs', '9223372036854775808n']],
    [() => timer.arm(undefined as any), ['delayNs', 'undefined']],
    [() => timer.armAt(1 as any), ['deadlineNs', '1', 'bigint']],
    [() => timer.armAt(-1n), ['deadlineNs', '-1n']],
    [() => AioContext.remote('1' as any), ['id', "'1'"]],
    [() => AioContext.remote(NaN), ['id', 'NaN']],
    [() => AioContext.remote(-1), ['id', '-1']],
    [() => AioContext.remote(ctx.id).schedule(1.5), ['bottomHalfId', '1.5']],
    [() => AioContext.remote(ctx.id).schedule(12_345_678), ['bottomHalfId', '12345678']],
  ]
  for (const [call, words] of bad) refuses(t, call, words)
  t.false(timer.pending)
  t.false(ctx.poll(false))
})

onEach('turn() rejects what it cannot take', async (t, kit) => {
  const ctx = kit.context()
  for (const options of [1, { signals: 1 }, { signal: 1 }]) {
    const error = await t.throwsAsync(() => ctx.turn(options as any))
    t.is((error as any).code, 'ERR_FDMON_INVALID_ARG')
  }
})

test.serial('FDMON_MONITOR replaces auto, counts as asked for, and a wrong one is refused [SPEC 45]', (t) => {
  const before = process.env['FDMON_MONITOR']
  t.teardown(() => {
    if (before === undefined) delete process.env['FDMON_MONITOR']
    else process.env['FDMON_MONITOR'] = before
  })
  for (const monitor of monitors) {
    process.env['FDMON_MONITOR'] = monitor
    for (const options of [{}, { monitor: 'auto' as const }]) {
      using ctx = new AioContext(options)
      t.is(ctx.monitor, monitor)
      t.is(ctx.monitorReason, `asked for by FDMON_MONITOR=${monitor}`)
    }
    using other = new AioContext({ monitor: monitor === 'poll' ? 'epoll' : 'poll' })
    t.not(other.monitor, monitor)
  }
  process.env['FDMON_MONITOR'] = 'kqueue'
  refuses(t, () => new AioContext(), ['FDMON_MONITOR', 'kqueue', 'epoll'])
  t.notThrows(() => new AioContext({ monitor: 'poll' }).close())
})

test.serial('FDMON_POLL stands in for poll where that is not given, and a wrong one is refused by name [SPEC 13]', async (t) => {
  const before = process.env['FDMON_POLL']
  t.teardown(() => {
    if (before === undefined) delete process.env['FDMON_POLL']
    else process.env['FDMON_POLL'] = before
  })
  // Of this policy the window is what it may be at most.
  const windowOf = (options?: AioContextOptions): number => {
    using ctx = new AioContext(options)
    return ctx.stats().windowNs
  }
  process.env['FDMON_POLL'] = '{"maxNs":12345,"policy":"fixed"}'
  t.is(windowOf(), 12_345)
  t.is(windowOf({ name: 'named' }), 12_345)
  t.is(windowOf({ poll: {} }), 0, 'poll was given')
  t.is(windowOf({ poll: { maxNs: 7, policy: 'fixed' } }), 7)
  await using thread = new IoThread(new URL('data:text/javascript,'))
  await thread.ready()
  t.is(thread.stats().windowNs, 12_345)
  {
    using ctx = new AioContext()
    process.env['FDMON_POLL'] = '{"maxNs":1}'
    t.is(ctx.stats().windowNs, 12_345, 'it is read when the context is made')
  }
  process.env['FDMON_POLL'] = ''
  t.is(windowOf(), 0)
  for (const [value, named] of [['nonsense', 'nonsense'], ['7', 'FDMON_POLL = 7'], ['null', 'null'], ['{"maxNs":-1}', 'FDMON_POLL.maxNs = -1'], ['{"maxNS":1}', 'FDMON_POLL.maxNS']] as const) {
    process.env['FDMON_POLL'] = value
    refuses(t, () => new AioContext(), ['FDMON_POLL', named])
    t.notThrows(() => new AioContext({ poll: {} }).close())
  }
})

test('a monitor that is asked for and is not there is refused with the reason [SPEC 45]', (t) => {
  refuses(t, () => new AioContext({ monitor: 'wasi' }), ['wasi'], 'ERR_FDMON_UNSUPPORTED')
})
