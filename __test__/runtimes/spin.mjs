// Of the smoke suite: spinning on words of memory, on predicates, and on what the kernel has.
import { EventNotifier, FdmonError } from 'fdmon'
import { memfd, timerfd } from 'fdmon/fd'
import { equal, refuses, SPIN, withContext } from './steps.mjs'

export const spin = {
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

  'what the kernel has ready is spun on': withContext((ctx) => {
    const clock = timerfd({ intervalNs: 1_000_000 })
    let ticks = 0n
    ctx.setFdHandler(clock, { poll: 'kernel', read: () => (ticks += clock.read()) })
    ctx.pollUntil(() => ctx.stats().spinHits > 2)
    ctx.setFdHandler(clock, null)
    equal([ticks > 2n, ctx.stats().windowNs], [true, SPIN.maxNs])
    clock.close()
  }, { poll: { ...SPIN, policy: 'fixed' } }),

  'a spin begins and ends in balance': withContext((ctx) => {
    const bell = new EventNotifier()
    const order = []
    const handlers = { poll: () => false, pollReady() {}, pollBegin: () => order.push('begin'), pollEnd: () => order.push('end') }
    ctx.setEventNotifier(bell, { ...handlers, read: () => bell.testAndClear() })
    bell.set()
    ctx.poll()
    const again = ctx.timer(() => again.arm(1_000_000)) // on a busy machine it may be due before a turn can spin
    again.arm(1_000_000)
    ctx.pollUntil(() => order.length > 0)
    equal(order, ['begin', 'end'])
    ctx.setEventNotifier(bell, null)
    bell.close()
  }, { poll: { ...SPIN, policy: 'fixed' } }),

  'memory that no other thread can write is no condition': withContext((ctx) => {
    const bell = new EventNotifier()
    const poll = { memory: new Int32Array(4), index: 0, notEqual: 0 }
    refuses(() => ctx.setEventNotifier(bell, { poll, pollReady() {} }), FdmonError, 'ERR_FDMON_INVALID_ARG', 'poll.memory')
    bell.close()
  }),
}
