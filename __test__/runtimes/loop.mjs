// Of the smoke suite: turns over poll() and run(): timers, bottom halves, notifiers, back-pressure, nesting, errors, closing.
import { AioContext, EventNotifier, Events, FdmonError } from 'fdmon'
import { pidfd, read, socketpair, write } from 'fdmon/fd'
import { equal, refuses, thrown, withContext } from './steps.mjs'

export const loop = {
  'timers run in their order': withContext((ctx) => {
    const order = []
    const second = ctx.timer(() => (order.push(2), ctx.stop()))
    const first = ctx.timer(() => order.push(1))
    const now = process.hrtime.bigint()
    second.armAt(now + 3_000_000n)
    first.armAt(now + 1_000_000n)
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

  'errors are typed, and name the option, the value and the system call': withContext((ctx) => {
    refuses(() => ctx.setFdHandler(-1, { read() {} }), FdmonError, 'ERR_FDMON_BAD_FD', '-1')
    refuses(() => ctx.setFdHandler(0, {}), FdmonError, 'ERR_FDMON_INVALID_ARG')
    refuses(() => new AioContext({ poll: { maxNs: -1 } }), FdmonError, 'ERR_FDMON_INVALID_ARG', 'poll.maxNs', '-1')
    refuses(() => ctx.setFdHandler(0, { read: 'x' }), FdmonError, 'ERR_FDMON_INVALID_ARG', 'read', "'x'")
    const system = thrown(() => pidfd(2 ** 22))
    equal([system instanceof FdmonError, system.code, system.errno > 0, system.syscall], [true, 'ERR_FDMON_SYSCALL', true, 'pidfd_open'])
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

  'run() ends with its signal, which a callback aborts, and at its time': withContext((ctx) => {
    const abort = new AbortController()
    ctx.schedule(() => abort.abort())
    ctx.run({ signal: abort.signal })
    let late = 0
    ctx.timer(() => ++late).arm(5_000_000)
    ctx.run({ forNs: 10_000_000 })
    equal(late, 1)
  }),

  'an outer loop embeds it: prepare, check, dispatch': withContext((ctx) => {
    const [left, right] = socketpair()
    let bytes = 0
    ctx.setFdHandler(left, { read: (fd) => (bytes += read(fd, new Uint8Array(8))) })
    equal([ctx.prepareNs(), ctx.check(), ctx.backendFd > 2], [-1, false, true])
    write(right, new Uint8Array(3))
    while (bytes === 0) {
      ctx.prepareNs()
      if (ctx.check()) ctx.dispatch()
    }
    equal(bytes, 3)
    for (const fd of [left, right]) (ctx.setFdHandler(fd, null), fd.close())
  }),
}
