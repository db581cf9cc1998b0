// Of the smoke suite, on any Node: attached contexts: the order of what callbacks queue, AsyncLocalStorage, errors, file I/O, workers that
// are ended, I/O threads.
import { AsyncLocalStorage } from 'node:async_hooks'
import { open } from 'node:fs/promises'
import { Worker } from 'node:worker_threads'
import { AioContext, defaultContext, EventNotifier, IoThread, readable, watch } from 'fdmon'
import { read, socketpair, timerfd, write } from 'fdmon/fd'
import { equal, thrown } from './steps.mjs'

const until = async (condition) => {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 1))
}

export const attached = {
  'nextTicks run before microtasks, both after the callback and before the next phase': async () => {
    const bell = new EventNotifier()
    const order = []
    const registration = watch(bell, {
      read() {
        bell.testAndClear()
        setImmediate(() => order.push('immediate'))
        Promise.resolve().then(() => order.push('microtask'))
        process.nextTick(() => order.push('nextTick'))
        order.push('callback')
      },
    })
    bell.set()
    await until(() => order.includes('immediate'))
    equal(order, ['callback', 'nextTick', 'microtask', 'immediate'])
    registration.remove()
    bell.close()
  },

  'each handler has the AsyncLocalStorage of its registration': async () => {
    const storage = new AsyncLocalStorage()
    const seen = []
    const bells = ['a', 'b'].map((name) => storage.run(name, () => {
      const bell = new EventNotifier()
      watch(bell, { read: () => (bell.testAndClear(), seen.push([name, storage.getStore()])) })
      return bell
    }))
    for (const bell of bells) bell.set()
    await until(() => seen.length === 2)
    equal(seen.sort(), [['a', 'a'], ['b', 'b']])
    for (const bell of bells) (defaultContext().setEventNotifier(bell, null), bell.close())
  },

  'what a callback throws is an uncaught exception, and the loop goes on': async () => {
    const bell = new EventNotifier()
    const caught = []
    const listener = (error) => caught.push(error.message)
    process.on('uncaughtException', listener)
    let rang = 0
    const registration = watch(bell, {
      read() {
        bell.testAndClear()
        if (++rang === 1) throw new Error('from a handler')
      },
    })
    bell.set()
    await until(() => caught.length === 1)
    bell.set()
    await until(() => rang === 2)
    equal(caught, ['from a handler'])
    process.off('uncaughtException', listener)
    registration.remove()
    bell.close()
  },

  'readable() waits for bytes and ends when the other side hangs up': async () => {
    const [left, right] = socketpair()
    let bytes = 0
    write(right, new Uint8Array(3))
    for await (const _events of readable(left)) {
      bytes += read(left, new Uint8Array(8))
      right.close()
    }
    equal(bytes, 3)
    left.close()
  },

  'a timerfd ticks beside timers of Node, also while the context spins': async () => {
    const ctx = defaultContext()
    ctx.setPollParams({ maxNs: 200_000, guards: false })
    const clock = timerfd({ intervalNs: 100_000 })
    let ticks = 0n
    let theirs = 0
    const interval = setInterval(() => ++theirs, 1)
    const registration = watch(clock, { poll: 'kernel', read: () => (ticks += clock.read()) })
    await until(() => ticks > 50n && theirs > 5)
    clearInterval(interval)
    registration.remove()
    clock.close()
    ctx.setPollParams({ maxNs: 0 })
  },

  'an attached context is embedded nowhere else, and can be after detach()': () => {
    const ctx = new AioContext().attach()
    equal(['prepareNs', 'check', 'dispatch'].map((name) => thrown(() => ctx[name]()).code), Array(3).fill('ERR_FDMON_ATTACHED'))
    ctx.detach()
    equal([ctx.prepareNs(), ctx.check()], [-1, false])
    ctx.close()
  },

  'promises of file I/O settle in Node\'s loop': async () => {
    const file = await open(new URL(import.meta.url))
    const into = new Uint8Array(16)
    equal([await defaultContext().read(file, into, 0), Buffer.from(into).toString()], [16, '// Of the smoke '])
    await file.close()
  },

  'workers that are ended at any moment while attached do not abort the process': async () => {
    for (let round = 0; round < 12; round++) {
      const worker = new Worker(new URL('./attached-worker.mjs', import.meta.url), { workerData: { spins: round % 2 === 1 } })
      if (round % 3 !== 0) await new Promise((resolve) => worker.once('message', resolve))
      await new Promise((resolve) => setTimeout(resolve, Math.random() * (round % 3 === 0 ? 60 : 3)))
      await worker.terminate()
    }
  },

  'an I/O thread has its context and its own workerData, takes parameters from outside, and stops': async () => {
    const bell = new EventNotifier()
    const heard = new Int32Array(new SharedArrayBuffer(4))
    const workerData = { handle: bell.handle, heard }
    const thread = new IoThread(new URL('./io-thread.mjs', import.meta.url), { workerData, poll: { policy: 'fixed' } })
    thread.setPollParams({ maxNs: 1_000 })
    await thread.ready()
    equal([thread.stats().windowNs, thread.stats().handlers.length], [1_000, 1])
    for (let rings = 1; rings <= 100; rings++) {
      bell.set()
      await until(() => Atomics.load(heard, 0) === rings)
    }
    equal(thread.stats().handlers[0].reads, 100)
    thread.setPollParams({ maxNs: 2_000 })
    await until(() => thread.stats().windowNs === 2_000)
    await thread.stop()
    equal(thrown(() => AioContext.remote(thread.contextId)).code, 'ERR_FDMON_CLOSED')
    equal(thrown(() => thread.stats()).code, 'ERR_FDMON_CLOSED')
    bell.close()
  },

  'an I/O thread whose module throws, exits or runs a loop says so, or stops': async () => {
    const module = new URL('./io-thread.mjs', import.meta.url)
    const failure = (workerData) => new IoThread(module, { workerData }).ready().then(() => 'ready', ({ message }) => message)
    equal(await failure('throw'), 'on purpose')
    equal((await failure('exit')).includes('exit code 3'), true)
    equal((await failure({ handle: 5 })).includes('handle'), true) // an FdmonError of the thread
    const runs = new IoThread(module, { workerData: 'run' })
    await new Promise((resolve) => runs.worker.once('message', resolve))
    await runs.stop()
  },
}

/** Calls back from a watcher that keeps the process alive, and is gone then. */
export function endAttached(body) {
  const last = timerfd({ delayNs: 1_000_000 })
  const registration = watch(last, {
    read() {
      registration.remove()
      last.close()
      body()
    },
  })
}
