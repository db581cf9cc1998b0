// One of the two sides: 'ping' sends, measures and sends again; 'pong' sends back what it gets.
import { execFileSync } from 'node:child_process'
import { readlinkSync } from 'node:fs'
import { Socket } from 'node:net'
import { basename } from 'node:path'
import { parentPort, workerData } from 'node:worker_threads'
import { AioContext, ChannelPort, EventNotifier } from 'fdmon'
import { read, write } from 'fdmon/fd'

const { role, over, variant, monitor, rounds, ms, warmUpMs, pauseUs, guards, channel, out, into, port, fd, arrival, cpu } = workerData
if (cpu !== undefined) execFileSync('taskset', ['-p', '-c', cpu, basename(readlinkSync('/proc/thread-self'))])
/** Of a message: 64 bytes. */
const MESSAGE_WORDS = 16
/** Round trips that are measured at most. */
const MOST = 1 << 22
// Some virtual CPUs take 35 to 45 µs to wake up, longer than the usual window of 32.8 µs.
const SPIN = { maxNs: 200_000, policy: 'classic', grow: 2, guards }

const links = { message: overMessages, net: overNetSocket, ring: overChannel, eventfd: overEventfds, socket: overSocket }
const link = (links[variant] ?? links[over])()
/** Milliseconds, on a clock that both sides share where the way in one direction is measured. */
const clock = pauseUs > 0 ? () => Number(process.hrtime.bigint()) / 1e6 : () => performance.now()
if (role === 'pong') {
  link.listen((message) => {
    if (pauseUs > 0) arrival[0] = clock()
    link.send(message)
  })
  parentPort.postMessage({ what: 'ready', id: link.context?.id })
  link.run()
} else {
  parentPort.postMessage({ what: 'ready', id: link.context?.id })
  parentPort.once('message', () => {
    ping()
    link.run()
  })
}

/**
 * Sends one message after the other, each when the last has come back; then reports. With a pause, the other side has
 * nothing to do for that long before each message, and what counts is how soon it has it.
 */
function ping() {
  const warmUp = rounds > 0 ? Math.ceil(rounds / 10) : 500
  const begin = clock()
  const last = rounds > 0 ? rounds - warmUp : MOST
  const message = new Int32Array(MESSAGE_WORDS)
  const took = new Float64Array(Math.min(last, MOST)) // made before: nothing is allocated while it measures
  let count = 0
  let seq = 0
  let lost = 0
  let sent = 0
  let before
  let end = Infinity
  let reported = false
  const next = () => {
    for (let i = 0; i < MESSAGE_WORDS; i++) message[i] = seq + i
    if (pauseUs > 0) for (const until = clock() + pauseUs / 1000; clock() < until; );
    sent = clock()
    link.send(message)
  }
  link.listen((back) => {
    const now = clock()
    for (let i = 0; i < MESSAGE_WORDS; i++) if (back[i] !== seq + i) lost++
    seq++
    if (before !== undefined) took[count++] = (pauseUs > 0 ? arrival[0] : now) - sent
    if (before === undefined && seq >= warmUp && now - begin >= warmUpMs) {
      before = process.resourceUsage()
      end = now + (ms > 0 ? ms : Infinity)
    }
    if (count < last && now < end) next()
    else if (!reported) {
      reported = true
      report(took.subarray(0, count), seq, lost, before)
    }
  })
  next()
}

function report(took, allRounds, lost, before) {
  const after = process.resourceUsage()
  const stats = link.context?.stats()
  const a = (key) => (after[key] - before[key]) / took.length
  took.sort()
  const at = (share) => took[Math.min(took.length - 1, Math.floor(took.length * share))] * 1000
  parentPort.postMessage({
    what: 'result',
    rounds: took.length,
    allRounds,
    lost,
    p50: at(0.5),
    p99: at(0.99),
    cpuUs: a('userCPUTime') + a('systemCPUTime'),
    switches: a('voluntaryContextSwitches') + a('involuntaryContextSwitches'),
    monitor: stats?.monitor ?? null,
    guard: stats?.guard ?? null,
  })
}

function newContext() {
  return new AioContext({ name: role, monitor, poll: variant === 'spin' ? SPIN : { maxNs: 0 } })
}

/** Until the main thread says stop. */
function runContext(context) {
  context.run()
  context.close()
  parentPort.close()
}

function overChannel() {
  const context = newContext()
  const side = ChannelPort.from(channel)
  const [bytesOf, wordsOf] = [viewer(Uint8Array), viewer(Int32Array)]
  return {
    context,
    send(message) {
      if (!side.send(bytesOf(message))) throw new Error('the ring is full although one message is on its way')
    },
    listen: (onMessage) => side.listen(context, (message) => onMessage(wordsOf(message))),
    run: () => runContext(context),
  }
}

/** Looks at an array as one of another kind; the view is made once, as long as it is the same array. */
function viewer(Kind) {
  let [array, view] = []
  return (given) => {
    if (given !== array) [array, view] = [given, new Kind(given.buffer, given.byteOffset, given.byteLength / Kind.BYTES_PER_ELEMENT)]
    return view
  }
}

/** A message in memory, and an eventfd that is set for each: while it spins, the kernel itself is asked whether it is. */
function overEventfds() {
  const context = newContext()
  const [theirs, ours] = [out, into].map(({ memory }) => new Int32Array(memory))
  const [theirBell, bell] = [out, into].map(({ handle }) => EventNotifier.from(handle))
  return {
    context,
    send(message) {
      theirs.set(message)
      theirBell.set()
    },
    listen: (onMessage) =>
      context.setEventNotifier(bell, {
        read() {
          bell.testAndClear()
          onMessage(ours)
        },
        ...(variant === 'spin' && { poll: 'kernel' }),
      }),
    run: () => runContext(context),
  }
}

/** A plain socket: while it spins, the kernel itself is asked whether there is something. */
function overSocket() {
  const context = newContext()
  const sending = new Int32Array(MESSAGE_WORDS)
  const bytes = new Uint8Array(sending.buffer)
  return {
    context,
    send(message) {
      sending.set(message)
      if (write(fd, bytes) !== bytes.length) throw new Error('the socket is full although one message is on its way')
    },
    listen(onMessage) {
      const take = collector(onMessage)
      context.setFdHandler(fd, {
        read: () => take((free) => Math.max(0, read(fd, free))),
        ...(variant === 'spin' && { poll: 'kernel' }),
      })
    },
    run: () => runContext(context),
  }
}

/** The same socket on Node's own loop. */
function overNetSocket() {
  const socket = new Socket({ fd, readable: true, writable: true })
  return {
    send: (message) => socket.write(Buffer.from(new Uint8Array(message.buffer))),
    listen(onMessage) {
      const take = collector(onMessage)
      socket.on('data', (chunk) => {
        for (let at = 0; at < chunk.length; ) take((free) => chunk.copy(free, 0, at, (at += Math.min(free.length, chunk.length - at))))
      })
    },
    run: () => untilEnd(() => socket.destroy()),
  }
}

/** Puts messages together from the bytes that `read` puts into what is free of one; a stream may cut them anywhere. */
function collector(onMessage) {
  const message = new Int32Array(MESSAGE_WORDS)
  const bytes = new Uint8Array(message.buffer)
  let filled = 0
  return (read) => {
    filled += read(filled === 0 ? bytes : bytes.subarray(filled))
    if (filled < bytes.length) return
    filled = 0
    onMessage(message)
  }
}

function overMessages() {
  return {
    send: (message) => port.postMessage(message),
    listen: (onMessage) => port.on('message', onMessage),
    run: () => untilEnd(() => port.close()),
  }
}

/** On Node's own loop: until the main thread says so. */
function untilEnd(close) {
  parentPort.once('message', () => {
    close()
    parentPort.close()
  })
}
