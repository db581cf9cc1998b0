// Bottom halves, and one-shot callbacks of schedule().
import { AioContext, BottomHalf } from 'fdmon'
import { onEach, refuses } from './on-each.js'

onEach('a bottom half never runs inline, and runs once however often it was scheduled [SPEC 36]', (t, kit) => {
  const ctx = kit.context()
  let runs = 0
  const half = ctx.bottomHalf(() => void runs++)
  half.schedule()
  half.schedule()
  t.is(runs, 0)
  t.true(ctx.poll(true))
  t.is(runs, 1)
  t.false(ctx.poll(false))
})

onEach('bottom halves run in the order in which they were scheduled [SPEC 20]', (t, kit) => {
  const ctx = kit.context()
  const order: number[] = []
  const halves = [0, 1, 2, 3].map((name) => ctx.bottomHalf(() => void order.push(name)))
  for (const name of [2, 0, 3, 1, 0]) halves[name]?.schedule()
  ctx.poll(false)
  t.deepEqual(order, [2, 0, 3, 1])
})

onEach('one that schedules itself or another runs in the next turn [SPEC 36]', (t, kit) => {
  const ctx = kit.context()
  const order: string[] = []
  const other = ctx.bottomHalf(() => void order.push('other'))
  const self = ctx.bottomHalf(() => {
    order.push('self')
    if (order.length === 1) {
      self.schedule()
      other.schedule()
    }
  })
  self.schedule()
  ctx.poll(true)
  t.deepEqual(order, ['self'])
  ctx.poll(true)
  t.deepEqual(order, ['self', 'self', 'other'])
})

onEach('a cancelled bottom half does not run and can be scheduled again [SPEC 36]', (t, kit) => {
  const ctx = kit.context()
  let runs = 0
  const half = ctx.bottomHalf(() => void runs++)
  half.schedule()
  half.cancel()
  t.false(ctx.poll(false))
  half.schedule()
  t.true(ctx.poll(false))
  t.is(runs, 1)
})

onEach('a bottom half cancelled by an earlier one of the same turn does not run [SPEC 36]', (t, kit) => {
  const ctx = kit.context()
  let runs = 0
  const second = ctx.bottomHalf(() => void runs++)
  ctx.schedule(() => second.cancel())
  second.schedule()
  ctx.poll(false)
  t.false(ctx.poll(false))
  t.is(runs, 0)
})

onEach('a bottom half is deleted in its own callback, and then refuses to be scheduled [SPEC 36]', (t, kit) => {
  const ctx = kit.context()
  const half: BottomHalf = ctx.bottomHalf(() => half.delete())
  half.schedule()
  t.true(ctx.poll(false))
  refuses(t, () => half.schedule(), ['ctx.bottomHalf'], 'ERR_FDMON_CLOSED')
  t.notThrows(() => (half.cancel(), half.delete(), half[Symbol.dispose]()))
  t.is(ctx.close().bottomHalves, 0)
})

onEach('an idle bottom half is no progress, and ends no wait before 10 ms are over [SPEC 36]', (t, kit) => {
  const ctx = kit.context()
  let runs = 0
  const half = ctx.bottomHalf(() => void runs++)
  half.scheduleIdle()
  t.false(ctx.poll(false) && runs === 0)
  for (let turn = 0; turn < 100 && runs === 0; turn++) {
    const timer = ctx.timer(() => {})
    timer.arm(50_000_000)
    ctx.poll(true)
    timer[Symbol.dispose]()
  }
  t.is(runs, 1)
})

onEach('schedule() overrides an earlier scheduleIdle() [SPEC 36]', (t, kit) => {
  const ctx = kit.context()
  let runs = 0
  const half = ctx.bottomHalf(() => void runs++)
  half.scheduleIdle()
  half.schedule()
  t.true(ctx.poll(false))
  t.is(runs, 1)
})

onEach('1,000 one-shot callbacks run once each, in order, and leave nothing behind [SPEC 36]', (t, kit) => {
  const ctx = kit.context()
  for (let round = 0; round < 3; round++) {
    const order: number[] = []
    for (let name = 0; name < 1000; name++) ctx.schedule(() => void order.push(name))
    let turns = 0
    while (order.length < 1000 && turns++ < 10) ctx.poll(false)
    t.is(turns, 1)
    t.deepEqual(order, [...Array(1000).keys()])
  }
  t.false(ctx.poll(false))
  t.is(ctx.close().bottomHalves, 0)
})

onEach('a bottom half has a number by which a remote schedules it', (t, kit) => {
  const ctx = kit.context()
  let runs = 0
  const half = ctx.bottomHalf(() => void runs++)
  t.true(Number.isSafeInteger(half.id))
  const remote = AioContext.remote(ctx.id)
  remote.schedule(half.id)
  remote.schedule(half.id)
  t.true(ctx.poll(true))
  t.is(runs, 1)
  half.delete()
  refuses(t, () => remote.schedule(half.id), [String(half.id)])
})

onEach('bottom halves cannot be made without a context', (t) => {
  refuses(t, () => new (BottomHalf as any)(), ['ctx.bottomHalf'])
})

onEach('a callback may make more of everything than there was room for', (t, kit) => {
  const ctx = kit.context()
  let runs = 0
  ctx.schedule(() => {
    for (let count = 0; count < 1000; count++) {
      ctx.bottomHalf(() => void runs++).schedule()
      ctx.timer(() => void runs++).arm(0)
      ctx.schedule(() => void runs++)
    }
  })
  ctx.schedule(() => void runs++)
  ctx.poll(false)
  t.is(runs, 1)
  while (ctx.poll(false));
  t.is(runs, 3001)
})
