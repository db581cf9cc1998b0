// Running a context from an outer loop: prepareNs, check, dispatch, backendFd.
// Tag: kernel
import { drain, onEach, put, refuses } from './on-each.js'

onEach('prepareNs() says how long to wait: for ever, until a timer, or not at all [SPEC 50]', (t, kit) => {
  const ctx = kit.context()
  t.is(ctx.prepareNs(), -1)
  ctx.check()
  const timer = ctx.timer(() => {})
  timer.arm(3_600_000_000_000)
  const ns = ctx.prepareNs()
  ctx.check()
  t.true(ns > 3_500_000_000_000 && ns <= 3_600_000_000_000)
  ctx.schedule(() => {})
  t.is(ctx.prepareNs(), 0)
  t.true(ctx.check())
  t.true(ctx.dispatch())
})

onEach('an outer context drives an inner one by its backendFd, and nothing is lost [SPEC 50]', (t, kit) => {
  const outer = kit.context()
  const inner = kit.context()
  const [left, right] = kit.pair()
  let reads = 0
  inner.setFdHandler(left, { read: (fd) => void (reads++, drain(fd)) })
  const backend = inner.backendFd
  t.is(inner.backendFd, backend)
  outer.setFdHandler(backend, { read() {} })
  for (let round = 1; round <= 10; round++) {
    put(right)
    for (let turn = 0; turn < 10 && reads < round; turn++) {
      const ns = inner.prepareNs()
      if (ns !== 0) outer.poll(true)
      if (inner.check()) inner.dispatch()
    }
    t.is(reads, round)
  }
  outer.setFdHandler(backend, null)
})

onEach('preparing twice is harmless, and check() without an event is false [SPEC 50]', (t, kit) => {
  const ctx = kit.context()
  const [left] = kit.pair()
  ctx.setFdHandler(left, { read() {} })
  t.is(ctx.prepareNs(), -1)
  t.is(ctx.prepareNs(), -1)
  t.false(ctx.check())
  t.false(ctx.dispatch())
})

onEach('what a predicate throws in prepareNs() is thrown by dispatch() [SPEC 21] [SPEC 50]', (t, kit) => {
  const ctx = kit.context()
  const notifier = kit.notifier()
  let bad = true
  ctx.setFdHandler(notifier, {
    poll() {
      if (!bad) return false
      bad = false
      throw new RangeError('predicate')
    },
    pollReady() {},
  })
  t.is(ctx.prepareNs(), 0)
  t.true(ctx.check())
  t.throws(() => ctx.dispatch(), { instanceOf: RangeError })
  t.false(ctx.dispatch())
})

onEach('a hit of the last look makes prepareNs() return 0, and is dispatched [SPEC 50]', (t, kit) => {
  const ctx = kit.context()
  const notifier = kit.notifier()
  let work = 1
  ctx.setFdHandler(notifier, { poll: () => work > 0, pollReady: () => void work-- })
  t.is(ctx.prepareNs(), 0)
  t.true(ctx.check())
  t.true(ctx.dispatch())
  t.is(work, 0)
})

onEach('a context that is closed cannot be embedded', (t, kit) => {
  const ctx = kit.context()
  ctx.close()
  for (const call of [() => ctx.prepareNs(), () => ctx.check(), () => ctx.dispatch(), () => ctx.backendFd]) {
    refuses(t, call, [], 'ERR_FDMON_CLOSED')
  }
})
