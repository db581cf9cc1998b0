// Of the smoke suite: file I/O on both engines, with callbacks within turns and with promises between them.
import { closeSync, fstatSync, mkdtempSync, openSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { AioContext, capabilities, FdmonError } from 'fdmon'
import { equal, refuses, withContext } from './steps.mjs'

/** A file for a step. */
function withFile(body, aio) {
  return withContext(async (ctx) => {
    const folder = mkdtempSync(join(tmpdir(), 'fdmon-'))
    const fd = openSync(join(folder, 'data'), 'w+')
    try {
      await body(ctx, fd)
    } finally {
      closeSync(fd)
      rmSync(folder, { recursive: true })
    }
  }, { aio })
}

/** Turns until the request has ended; what it ended with. */
function ended(ctx, ask) {
  let end
  ask((error, bytes) => (end = { error, bytes }))
  ctx.pollUntil(() => end !== undefined)
  return end
}

/** A promise of the context that is not attached settles between its turns. */
async function settled(ctx, promise) {
  let over = false
  const mark = () => (over = true)
  promise.then(mark, mark)
  while (!over) await ctx.turn()
  return promise
}

const pattern = Uint8Array.from({ length: 10_000 }, (_, at) => (at * 7) % 251)
const ring = capabilities().monitors.io_uring
const engines = ring.available ? ['io_uring', 'threads'] : ['threads']

const each = engines.map((engine) => ({
  [`${engine}: what is written is read back, whole and in pieces`]: withFile((ctx, fd) => {
    equal(ended(ctx, (done) => ctx.submitWrite(fd, pattern, 5, done)), { error: null, bytes: 10_000 })
    equal(ended(ctx, (done) => ctx.submitWritev(fd, [pattern.subarray(0, 10), pattern.subarray(10, 30)], 20_000n, done)), { error: null, bytes: 30 })
    equal(ended(ctx, (done) => ctx.submitFdatasync(fd, done)).error, null)
    equal(ended(ctx, (done) => ctx.submitFsync(fd, done)).error, null)
    const into = new Uint8Array(10_000)
    equal([fstatSync(fd).size, ended(ctx, (done) => ctx.submitRead(fd, into, 5, done)).bytes], [20_030, 10_000])
    equal(into.every((byte, at) => byte === pattern[at]), true)
    equal(ended(ctx, (done) => ctx.submitReadv(fd, [new Uint8Array(20), new Uint32Array(4)], 20_000, done)).bytes, 30)
    equal(ctx.stats().aio.engine, engine)
  }, { engine }),

  [`${engine}: a plugged section goes in one submission, and its promises settle between turns`]: withFile(async (ctx, fd) => {
    await settled(ctx, ctx.write(fd, pattern, 0))
    const before = ctx.stats().submissions
    const into = Array.from({ length: 8 }, () => new Uint8Array(100))
    const reads = ctx.plug(() => into.map((buffer, at) => ctx.read(fd, buffer, at * 100)))
    equal(ctx.stats().submissions - before, 1)
    equal(await settled(ctx, Promise.all(reads)), Array.from({ length: 8 }, () => 100))
    equal(into.every((buffer, at) => buffer.every((byte, index) => byte === pattern[at * 100 + index])), true)
  }, { engine }),

  [`${engine}: what the kernel refuses rejects with errno and call, and an aborted request with its reason`]: withFile(async (ctx) => {
    const full = openSync('/dev/full', 'w')
    const { error } = ended(ctx, (done) => ctx.submitWrite(full, new Uint8Array(8), 0, done))
    equal([error instanceof FdmonError, error.code, error.errno, error.syscall], [true, 'ERR_FDMON_SYSCALL', 28, 'pwrite'])
    const rejected = await settled(ctx, ctx.write(full, new Uint8Array(8), 0)).then(() => 'written', ({ errno }) => errno)
    const reason = await ctx.read(full, new Uint8Array(8), 0, { signal: AbortSignal.abort('mine') }).then(() => 'read', (why) => why)
    equal([rejected, reason], [28, 'mine'])
    closeSync(full)
  }, { engine }),
}))

export const files = {
  ...Object.assign({}, ...each),

  'an engine that cannot be had is refused in words': () => {
    refuses(() => new AioContext({ aio: { engine: 'aio' } }), FdmonError, 'ERR_FDMON_INVALID_ARG', 'engine', "'aio'")
    if (ring.available) return
    refuses(() => new AioContext({ aio: { engine: 'io_uring' } }), FdmonError, 'ERR_FDMON_UNSUPPORTED', 'io_uring')
  },
}
