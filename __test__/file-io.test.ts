// File I/O, on both engines of each monitor, with callbacks; promises and attached contexts at the end.
import { execFileSync, spawn } from 'node:child_process'
import { getEventListeners } from 'node:events'
import { closeSync, constants, fstatSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Worker } from 'node:worker_threads'
import { AsyncLocalStorage } from 'node:async_hooks'
import test, { type ExecutionContext } from 'ava'
import { AioContext, alignedBuffer, defaultContext, FdmonError, type FdmonErrorCode, type IoCallback } from 'fdmon'
import { onEach, type Kit } from './on-each.js'

const root = fileURLToPath(new URL('..', import.meta.url))
const engines = ['io_uring', 'threads'] as const
interface Aio {
  engine: (typeof engines)[number]
}
const directory = mkdtempSync(join(tmpdir(), 'fdmon-io-'))
test.after.always(() => rmSync(directory, { recursive: true }))
let files = 0

const pattern = (length: number): Buffer => Buffer.from(Uint8Array.from({ length }, (_, at) => (at * 7) % 251))

/** The path of a new file with this in it. */
function pathOf(content: Uint8Array): string {
  const path = join(directory, `${process.pid}-${files++}`)
  writeFileSync(path, content)
  return path
}

/** A descriptor of a new file with this in it. */
function file(kit: Kit, content: Uint8Array): number {
  return kit.own(openSync(pathOf(content), 'r+'), closeSync)
}

/** A pipe that nobody writes: on a ring a read of it stays in flight. */
function fifo(kit: Kit): number {
  const path = join(directory, `fifo-${process.pid}-${files++}`)
  execFileSync('mkfifo', [path])
  return kit.own(openSync(path, constants.O_RDWR), closeSync)
}

/** Each engine of each monitor. */
function onEngines(title: string, body: (t: ExecutionContext, kit: Kit, aio: Aio) => void | Promise<void>): void {
  for (const engine of engines) onEach(`${engine}: ${title}`, (t, kit) => body(t, kit, { engine }))
}

/** Runs what takes a callback, and turns until it is called. */
function wait(ctx: AioContext, ask: (done: IoCallback) => void): { error: FdmonError | null; bytes: number } {
  let end: { error: FdmonError | null; bytes: number } | undefined
  ask((error, bytes) => {
    if (end !== undefined) throw new Error('it ended twice')
    end = { error, bytes }
  })
  ctx.pollUntil(() => end !== undefined)
  return end!
}

function fails(t: ExecutionContext, error: unknown, code: FdmonErrorCode, ...shown: (string | RegExp)[]): void {
  t.true(error instanceof FdmonError, String(error))
  t.is((error as FdmonError).code, code)
  for (const text of shown) {
    t.true(typeof text === 'string' ? String(error).includes(text) : text.test(String(error)), `${String(error)} lacks ${text}`)
  }
}

onEngines('what is written is read back, in one piece and in several [SPEC 47]', (t, kit, aio) => {
  const ctx = kit.context({ aio })
  const fd = file(kit, new Uint8Array(0))
  const data = pattern(10_000)
  t.deepEqual(wait(ctx, (done) => ctx.submitWrite(fd, data, 5, done)), { error: null, bytes: 10_000 })
  t.deepEqual(wait(ctx, (done) => ctx.submitWritev(fd, [data.subarray(0, 10), data.subarray(10, 30)], 20_000n, done)), { error: null, bytes: 30 })
  t.is(wait(ctx, (done) => ctx.submitFdatasync(fd, done)).error, null)
  t.is(wait(ctx, (done) => ctx.submitFsync(fd, done)).error, null)
  t.is(fstatSync(fd).size, 20_030)
  const into = Buffer.alloc(10_000)
  t.deepEqual(wait(ctx, (done) => ctx.submitRead(fd, into, 5n, done)), { error: null, bytes: 10_000 })
  t.deepEqual(into, data)
  const views = [new Uint8Array(3), new DataView(new ArrayBuffer(8), 2, 4), new Uint32Array(1), new Float64Array(2)]
  t.deepEqual(wait(ctx, (done) => ctx.submitReadv(fd, views, 20_000, done)), { error: null, bytes: 27 })
  t.deepEqual(Buffer.concat(views.map((view) => Buffer.from(view.buffer, view.byteOffset, view.byteLength))), data.subarray(0, 27))
  t.is(ctx.stats().aio.engine, aio.engine)
})

onEngines('a read ends at the end of the file [SPEC 47]', (t, kit, aio) => {
  const ctx = kit.context({ aio })
  const fd = file(kit, pattern(100))
  const bytes = [0, 60, 100, 2 ** 40, 2 ** 53 - 1].map((at) => wait(ctx, (done) => ctx.submitRead(fd, Buffer.alloc(64), at, done)).bytes)
  t.deepEqual(bytes, [64, 40, 0, 0, 0])
  t.is(wait(ctx, (done) => ctx.submitRead(fd, Buffer.alloc(0), 0, done)).bytes, 0)
})

onEngines('what the kernel refuses is an error with errno, call and advice [SPEC 47]', (t, kit, aio) => {
  const ctx = kit.context({ aio })
  const full = kit.own(openSync('/dev/full', 'w'), closeSync)
  const { error, bytes } = wait(ctx, (done) => ctx.submitWrite(full, Buffer.alloc(8), 0, done))
  fails(t, error, 'ERR_FDMON_SYSCALL', `pwrite of fd ${full} failed: ENOSPC`, /; make room/)
  t.deepEqual([error!.errno, error!.syscall, bytes], [28, 'pwrite', 0])
  const bad = wait(ctx, (done) => ctx.submitReadv(full, [Buffer.alloc(8), Buffer.alloc(8)], 0, done)).error
  fails(t, bad, 'ERR_FDMON_BAD_FD', 'preadv', 'EBADF')
  const beyond = wait(ctx, (done) => ctx.submitWrite(file(kit, pattern(1)), Buffer.alloc(8), 2n ** 63n - 1n, done)).error
  t.true(['EINVAL', 'EFBIG'].some((name) => String(beyond).includes(name)), String(beyond))
})

onEngines('requests go together: maxBatch, the end of plug(), the next wait [SPEC 48]', (t, kit, aio) => {
  const ctx = kit.context({ aio: { ...aio, maxBatch: 10 } })
  const fd = file(kit, pattern(4096))
  let ended = 0
  const ask = (count: number): void => {
    for (let at = 0; at < count; at++) ctx.submitRead(fd, Buffer.alloc(16), at, () => void ended++)
  }
  ask(9)
  t.is(ctx.stats().submissions, 0)
  ask(1)
  t.is(ctx.stats().submissions, 1)
  const result = ctx.plug(() => {
    ctx.plug(() => ask(3))
    t.is(ctx.stats().submissions, 1)
    return 'its result'
  })
  t.is(result, 'its result')
  t.is(ctx.stats().submissions, 2)
  t.throws(() => ctx.plug(() => {
    ask(1)
    throw new Error('on purpose')
  }), { message: 'on purpose' })
  t.is(ctx.stats().submissions, 3, 'what it had asked for is submitted')
  ask(5)
  ctx.pollUntil(() => ended === 19)
  t.deepEqual([ctx.stats().submissions, ctx.stats().completions, ctx.stats().aio.batchMax], [4, 19, 10])
})

onEngines('what callbacks ask for waits for the turn, also within plug() [SPEC 48]', (t, kit, aio) => {
  const ctx = kit.context({ aio })
  const fd = file(kit, pattern(4096))
  let ended = 0
  const again = (): void => {
    const before = ctx.stats().submissions
    ctx.plug(() => ctx.submitRead(fd, Buffer.alloc(16), 0, () => void ended++))
    t.is(ctx.stats().submissions, before)
  }
  for (let at = 0; at < 10; at++) ctx.submitRead(fd, Buffer.alloc(16), at, again)
  ctx.pollUntil(() => ended === 10)
  t.is(ctx.stats().completions, 20)
})

onEngines('more requests than the ring has slots [SPEC 49]', (t, kit, aio) => {
  const ctx = kit.context({ aio })
  const fd = file(kit, pattern(4096))
  const into = Array.from({ length: 2000 }, () => Buffer.alloc(8))
  let ended = 0
  into.forEach((buffer, at) => ctx.submitRead(fd, buffer, at, (error, bytes) => {
    t.deepEqual([error, bytes], [null, 8])
    ended++
  }))
  ctx.pollUntil(() => ended === 2000)
  const data = pattern(4096)
  t.true(into.every((buffer, at) => buffer.equals(data.subarray(at, at + 8))))
  t.is(ctx.stats().aio.inFlight, 0)
})

onEngines('nested turns complete requests, and each callback runs once [SPEC 19]', (t, kit, aio) => {
  const ctx = kit.context({ aio })
  const fd = file(kit, pattern(4096))
  const seen: number[] = []
  for (let at = 0; at < 20; at++) {
    ctx.submitRead(fd, Buffer.alloc(8), at, () => {
      seen.push(at)
      if (at % 5 !== 0) return
      const before = seen.length
      ctx.submitRead(fd, Buffer.alloc(8), at, () => void seen.push(100 + at))
      ctx.pollUntil(() => seen.length > before)
    })
  }
  ctx.pollUntil(() => seen.length === 24)
  t.is(new Set(seen).size, 24)
  t.false(ctx.poll(false))
})

onEngines('callbacks that throw stop no other [SPEC 21]', (t, kit, aio) => {
  const ctx = kit.context({ aio })
  const fd = file(kit, pattern(64))
  let ended = 0
  for (let at = 0; at < 10; at++) {
    ctx.submitRead(fd, Buffer.alloc(8), at, () => {
      ended++
      if (at === 3) throw new Error('on purpose')
    })
  }
  t.throws(() => ctx.pollUntil(() => ended === 10), { message: 'on purpose' })
  ctx.pollUntil(() => ended === 10)
  t.is(ended, 10)
})

onEngines('close() ends every request once, with its result or ERR_FDMON_CLOSED [SPEC 49]', async (t, kit, aio) => {
  const ctx = kit.context({ aio })
  const fd = file(kit, pattern(64))
  const ends: unknown[] = []
  const waits = aio.engine === 'io_uring' ? fifo(kit) : fd
  for (let at = 0; at < 40; at++) ctx.submitRead(waits, Buffer.alloc(8), 0, (error, bytes) => void ends.push(error ?? bytes))
  const promise = ctx.read(fd, Buffer.alloc(8), 0)
  const report = ctx.close()
  t.true(report.io > 0 && report.io <= 41)
  t.is(ends.length, 40)
  for (const end of ends) if (end !== 8) fails(t, end, 'ERR_FDMON_CLOSED')
  await promise.then((bytes) => t.is(bytes, 8), (error: unknown) => fails(t, error, 'ERR_FDMON_CLOSED'))
  t.throws(() => ctx.submitRead(fd, Buffer.alloc(8), 0, () => {}), { code: 'ERR_FDMON_CLOSED' })
  await t.throwsAsync(ctx.read(fd, Buffer.alloc(8), 0), { code: 'ERR_FDMON_CLOSED' })
})

onEach('a callback may close the context, and the others hear of it [SPEC 49]', (t, kit) => {
  const ctx = kit.context()
  const fd = file(kit, pattern(64))
  let ended = 0
  for (let at = 0; at < 10; at++) {
    ctx.submitRead(fd, Buffer.alloc(8), at, () => {
      ended++
      ctx.close()
    })
  }
  while (ended === 0) ctx.poll(true)
  t.is(ended, 10)
})

onEach('bad arguments are typed errors: thrown by submit…, a rejection of promises [SPEC 13]', async (t, kit) => {
  const ctx = kit.context()
  const fd = file(kit, pattern(64))
  const buffer = Buffer.alloc(8)
  const cases: [fd: any, buffer: any, position: any, code: FdmonErrorCode, shown: string][] = [
    [-1, buffer, 0, 'ERR_FDMON_BAD_FD', 'fd = -1'],
    ['1', buffer, 0, 'ERR_FDMON_INVALID_ARG', "fd = '1'"],
    [fd, 'text', 0, 'ERR_FDMON_INVALID_ARG', "buffer = 'text'"],
    [fd, new ArrayBuffer(8), 0, 'ERR_FDMON_INVALID_ARG', 'buffer = ArrayBuffer'],
    [fd, buffer, -1, 'ERR_FDMON_INVALID_ARG', 'position = -1'],
    [fd, buffer, 0.5, 'ERR_FDMON_INVALID_ARG', 'position = 0.5'],
    [fd, buffer, null, 'ERR_FDMON_INVALID_ARG', 'position = null'],
    [fd, buffer, 2n ** 63n, 'ERR_FDMON_INVALID_ARG', 'position = 9223372036854775808n'],
    [fd, buffer, 2 ** 53, 'ERR_FDMON_INVALID_ARG', 'position = 9007199254740992'],
  ]
  for (const [file, view, at, code, shown] of cases) {
    fails(t, t.throws(() => ctx.submitRead(file, view, at, () => {})), code, shown)
    fails(t, await t.throwsAsync(ctx.write(file, view, at)), code, shown)
  }
  fails(t, t.throws(() => ctx.submitReadv(fd, buffer as any, 0, () => {})), 'ERR_FDMON_INVALID_ARG', 'buffers = ')
  fails(t, await t.throwsAsync(ctx.readv(fd, [buffer, 1 as any], 0)), 'ERR_FDMON_INVALID_ARG', 'buffers[1] = 1')
  const holed = [buffer]
  holed[2] = buffer
  fails(t, await t.throwsAsync(ctx.readv(fd, holed, 0)), 'ERR_FDMON_INVALID_ARG', 'buffers[1] = undefined')
  fails(t, t.throws(() => ctx.submitFsync(fd, 1 as any)), 'ERR_FDMON_INVALID_ARG', 'done = 1')
  fails(t, t.throws(() => ctx.plug(1 as any)), 'ERR_FDMON_INVALID_ARG', 'section = 1')
  fails(t, await t.throwsAsync(ctx.read(fd, buffer, 0, { abort: 1 } as any)), 'ERR_FDMON_INVALID_ARG', 'options.abort')
  fails(t, await t.throwsAsync(ctx.fsync(fd, { signal: 1 as any })), 'ERR_FDMON_INVALID_ARG', 'options.signal = 1')
  t.is(wait(ctx, (done) => ctx.submitRead(fd, buffer, 0, done)).bytes, 8, 'the context is as it was')
})

test('an engine that cannot be had is a typed error [SPEC 47]', (t) => {
  const ring = { mode: 'off' } as const
  fails(t, t.throws(() => new AioContext({ ring, aio: { engine: 'io_uring' } })), 'ERR_FDMON_INVALID_ARG', "engine = 'io_uring'")
  const ctx = new AioContext({ ring })
  t.deepEqual(ctx.stats().aio, { engine: null, reason: '', inFlight: 0, batchMax: 0 })
  const fd = openSync(pathOf(pattern(64)), 'r')
  t.is(wait(ctx, (done) => ctx.submitRead(fd, Buffer.alloc(8), 0, done)).bytes, 8)
  t.is(ctx.stats().aio.engine, 'threads')
  t.is(ctx.stats().aio.reason, 'auto: io_uring is turned off by ring.mode; threads')
  t.throws(() => ctx.setAioParams({ engine: 'io_uring' }), { code: 'ERR_FDMON_INVALID_ARG' })
  t.throws(() => ctx.setAioParams({ threadPoolMin: 65 }), { message: /threadPoolMin = 65 .*threadPoolMax, which is 64/ })
  ctx.close()
  closeSync(fd)
})

test('the pool has at most threadPoolMax threads, and as many as it needs [SPEC 47]', async (t) => {
  const text = (max: number): string => `
    import { execFileSync } from 'node:child_process'
    const ctx = new AioContext({ aio: { engine: 'threads', threadPoolMax: ${max} } })
    const fd = openSync('package.json', 'r')
    let ended = 0, most = 0
    const count = 'cat /proc/' + process.pid + '/task/*/comm | grep -c "^fdmon-io$" || true'
    for (let at = 0; at < 300; at++) ctx.submitFsync(fd, () => void ended++)
    ctx.pollUntil(() => {
      if (ended % 50 === 0) most = Math.max(most, Number(execFileSync('sh', ['-c', count])))
      return ended === 300
    })
    console.log(most)`
  t.is(await program(text(1)), '1 0')
  t.regex(await program(text(3)), /^[123] 0$/)
})

test('a file opened with O_DIRECT takes aligned buffers [SPEC 47]', async (t) => {
  // Not in tmpfs, which has no direct I/O everywhere.
  const path = join(root, 'target', `fdmon-direct-${process.pid}`)
  writeFileSync(path, pattern(65_536))
  const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECT)
  const ctx = new AioContext().attach()
  try {
    const buffer = alignedBuffer(8192)
    t.is(await ctx.read(fd, buffer, 4096), 8192)
    t.deepEqual(Buffer.from(buffer), pattern(65_536).subarray(4096, 12_288))
  } finally {
    ctx.close()
    closeSync(fd)
    rmSync(path)
  }
  for (const alignment of [1, 2, 512, 4096, 65_536]) t.is(alignedBuffer(100, alignment).length, 100)
  fails(t, t.throws(() => alignedBuffer(8, 3)), 'ERR_FDMON_INVALID_ARG', 'alignment = 3')
  fails(t, t.throws(() => alignedBuffer(-1)), 'ERR_FDMON_INVALID_ARG', 'size = -1')
})

// --- Promises, in Node's own loop -------------------------------------------------------------------------------------

for (const engine of engines) {
  test(`${engine}: promises settle in an attached context, many in a turn [SPEC 47]`, async (t) => {
    const ctx = new AioContext({ aio: { engine } }).attach()
    const handle = await open(pathOf(pattern(4096)), 'r+')
    const buffers = Array.from({ length: 500 }, () => Buffer.alloc(8))
    const results = await Promise.all(buffers.map((buffer, at) => ctx.read(handle, buffer, at)))
    t.true(results.every((bytes) => bytes === 8))
    t.true(buffers.every((buffer, at) => buffer.equals(pattern(4096).subarray(at, at + 8))))
    t.is(await ctx.writev(handle, [Buffer.from('ab'), Buffer.from('cd')], 10n), 4)
    t.is(await ctx.fdatasync(handle), undefined)
    t.is(await ctx.fsync(handle), undefined)
    t.is(readFileSync(handle.fd).subarray(10, 14).toString(), 'abcd')
    if (engine === 'io_uring') t.true(ctx.stats().submissions <= 500 / 32 + 10, `${ctx.stats().submissions}`)
    await handle.close()
    ctx.close()
  })

  test(`${engine}: an aborted request rejects with the signal's reason [SPEC 47] [SPEC 49]`, async (t) => {
    const ctx = new AioContext({ aio: { engine } }).attach()
    const fd = openSync(pathOf(pattern(4096)), 'r')
    const reason = new Error('no longer wanted')
    t.is(await t.throwsAsync(ctx.read(fd, Buffer.alloc(8), 0, { signal: AbortSignal.abort(reason) })), reason)
    t.is(ctx.stats().submissions, 0)
    const queued = new AbortController()
    const promise = ctx.read(fd, Buffer.alloc(8), 0, { signal: queued.signal })
    queued.abort(reason)
    t.is(await t.throwsAsync(promise), reason)
    const late = new AbortController()
    t.is(await ctx.read(fd, Buffer.alloc(8), 0, { signal: late.signal }), 8)
    late.abort(reason) // it has ended
    t.is(await ctx.read(fd, Buffer.alloc(8), 0), 8, 'nor does it end the next request of its slot')
    ctx.close()
    closeSync(fd)
  })
}

for (const engine of engines) {
  test.serial(`${engine}: one signal aborts many requests, and is let go with the last of them [SPEC 49]`, async (t) => {
    const warnings: Error[] = []
    const warned = (warning: Error): unknown => warnings.push(warning)
    process.on('warning', warned)
    const ctx = new AioContext({ aio: { engine, maxBatch: 256 } }).attach()
    const fd = openSync(pathOf(pattern(64)), 'r')
    const { signal, abort } = ((controller) => ({ signal: controller.signal, abort: () => controller.abort() }))(new AbortController())
    const listeners = (): number => getEventListeners(signal, 'abort').length
    t.is(await ctx.read(fd, Buffer.alloc(8), 0, { signal }), 8)
    t.is(listeners(), 0)
    const names = Array.from({ length: 100 }, () => ctx.read(fd, Buffer.alloc(8), 0, { signal }).then(String, (error: Error) => error.name))
    const other = ctx.read(fd, Buffer.alloc(8), 0)
    t.is(listeners(), 1)
    abort()
    t.deepEqual(new Set(await Promise.all(names)), new Set(['AbortError']))
    t.is(await other, 8)
    t.is(ctx.stats().completions, 102)
    t.is(listeners(), 0)
    await new Promise((resolve) => setImmediate(resolve))
    t.deepEqual(warnings, [])
    process.off('warning', warned)
    ctx.close()
    closeSync(fd)
  })
}

test('a request in flight is aborted, and its buffer is free only then [SPEC 49]', async (t) => {
  const ctx = new AioContext({ aio: { engine: 'io_uring' } }).attach()
  const path = join(directory, `fifo-abort-${process.pid}`)
  execFileSync('mkfifo', [path])
  const fd = openSync(path, constants.O_RDWR)
  const controller = new AbortController()
  const promise = ctx.read(fd, Buffer.alloc(8), 0, { signal: controller.signal })
  await new Promise((resolve) => setImmediate(resolve))
  while (ctx.stats().aio.inFlight === 0) await new Promise((resolve) => setImmediate(resolve))
  controller.abort()
  t.is(await promise.catch((error: Error) => error.name), 'AbortError')
  t.is(ctx.stats().aio.inFlight, 0)
  ctx.close()
  closeSync(fd)
})

test('a context that nobody runs settles its promises when it is closed; poll() settles them too [SPEC 47]', async (t) => {
  const fd = openSync(pathOf(pattern(64)), 'r')
  const ctx = new AioContext()
  const first = ctx.read(fd, Buffer.alloc(8), 0)
  ctx.pollUntil(() => ctx.stats().completions === 1)
  ctx.poll(false)
  t.is(await first, 8)
  const second = ctx.read(fd, Buffer.alloc(8), 0)
  ctx.close()
  await t.throwsAsync(second, { code: 'ERR_FDMON_CLOSED' })
  closeSync(fd)
})

test('callbacks run in the AsyncLocalStorage context of who asked [SPEC 51]', async (t) => {
  const storage = new AsyncLocalStorage<string>()
  const fd = openSync(pathOf(pattern(64)), 'r')
  const ctx = defaultContext()
  const seen = await Promise.all(
    ['a', 'b'].map((name) =>
      storage.run(name, () => new Promise((resolve) => ctx.submitRead(fd, Buffer.alloc(8), 0, () => resolve(storage.getStore())))),
    ),
  )
  t.deepEqual(seen, ['a', 'b'])
  closeSync(fd)
})

/** Runs a program in a process of its own: what it prints. */
async function program(text: string): Promise<string> {
  const child = spawn(process.execPath, ['--input-type=module', '--eval', `import { AioContext, defaultContext } from 'fdmon'\nimport { openSync } from 'node:fs'\n${text}`], { cwd: root })
  let out = ''
  child.stdout.on('data', (data) => void (out += data))
  child.stderr.on('data', (data) => void (out += data))
  const code = await new Promise((resolve) => child.on('close', resolve))
  return `${out.trim()} ${String(code)}`
}

test('requests keep the process alive until they have ended, also of a context that is unref()ed [SPEC 51]', async (t) => {
  const text = `
    const ctx = new AioContext().attach({ ref: false })
    ctx.read(openSync('package.json', 'r'), Buffer.alloc(8), 0).then((bytes) => console.log(bytes))`
  t.is(await program(text), '8 0')
  t.is(await program(`defaultContext().read(openSync('package.json', 'r'), Buffer.alloc(8), 0).then(console.log)`), '8 0')
})

test('a process and a worker end with requests in flight [SPEC 49]', async (t) => {
  const path = join(directory, `fifo-exit-${process.pid}`)
  execFileSync('mkfifo', [path])
  const text = (exit: string): string => `
    const fd = openSync(${JSON.stringify(path)}, ${constants.O_RDWR})
    const ctx = new AioContext({ aio: { engine: 'io_uring' } }).attach()
    for (let at = 0; at < 40; at++) ctx.read(fd, Buffer.alloc(8), 0)
    const waits = setInterval(() => {
      if (ctx.stats().aio.inFlight !== 40) return
      clearInterval(waits)
      console.log(40)
      ${exit}
    }, 1)`
  t.is(await program(text('process.exit(3)')), '40 3')
  t.regex(await program(text(`throw new Error('on purpose')`)), /^40[^]*on purpose[^]* 1$/)
  for (let round = 0; round < 10; round++) {
    const worker = new Worker(
      `const { AioContext } = require('fdmon'), { openSync } = require('node:fs')
       const ctx = new AioContext({ aio: { engine: ${round % 2 === 0 ? `'io_uring'` : `'threads'`} } }).attach()
       const fd = openSync('package.json', 'r'), pipe = openSync(${JSON.stringify(path)}, ${constants.O_RDWR})
       for (let at = 0; at < 40; at++) ctx.read(${round % 2 === 0 ? 'pipe' : 'fd'}, Buffer.alloc(8), 0)
       const again = () => ctx.read(fd, Buffer.alloc(4096), 0).then(again)
       for (let at = 0; at < 8; at++) again()
       require('node:worker_threads').parentPort.postMessage(0)`,
      { eval: true },
    )
    await new Promise((resolve) => worker.once('message', resolve))
    await new Promise((resolve) => setTimeout(resolve, round))
    t.is(await worker.terminate(), 1)
  }
})

test('a context that is dropped with requests in flight is not collected before they have ended [SPEC 49]', async (t) => {
  const text = `
    import { setFlagsFromString } from 'node:v8'
    import { runInNewContext } from 'node:vm'
    setFlagsFromString('--expose-gc')
    const gc = runInNewContext('gc'), fd = openSync('package.json', 'r')
    let ended = 0
    for (let round = 0; round < 200; round++) {
      const ctx = new AioContext({ aio: { engine: round % 2 === 0 ? 'io_uring' : 'threads' } })
      for (let at = 0; at < 8; at++) ctx.submitRead(fd, new Uint8Array(100_000), 0, () => void ended++)
      ctx.plug(() => {})
      if (round % 10 === 0) gc()
      if (round % 3 === 0) ctx.close()
    }
    gc()
    await new Promise((resolve) => setTimeout(resolve, 20))
    console.log(ended)`
  t.is(await program(text), `${67 * 8} 0`)
})
