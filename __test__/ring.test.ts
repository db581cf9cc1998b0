// The option `ring`: each kind of ring behaves as the others, a restricted one too, and there may be none.
// Tag: kernel
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { createRequire } from 'node:module'
import test, { type ExecutionContext } from 'ava'
import { AioContext, capabilities, Events, type RingParams } from 'fdmon'
import { ended, inWorker } from './in-worker.js'
import { drain, Kit, monitors, put, refuses, settle } from './on-each.js'
import { refusing } from './refusing.js'

const { features } = capabilities()
const rings = monitors.includes('io_uring')
const overridden = (process.env['FDMON_MONITOR'] ?? '') !== ''

/** This kernel makes such rings. */
function offered({ mode, restricted }: RingParams): boolean {
  if (!rings || (restricted === true && features['ioUringRestrictions'] !== true)) return false
  if (mode === 'deferred') return features['ioUringDeferTaskrun'] === true
  return mode !== 'cooperative' || features['ioUringCooperative'] === true
}

/** A test for each kind of ring; where the kernel does not make it, that it is refused. */
function onEachRing(title: string, body: (t: ExecutionContext, kit: Kit, ring: RingParams) => unknown): void {
  for (const mode of ['auto', 'deferred', 'cooperative', 'plain'] as const) {
    for (const restricted of [false, true]) {
      test(`${mode}${restricted ? ', restricted' : ''}: ${title}`, async (t) => {
        const ring = { mode, restricted }
        if (!offered(ring)) {
          refuses(t, () => new AioContext({ monitor: 'io_uring', ring }).close(), ["'io_uring' is refused"], 'ERR_FDMON_UNSUPPORTED')
          return
        }
        const kit = new Kit('io_uring')
        try {
          await body(t, kit, ring)
        } finally {
          kit.close()
        }
      })
    }
  }
}

onEachRing('what is not read is reported again, what was read is not, and interest changes in place [SPEC 44, 46]', (t, kit, ring) => {
  const ctx = kit.context({ ring })
  t.deepEqual([ctx.monitor, ctx.monitorReason], ['io_uring', 'asked for'])
  const [left, right] = kit.pair()
  let reads = 0
  let writes = 0
  const registration = ctx.setFdHandler(left, {
    read: (fd) => void (++reads === 3 && drain(fd)),
    write: () => void writes++,
  })
  registration.setInterest({ write: false })
  put(right)
  for (let turn = 1; turn <= 3; turn++) {
    t.true(ctx.poll())
    t.is(reads, turn)
  }
  t.false(ctx.poll(false))
  registration.setInterest({ write: true })
  t.true(ctx.poll())
  t.deepEqual([reads, writes], [3, 1])
  t.is(ctx.stats().fallbacks, 0)
})

onEachRing('a removed handler hears nothing, and its peer sees the hang-up at once [SPEC 10, 44]', (t, kit, ring) => {
  const ctx = kit.context({ ring })
  const [left, right] = kit.pair()
  let seen = 0
  const registration = ctx.setFdHandler(left, { read: () => t.fail() })
  ctx.setFdHandler(right, { read: (_, events) => void (seen |= events) })
  t.false(ctx.poll(false)) // both are armed
  registration.remove()
  put(right)
  t.false(ctx.poll(false))
  left.close()
  t.true(ctx.poll())
  t.true((seen & Events.HUP) !== 0)
})

onEachRing('a word in memory and the readiness of a socket are spun on without a sleep [SPEC 30, 44]', (t, kit, ring) => {
  const ctx = kit.spinningLong({ ring })
  const words = new Int32Array(new SharedArrayBuffer(8))
  const [left, right] = kit.pair()
  let hits = 0
  let bytes = 0
  ctx.setEventNotifier(kit.notifier(), {
    poll: { memory: words, index: 0, notEqual: { index: 1 } },
    pollReady: () => void (words.copyWithin(1, 0, 1), hits++),
  })
  ctx.setFdHandler(left, { poll: 'kernel', read: (fd) => void (bytes += drain(fd)) })
  const { sleeps } = ctx.stats()
  for (let round = 1; round <= 10; round++) {
    words[0] = round
    while (hits < round) ctx.poll(true)
    put(right)
    while (bytes < round) ctx.poll(true)
  }
  t.deepEqual([hits, bytes], [10, 10])
  t.is(ctx.stats().sleeps, sleeps)
})

onEachRing('a nested turn runs what the outer one collected, each once [SPEC 19, 44]', (t, kit, ring) => {
  const ctx = kit.context({ ring })
  const pairs = Array.from({ length: 100 }, () => kit.pair())
  let reads = 0
  for (const [left, right] of pairs) {
    ctx.setFdHandler(left, {
      read(fd) {
        drain(fd)
        if (++reads === 1) ctx.poll(false)
      },
    })
    put(right)
  }
  t.true(ctx.poll())
  t.is(reads, 100)
  t.is(settle(ctx), 0)
})

onEachRing('timers and other threads end its sleep [SPEC 32, 39, 44]', async (t, kit, ring) => {
  const ctx = kit.context({ ring })
  let fired = 0
  const timer = ctx.timer(() => void fired++)
  timer.arm(1_000_000)
  while (fired === 0) ctx.poll()
  const worker = inWorker(`fdmon.AioContext.remote(data).stop()`, ctx.id)
  ctx.run()
  t.is(fired, 1)
  t.is(await ended(worker), 0)
})

onEachRing('an outer loop can watch it, and its turns still work [SPEC 44, 50]', (t, kit, ring) => {
  const outer = kit.context()
  const ctx = kit.context({ ring })
  const [left, right] = kit.pair()
  let bytes = 0
  let woken = 0
  ctx.setFdHandler(left, { read: (fd) => void (bytes += drain(fd)) })
  outer.setFdHandler(ctx.backendFd, {
    read() {
      woken++
      ctx.check()
      ctx.dispatch()
    },
  })
  t.is(ctx.prepareNs(), -1)
  put(right)
  while (bytes === 0) outer.poll()
  t.true(woken > 0)
  ctx.check()
  put(right)
  t.true(ctx.poll())
  t.is(bytes, 2)
  t.is(ctx.monitor, 'io_uring')
})

onEachRing('closing with handlers that are armed releases and counts them [SPEC 38, 44]', (t, kit, ring) => {
  const ctx = kit.context({ ring })
  const pairs = Array.from({ length: 3 }, () => kit.pair())
  for (const [left] of pairs) ctx.setFdHandler(left, { read: () => t.fail() })
  t.false(ctx.poll(false))
  ctx.setFdHandler(pairs[0]![0], { read: () => void ctx.close() })
  put(pairs[0]![1])
  t.true(ctx.poll())
  refuses(t, () => ctx.poll(), [], 'ERR_FDMON_CLOSED')
  t.is(kit.context({ ring }).close().handlers, 0)
})

/** The descriptors of all rings of this process. */
function ringFds(): string[] {
  return readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).includes('io_uring')
    } catch {
      return false // that of the listing itself
    }
  })
}

onEachRing('the mode says when completions appear [SPEC 44]', (t, kit, ring) => {
  const before = ringFds()
  const ctx = kit.context({ ring })
  const fd = ringFds().find((one) => !before.includes(one))
  const completions = (): string | undefined => /^CqTail:\s*(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))?.[1]
  const [left, right] = kit.pair()
  ctx.setFdHandler(left, { read: drain })
  t.false(ctx.poll(false)) // it is armed
  const armed = completions()
  put(right)
  const wait = ring.mode === 'deferred' || (ring.mode === 'auto' && features['ioUringDeferTaskrun'] === true)
  if (armed === undefined) {
    // Kernels that do not tell where the queue ends (5.10) have not the mode either that makes a difference.
    t.false(wait)
    t.true(ctx.poll())
    return
  }
  t.is(completions() === armed, wait)
  t.true(ctx.poll())
  t.not(completions(), armed)
})

test('a sandbox in which no ring can be restricted refuses that, and only that [SPEC 44] [SPEC 45]', (t) => {
  const source = `
    const { AioContext } = require(${JSON.stringify(createRequire(import.meta.url).resolve('fdmon'))})
    const tried = (options) => {
      try {
        const ctx = new AioContext(options)
        return { monitor: ctx.monitor, reason: ctx.monitorReason }
      } catch ({ code, message }) {
        return { code, message }
      }
    }
    const ring = { restricted: true }
    const monitor = 'io_uring'
    console.log(JSON.stringify({ free: tried({ monitor }), asked: tried({ monitor, ring }), auto: tried({ ring }) }))`
  const { stdout, stderr, status } = refusing(['io_uring_register=ENOSYS'], '-e', source)
  t.is(status, 0, stderr)
  const { free, asked, auto } = JSON.parse(stdout)
  t.is(free.monitor ?? 'none', rings ? 'io_uring' : 'none')
  t.is(asked.code, 'ERR_FDMON_UNSUPPORTED')
  t.is(auto.monitor, 'poll')
  if (features['ioUringRestrictions'] !== true) return
  t.is(auto.reason, 'auto: io_uring refused: ENOSYS (io_uring_register); poll below 64 fds')
  t.regex(asked.message, /ENOSYS: a sandbox hides it \(io_uring_register\); .*leave out ring.restricted, or use 'auto'$/)
})

test("with ring.mode 'off', auto does without a ring and says so [SPEC 44] [SPEC 45]", (t) => {
  if (overridden) {
    t.pass('FDMON_MONITOR decides; run without it')
    return
  }
  const kit = new Kit('poll')
  const ctx = kit.own(new AioContext({ ring: { mode: 'off' } }), (made) => made.close())
  t.is(ctx.monitor, 'poll')
  t.is(ctx.monitorReason, 'auto: io_uring is turned off by ring.mode; poll below 64 fds')
  let bytes = 0
  for (let i = 0; i < 64; i++) {
    const [left, right] = kit.pair()
    ctx.setFdHandler(left, { read: (fd) => void (bytes += drain(fd)) })
    put(right)
  }
  t.true(ctx.poll())
  t.is(bytes, 64)
  t.is(ctx.monitor, 'epoll')
  t.is(ctx.monitorReason, 'auto: io_uring is turned off by ring.mode; epoll from 64 fds on')
  kit.close()
})

test("asking for io_uring with ring.mode 'off' is refused [SPEC 13] [SPEC 45]", (t) => {
  for (const restricted of [false, true]) {
    const ring = { mode: 'off', restricted } as const
    refuses(t, () => new AioContext({ monitor: 'io_uring', ring }), ["monitor = 'io_uring' is refused", "ring.mode = 'off'", "'auto'"])
  }
})

test('monitors without a ring take no notice of what kind it would be [SPEC 44]', (t) => {
  for (const monitor of ['poll', 'epoll'] as const) {
    for (const mode of ['auto', 'deferred', 'cooperative', 'plain', 'off'] as const) {
      using ctx = new AioContext({ monitor, ring: { mode, restricted: true } })
      t.is(ctx.monitor, monitor)
    }
  }
})
