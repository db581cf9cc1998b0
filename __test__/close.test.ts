// The end of a context, and what it says about itself.
import { readdirSync, readlinkSync } from 'node:fs'
import { inspect } from 'node:util'
import { once } from 'node:events'
import test from 'ava'
import { AioContext } from 'fdmon'
import { ended, inWorker } from './in-worker.js'
import { drain, monitors, onEach, put, refuses } from './on-each.js'

onEach('close() releases what was alive and says how many [SPEC 38]', (t, kit) => {
  const ctx = kit.context()
  const [left, right] = kit.pair()
  ctx.setFdHandler(left, { read() {} })
  ctx.setFdHandler(right, { read() {} })
  ctx.setFdHandler(kit.notifier(), { read() {} }).remove()
  ctx.bottomHalf(() => {})
  ctx.bottomHalf(() => {}).delete()
  ctx.schedule(() => t.fail())
  ctx.timer(() => t.fail()).arm(1_000_000_000)
  ctx.timer(() => t.fail())
  t.deepEqual({ ...ctx.close() }, { handlers: 2, bottomHalves: 2, timers: 1, io: 0 })
})

onEach('closing again does nothing, and a clean context leaks nothing [SPEC 38]', (t, kit) => {
  const ctx = kit.context()
  ctx.schedule(() => {})
  ctx.poll(false)
  const nothing = { handlers: 0, bottomHalves: 0, timers: 0, io: 0 }
  t.deepEqual({ ...ctx.close() }, nothing)
  t.deepEqual({ ...ctx.close() }, nothing)
  t.notThrows(() => ctx[Symbol.dispose]())
})

onEach('close() inside a callback stops all further callbacks at once [SPEC 38]', (t, kit) => {
  const ctx = kit.context()
  let calls = 0
  for (let count = 0; count < 10; count++) {
    const [left, right] = kit.pair()
    ctx.setFdHandler(left, {
      read() {
        calls++
        t.is(ctx.close().handlers, 10)
      },
      write: () => void calls++,
    })
    put(right)
  }
  ctx.timer(() => void calls++).arm(0)
  const half = ctx.bottomHalf(() => {})
  half.schedule()
  t.true(ctx.poll(true))
  t.is(calls, 1)
  refuses(t, () => ctx.poll(false), ['context', 'new AioContext'], 'ERR_FDMON_CLOSED')
})

onEach('close() inside a nested turn unwinds the outer ones [SPEC 38]', (t, kit) => {
  const ctx = kit.context()
  const order: string[] = []
  ctx.schedule(() => {
    ctx.schedule(() => void (order.push('closing'), ctx.close()))
    ctx.run()
    order.push('outer goes on')
    t.throws(() => ctx.poll(false), { code: 'ERR_FDMON_CLOSED' })
  })
  ctx.schedule(() => void order.push('never'))
  t.notThrows(() => ctx.poll(true))
  t.deepEqual(order.slice(0, 1), order.includes('never') ? ['never'] : ['closing'])
  t.true(order.includes('outer goes on'))
})

onEach('close() inside a predicate or a hook ends the turn', (t, kit) => {
  for (const where of ['poll', 'pollBegin', 'pollEnd'] as const) {
    const ctx = kit.spinning()
    const notifier = kit.notifier()
    let work = 3
    const close = (at: string): void => {
      if (at === where) ctx.close()
    }
    ctx.setFdHandler(notifier, {
      poll: () => (close('poll'), work > 0),
      pollReady: () => void work--,
      pollBegin: () => close('pollBegin'),
      pollEnd: () => close('pollEnd'),
    })
    t.notThrows(() => {
      for (let turn = 0; turn < 5; turn++) {
        try {
          if (turn < 2) ctx.poll(true)
          else ctx.suspend()
        } catch (error) {
          t.is((error as any).code, 'ERR_FDMON_CLOSED')
          return
        }
      }
    })
    refuses(t, () => ctx.poll(false), [], 'ERR_FDMON_CLOSED')
  }
})

onEach('every method of a closed context is refused, and tokens do nothing', (t, kit) => {
  const ctx = kit.context()
  const notifier = kit.notifier()
  const registration = ctx.setFdHandler(notifier, { read() {} })
  const half = ctx.bottomHalf(() => {})
  const timer = ctx.timer(() => {})
  timer.arm(1_000_000)
  const { monitor } = ctx
  ctx.close()
  const calls = [
    () => ctx.setFdHandler(notifier, { read() {} }),
    () => ctx.setFdHandler(notifier, null),
    () => ctx.setEventNotifier(notifier, { read() {} }),
    () => ctx.poll(),
    () => ctx.pollUntil(() => true),
    () => ctx.run(),
    () => ctx.stop(),
    () => ctx.suspend(),
    () => ctx.schedule(() => {}),
    () => ctx.bottomHalf(() => {}),
    () => ctx.timer(() => {}),
    () => ctx.notify(),
    () => ctx.setPollParams({}),
    () => ctx.setAioParams({}),
    () => ctx.disableExternal(),
    () => ctx.enableExternal(),
    () => ctx.stats(),
    () => half.schedule(),
    () => half.scheduleIdle(),
    () => timer.arm(1),
    () => timer.armAt(1n),
  ]
  for (const call of calls) refuses(t, call, ['create a new AioContext'], 'ERR_FDMON_CLOSED')
  t.notThrows(() => {
    registration.setInterest({ read: false })
    registration.remove()
    half.cancel()
    half.delete()
    timer.cancel()
    timer[Symbol.dispose]()
  })
  t.false(timer.pending)
  t.is(ctx.monitor, monitor)
  t.is(typeof ctx.monitorReason, 'string')
})

onEach('console.log(ctx) shows the monitor, why, the handlers and the mode', (t, kit) => {
  const ctx = kit.context({ name: 'shown' })
  ctx.setFdHandler(kit.notifier(), { read() {} })
  const text = inspect(ctx)
  for (const word of ['AioContext', "'shown'", `monitor: '${kit.monitor}'`, 'reason:', 'handlers: 1', "mode: 'idle'"]) {
    t.true(text.includes(word), text)
  }
  ctx.schedule(() => t.true(inspect(ctx).includes("mode: 'running'")))
  ctx.poll(false)
  ctx.close()
  t.true(inspect(ctx).includes("mode: 'closed'"))
  t.true(inspect({ ctx }, { depth: 0 }).includes('[AioContext]'))
})

onEach('statistics count turns, waits and callbacks [SPEC 53]', (t, kit) => {
  const ctx = kit.context()
  const [left, right] = kit.pair()
  ctx.setFdHandler(left, { read: (fd) => void drain(fd) })
  for (let round = 0; round < 3; round++) {
    put(right)
    ctx.poll(true)
  }
  ctx.poll(false)
  const stats = ctx.stats()
  t.is(stats.monitor, kit.monitor)
  t.is(stats.monitorReason, ctx.monitorReason)
  t.is(stats.turns, 4)
  t.is(stats.events, 3)
  t.is(stats.windowNs, 0)
  t.is(stats.guard, null)
  t.deepEqual(
    stats.handlers.map(({ fd, reads, writes }) => ({ fd, reads, writes })),
    [{ fd: left.fd, reads: 3, writes: 0 }],
  )
  const numbers = ['waits', 'sleeps', 'spinHits', 'spinMisses', 'spinNs', 'spinWastedNs', 'notifiesSent', 'notifiesElided', 'submissions', 'completions', 'batchMax'] as const
  for (const name of numbers) t.is(typeof stats[name], 'number', name)
})

test('a context that is dropped with handlers and never ran gives a warning', async (t) => {
  const worker = inWorker(
    `require('node:v8').setFlagsFromString('--expose-gc')
     const gc = require('node:vm').runInNewContext('gc')
     process.on('warning', (warning) => parentPort.postMessage({ code: warning.code, message: warning.message }))
     const notifier = new fdmon.EventNotifier()
     ;(() => { new fdmon.AioContext({ name: 'forgotten' }).setFdHandler(notifier, { read() {} }) })()
     ;(() => { new fdmon.AioContext({ name: 'ran' }).poll(false) })()
     let rounds = 0
     const timer = setInterval(() => { gc(); if (rounds++ > 20) clearInterval(timer) }, 1)`,
  )
  const [warning] = await once(worker, 'message')
  t.is(warning.code, 'FDMON_NEVER_RAN')
  t.true(warning.message.includes("'forgotten'"))
  await ended(worker)
})

test('contexts that are dropped are collected, with all they held', async (t) => {
  const worker = inWorker(
    `require('node:v8').setFlagsFromString('--expose-gc')
     const gc = require('node:vm').runInNewContext('gc')
     const words = new Int32Array(new SharedArrayBuffer(64))
     const fds = () => require('node:fs').readdirSync('/proc/self/fd').length
     const ids = []
     const make = () => {
       const ctx = new fdmon.AioContext()
       const notifier = new fdmon.EventNotifier()
       ctx.setFdHandler(notifier, { poll: { memory: words, index: 0, notEqual: 0, suppress: { index: 1 } }, pollReady: () => ctx })
       ctx.timer(() => ctx).arm(1e12)
       ctx.bottomHalf(() => ctx).schedule()
       ctx.poll(false)
       ids.push(ctx.id)
       notifier.close()
     }
     make()
     const alive = () => ids.filter((id) => { try { fdmon.AioContext.remote(id); return true } catch { return false } }).length
     let rounds = 0
     const timer = setInterval(() => {
       gc()
       if (alive() > 0 && rounds++ < 100) return
       clearInterval(timer)
       parentPort.postMessage(alive())
     }, 1)`,
  )
  const [alive] = await once(worker, 'message')
  t.is(alive, 0)
  await ended(worker)
})

test('a context without a name is called by its id', (t) => {
  using ctx = new AioContext()
  t.is(ctx.name, `context-${ctx.id}`)
  using named = new AioContext({ name: 'mine' })
  t.is(named.name, 'mine')
})

onEach('a hook that uses the context while it is being closed gets a clear error, which close() throws', (t, kit) => {
  const ctx = kit.spinning()
  const notifier = kit.notifier()
  let work = 2
  ctx.setFdHandler(notifier, {
    poll: () => work > 0,
    pollReady: () => void work--,
    pollEnd: () => void ctx.setFdHandler(notifier, { read() {} }),
  })
  while (work > 0) ctx.poll(true)
  refuses(t, () => ctx.close(), ['new AioContext'], 'ERR_FDMON_CLOSED')
  t.deepEqual({ ...ctx.close() }, { handlers: 0, bottomHalves: 0, timers: 0, io: 0 })
})

// Serial, which is before all others: their workers open and close descriptors of the same process.
for (const monitor of monitors) {
  test.serial(`${monitor}: a closed context holds no descriptor, although the object lives`, (t) => {
    const loops = (): string[] => readdirSync('/proc/self/fd').flatMap((fd) => {
      try {
        return [`${fd} ${readlinkSync(`/proc/self/fd/${fd}`)}`]
      } catch {
        return [] // the descriptor of the listing itself
      }
    }).filter((name) => /eventfd|eventpoll|timerfd/.test(name))
    const before = loops()
    const contexts = Array.from({ length: 20 }, () => new AioContext({ monitor }))
    for (const ctx of contexts) {
      t.true(ctx.backendFd >= 0)
      ctx.poll(false)
    }
    t.true(loops().length >= before.length + 40)
    for (const ctx of contexts) ctx.close()
    t.deepEqual(loops(), before)
  })
}
