// Of the smoke suite: workers with loops of their own, and what threads do to each other's.
import { Worker } from 'node:worker_threads'
import { AioContext, EventNotifier, FdmonError } from 'fdmon'
import { equal, refuses, SPIN, withContext } from './steps.mjs'

const worker = (name, data) => new Worker(new URL('./worker.mjs', import.meta.url), { workerData: { name, ...data } })
/** What it says first. */
const said = (other) => new Promise((resolve, reject) => (other.once('message', resolve), other.once('error', reject)))

export const threads = {
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
    equal(await said(other), 5)
    await other.terminate()
  },

  'a worker ends with a context that it did not close': async () => {
    const other = worker('leave', {})
    await said(other)
    await other.terminate()
  },

  'a worker rings a bell of this thread, which spins on a word and is told not to be rung': withContext(async (ctx) => {
    const words = new Int32Array(new SharedArrayBuffer(16)) // written, read, suppressed, rings
    const bell = new EventNotifier()
    const take = () => Atomics.store(words, 1, Atomics.load(words, 0))
    const poll = { memory: words, index: 0, notEqual: { index: 1 }, suppress: { index: 2 } }
    ctx.setEventNotifier(bell, { poll, pollReady: take, read: () => (bell.testAndClear(), take()) })
    const other = worker('produce', { handle: bell.handle, words, count: 20_000 })
    ctx.pollUntil(() => words[1] === 20_000)
    ctx.setEventNotifier(bell, null)
    equal(await said(other), Atomics.load(words, 3))
    await other.terminate()
    bell.close()
  }, { poll: SPIN }),

  'a context is driven from afar: parameters, statistics, a bottom half': withContext(async (ctx) => {
    let ran = 0
    const half = ctx.bottomHalf(() => ++ran)
    const other = worker('remote', { id: ctx.id, half: half.id })
    ctx.pollUntil(() => ran === 1)
    const turns = await said(other)
    ctx.poll(false)
    equal([typeof turns, ctx.stats().windowNs], ['number', 4_000])
    await other.terminate()
  }),

  'a context belongs to its thread, and a closed one to nobody': async () => {
    const ctx = new AioContext()
    const { id } = ctx
    ctx.close()
    refuses(() => AioContext.remote(id), FdmonError, 'ERR_FDMON_CLOSED', String(id))
  },
}
