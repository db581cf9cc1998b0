// Channels to other threads and other processes: traffic, ends, deaths.
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { createRequire } from 'node:module'
import test, { type ExecutionContext } from 'ava'
import { AioContext, Channel, ChannelPort, type ChannelHandle } from 'fdmon'
import { accept, listenUnix, receiveFds, sendFds } from 'fdmon/fd'
import { ended, inWorker, message } from './in-worker.js'

const require = createRequire(import.meta.url)
const fdmon = require.resolve('fdmon')

/** Sends what it gets back, on Node's own loop. */
const ECHO = `
  const port = fdmon.ChannelPort.from(data.handle)
  const ctx = new fdmon.AioContext({ poll: { maxNs: data.maxNs ?? 0, guards: false } }).attach()
  port.listen(ctx, (message) => {
    if (!port.send(message)) throw new Error('full')
  }, { closed() { port.close(); ctx.close(); parentPort.postMessage('end') } })
  parentPort.postMessage('ready')`

for (const memory of ['shared', 'memfd'] as const) {
  for (const maxNs of [0, 1_000_000]) {
    test(`${memory}: a worker answers 20,000 messages in order, ${maxNs === 0 ? 'blocking' : 'spinning'}`, async (t) => {
      const { port1, port2 } = new Channel({ memory })
      const worker = inWorker(ECHO, { handle: port2.handle, maxNs })
      await message(worker)
      port2.close()
      using ctx = new AioContext({ poll: { maxNs, guards: false } })
      const out = new Int32Array(16)
      const bytes = new Uint8Array(out.buffer)
      let sent = 0
      let got = 0
      let wrong = 0
      const more = (): void => {
        while (sent < 20_000 && sent - got < 50) {
          out.fill(sent++)
          port1.send(bytes)
        }
      }
      port1.listen(ctx, (back) => {
        const words = new Int32Array(back.buffer, back.byteOffset, 16)
        if (!words.every((word) => word === got)) wrong++
        got++
        more()
      })
      more()
      ctx.pollUntil(() => got === 20_000)
      t.is(wrong, 0)
      const end = message(worker)
      port1.close()
      t.is(await end, 'end')
      t.is(await ended(worker), 0)
    })
  }

  for (const [how, code] of [
    ['is terminated', 'setInterval(() => {}, 1000)'],
    ['exits without closing', ''],
    ['calls process.exit()', 'process.exit(3)'],
    ['blocks in a turn and is terminated', 'new fdmon.AioContext().run({ forNs: 200_000_000n })'],
  ] as const) {
    test(`${memory}: a worker that ${how} has died, after its last message`, async (t) => {
      const { port1, port2 } = new Channel({ memory })
      const worker = inWorker(
        `const port = fdmon.ChannelPort.from(data)
         port.send(Buffer.from('last words'))
         parentPort.postMessage('sent')
         ${code}`,
        port2.handle,
      )
      await message(worker)
      if (how.includes('terminated')) void worker.terminate()
      const got: string[] = []
      for await (const bytes of port1) got.push(Buffer.from(bytes).toString())
      t.deepEqual(got, ['last words'])
      t.is(await port1.closed, 'peer-died')
      t.throws(() => port1.send(new Uint8Array(1)), { code: 'ERR_FDMON_CLOSED', message: /died/ })
      port1.close()
      port2.close()
    })
  }

  test(`${memory}: a worker that closes has closed`, async (t) => {
    const { port1, port2 } = new Channel({ memory })
    const worker = inWorker(`fdmon.ChannelPort.from(data).close()`, port2.handle)
    t.is(await port1.closed, 'closed')
    await ended(worker)
    port1.close()
    port2.close()
  })

  test(`${memory}: both ports in workers, the maker's own copies closed or not`, async (t) => {
    const { port1, port2 } = new Channel({ memory })
    const one = inWorker(ECHO, { handle: port1.handle })
    await message(one)
    const other = inWorker(
      `const port = fdmon.ChannelPort.from(data)
       port.send(new Uint8Array(5))
       port.closed.then((end) => parentPort.postMessage(end))
       ;(async () => {
         for await (const back of port) parentPort.postMessage(back.length)
       })()`,
      port2.handle,
    )
    t.is(await message(other), 5)
    if (memory === 'memfd') port1.close()
    void one.terminate()
    t.is(await message(other), 'peer-died')
    t.is(await ended(other), 0)
    port1.close()
    port2.close()
  })
}

test('a worker that is ended in the middle of ringing or of closing is heard of', async (t) => {
  for (const [word, value, end] of [[18, 1, 'peer-died'], [32, 2, 'closed']] as const) {
    const { port1, port2 } = new Channel({ memory: 'shared' })
    const words = new Int32Array(port1.handle.buffer!)
    const worker = inWorker(
      `const words = new Int32Array(data.handle.buffer)
       if (data.word === 18) words[data.word] = data.value // rung, but no bell
       const port = fdmon.ChannelPort.from(data.handle)
       parentPort.postMessage('claimed')
       parentPort.once('message', () => {
         words[18] = 1
         words[data.word] = data.value
         process.exit()
       })`,
      { handle: port2.handle, word, value },
    )
    await message(worker)
    const closed = port1.closed
    worker.postMessage('end')
    t.is(await closed, end)
    t.is(words[32], end === 'closed' ? 2 : 3)
    port1.close()
    port2.close()
  }
})

test('an idle channel wakes nobody', async (t) => {
  const { port1, port2 } = new Channel()
  const worker = inWorker(`${ECHO}; parentPort.postMessage(ctx.id)`, { handle: port2.handle, maxNs: 100_000 })
  await message(worker)
  const remote = AioContext.remote(await message(worker))
  using ctx = new AioContext({ poll: { maxNs: 100_000, guards: false } })
  let back = 0
  port1.listen(ctx, () => void back++)
  for (let i = 1; i <= 1000; i++) {
    port1.send(new Uint8Array(64))
    ctx.pollUntil(() => back === i)
  }
  // Once the window has passed it sleeps, and from then on nothing happens at all.
  let [before, now] = [remote.stats(), remote.stats()]
  do {
    before = now
    await new Promise((resolve) => setTimeout(resolve, 50))
    now = remote.stats()
  } while (now.sleeps !== before.sleeps || now.spinNs !== before.spinNs)
  await new Promise((resolve) => setTimeout(resolve, 300))
  t.deepEqual(remote.stats(), now)
  t.is(now.handlers[0]!.reads + now.handlers[0]!.pollHits > 0, true)
  port1.close()
  await ended(worker)
  port2.close()
})

/** A program that connects to a socket, receives the handle with its descriptors, and runs `code` with `port`. */
function program(path: string, code: string): ChildProcess {
  const source = `
    const fdmon = require(${JSON.stringify(fdmon)})
    const { connectUnix, receiveFds, setNonblock } = require(${JSON.stringify(fdmon.replace(/index\.js$/, 'fd.js'))})
    const socket = connectUnix(${JSON.stringify(path)})
    setNonblock(socket, false)
    const bytes = new Uint8Array(4096)
    const { bytes: size, fds } = receiveFds(socket, bytes)
    const handle = JSON.parse(Buffer.from(bytes.subarray(0, size)).toString())
    const port = fdmon.ChannelPort.from({ ...handle, fds })
    for (const fd of [socket, ...fds]) fd.close();
    ${code}`
  return spawn(process.execPath, ['-e', source], { stdio: ['ignore', 'inherit', 'inherit'] })
}

/** Hands a port to a program, and lets go of it here. */
async function hand(t: ExecutionContext, port: ChannelPort, name: string, code: string): Promise<ChildProcess> {
  const path = `\0fdmon channel ${process.pid} ${name}`
  const server = listenUnix(path)
  const child = program(path, code)
  t.teardown(() => child.kill('SIGKILL'))
  const { handle } = port
  const connection = await soon(() => accept(server))
  sendFds(connection, Buffer.from(JSON.stringify({ ...handle, fds: [] })), handle.fds)
  connection.close()
  server.close()
  return child
}

test('a process answers, and hears that this side closes', async (t) => {
  const { port1, port2 } = new Channel({ memory: 'memfd' })
  const child = await hand(
    t,
    port2,
    'echo',
    `(async () => {
       for await (const message of port) port.send(message)
       process.exit(await port.closed === 'closed' ? 7 : 8)
     })()`,
  )
  for (let i = 0; i < 100; i++) {
    port1.send(new Uint8Array(i).fill(i))
    const { value } = await first(port1)
    t.deepEqual(value, new Uint8Array(i).fill(i))
  }
  port1.close()
  t.deepEqual(await once(child, 'exit'), [7, null])
  port2.close()
})

/** The next message, without keeping an iteration. */
async function first(port: ChannelPort): Promise<IteratorResult<Uint8Array>> {
  const iterator = port[Symbol.asyncIterator]()
  const result = await iterator.next()
  await iterator.return?.()
  return result
}

test('a process that is killed has died, after its last message; this side need not close its copies', async (t) => {
  const { port1, port2 } = new Channel({ memory: 'memfd' })
  const child = await hand(t, port2, 'kill', `port.send(Buffer.from('last words')); setInterval(() => {}, 1000)`)
  const got: string[] = []
  for await (const bytes of port1) {
    got.push(Buffer.from(bytes).toString())
    child.kill('SIGKILL')
  }
  t.deepEqual(got, ['last words'])
  t.is(await port1.closed, 'peer-died')
  port1.close()
  port2.close()
})

test('a process whose maker is killed hears of it', async (t) => {
  const path = `\0fdmon channel ${process.pid} maker`
  const server = listenUnix(path)
  const source = `
    const { Channel } = require(${JSON.stringify(fdmon)})
    const { connectUnix, sendFds } = require(${JSON.stringify(fdmon.replace(/index\.js$/, 'fd.js'))})
    const { port1, port2 } = new Channel({ memory: 'memfd' })
    port1.send(Buffer.from('last words'))
    const { handle } = port2
    sendFds(connectUnix(${JSON.stringify(path)}), Buffer.from(JSON.stringify(handle)), handle.fds)
    setInterval(() => [port1, port2], 1000)`
  const child = spawn(process.execPath, ['-e', source], { stdio: ['ignore', 'inherit', 'inherit'] })
  t.teardown(() => child.kill('SIGKILL'))
  const connection = await soon(() => accept(server))
  const bytes = new Uint8Array(4096)
  const { size, fds } = await soon(() => {
    const { bytes: size, fds } = receiveFds(connection, bytes)
    return size < 0 ? undefined : { size, fds }
  })
  const handle = JSON.parse(Buffer.from(bytes.subarray(0, size)).toString()) as ChannelHandle
  t.throws(() => ChannelPort.from(handle), { code: 'ERR_FDMON_INVALID_ARG', message: /receiveFds/ })
  const port = ChannelPort.from({ ...handle, fds })
  for (const fd of [server, connection, ...fds]) fd.close()
  const got: string[] = []
  for await (const message of port) {
    got.push(Buffer.from(message).toString())
    child.kill('SIGKILL')
  }
  t.deepEqual(got, ['last words'])
  t.is(await port.closed, 'peer-died')
  port.close()
})

/** Asks until there is an answer. */
async function soon<T>(ask: () => T | undefined): Promise<T> {
  for (;;) {
    const answer = ask()
    if (answer !== undefined) return answer
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}
