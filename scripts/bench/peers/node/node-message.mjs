// 64 bytes to a worker and back: an operation is a round trip. Both sides wait in the same way.
import { once } from 'node:events'
import { unlinkSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { MessageChannel, Worker, isMainThread, parentPort, workerData } from 'node:worker_threads'
import { AioContext, Channel, ChannelPort } from 'fdmon'

const LENGTH = 64
const message = new Uint8Array(LENGTH)

/** One end of each kind: `send()`, and `onMessage` is called for each message of the other side. */
const ends = {
  channel({ handle, maxNs }, onMessage) {
    const context = new AioContext({ poll: { maxNs } }).attach()
    const port = ChannelPort.from(handle)
    port.listen(context, onMessage)
    return { send: () => port.send(message), close: () => (port.close(), context.close()) }
  },
  port({ port }, onMessage) {
    port.on('message', onMessage)
    return { send: () => port.postMessage(message), close: () => port.close() }
  },
  /** A word that counts the messages of each direction; the bytes lie behind them. */
  words({ words, own, other }, onMessage) {
    let open = true
    const listen = async () => {
      for (let seen = 0; open; ) {
        const { async, value } = Atomics.waitAsync(words, other, seen)
        if (async) await value
        for (const now = Atomics.load(words, other); open && seen !== now; seen++) onMessage()
      }
    }
    void listen()
    const send = () => {
      new Uint8Array(words.buffer, LENGTH * (own + 1), LENGTH).set(message)
      Atomics.add(words, own, 1)
      Atomics.notify(words, own)
    }
    return { send, close: () => (open = false) }
  },
  socket({ socket }, onMessage) {
    let bytes = 0
    socket.on('data', (chunk) => {
      bytes += chunk.length
      for (; bytes >= LENGTH; bytes -= LENGTH) onMessage()
    })
    return { send: () => socket.write(message), close: () => socket.destroy() }
  },
}

/** The two sides of each way: what ours is made of, and what the worker gets. */
const sides = {
  'fdmon': () => channel(0),
  'fdmon+spin': () => channel(200_000),
  'MessagePort': () => {
    const { port1, port2 } = new MessageChannel()
    return { kind: 'port', ours: { port: port1 }, theirs: { port: port2 }, transferList: [port2] }
  },
  'waitAsync': () => {
    const words = new Int32Array(new SharedArrayBuffer(LENGTH * 4))
    return { kind: 'words', ours: { words, own: 0, other: 1 }, theirs: { words, own: 1, other: 0 } }
  },
  'net': async () => {
    const path = join(tmpdir(), `fdmon-peers-${process.pid}`)
    const server = createServer().listen(path)
    await once(server, 'listening')
    const accept = async () => {
      const [socket] = await once(server, 'connection')
      server.close()
      return { socket }
    }
    process.on('exit', () => { try { unlinkSync(path) } catch {} })
    return { kind: 'socket', ours: accept(), theirs: { path } }
  },
}

function channel(maxNs) {
  const { port1, port2 } = new Channel()
  return { kind: 'channel', ours: { handle: port1.handle, maxNs }, theirs: { handle: port2.handle, maxNs } }
}

const way = (makeSides) => async ({ ops }) => {
  const { kind, ours, theirs, transferList } = await makeSides()
  const worker = new Worker(new URL(import.meta.url), { workerData: { kind, theirs }, transferList })
  const ready = once(worker, 'message')
  const failed = once(worker, 'error').then(([error]) => { throw error })
  failed.catch(() => {})
  let left = ops
  let done
  const end = ends[kind](await ours, () => {
    if (--left === 0) done()
    else end.send()
  })
  await ready
  const work = () => Promise.race([failed, new Promise((resolve) => {
    done = resolve
    end.send()
  })])
  return {
    work,
    end: async () => { end.close(); await worker.terminate() },
  }
}

export const ways = Object.fromEntries(Object.entries(sides).map(([name, make]) => [name, way(make)]))

if (!isMainThread) {
  const { kind, theirs } = workerData
  if (kind === 'socket') {
    theirs.socket = connect(theirs.path)
    await once(theirs.socket, 'connect')
  }
  const end = ends[kind](theirs, () => end.send())
  parentPort.postMessage('ready')
  parentPort.on('message', () => end.close()) // which also keeps the thread
}
