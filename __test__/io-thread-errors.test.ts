// I/O threads that fail: who is told what, and that nothing is told to nobody.
import test from 'ava'
import { FdmonError, IoThread, type FdmonErrorCode } from 'fdmon'
import { inProcess } from './in-process.js'
import { inThread, isGone, said, sourceModule, until } from './io-thread-kit.js'

const closed: { instanceOf: typeof FdmonError; code: FdmonErrorCode } = { instanceOf: FdmonError, code: 'ERR_FDMON_CLOSED' }
const missing = new URL('io-thread/missing.mjs', import.meta.url)

for (const [what, start, expected] of [
  ['does not exist', () => new IoThread(missing, { execArgv: [] }), { code: 'ERR_MODULE_NOT_FOUND' }],
  ['has a syntax error', () => new IoThread(new URL('data:text/javascript,let let')), { name: 'SyntaxError' }],
  ['throws', () => inThread('throw new RangeError("on purpose")'), { name: 'RangeError', message: 'on purpose' }],
  ['awaits what rejects', () => inThread('await Promise.reject(new TypeError("rejected"))'), { name: 'TypeError', message: 'rejected' }],
  ['throws in a callback before it is evaluated', () => inThread('ctx.schedule(() => { throw new Error("in a callback") }); await new Promise(() => {})'), { message: 'in a callback' }],
  ['throws an error of fdmon', () => inThread('ctx.setFdHandler(-1, { read() {} })'), { instanceOf: FdmonError, code: 'ERR_FDMON_BAD_FD', message: /fd = -1 / }],
  ['calls process.exit()', () => inThread('process.exit(3)'), { ...closed, message: /exit code 3; look for/ }],
  ['ends the thread before it is evaluated', () => inThread('ctx.unref(); await new Promise(() => {})'), { ...closed, message: /before its module was evaluated, with exit code 0/ }],
  ['throws what it catches itself', () => inThread('process.on("uncaughtException", () => {}); throw new Error("caught")'), { ...closed, message: /exit code 1/ }],
  ['has a context that cannot be built', () => inThread('', { ring: { mode: 'off' }, monitor: 'io_uring' }), { instanceOf: FdmonError, code: 'ERR_FDMON_INVALID_ARG' }],
] as const) {
  test(`a module that ${what}: ready() says so, also when it is asked again, and stop() has nothing to add [SPEC 52]`, async (t) => {
    const thread = start()
    await t.throwsAsync(thread.ready(), expected)
    t.true(isGone(thread.contextId))
    await t.throwsAsync(thread.ready(), expected)
    await t.notThrowsAsync(thread.stop())
    const error = t.throws(() => thread.stats(), closed)
    t.regex(error?.message ?? '', /has ended; start a new one/)
  })
}

test('whatever is thrown is what ready() rejects with', async (t) => {
  for (const [text, value] of [['undefined', undefined], ['"text"', 'text']] as const) {
    const thread = inThread(`throw ${text}`)
    t.deepEqual(await thread.ready().then(() => 'fulfilled', (reason: unknown) => [reason]), [value])
    await thread.stop()
  }
})

test('ready() may be asked after the thread has died: its listeners were told [SPEC 52]', async (t) => {
  const thread = inThread('throw new Error("early")')
  const told: string[] = []
  thread.worker.on('error', ({ message }) => told.push(message))
  await new Promise((resolve) => thread.worker.once('exit', resolve))
  await t.throwsAsync(thread.ready(), { message: 'early' })
  await thread.stop()
  t.deepEqual(told, ['early'])
})

test('a handler that throws ends the thread: the event error, and then everything is closed [SPEC 21] [SPEC 52]', async (t) => {
  const thread = inThread(
    `const bell = new fdmon.EventNotifier({ value: 1 })
     threads.parentPort.once('message', () => fdmon.watch(bell, { read() { throw new Error('in a handler') } }))`,
  )
  const error = new Promise((resolve) => thread.worker.once('error', resolve))
  await thread.ready()
  thread.worker.postMessage('go on')
  t.is(((await error) as Error).message, 'in a handler')
  await until(() => isGone(thread.contextId))
  await thread.ready()
  await t.notThrowsAsync(thread.stop())
  t.is((t.throws(() => thread.stats(), closed)?.cause as Error | undefined)?.message, 'in a handler')
})

test('what a thread throws while it is stopped, stop() rejects with, once [SPEC 52]', async (t) => {
  const flag = new Int32Array(new SharedArrayBuffer(4))
  const thread = inThread('Atomics.store(data, 0, 1); ctx.run(); throw new Error("after the loop")', { data: flag })
  await until(() => Atomics.load(flag, 0) === 1)
  await t.throwsAsync(thread.stop(), { message: 'after the loop' })
  await t.notThrowsAsync(thread.stop())
  await t.throwsAsync(thread.ready(), { message: 'after the loop' })
})

test('a hook that throws because the thread is stopped is told as well [SPEC 21] [SPEC 52]', async (t) => {
  const thread = inThread(
    `const bell = new fdmon.EventNotifier({ value: 1 })
     ctx.setEventNotifier(bell, {
       read: () => void bell.testAndClear(),
       poll: () => false,
       pollReady() {},
       pollBegin: () => threads.parentPort.postMessage('begun'),
       pollEnd() { throw new Error('in pollEnd') },
     })
     ctx.run()`,
    { poll: { policy: 'fixed', maxNs: 1e12, guards: false } },
  )
  t.is(await said(thread), 'begun')
  await t.throwsAsync(thread.stop(), { message: 'in pollEnd' })
})

for (const [what, source, code] of [
  ['process.exit()', "threads.parentPort.once('message', () => process.exit(7))", 7],
  ['terminate()', '', 1],
] as const) {
  test(`a thread that was ended by ${what}: stop() says so, once [SPEC 52]`, async (t) => {
    const thread = inThread(source)
    await thread.ready()
    const exit = new Promise((resolve) => thread.worker.once('exit', resolve))
    if (code === 7) thread.worker.postMessage('go on')
    else void thread.worker.terminate()
    t.is(await exit, code)
    t.true(isGone(thread.contextId))
    await t.throwsAsync(thread.stop(), { ...closed, message: new RegExp(`ended by itself, with exit code ${code}; look for`) })
    await t.notThrowsAsync(thread.stop())
    await t.notThrowsAsync(thread.ready())
  })
}

test('terminate() ends what stop() waits for: code that does not return [SPEC 52]', async (t) => {
  const flag = new Int32Array(new SharedArrayBuffer(4))
  const thread = inThread('Atomics.store(data, 0, 1); for (;;);', { data: flag })
  const ready = thread.ready()
  await until(() => Atomics.load(flag, 0) === 1)
  const stop = thread.stop()
  await thread.worker.terminate()
  await t.notThrowsAsync(stop)
  await t.throwsAsync(ready, { ...closed, message: /was stopped before its module was evaluated/ })
  t.true(isGone(thread.contextId))
})

const start = `const start = (source) => new fdmon.IoThread(data.module, { execArgv: [], workerData: { source } })
  process.on('exit', (code) => say('exit', code))\n`
const data = { module: sourceModule }

for (const [what, source, code, lines, stderr] of [
  ['a failure that nobody listens for is an uncaught exception', `start('throw new Error("unheard")'); setInterval(() => {}, 1000)`, 1, [], /Error: unheard/],
  ['a failure while it runs that nobody listens for is one, too', `start('setTimeout(() => { throw new Error("unheard") })').ready().then(() => say('ready')); setInterval(() => {}, 1000)`, 1, ['ready'], /Error: unheard/],
  ['a promise of ready() that is ignored is an unhandled rejection', `start('throw new Error("unheard")').ready(); setInterval(() => {}, 1000)`, 1, [], /Error: unheard/],
  ['ready() that was never called is none', `const { worker } = start('throw new Error("heard")'); worker.on('error', ({ message }) => say(message))`, 0, ['heard'], /^$/],
  ['stop() before ready() is none', `start('').stop().then(() => say('stopped'))`, 0, ['stopped'], /^$/],
  ['a thread that is referenced keeps the process alive', `const thread = start('setTimeout(() => process.exit(), 20)'); thread.worker.on('exit', () => say('ended'))`, 0, ['ended'], /^$/],
  ['a thread that is not lets it end', `const thread = start(''); thread.ready().then(() => { thread.worker.unref(); say('ready') })`, 0, ['ready'], /^$/],
  ['process.exit() with threads that spin and run', `const threads = ['', 'ctx.setPollParams({ maxNs: 1e6, guards: false })', 'setInterval(() => {}, 1)'].map(start); Promise.all(threads.map((thread) => thread.ready())).then(() => process.exit(4))`, 4, [], /^$/],
  ['an uncaught exception that is caught leaves the rest in order', `process.on('uncaughtException', ({ message }) => say(message)); const thread = start('throw new Error("late")'); thread.worker.on('exit', async () => { await thread.stop(); await thread.ready().catch(({ message }) => say('ready', message)) })`, 0, ['late', 'ready late'], /^$/],
] as const) {
  test(`in a process: ${what} [SPEC 52]`, async (t) => {
    const end = await inProcess(start + source, data)
    t.deepEqual([end.code, end.signal, end.said], [code, null, [...lines, `exit ${code}`]], end.stderr)
    t.regex(end.stderr, stderr)
  })
}
