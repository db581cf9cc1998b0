// A program over poll() and run(), for any runtime that loads the addon: each kind of descriptor, spinning, errors, a worker.
import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import { AioContext, EventNotifier, Events, FdmonError, capabilities } from 'fdmon'
import {
  accept, connectUnix, inotify, InotifyEvents, listenUnix, memfd, pidfd, read, signalfd, socketpair, timerfd, write,
} from 'fdmon/fd'
import { equal, steps, thrown } from './steps.mjs'

const SPIN = { maxNs: 50_000_000, guards: false, policy: 'classic' }
const worker = (name, data) =>
  new Worker(new URL('./worker.mjs', import.meta.url), { workerData: { name, ...data } })

function withContext(body, options) {
  return async () => {
    const ctx = new AioContext(options)
    try {
      await body(ctx)
    } finally {
      ctx.close()
    }
  }
}

await steps({
  'capabilities() says that the addon is native': () => equal(capabilities().native, true),

  'timers run in their order': withContext((ctx) => {
    const order = []
    const second = ctx.timer(() => (order.push(2), ctx.stop()))
    const first = ctx.timer(() => order.push(1))
    second.arm(3_000_000)
    first.arm(1_000_000)
    ctx.run()
    equal(order, [1, 2])
  }),

  'bottom halves run once for each schedule': withContext((ctx) => {
    let runs = 0
    ctx.schedule(() => (runs += 100))
    const half = ctx.bottomHalf(() => ++runs)
    half.schedule()
    half.schedule()
    ctx.poll()
    equal(runs, 101)
  }),

  'an eventfd rings': withContext((ctx) => {
    const bell = new EventNotifier()
    let rang = 0
    ctx.setEventNotifier(bell, { read: () => (rang += Number(bell.testAndClear())) })
    bell.set()
    ctx.poll()
    equal([rang, ctx.poll(false)], [1, false])
    ctx.setEventNotifier(bell, null)
    bell.close()
  }),

  'a timerfd ticks': withContext((ctx) => {
    const clock = timerfd({ intervalNs: 1_000_000 })
    let ticks = 0n
    ctx.setFdHandler(clock, { read: () => (ticks += clock.read()) })
    ctx.pollUntil(() => ticks >= 3n)
    ctx.setFdHandler(clock, null)
    clock.close()
  }),

  'a pair of sockets carries a megabyte, with back-pressure': withContext((ctx) => {
    const [left, right] = socketpair()
    const data = Buffer.alloc(1 << 20, 'x')
    const buffer = Buffer.alloc(65_536)
    let sent = 0
    let received = 0
    const sender = ctx.setFdHandler(left, {
      write(fd) {
        sent += Math.max(write(fd, data.subarray(sent)), 0)
        sender.setInterest({ write: sent < data.length })
      },
    })
    ctx.setFdHandler(right, { read: (fd, events) => (received += (events & Events.IN) !== 0 ? Math.max(read(fd, buffer), 0) : 0) })
    ctx.pollUntil(() => received === data.length)
    for (const fd of [left, right]) (ctx.setFdHandler(fd, null), fd.close())
  }),

  'a Unix socket accepts, and carries bytes': withContext((ctx) => {
    const server = listenUnix(`\0fdmon ${process.pid}`)
    const client = connectUnix(`\0fdmon ${process.pid}`)
    let connection
    let bytes = 0
    ctx.setFdHandler(server, {
      read() {
        connection = accept(server)
        ctx.setFdHandler(connection, { read: (fd) => (bytes += read(fd, new Uint8Array(8))) })
      },
    })
    write(client, new Uint8Array(3))
    ctx.pollUntil(() => bytes > 0)
    equal(bytes, 3)
    for (const fd of [server, connection]) ctx.setFdHandler(fd, null)
    for (const fd of [server, connection, client]) fd.close()
  }),

  'a signalfd tells of a signal': withContext((ctx) => {
    const signals = signalfd(['SIGUSR2'])
    const seen = []
    ctx.setFdHandler(signals, { read: () => seen.push(...signals.readSignals().map(({ signal }) => signal)) })
    process.kill(process.pid, 'SIGUSR2')
    ctx.pollUntil(() => seen.length > 0)
    equal(seen, ['SIGUSR2'])
    ctx.setFdHandler(signals, null)
    signals.close()
  }),

  'inotify names a file that was written': withContext((ctx) => {
    const folder = mkdtempSync(join(tmpdir(), 'fdmon-'))
    const watcher = inotify()
    watcher.addWatch(folder, InotifyEvents.CLOSE_WRITE)
    const names = []
    ctx.setFdHandler(watcher, { read: () => names.push(...watcher.readEvents().map(({ name }) => name)) })
    writeFileSync(join(folder, 'note'), 'x')
    ctx.pollUntil(() => names.length > 0)
    equal(names, ['note'])
    ctx.setFdHandler(watcher, null)
    watcher.close()
    rmSync(folder, { recursive: true })
  }),

  'a pidfd tells of the end of a child, whose exit code the runtime has': withContext(async (ctx) => {
    const child = spawn('sh', ['-c', 'exit 7'])
    const code = new Promise((resolve) => child.on('exit', resolve))
    const end = pidfd(child.pid)
    const registration = ctx.setFdHandler(end, { read: () => (registration.remove(), ctx.stop()) })
    ctx.run()
    end.close()
    equal(await code, 7)
  }),

  'a word of a memfd is spun on': withContext((ctx) => {
    const file = memfd('words', 4096)
    const words = new Int32Array(file.map())
    const bell = new EventNotifier()
    const take = () => Atomics.store(words, 1, Atomics.load(words, 0))
    const poll = { memory: words, index: 0, notEqual: { index: 1 }, suppress: { index: 2 } }
    ctx.setEventNotifier(bell, { poll, pollReady: take, read: () => (bell.testAndClear(), take()) })
    const other = new Int32Array(file.map())
    for (let i = 0; i < 1000; i++) {
      Atomics.add(other, 0, 1)
      if (Atomics.load(other, 2) === 0) bell.set()
      ctx.poll()
    }
    ctx.suspend()
    equal([words[1], ctx.stats().handlers[0].pollHits > 0, ctx.stats().spinHits > 0], [1000, true, true])
    ctx.setEventNotifier(bell, null)
    bell.close()
    file.close()
  }, { poll: SPIN }),

  'a predicate in JavaScript is spun on': withContext((ctx) => {
    const bell = new EventNotifier()
    let looks = 0
    let hits = 0
    ctx.setEventNotifier(bell, { poll: () => ++looks % 4 === 0, pollReady: () => ++hits, read: () => bell.testAndClear() })
    bell.set() // a source is spun on from its first event on, for as long as events have come soon
    const again = ctx.timer(() => again.arm(1_000_000))
    again.arm(1_000_000)
    ctx.pollUntil(() => hits === 3)
    ctx.setEventNotifier(bell, null)
    bell.close()
  }, { poll: SPIN }),

  'a callback may run turns of its own': withContext((ctx) => {
    const order = []
    const answer = ctx.timer(() => order.push('answer'))
    ctx.schedule(() => {
      order.push('question')
      answer.arm(1_000_000)
      ctx.pollUntil(() => order.includes('answer'))
      order.push('thanks')
    })
    ctx.poll()
    equal(order, ['question', 'answer', 'thanks'])
  }),

  'what callbacks throw comes out of poll(), after the others': withContext((ctx) => {
    let ran = 0
    ctx.schedule(() => { throw new RangeError('one') })
    ctx.schedule(() => { throw 2 })
    ctx.schedule(() => ++ran)
    const error = thrown(() => ctx.poll())
    equal([error instanceof AggregateError, error.errors[0] instanceof RangeError, error.errors[1], ran], [true, true, 2, 1])
  }),

  'errors are FdmonErrors with a code': withContext((ctx) => {
    const bad = thrown(() => ctx.setFdHandler(-1, { read() {} }))
    const system = thrown(() => pidfd(2 ** 22))
    const option = thrown(() => new AioContext({ poll: { maxNs: -1 } }))
    equal([bad, system, option].map((error) => [error instanceof FdmonError, error.code]), [
      [true, 'ERR_FDMON_BAD_FD'],
      [true, 'ERR_FDMON_SYSCALL'],
      [true, 'ERR_FDMON_INVALID_ARG'],
    ])
    equal([system.errno > 0, system.syscall], [true, 'pidfd_open'])
  }),

  'close() reports what was left, and ends all use': () => {
    const ctx = new AioContext()
    const [left, right] = socketpair()
    ctx.setFdHandler(left, { read() {} })
    ctx.timer(() => {}).arm(1e9)
    ctx.schedule(() => {})
    equal(ctx.close(), { handlers: 1, bottomHalves: 1, timers: 1, io: 0 })
    equal(thrown(() => ctx.poll()).code, 'ERR_FDMON_CLOSED')
    left.close()
    right.close()
  },

  'turn() lets the runtime do its own work': withContext(async (ctx) => {
    let mine = 0
    let theirs = 0
    const own = setInterval(() => ++theirs, 1)
    const again = ctx.timer(() => (++mine, again.arm(1_000_000)))
    again.arm(0)
    while (theirs < 3) await ctx.turn()
    clearInterval(own)
    equal(mine > 0, true)
  }),

  'on each monitor that is here, a byte arrives': () => {
    for (const monitor of ['poll', 'epoll', 'io_uring'].filter((name) => capabilities().monitors[name].available)) {
      const ctx = new AioContext({ monitor })
      const [left, right] = socketpair()
      let bytes = 0
      ctx.setFdHandler(left, { read: (fd) => (bytes += read(fd, new Uint8Array(8))) })
      write(right, new Uint8Array(5))
      ctx.pollUntil(() => bytes > 0)
      equal([ctx.monitor, bytes], [monitor, 5])
      ctx.close()
      left.close()
      right.close()
    }
  },

  'a worker ends a loop by remote.notify() and stop()': withContext(async (ctx) => {
    const shared = new Int32Array(new SharedArrayBuffer(8))
    const other = worker('notify', { id: ctx.id, shared })
    ctx.pollUntil(() => Atomics.load(shared, 0) === 1)
    Atomics.store(shared, 1, 1)
    Atomics.notify(shared, 1)
    ctx.run()
    await other.terminate()
  }),

  'a worker has a loop of its own': async () => {
    const other = worker('loop', {})
    equal(await new Promise((resolve, reject) => (other.on('message', resolve), other.on('error', reject))), 5)
    await other.terminate()
  },

  'a worker ends with a context that it did not close': async () => {
    const other = worker('leave', {})
    await new Promise((resolve, reject) => (other.on('message', resolve), other.on('error', reject)))
    await other.terminate()
  },
})
console.log('"end"')
