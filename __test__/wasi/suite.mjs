// The TypeScript API on the WebAssembly build: what holds of every build, what it refuses, and that no script lives on for it.
//
// `npm run test:wasi` runs this in each Node, in a project where the packages are installed and NAPI_RS_FORCE_WASI is 'error'.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync } from 'node:fs'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { Worker } from 'node:worker_threads'
import * as fdmon from 'fdmon'
import * as kit from 'fdmon/fd'

const { AioContext, capabilities, EventNotifier, Events, FdmonError } = fdmon
const SPIN = { maxNs: 1_000_000_000, policy: 'fixed', guards: false }

function refuses(call, code, pattern) {
  assert.throws(call, (error) => {
    assert.ok(error instanceof FdmonError, String(error))
    assert.equal(error.code, code, error.message)
    assert.match(error.message, pattern)
    assert.match(error.message, /; /, 'it says what to do')
    return true
  })
}

function program(name, stdio = ['pipe', 'pipe', 'inherit']) {
  const path = fileURLToPath(new URL(name, import.meta.url))
  return spawn(process.execPath, ['--no-warnings', path], { stdio })
}

async function lines(child) {
  let text = ''
  child.stdout.setEncoding('utf8')
  child.stdout.on('data', (chunk) => (text += chunk))
  const [code, signal] = await once(child, 'close')
  assert.equal(signal, null)
  assert.equal(code, 0, text)
  return text.trim().split('\n')
}

function worker(name, workerData) {
  return new Worker(new URL(name, import.meta.url), { workerData })
}

test('capabilities() says that this is a WebAssembly build, and why each other monitor cannot be had [SPEC 45]', () => {
  const found = capabilities()
  assert.equal(found.native, false)
  assert.deepEqual(found.monitors.wasi, { available: true, reason: 'works here' })
  for (const name of ['io_uring', 'epoll', 'poll']) {
    assert.equal(found.monitors[name].available, false)
    assert.match(found.monitors[name].reason, /poll_oneoff/)
    assert.match(found.monitors[name].advice, /'auto' or 'wasi'/)
  }
  assert.ok(Object.values(found.features).every((there) => there === false))
  assert.ok(found.features.eventfd === false && found.features.ioUringExtArg === false)
  assert.ok(found.cpus >= 1)
})

test("the monitor is 'wasi', asked for or not, and any other is refused [SPEC 45]", () => {
  for (const options of [{}, { monitor: 'wasi' }, { monitor: 'auto' }]) {
    const ctx = new AioContext(options)
    assert.equal(ctx.monitor, 'wasi')
    ctx.close()
  }
  for (const monitor of ['io_uring', 'epoll', 'poll']) {
    refuses(() => new AioContext({ monitor }), 'ERR_FDMON_UNSUPPORTED', new RegExp(`monitor = '${monitor}' is refused`))
  }
  refuses(() => new AioContext({ monitor: 'kqueue' }), 'ERR_FDMON_INVALID_ARG', /kqueue/)
})

test('bottom halves run in the order in which they were scheduled, once each [SPEC 36, 20]', () => {
  const ctx = new AioContext()
  const log = []
  const half = ctx.bottomHalf(() => log.push('half'))
  ctx.schedule(() => log.push('one'))
  half.schedule()
  half.schedule()
  ctx.schedule(() => {
    log.push('two')
    ctx.schedule(() => log.push('next turn'))
  })
  assert.equal(ctx.poll(), true)
  assert.deepEqual(log.splice(0), ['one', 'half', 'two'])
  assert.equal(ctx.poll(), true)
  assert.deepEqual(log.splice(0), ['next turn'])
  half.schedule()
  half.cancel()
  assert.equal(ctx.poll(false), false)
  half.scheduleIdle()
  assert.equal(ctx.poll(), false)
  assert.deepEqual(log, ['half'])
  half.delete()
  assert.deepEqual({ ...ctx.close() }, { handlers: 0, bottomHalves: 0, timers: 0, io: 0 })
})

test('timers are never early, keep their order, and can be cancelled by an earlier one [SPEC 39]', () => {
  const ctx = new AioContext()
  const fired = []
  const start = process.hrtime.bigint()
  const timer = (name) => ctx.timer(() => fired.push([name, process.hrtime.bigint() - start]))
  const [last, first, same, never] = ['last', 'first', 'same', 'never'].map(timer)
  last.armAt(start + 3_000_000n)
  first.armAt(start + 1_000_000n)
  same.armAt(start + 1_000_000n)
  never.armAt(start + 2_500_000n)
  const cancels = ctx.timer(() => never.cancel())
  cancels.armAt(start + 1_500_000n)
  ctx.pollUntil(() => fired.length === 3)
  assert.deepEqual(fired.map(([name]) => name), ['first', 'same', 'last'])
  assert.ok(fired[0][1] >= 1_000_000n && fired[1][1] >= 1_000_000n && fired[2][1] >= 3_000_000n)
  assert.equal(never.pending, false)
  first.arm(1_000_000)
  assert.equal(first.pending, true)
  ctx.pollUntil(() => !first.pending)
  ctx.close()
})

test('a nested turn runs what is left of the outer one, and nothing twice [SPEC 19, 37]', () => {
  const ctx = new AioContext()
  const bell = new EventNotifier({ value: 1 })
  const log = []
  ctx.setEventNotifier(bell, {
    read() {
      log.push('read')
      bell.testAndClear()
      assert.equal(ctx.poll(false), true)
      log.push('read ends')
    },
  })
  ctx.schedule(() => {
    log.push('half')
    assert.equal(ctx.poll(false), true)
    log.push('half ends')
  })
  ctx.schedule(() => log.push('rest'))
  ctx.timer(() => log.push('timer')).arm(0)
  while (!log.includes('read ends')) ctx.poll(false)
  assert.equal(ctx.poll(false), false)
  assert.equal(log.filter((what) => what === 'rest').length, 1)
  assert.equal(log.filter((what) => what === 'timer').length, 1)
  assert.ok(log.indexOf('rest') < log.indexOf('half ends'), log.join())
  bell.close()
  assert.equal(ctx.close().handlers, 1)
})

test('errors of callbacks are thrown after the others ran, several as an AggregateError [SPEC 21]', () => {
  const ctx = new AioContext()
  const boom = new Error('boom')
  let ran = 0
  ctx.schedule(() => {
    throw boom
  })
  ctx.schedule(() => ran++)
  assert.throws(() => ctx.poll(), (error) => error === boom)
  assert.equal(ran, 1)
  for (const what of ['a', 'b']) {
    ctx.schedule(() => {
      throw new Error(what)
    })
  }
  assert.throws(() => ctx.poll(), (error) => error instanceof AggregateError && error.errors.length === 2)
  ctx.close()
})

test('a notifier wakes its own context, stays set until it is cleared, and is silent once removed [SPEC 32]', () => {
  const ctx = new AioContext()
  const bell = new EventNotifier()
  let rings = 0
  ctx.setEventNotifier(bell, {
    read(fd, events) {
      assert.equal(fd, bell.fd)
      assert.equal(events & Events.IN, Events.IN)
      rings++
    },
  })
  assert.equal(ctx.poll(false), false)
  bell.set()
  assert.equal(ctx.poll(), true)
  assert.equal(ctx.poll(), true)
  assert.equal(rings, 2)
  assert.equal(bell.testAndClear(), true)
  assert.equal(bell.testAndClear(), false)
  assert.equal(ctx.poll(false), false)
  bell.set()
  ctx.setEventNotifier(bell, null)
  assert.equal(ctx.poll(false), false)
  bell.close()
  refuses(() => bell.set(), 'ERR_FDMON_CLOSED', /EventNotifier/)
  ctx.close()
})

test('external handlers are silent while they are disabled, and lose nothing [SPEC 14]', () => {
  const ctx = new AioContext()
  const bell = new EventNotifier({ value: 1 })
  let rings = 0
  ctx.setFdHandler(bell, { external: true, read: () => (rings += Number(bell.testAndClear())) })
  ctx.disableExternal()
  assert.equal(ctx.poll(false), false)
  ctx.enableExternal()
  assert.equal(ctx.poll(), true)
  assert.equal(rings, 1)
  bell.close()
  ctx.close()
})

test('the words that native shares grow: a thousand handlers, each heard once [SPEC 3]', () => {
  const ctx = new AioContext()
  const bells = Array.from({ length: 1000 }, () => new EventNotifier())
  let heard = 0
  for (const bell of bells) ctx.setFdHandler(bell, { read: () => (heard += Number(bell.testAndClear())) })
  for (const bell of bells) bell.set()
  while (ctx.poll(false)) continue
  assert.equal(heard, 1000)
  for (const bell of bells) bell.close()
  assert.equal(ctx.close().handlers, 1000)
})

test('a notifier that a worker sets ends a sleep here, each time [SPEC 32, 35]', async () => {
  const ctx = new AioContext()
  const [bell, answer] = [new EventNotifier(), new EventNotifier()]
  let rings = 0
  ctx.setFdHandler(bell, {
    read() {
      if (!bell.testAndClear()) return
      rings++
      answer.set()
    },
  })
  const ringer = worker('ringer.mjs', { bell: bell.handle, answer: answer.handle, rounds: 20 })
  const over = once(ringer, 'exit')
  await once(ringer, 'message') // it is there; from here on this thread sleeps in poll() alone
  ctx.pollUntil(() => rings === 20)
  const [code] = await over
  assert.equal(code, 0)
  bell.close()
  answer.close()
  ctx.close()
})

test('spinning on a shared word sees what a worker stores, with the signal suppressed [SPEC 22, 25]', async () => {
  const ctx = new AioContext({ poll: SPIN })
  const words = new Int32Array(new SharedArrayBuffer(16)) // written, taken, suppress, signals
  const bell = new EventNotifier()
  let [begins, ends] = [0, 0]
  const take = () => Atomics.store(words, 1, Atomics.load(words, 0))
  ctx.setFdHandler(bell, {
    poll: { memory: words, index: 0, notEqual: { index: 1 }, suppress: { index: 2 } },
    pollReady: take,
    read() {
      bell.testAndClear()
      take()
    },
    pollBegin() {
      assert.equal(Atomics.load(words, 2), 1)
      begins++
    },
    pollEnd() {
      assert.equal(Atomics.load(words, 2), 0)
      ends++
    },
  })
  const producer = worker('producer.mjs', { words, bell: bell.handle, count: 2000 })
  const over = once(producer, 'exit')
  await once(producer, 'message')
  ctx.pollUntil(() => Atomics.load(words, 1) === 2000)
  const stats = ctx.stats()
  ctx.suspend()
  assert.ok(stats.spinHits > 0, 'it was seen by spinning')
  assert.ok(Atomics.load(words, 3) < 2000, 'signals were saved')
  assert.equal(begins, ends)
  assert.ok(begins > 0)
  const other = new EventNotifier()
  const again = { poll: { memory: words, index: 0, notEqual: 0, suppress: { index: 2 } }, pollReady() {} }
  refuses(() => ctx.setFdHandler(other, again), 'ERR_FDMON_IN_USE', /suppress/)
  ctx.setFdHandler(bell, again) // its own
  ctx.setFdHandler(bell, null)
  ctx.setFdHandler(other, again)
  assert.equal((await over)[0], 0)
  other.close()
  bell.close()
  ctx.close()
})

test('the predicate of a word compares as the array holds its values [SPEC 22]', () => {
  const ctx = new AioContext()
  const wide = new BigUint64Array(new SharedArrayBuffer(16))
  const bell = new EventNotifier()
  let hits = 0
  const pollReady = () => {
    hits++
    Atomics.store(wide, 0, 2n ** 64n - 1n)
  }
  ctx.setPollParams(SPIN)
  ctx.setFdHandler(bell, { poll: { memory: wide, index: 0, notEqual: 2n ** 64n - 1n }, pollReady })
  assert.equal(ctx.poll(), true)
  assert.equal(ctx.poll(false), false)
  Atomics.store(wide, 0, 5n)
  assert.equal(ctx.poll(), true)
  assert.equal(hits, 2)
  bell.close()
  ctx.close()
})

test('standard input that is a pipe is watched: data, then the end of it [SPEC 16, 20]', async () => {
  const child = program('stdin.mjs')
  child.stdout.once('data', () => {
    child.stdin.write('hello ')
    setTimeout(() => child.stdin.end('world'), 50)
  })
  assert.deepEqual(await lines(child), ['ready', 'hello world', 'timer: true', 'hung up', 'progress: false'])
})

test('standard output that is a pipe is watched for room, and the interest can be taken off [SPEC 8]', async () => {
  assert.deepEqual(await lines(program('stdout.mjs')), ['room', 'room', 'quiet'])
})

test('pipes and sockets of the process are watched by their numbers, several at a time [SPEC 16, 20]', async () => {
  const child = program('pipes.mjs', ['pipe', 'pipe', 'inherit', 'pipe', 'pipe'])
  child.stdout.once('data', () => {
    child.stdio[3].write('three')
    setTimeout(() => child.stdio[4].write('four'), 30)
    setTimeout(() => child.stdio[3].end(), 60)
  })
  assert.deepEqual(await lines(child), ['ready', '3: three', '4: four', '3: the end', 'fds: 3,4', 'quiet: true', 'refused: fd = 3'])
})

test('a descriptor of the process that is no pipe, such as an eventfd of another program, is refused [SPEC 13]', async () => {
  assert.deepEqual(await lines(program('foreign.mjs')), ['ERR_FDMON_UNSUPPORTED'])
})

test('standard input that is /dev/null or a file is always ready [SPEC 43]', async () => {
  for (const path of ['/dev/null', fileURLToPath(import.meta.url)]) {
    const input = openSync(path, 'r')
    assert.deepEqual(await lines(program('always.mjs', [input, 'pipe', 'inherit'])), ['ready 3'])
    closeSync(input)
  }
})

test('a script ends when its code has ended, with contexts that are open', async () => {
  assert.deepEqual(await lines(program('ends.mjs')), ['the end'])
})

test('what needs Linux is refused by name [SPEC 13]', async (t) => {
  const ctx = new AioContext()
  const calls = {
    'attach()': () => ctx.attach(),
    'attach() ': () => fdmon.watch(0, { read() {} }),
    'attach()  ': () => fdmon.defaultContext(),
    'an IoThread': () => new fdmon.IoThread(new URL('data:text/javascript,')),
    'a Channel': () => new fdmon.Channel(),
    'alignedBuffer()': () => fdmon.alignedBuffer(4096),
    'timerfd()': () => kit.timerfd(),
    'inotify()': () => kit.inotify(),
    'pidfd()': () => kit.pidfd(process.pid),
    'signalfd()': () => kit.signalfd(['SIGUSR1']),
    'memfd()': () => kit.memfd('name', 4096),
    'socketpair()': () => kit.socketpair(),
    'listenUnix()': () => kit.listenUnix('/tmp/fdmon-wasi.sock'),
    'connectUnix()': () => kit.connectUnix('/tmp/fdmon-wasi.sock'),
    'accept()': () => kit.accept(0),
    'canSocket()': () => kit.canSocket('can0'),
    'sendFds()': () => kit.sendFds(0, new Uint8Array(1), [1]),
    'receiveFds()': () => kit.receiveFds(0, new Uint8Array(1)),
    'setNonblock()': () => kit.setNonblock(0),
    'file I/O': () => ctx.submitRead(0, new Uint8Array(8), 0, () => {}),
  }
  for (const [name, call] of Object.entries(calls)) {
    await t.test(`${name.trim()} is refused`, () => {
      refuses(call, 'ERR_FDMON_UNSUPPORTED', /WebAssembly build/)
      assert.throws(call, (error) => error.message.includes(name.trim()))
    })
  }
  await assert.rejects(ctx.read(0, new Uint8Array(8), 0), { code: 'ERR_FDMON_UNSUPPORTED' })
  refuses(() => ctx.backendFd, 'ERR_FDMON_UNSUPPORTED', /outer loop/)
  refuses(() => ctx.prepareNs(), 'ERR_FDMON_UNSUPPORTED', /outer loop/)
  refuses(() => ctx.trace('trace.json'), 'ERR_FDMON_UNSUPPORTED', /file is refused: a WebAssembly build/)
  refuses(() => ctx.setPollParams({ kernelBusyPoll: { usecs: 50 } }), 'ERR_FDMON_UNSUPPORTED', /kernelBusyPoll/)
  const folder = openSync('/', 'r')
  refuses(() => ctx.setFdHandler(folder, { read() {} }), 'ERR_FDMON_UNSUPPORTED', new RegExp(`fd = ${folder} `))
  closeSync(folder)
  refuses(() => ctx.setFdHandler(folder, { read() {} }), 'ERR_FDMON_BAD_FD', new RegExp(`fd = ${folder} `))
  refuses(() => ctx.setFdHandler(-1, { read() {} }), 'ERR_FDMON_BAD_FD', /-1/)
  ctx.schedule(() => {})
  assert.equal(ctx.poll(), true, 'the context is as before')
  ctx.close()
})

test('a remote reaches the contexts of its own thread, and those of no other [SPEC 4]', async () => {
  const ctx = new AioContext()
  let ran = 0
  const half = ctx.bottomHalf(() => ran++)
  const remote = AioContext.remote(ctx.id)
  remote.schedule(half.id)
  assert.equal(ctx.poll(), true)
  assert.equal(ran, 1)
  remote.stop()
  ctx.run() // not for ever
  const asker = worker('asker.mjs', { id: ctx.id })
  const [answer] = await once(asker, 'message')
  assert.equal(answer.code, 'ERR_FDMON_UNSUPPORTED', answer.message)
  assert.notEqual(answer.own, ctx.id)
  ctx.close()
})

test('read and write of fdmon/fd work on the descriptors of Node, with the errno as a number', () => {
  const file = openSync(fileURLToPath(import.meta.url), 'r')
  const bytes = new Uint8Array(17)
  assert.equal(kit.read(file, bytes), 17)
  assert.equal(new TextDecoder().decode(bytes), '// The TypeScript')
  closeSync(file)
  assert.throws(() => kit.write(file, bytes), { code: 'ERR_FDMON_BAD_FD' })
})
