// Loops of turns, how they end, and turn().
import { drain, onEach, put, refuses } from './on-each.js'

onEach('run() takes turns until stop()', (t, kit) => {
  const ctx = kit.context()
  let runs = 0
  const half = ctx.bottomHalf(() => (++runs === 5 ? ctx.stop() : half.schedule()))
  half.schedule()
  ctx.run()
  t.is(runs, 5)
})

onEach('stop() without a loop ends the next one, and only that', (t, kit) => {
  const ctx = kit.context()
  let runs = 0
  ctx.schedule(() => void (runs++, ctx.stop()))
  ctx.stop()
  ctx.run()
  t.is(runs, 0)
  ctx.run()
  t.is(runs, 1)
})

onEach('a stop ends the loops of every level of nesting', (t, kit) => {
  const ctx = kit.context()
  const order: string[] = []
  ctx.schedule(() => {
    ctx.schedule(() => {
      ctx.stop()
      ctx.pollUntil(() => false)
      order.push('inner')
    })
    ctx.run()
    order.push('middle')
  })
  ctx.run()
  order.push('outer')
  t.deepEqual(order, ['inner', 'middle', 'outer'])
  let runs = 0
  ctx.schedule(() => void runs++)
  ctx.pollUntil(() => runs === 1)
  t.is(runs, 1)
})

onEach('pollUntil() asks before each turn, and takes none when the condition holds', (t, kit) => {
  const ctx = kit.context()
  ctx.pollUntil(() => true)
  t.is(ctx.stats().turns, 0)
  let runs = 0
  const half = ctx.bottomHalf(() => void (++runs < 3 && half.schedule()))
  half.schedule()
  ctx.pollUntil(() => runs === 3)
  t.is(ctx.stats().turns, 3)
})

onEach('an exception of the condition ends pollUntil(), and a promise is refused', (t, kit) => {
  const ctx = kit.context()
  t.throws(
    () =>
      ctx.pollUntil(() => {
        throw new RangeError('condition')
      }),
    { instanceOf: RangeError },
  )
  refuses(t, () => ctx.pollUntil((async () => true) as any), ['condition', 'async'])
})

onEach('an exception of a callback ends run(), which can be called again [SPEC 21]', (t, kit) => {
  const ctx = kit.context()
  ctx.schedule(() => {
    throw new RangeError('once')
  })
  t.throws(() => ctx.run(), { instanceOf: RangeError })
  ctx.schedule(() => ctx.stop())
  t.notThrows(() => ctx.run())
})

onEach('run({ forNs }) ends when the time is over, also without any event', (t, kit) => {
  const ctx = kit.context()
  const since = process.hrtime.bigint()
  ctx.run({ forNs: 2_000_000 })
  t.true(process.hrtime.bigint() - since >= 2_000_000n)
  ctx.run({ forNs: 0n })
  t.is(ctx.close().timers, 0)
})

onEach('run({ signal }) ends when a callback aborts the signal, and at once when it was', (t, kit) => {
  const ctx = kit.context()
  const controller = new AbortController()
  let runs = 0
  const half = ctx.bottomHalf(() => void (++runs === 3 ? controller.abort() : half.schedule()))
  half.schedule()
  ctx.run({ signal: controller.signal })
  t.is(runs, 3)
  const turns = ctx.stats().turns
  ctx.run({ signal: controller.signal })
  t.is(ctx.stats().turns, turns)
})

onEach('run() ends when a callback closes the context', (t, kit) => {
  const ctx = kit.context()
  ctx.schedule(() => void ctx.close())
  ctx.run()
  refuses(t, () => ctx.run(), [], 'ERR_FDMON_CLOSED')
})

onEach('no promise reaction runs inside poll()', async (t, kit) => {
  const ctx = kit.context()
  let reactions = 0
  ctx.schedule(() => void Promise.resolve().then(() => void reactions++))
  ctx.schedule(() => t.is(reactions, 0))
  ctx.poll(true)
  t.is(reactions, 0)
  await Promise.resolve()
  t.is(reactions, 1)
})

onEach('turn() takes one turn and lets Node run before it is fulfilled', async (t, kit) => {
  const ctx = kit.context()
  const [left, right] = kit.pair()
  ctx.setFdHandler(left, { read: (fd) => void drain(fd) })
  put(right)
  let immediate = false
  setImmediate(() => void (immediate = true))
  t.true(await ctx.turn())
  t.true(immediate)
  ctx.schedule(() => {
    throw new RangeError('in a turn')
  })
  await t.throwsAsync(() => ctx.turn(), { instanceOf: RangeError })
  const reason = new Error('over')
  t.is(await t.throwsAsync(() => ctx.turn({ signal: AbortSignal.abort(reason) })), reason)
})
