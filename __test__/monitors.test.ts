// What each monitor is on this kernel: there when asked for, or refused by a typed error while `auto` takes the next.
// Tag: kernel
import test from 'ava'
import { AioContext, capabilities, type IoCallback, type MonitorName } from 'fdmon'
import { memfd } from 'fdmon/fd'
import { drain, Kit, put, refuses } from './on-each.js'

const { monitors } = capabilities()
const overridden = (process.env['FDMON_MONITOR'] ?? '') !== ''
/** `auto` moves from poll to epoll at so many descriptors. */
const EPOLL_AT = 64

function bells(kit: Kit, ctx: AioContext, count: number): { ring(): void; heard: number[] } {
  const all = Array.from({ length: count }, () => kit.notifier())
  const heard = all.map(() => 0)
  all.forEach((bell, at) => ctx.setEventNotifier(bell, { read: () => void (bell.testAndClear() && heard[at]!++) }))
  return { ring: () => all.forEach((bell) => bell.set()), heard }
}

/** All of them, twice, in turns that sleep. */
function hear(ctx: AioContext, { ring, heard }: ReturnType<typeof bells>): number[] {
  for (const round of [1, 2]) {
    ring()
    ctx.pollUntil(() => heard.every((count) => count === round))
  }
  return [...new Set(heard)]
}

for (const monitor of ['poll', 'epoll', 'io_uring'] as const) {
  test(`${monitor}: asked for, it is what runs, or the error says why not [SPEC 45]`, (t) => {
    const kit = new Kit(monitor)
    t.teardown(() => kit.close())
    const ask = (): AioContext => kit.context()
    if (!monitors[monitor].available) {
      t.is(monitor, 'io_uring', 'the others are everywhere')
      refuses(t, ask, ["monitor = 'io_uring' is refused", "'auto'"], 'ERR_FDMON_UNSUPPORTED')
      return
    }
    const ctx = ask()
    t.deepEqual([ctx.monitor, ctx.monitorReason, ctx.stats().fallbacks], [monitor, 'asked for', 0])
    t.deepEqual(hear(ctx, bells(kit, ctx, 100)), [2])
    const [left, right] = kit.pair()
    let bytes = 0
    ctx.setFdHandler(left, { read: (fd) => void (bytes += drain(fd)) })
    put(right)
    ctx.pollUntil(() => bytes > 0)
    t.deepEqual([bytes, ctx.monitor], [1, monitor])
  })
}

for (const monitor of ['poll', 'epoll', 'io_uring'] as const) {
  test(`${monitor}: FDMON_MONITOR asks for it as well [SPEC 45]`, (t) => {
    const before = process.env['FDMON_MONITOR']
    process.env['FDMON_MONITOR'] = monitor
    try {
      if (monitors[monitor].available) {
        using ctx = new AioContext()
        t.is(ctx.monitor, monitor)
      } else {
        refuses(t, () => new AioContext().close(), ["FDMON_MONITOR = 'io_uring' is refused", "'auto'"], 'ERR_FDMON_UNSUPPORTED')
      }
    } finally {
      if (before === undefined) delete process.env['FDMON_MONITOR']
      else process.env['FDMON_MONITOR'] = before
    }
  })
}

test('auto takes io_uring where it is to be had, else poll, and epoll from 64 descriptors on [SPEC 43, 45]', (t) => {
  if (overridden) {
    t.pass('the environment decides for auto')
    return
  }
  const kit = new Kit('poll')
  t.teardown(() => kit.close())
  const ctx = kit.own(new AioContext(), (ctx) => ctx.close())
  const few = bells(kit, ctx, 3)
  const ring = monitors.io_uring.available
  t.is(ctx.monitor, ring ? 'io_uring' : 'poll')
  if (!ring) t.regex(ctx.monitorReason, /^auto: io_uring refused: E[A-Z]+/)
  t.deepEqual(hear(ctx, few), [2])
  const many = bells(kit, ctx, EPOLL_AT)
  t.deepEqual(hear(ctx, many), [2])
  const now: MonitorName = ring ? 'io_uring' : 'epoll'
  t.is(ctx.monitor, now, ctx.monitorReason)
  t.is(ctx.stats().events, 2 * (3 + EPOLL_AT))
})

for (const engine of ['io_uring', 'threads'] as const) {
  test(`files: ${engine} reads and writes them, or the error says why not [SPEC 45, 47]`, (t) => {
    const kit = new Kit('epoll')
    t.teardown(() => kit.close())
    if (engine === 'io_uring' && !monitors.io_uring.available) {
      refuses(t, () => new AioContext({ aio: { engine } }).close(), ["engine = 'io_uring' is refused", "'auto'"], 'ERR_FDMON_UNSUPPORTED')
      return
    }
    const ctx = kit.own(new AioContext({ aio: { engine } }), (ctx) => ctx.close())
    const file = kit.own(memfd('fdmon', 8), (file) => file.close())
    const text = Buffer.from('kernels!')
    const wait = (ask: (done: IoCallback) => void): number | string => {
      let end: number | string | undefined
      ask((error, bytes) => void (end = error?.code ?? bytes))
      ctx.pollUntil(() => end !== undefined)
      return end!
    }
    t.is(wait((done) => ctx.submitWrite(file, text, 0, done)), 8)
    const into = Buffer.alloc(8)
    t.is(wait((done) => ctx.submitRead(file, into, 0, done)), 8)
    t.deepEqual([into.toString(), ctx.stats().aio.engine], ['kernels!', engine])
  })
}
