// The ways of reading a file that `npm run bench:files` compares. Each opens the file once, and then reads a page at each
// position, with as many reads in flight as there are buffers.
import { closeSync, openSync, read, readSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { AioContext } from 'fdmon'

/** Reads in flight by callbacks: a buffer is read into again as soon as its read is done. */
function byCallback(fd, { positions, buffers }, readPage, onEnd) {
  let next = 0
  let done = 0
  const again = (buffer) => {
    if (next === positions.length) return
    readPage(fd, buffer, positions[next++], (error, bytes) => {
      if (error) throw error
      if (bytes !== buffer.length) throw new Error(`a read of ${bytes} bytes`)
      if (++done === positions.length) onEnd()
      else again(buffer)
    })
  }
  for (const buffer of buffers) again(buffer)
}

/** The same by promises: as many asynchronous functions, each with a buffer. */
async function byPromise({ positions, buffers }, readPage) {
  let next = 0
  const one = async (buffer) => {
    while (next < positions.length) {
      const bytes = await readPage(buffer, positions[next++])
      if (bytes !== buffer.length) throw new Error(`a read of ${bytes} bytes`)
    }
  }
  await Promise.all(buffers.map(one))
}

const onFd = (path, run) => {
  const fd = openSync(path, 'r')
  return { run: (work) => run(fd, work), close: () => closeSync(fd) }
}

const fsRead = (fd, buffer, position, done) => read(fd, buffer, 0, buffer.length, position, done)
const fsCallback = (path) => onFd(path, (fd, work) => new Promise((resolve) => byCallback(fd, work, fsRead, resolve)))

const fsSync = (path) =>
  onFd(path, (fd, { positions, buffers: [buffer] }) => {
    for (const position of positions) {
      if (readSync(fd, buffer, 0, buffer.length, position) !== buffer.length) throw new Error('a short read')
    }
  })

async function fileHandle(path) {
  const file = await open(path)
  const page = async (buffer, position) => (await file.read(buffer, 0, buffer.length, position)).bytesRead
  return { run: (work) => byPromise(work, page), close: () => file.close() }
}

function onContext(path, aio, attached, run) {
  const ctx = new AioContext({ name: 'reads', aio })
  if (attached) ctx.attach()
  const { run: reads, close } = onFd(path, (fd, work) => run(ctx, fd, work))
  const end = () => {
    ctx.close()
    close()
  }
  return { run: reads, close: end, stats: () => ctx.stats() }
}

const promises = (engine, maxBatch) => (path) =>
  onContext(path, { engine, maxBatch }, true, (ctx, fd, work) => byPromise(work, (buffer, position) => ctx.read(fd, buffer, position)))

const callbacks = (engine, maxBatch) => (path) =>
  onContext(path, { engine, maxBatch }, false, (ctx, fd, work) => {
    byCallback(fd, work, (...read) => ctx.submitRead(...read), () => ctx.stop())
    ctx.run()
  })

export const SYNC = 'fs.readSync, one after the other'
export const FS_READ = 'fs.read, callback'
export const FILE_HANDLE = 'FileHandle.read, promise'
const SIZES = [1, 8, 32]
const name = (what, engine, maxBatch) => `${what}, ${engine}, maxBatch ${maxBatch}`
export const promiseWay = (engine, maxBatch) => name('ctx.read, promise', engine, maxBatch)

const of = (engine) => [
  ...SIZES.map((maxBatch) => [promiseWay(engine, maxBatch), promises(engine, maxBatch)]),
  ...SIZES.map((maxBatch) => [name('ctx.submitRead in ctx.run()', engine, maxBatch), callbacks(engine, maxBatch)]),
]

/** By name: opens the file and returns `run({ positions, buffers })`, `close()`, and for a context `stats()`. */
export const ways = Object.fromEntries([
  [SYNC, fsSync],
  [FS_READ, fsCallback],
  [FILE_HANDLE, fileHandle],
  ...of('io_uring'),
  ...of('threads'),
])
