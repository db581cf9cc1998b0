// I/O threads while all goes well: their modules, parameters and statistics from outside, and their end.
import { relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { inspect } from 'node:util'
import { MessageChannel } from 'node:worker_threads'
import test, { type ExecutionContext } from 'ava'
import { AioContext, currentContext, EventNotifier, IoThread, type MonitorName } from 'fdmon'
import { openFiles } from './fd-kit.js'
import { inThread, isGone, said, sourceModule, until } from './io-thread-kit.js'
import { onEach, refuses } from './on-each.js'

const here = (name: string): string => fileURLToPath(new URL(`io-thread/${name}`, import.meta.url))

onEach('an I/O thread runs its module with an attached context, whose id is known from the start [SPEC 52]', async (t, { monitor }) => {
  const thread = inThread(
    `threads.parentPort.postMessage({ id: ctx.id, name: ctx.name, monitor: ctx.monitor, shown: fdmon.defaultContext() === ctx })
     ctx.schedule(() => threads.parentPort.postMessage('attached'))`,
    { monitor, name: 'mine' },
  )
  AioContext.remote(thread.contextId).notify() // before the thread has built it
  t.deepEqual([thread.stats().turns, thread.stats().monitorReason], [0, 'none yet: its thread starts'])
  t.is(inspect(thread), `IoThread { name: 'mine', contextId: ${thread.contextId}, state: 'starting' }`)
  t.deepEqual(await said(thread), { id: thread.contextId, name: 'mine', monitor, shown: true })
  t.is(await said(thread), 'attached')
  await thread.ready()
  t.is(thread.stats().monitor, monitor)
  t.is(inspect(thread), `IoThread { name: 'mine', contextId: ${thread.contextId}, state: 'ready' }`)
  await thread.stop()
  t.is(inspect(thread), `IoThread { name: 'mine', contextId: ${thread.contextId}, state: 'ended' }`)
  t.true(isGone(thread.contextId))
  for (const call of [() => thread.stats(), () => thread.setPollParams({}), () => thread.setAioParams({})]) {
    refuses(t, call, ["IoThread 'mine' has ended"], 'ERR_FDMON_CLOSED')
  }
})

test('ready() waits for top-level await, and may be asked late and twice [SPEC 52]', async (t) => {
  const flags = new Int32Array(new SharedArrayBuffer(8))
  const thread = inThread(
    `await new Promise((resolve) => threads.parentPort.once('message', resolve))
     Atomics.store(data, 0, 1)`,
    { data: flags },
  )
  const ready = thread.ready()
  thread.worker.postMessage('go on')
  await ready
  t.is(flags[0], 1)
  await thread.ready()
  await thread.stop()
  await thread.ready()
})

/** Work for a spin: a handler that never has anything, so that every window ends without a find. */
const spins = `ctx.setFdHandler(new fdmon.EventNotifier(), { poll: () => false, pollReady() {}, read() {} })`

onEach('spin parameters change from outside while the thread runs [SPEC 31] [SPEC 52] [SPEC 53]', async (t, { monitor }) => {
  const thread = inThread(spins, { monitor, poll: { policy: 'fixed', guards: false } })
  await thread.ready()
  t.is(thread.stats().windowNs, 32_768, 'by default')
  const remote = AioContext.remote(thread.contextId)
  const spun = (): number => thread.stats().spinHits + thread.stats().spinMisses
  const turnsMore = async (count: number): Promise<void> => {
    for (let at = 0; at < count; at++) {
      const { turns } = thread.stats()
      remote.notify()
      await until(() => thread.stats().turns > turns)
    }
  }
  await turnsMore(3)
  await until(() => spun() > 0)
  thread.setPollParams({ maxNs: 100_000 })
  await until(() => thread.stats().windowNs === 100_000)
  const before = spun()
  await turnsMore(3)
  await until(() => spun() > before)
  thread.setPollParams({ maxNs: 0 })
  await until(() => thread.stats().windowNs === 0)
  await turnsMore(1)
  const after = spun()
  await turnsMore(5)
  t.is(spun(), after)
  t.true(thread.stats().spinWastedNs <= thread.stats().spinNs)
  await thread.stop()
})

test('parameters that are set before the thread has its context are those it begins with [SPEC 52]', async (t) => {
  const thread = inThread(
    `const bytes = Array.from({ length: 8 }, () => Buffer.alloc(8))
     const file = (await import('node:fs')).openSync(process.execPath)
     await Promise.all(ctx.plug(() => bytes.map((buffer) => ctx.read(file, buffer, 0))))`,
    { poll: { policy: 'fixed', maxNs: 1 } },
  )
  thread.setPollParams({ maxNs: 2 })
  thread.setPollParams({ guards: false })
  thread.setPollParams({ maxNs: 50_000 })
  thread.setAioParams({ engine: 'threads', maxBatch: 2 })
  await thread.ready()
  const { windowNs, aio, completions } = thread.stats()
  t.deepEqual([windowNs, aio.engine, completions, aio.batchMax], [50_000, 'threads', 8, 2])
  await thread.stop()
})

test('parameters of file I/O change from outside while the thread runs [SPEC 48] [SPEC 52]', async (t) => {
  const thread = inThread(
    `const file = (await import('node:fs')).openSync(process.execPath)
     const read = () => ctx.read(file, Buffer.alloc(8), 0)
     threads.parentPort.on('message', async () => {
       await Promise.all(ctx.plug(() => [read(), read(), read(), read()]))
       threads.parentPort.postMessage('done')
     })`,
  )
  await thread.ready()
  const submissions = async (): Promise<number> => {
    const before = thread.stats().submissions
    const done = said(thread)
    thread.worker.postMessage('read')
    await done
    return thread.stats().submissions - before
  }
  t.is(await submissions(), 1)
  thread.setAioParams({ maxBatch: 2 })
  for (;;) {
    // The context takes it in its next turn, which may come after the message.
    const count = await submissions()
    if (count === 2) break
    t.is(count, 1)
  }
  t.is(await submissions(), 2)
  await thread.stop()
})

onEach('statistics are read from outside: events, handlers, and the CPU time of the thread [SPEC 52] [SPEC 53]', async (t, { monitor }) => {
  using bell = new EventNotifier()
  const heard = new Int32Array(new SharedArrayBuffer(4))
  const thread = inThread(
    `const bell = fdmon.EventNotifier.from(data.handle)
     fdmon.watch(bell, { read: () => (bell.testAndClear(), Atomics.add(data.heard, 0, 1)) }) // in the context of the thread`,
    { monitor, data: { handle: bell.handle, heard } },
  )
  await thread.ready()
  t.is(thread.stats().handlers.length, 1)
  const { cpuNs } = thread.stats()
  t.true(cpuNs > 0)
  for (let rings = 1; rings <= 3; rings++) {
    bell.set()
    await until(() => Atomics.load(heard, 0) === rings)
  }
  t.is(thread.stats().handlers[0]?.reads, 3)
  t.true(thread.stats().events >= 3)
  t.true(thread.stats().cpuNs > cpuNs)
  await thread.stop()
})

test('a module may be a URL or a path, CommonJS or ESM, and finds the context in all that it loads [SPEC 52]', async (t) => {
  const workerData = { my: 'own' }
  const path = here('module.cjs')
  for (const module of [path, new URL('io-thread/module.cjs', import.meta.url), `./${relative('.', path)}`]) {
    const thread = new IoThread(module, { execArgv: [], workerData })
    const id = thread.contextId
    t.deepEqual(await said(thread), { data: workerData, path, ids: [id, id, id], nested: 'ERR_FDMON_WRONG_THREAD' })
    await thread.stop()
  }
  const thread = new IoThread(new URL("data:text/javascript,import { parentPort } from 'node:worker_threads'; parentPort.postMessage(1)"))
  t.is(await said(thread), 1)
  await thread.stop()
})

test('options of Worker reach the worker [SPEC 52]', async (t) => {
  const { port1, port2 } = new MessageChannel()
  const thread = inThread(
    `console.log([process.env.MINE, process.env.HOME, ...process.argv.slice(2), threads.resourceLimits.maxOldGenerationSizeMb].join())
     data.postMessage('moved')`,
    { data: port2, transferList: [port2], env: { MINE: 'yes' }, argv: ['a', 'b'], resourceLimits: { maxOldGenerationSizeMb: 77 }, stdout: true },
  )
  let out = ''
  thread.worker.stdout.on('data', (chunk) => (out += String(chunk)))
  t.is(await new Promise((resolve) => port1.once('message', resolve)), 'moved')
  await thread.ready()
  await thread.stop()
  t.is(out, 'yes,,a,b,77\n')
  port1.close()
})

test('FDMON_MONITOR of the environment that the thread has counts', async (t) => {
  const thread = inThread('', { env: { FDMON_MONITOR: 'poll' } })
  await thread.ready()
  t.is(thread.stats().monitor, 'poll')
  await thread.stop()
})

test('I/O threads may start I/O threads, which end with them [SPEC 52]', async (t) => {
  const outer = inThread(
    `const inner = new fdmon.IoThread(process.argv[1], { workerData: { source: '' } })
     await inner.ready()
     threads.parentPort.postMessage(inner.contextId)`,
  )
  const inner: number = await said(outer)
  AioContext.remote(inner).notify()
  await outer.stop()
  t.true(isGone(inner))
  t.true(isGone(outer.contextId))
})

test('currentContext() outside of an I/O thread says what to do', (t) => {
  refuses(t, () => currentContext(), ['new IoThread(module)', 'defaultContext()'], 'ERR_FDMON_WRONG_THREAD')
})

test('an idle thread stays; it may end by itself when its module says so [SPEC 52]', async (t) => {
  const idle = inThread('')
  let ended = false
  idle.worker.once('exit', () => (ended = true))
  await idle.ready()
  for (const source of ['ctx.unref()', 'ctx.close()', 'const half = ctx.bottomHalf(() => ctx.detach()); half.schedule()']) {
    const thread = inThread(source)
    t.is(await new Promise((resolve) => thread.worker.once('exit', resolve)), 0, source)
    await thread.stop()
  }
  t.false(ended)
  await idle.stop()
  t.true(ended)
})

test('a module that closes its context sees no leak that is not its own [SPEC 38]', async (t) => {
  const thread = inThread('threads.parentPort.postMessage(ctx.close())')
  t.deepEqual(await said(thread), { handlers: 0, bottomHalves: 0, timers: 0, io: 0 })
  await thread.stop()
})

const stopsInLoop = async (t: ExecutionContext, source: string, finishes: boolean, monitor: MonitorName | 'auto'): Promise<void> => {
  const flags = new Int32Array(new SharedArrayBuffer(8))
  const thread = inThread(
    `const flag = (number) => Atomics.store(data, 0, number)
     process.on('exit', () => Atomics.store(data, 1, 1))
     ${source}`,
    { monitor, data: flags },
  )
  await until(() => Atomics.load(flags, 0) === 1)
  await thread.stop()
  t.deepEqual([...flags], [finishes ? 2 : 1, 1], 'what follows the loop runs with an open context, and so do exit listeners')
}

onEach('stop() ends a thread inside run() [SPEC 52]', async (t, { monitor }) => {
  await stopsInLoop(t, 'flag(1); ctx.run(); ctx.stats(); flag(2)', true, monitor)
})

for (const [what, source, finishes] of [
  ['inside pollUntil()', 'flag(1); ctx.pollUntil(() => false); ctx.stats(); flag(2)', true],
  ['inside run() in a callback', 'ctx.schedule(() => { flag(1); ctx.run(); ctx.stats(); flag(2) })', true],
  ['that calls run() again and again', 'flag(1); for (;;) ctx.run()', false],
  ['that calls poll() again and again', 'flag(1); for (;;) ctx.poll()', false],
] as const) {
  test(`stop() ends a thread ${what} [SPEC 52]`, async (t) => {
    await stopsInLoop(t, source, finishes, 'auto')
  })
}

for (const [what, source] of [
  ['that has just been started', ''],
  ['whose module awaits something', 'await new Promise(() => {})'],
  ['whose context is detached', 'ctx.detach(); setInterval(() => {}, 1000)'],
  ['whose context its module has closed', 'ctx.close(); setInterval(() => {}, 1000)'],
  ['that has handles of its own', "setInterval(() => {}, 1000); threads.parentPort.on('message', () => {})"],
  ['with turn() in a loop', '(async () => { for (;;) await ctx.turn() })()'],
  ['with file I/O in flight', `const [one] = fds.socketpair(); (async () => { await ctx.read(one, Buffer.alloc(1), 0) })()`],
  ['with readable() in a loop', 'const [one] = fds.socketpair(); (async () => { for await (const _ of fdmon.readable(one)); })()'],
] as const) {
  test(`stop() ends a thread ${what}, and that is no failure [SPEC 52]`, async (t) => {
    const thread = inThread(source)
    const codes: number[] = []
    thread.worker.once('exit', (code) => codes.push(code))
    if (/setInterval|async/.test(source)) await thread.ready()
    const first = thread.stop()
    await Promise.all([first, thread.stop(), thread[Symbol.asyncDispose]()])
    t.deepEqual(codes, [0])
    t.true(isGone(thread.contextId))
    await thread.stop()
  })
}

test('stop() comes after what was asked of the context before, and closes it before the thread ends [SPEC 52]', async (t) => {
  const flags = new Int32Array(new SharedArrayBuffer(12))
  const thread = inThread(
    `let ran = 0
     threads.parentPort.postMessage(ctx.bottomHalf(() => Atomics.store(data, 0, ++ran)).id)
     process.on('exit', () => {
       Atomics.store(data, 1, ran)
       try { ctx.stats() } catch { Atomics.store(data, 2, 1) }
     })`,
    { data: flags },
  )
  const half: number = await said(thread)
  AioContext.remote(thread.contextId).schedule(half)
  await thread.stop()
  t.deepEqual([...flags], [1, 1, 1])
})

test.serial('20 threads that start and stop leave no descriptor and no context', async (t) => {
  // The first ones open what stays.
  await Promise.all([inThread('').stop(), inThread('await ctx.read(1, Buffer.alloc(0), 0)').stop()])
  const before = openFiles()
  for (let round = 0; round < 20; round++) {
    const thread = inThread(`const pair = fds.socketpair(); fdmon.watch(pair[0], { read() {} }); ctx.timer(() => {}).arm(1e12)`)
    if (round % 3 !== 0) await thread.ready()
    if (round % 5 === 4) await thread.worker.terminate()
    else await thread.stop()
    t.true(isGone(thread.contextId))
  }
  t.deepEqual(openFiles(), before)
})

test.serial('a thread that cannot be started leaves no descriptor and no context', (t) => {
  const before = openFiles()
  t.throws(() => inThread('', { data: () => {} }), { any: true, name: 'DataCloneError' } as object)
  t.throws(() => inThread('', { execArgv: ['--no-such-option'] }), { code: 'ERR_WORKER_INVALID_EXEC_ARGV' })
  t.deepEqual(openFiles(), before)
})

test('bad modules and options are refused by name and value [SPEC 13]', (t) => {
  const make = (module: unknown, options?: unknown) => () => new IoThread(module as string, options as object)
  for (const module of ['module.mjs', `file://${sourceModule}`, '', 5, undefined, '/a\0b']) {
    refuses(t, make(module), [`module = ${inspect(module)} `])
  }
  refuses(t, make(new URL('https://example.org/a.mjs')), ["module = 'https://example.org/a.mjs'", 'file: or data:'])
  refuses(t, make(sourceModule, 5), ['options = 5'])
  refuses(t, make(sourceModule, { eval: true }), ['options.eval = true', 'data:'])
  refuses(t, make(sourceModule, { polls: {} }), ['options.polls = {}'])
  refuses(t, make(sourceModule, { poll: { maxNs: -1 } }), ['options.poll.maxNs = -1'])
  refuses(t, make(sourceModule, { aio: { threadPoolMin: 65 } }), ['threadPoolMin = 65'])
  refuses(t, make(sourceModule, { monitor: 'kqueue' }), ["options.monitor = 'kqueue'"])
  refuses(t, make(sourceModule, { ring: { mode: 'fast' } }), ["options.ring.mode = 'fast'"])
  refuses(t, make(sourceModule, { name: 5 }), ['options.name = 5'])
  const thread = inThread('')
  refuses(t, () => thread.setPollParams({ maxNs: NaN }), ['params.maxNs = NaN'])
  refuses(t, () => thread.setAioParams({ maxBatch: 5000 }), ['params.maxBatch = 5000'])
  return thread.stop()
})
