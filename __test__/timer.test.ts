// Timers.
// Tag: kernel
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { setImmediate as nextImmediate } from 'node:timers/promises'
import { Timer } from 'fdmon'
import { onEach, refuses } from './on-each.js'

onEach('a timer runs once and is never early [SPEC 39]', (t, kit) => {
  const ctx = kit.context()
  let ranAt = 0n
  const timer = ctx.timer(() => void (ranAt = process.hrtime.bigint()))
  const armedAt = process.hrtime.bigint()
  timer.arm(3_000_000)
  t.true(timer.pending)
  t.true(ctx.poll(true))
  t.true(ranAt - armedAt >= 3_000_000n)
  t.false(timer.pending)
  t.false(ctx.poll(false))
})

onEach('a deadline is on the clock of process.hrtime, and one in the past is due in the next turn [SPEC 39]', (t, kit) => {
  const ctx = kit.context()
  let runs = 0
  const timer = ctx.timer(() => void runs++)
  const deadline = process.hrtime.bigint() + 2_000_000n
  timer.armAt(deadline)
  ctx.pollUntil(() => runs === 1)
  t.true(process.hrtime.bigint() >= deadline)
  timer.armAt(0n)
  t.is(runs, 1)
  t.true(ctx.poll(false))
  t.is(runs, 2)
})

onEach('equal expiry keeps the order of arming [SPEC 39]', (t, kit) => {
  const ctx = kit.context()
  const order: number[] = []
  const deadline = process.hrtime.bigint() + 1_000_000n
  const timers = [...Array(100).keys()].map((name) => ctx.timer(() => void order.push(name)))
  for (const timer of timers) timer.armAt(deadline)
  ctx.pollUntil(() => order.length === 100)
  t.deepEqual(order, [...Array(100).keys()])
})

onEach('a callback may re-arm its timer; re-armed into the past it runs in the next turn [SPEC 39]', (t, kit) => {
  const ctx = kit.context()
  let runs = 0
  const timer = ctx.timer(() => {
    if (++runs < 3) timer.arm(0)
  })
  timer.arm(0)
  t.true(ctx.poll(true))
  t.is(runs, 1)
  t.true(timer.pending)
  t.true(ctx.poll(true))
  t.true(ctx.poll(true))
  t.is(runs, 3)
  t.false(timer.pending)
})

onEach('due timers are taken one by one, so an earlier callback can cancel a later one [SPEC 19]', (t, kit) => {
  const ctx = kit.context()
  const order: string[] = []
  const first = ctx.timer(() => void (order.push('first'), second.cancel()))
  const second = ctx.timer(() => void order.push('second'))
  first.arm(0)
  second.arm(0)
  ctx.poll(true)
  t.false(second.pending)
  t.false(ctx.poll(false))
  t.deepEqual(order, ['first'])
})

onEach('a cancelled timer does not run, does not wake the loop, and can be armed again [SPEC 39]', (t, kit) => {
  const ctx = kit.context()
  let runs = 0
  const timer = ctx.timer(() => void runs++)
  timer.arm(0)
  timer.cancel()
  t.false(timer.pending)
  t.false(ctx.poll(false))
  timer.arm(0n)
  t.true(ctx.poll(true))
  t.is(runs, 1)
})

onEach('armed again, a timer starts anew [SPEC 39]', (t, kit) => {
  const ctx = kit.context()
  let runs = 0
  const timer = ctx.timer(() => void runs++)
  timer.arm(0)
  timer.arm(3_600_000_000_000)
  t.false(ctx.poll(false))
  timer.arm(0)
  t.true(ctx.poll(false))
  t.is(runs, 1)
})

onEach('a timer that nobody holds still runs while it is pending, and is collected when it is not', async (t, kit) => {
  setFlagsFromString('--expose-gc')
  const gc = runInNewContext('gc') as () => void
  const ctx = kit.context()
  let runs = 0
  let dropped = new WeakRef({}) as WeakRef<object>
  ;(() => {
    const timer = ctx.timer(() => void runs++)
    timer.arm(1_000_000)
    dropped = new WeakRef(timer)
  })()
  await nextImmediate()
  gc()
  t.not(dropped.deref(), undefined)
  await nextImmediate()
  ctx.pollUntil(() => runs === 1)
  for (let round = 0; round < 20 && dropped.deref() !== undefined; round++) {
    await nextImmediate()
    gc()
  }
  t.is(dropped.deref(), undefined)
  await nextImmediate()
  t.is(ctx.close().timers, 0)
})

onEach('a disposed timer is not pending and refuses to be armed', (t, kit) => {
  const ctx = kit.context()
  const timer = ctx.timer(() => t.fail())
  timer.arm(0)
  timer[Symbol.dispose]()
  t.false(timer.pending)
  t.false(ctx.poll(false))
  refuses(t, () => timer.arm(0), ['ctx.timer'], 'ERR_FDMON_CLOSED')
  refuses(t, () => timer.armAt(0n), ['ctx.timer'], 'ERR_FDMON_CLOSED')
  t.notThrows(() => (timer.cancel(), timer[Symbol.dispose]()))
  refuses(t, () => new (Timer as any)(), ['ctx.timer'])
})

onEach('10,000 timers in any order run in the order of their deadlines [SPEC 39]', (t, kit) => {
  const ctx = kit.context()
  const start = process.hrtime.bigint()
  const ran: number[] = []
  for (let name = 0; name < 10_000; name++) {
    const delay = (name * 7919) % 10_000
    ctx.timer(() => void ran.push(delay)).armAt(start + BigInt(delay))
  }
  ctx.pollUntil(() => ran.length === 10_000)
  t.deepEqual(
    ran,
    ran.slice().sort((a, b) => a - b),
  )
})
