// Descriptors end with the worker that made them, and nothing else does. Serial: the descriptors are the process's.
import { closeSync, fstatSync, openSync } from 'node:fs'
import { createRequire } from 'node:module'
import test from 'ava'
import { EventNotifier } from 'fdmon'
import { listenUnix, memfd, read, receiveFds, sendFds, socketpair, write } from 'fdmon/fd'
import { openFiles } from './fd-kit.js'
import { ended, inWorker, message } from './in-worker.js'

const require = createRequire(import.meta.url)
const load = `const fds = require(${JSON.stringify(require.resolve('fdmon/fd'))})\n`

/** One of each, none of which is closed; `made` are their numbers. */
const oneOfEach = `${load}
  const [one, other] = fds.socketpair()
  const notifier = new fdmon.EventNotifier()
  const name = '\\0fdmon-worker-' + process.pid
  const server = fds.listenUnix(name)
  const client = fds.connectUnix(name)
  const connection = fds.accept(server)
  const file = fds.memfd('of a worker', 4096)
  fds.sendFds(one, new Uint8Array(1), [file, notifier])
  const { fds: received } = fds.receiveFds(other, new Uint8Array(8))
  const all = [
    one, other, notifier, server, client, connection, file, ...received,
    fds.timerfd({ intervalNs: 1_000_000 }), fds.inotify(), fds.pidfd(process.pid), fds.signalfd(['SIGURG']),
    fdmon.EventNotifier.from(notifier.handle),
  ]
  const made = all.map(({ fd }) => fd)
  const map = new Uint8Array(file.map())
  const ctx = new fdmon.AioContext()
  for (const fd of all) if (fd !== file) ctx.setFdHandler(fd, { read() {} })
  ctx.poll(false)
`
const COUNT = 14

async function settled(): Promise<string[]> {
  // The first worker of a process opens what stays.
  await ended(inWorker(load))
  return openFiles()
}

test.serial('a worker that is terminated leaves no descriptor of any kind', async (t) => {
  const before = await settled()
  const worker = inWorker(`${oneOfEach}
    parentPort.postMessage(made)
    setInterval(() => {}, 1000)`)
  const made: number[] = await message(worker)
  t.is(new Set(made).size, COUNT)
  for (const fd of made) t.notThrows(() => fstatSync(fd))
  await worker.terminate()
  t.deepEqual(openFiles(), before)
})

for (const [how, end] of [
  ['ends by itself', ''],
  ['calls process.exit()', 'process.exit(0)'],
  ['throws', 'throw new Error("on purpose")'],
  ['is terminated while its context sleeps', 'setImmediate(() => ctx.run({ forNs: 50_000_000 }))'],
] as const) {
  test.serial(`a worker that ${how} leaves no descriptor`, async (t) => {
    const before = await settled()
    const worker = inWorker(`${oneOfEach}
      parentPort.postMessage(made)
      ${end}`)
    // An error is told before the end.
    const exit = new Promise((resolve) => worker.once('exit', resolve))
    const made: number[] = await message(worker)
    t.is(made.length, COUNT)
    if (how.startsWith('is terminated')) await worker.terminate()
    await exit
    t.deepEqual(openFiles(), before)
  })
}

test.serial('what a worker closed itself is not closed again', async (t) => {
  await settled()
  const worker = inWorker(`${load}
    const timer = fds.timerfd()
    const { fd } = timer
    timer.close()
    parentPort.postMessage(fd)
    parentPort.on('message', () => parentPort.close())`)
  const number: number = await message(worker)
  const files: number[] = []
  while (!files.includes(number)) files.push(openSync('/dev/null', 'r'))
  worker.postMessage('end')
  await ended(worker)
  t.notThrows(() => fstatSync(number))
  for (const file of files) closeSync(file)
})

test.serial('a number that others have closed and opened anew stays open', async (t) => {
  const before = await settled()
  const worker = inWorker(`${load}
    const made = [fds.timerfd(), new fdmon.EventNotifier(), new fdmon.EventNotifier(), fds.timerfd()]
    parentPort.postMessage(made.map(({ fd }) => fd))
    parentPort.on('message', () => parentPort.close())`)
  const [asFile, asOwn, asNotifier, untouched] = (await message(worker)) as [number, number, number, number]
  for (const fd of [asFile, asOwn, asNotifier]) closeSync(fd)
  // The kernel gives out the smallest number that is free.
  const file = openSync('/dev/null', 'r')
  using own = memfd('of the main thread', 1)
  using notifier = new EventNotifier()
  t.deepEqual(new Set([file, own.fd, notifier.fd]), new Set([asFile, asOwn, asNotifier]))
  worker.postMessage('end')
  await ended(worker)
  for (const fd of [file, own.fd, notifier.fd]) t.notThrows(() => fstatSync(fd))
  t.throws(() => fstatSync(untouched), { code: 'EBADF' })
  notifier.set()
  t.true(notifier.testAndClear())
  closeSync(file)
  own.close()
  notifier.close()
  t.deepEqual(openFiles(), before)
})

test.serial('descriptors of the main thread and of other workers outlive a worker', async (t) => {
  const before = await settled()
  const [one, other] = socketpair()
  using server = listenUnix(`\0fdmon-main-${process.pid}`)
  const waiting = inWorker(`${load}
    const timer = fds.timerfd({ delayNs: 0 })
    parentPort.postMessage(timer.fd)
    parentPort.on('message', () => { parentPort.postMessage(String(timer.read())); parentPort.close() })`)
  const theirs: number = await message(waiting)
  const worker = inWorker(`${load}
    fds.write(${one.fd}, new Uint8Array([1, 2, 3]))
    const own = fds.socketpair()
    parentPort.postMessage(1)`)
  await message(worker)
  await ended(worker)
  t.notThrows(() => fstatSync(theirs))
  t.is(read(other, new Uint8Array(8)), 3)
  t.is(write(other, new Uint8Array(1)), 1)
  waiting.postMessage('end')
  t.is(await message(waiting), '1')
  await ended(waiting)
  for (const fd of [one, other, server]) fd.close()
  t.deepEqual(openFiles(), before)
})

test.serial('what a worker sent by sendFds belongs to the receiver', async (t) => {
  const before = await settled()
  const [one, other] = socketpair()
  const worker = inWorker(`${load}
    const file = fds.memfd('for the main thread', 3)
    require('node:fs').writeFileSync(file.fd, 'abc')
    fds.sendFds(${one.fd}, new Uint8Array(1), [file])
    parentPort.postMessage(1)`)
  await message(worker)
  await ended(worker)
  const { fds } = receiveFds(other, new Uint8Array(8))
  t.is(fds.length, 1)
  t.is(fstatSync(fds[0]!.fd).size, 3)
  t.is(sendFds(one, new Uint8Array(1), fds), 1)
  for (const fd of [one, other, ...fds]) fd.close()
  t.deepEqual(openFiles(), before)
})

test.serial('memory that a worker mapped stays as long as others have mapped it', async (t) => {
  using file = memfd('kept', 4096)
  const words = new Int32Array(file.map())
  const [one, other] = socketpair()
  sendFds(one, new Uint8Array(1), [file])
  const worker = inWorker(`${load}
    const { fds: [file] } = fds.receiveFds(${other.fd}, new Uint8Array(8))
    require('node:fs').writeSync(file.fd, new Uint8Array([9, 0, 0, 0]), 0, 4, 0)
    parentPort.postMessage(1)`)
  await message(worker)
  await ended(worker)
  t.is(words[0], 9)
  one.close()
  other.close()
})
