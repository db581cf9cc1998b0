// The policies that set the spin window, as a program chooses them and sees what they do. Their rules are tested beside the core.
import type { AioContext } from 'fdmon'
import { onEach } from './on-each.js'

/** Turns that sleep for a millisecond and are timed out of it, so many; a turn whose thread had to wait for a CPU has none left to sleep, and is not one. */
function sleep(ctx: AioContext, turns: number): void {
  const until = ctx.stats().sleeps + turns
  using timer = ctx.timer(() => {})
  while (ctx.stats().sleeps < until) {
    if (!timer.pending) timer.arm(1_000_000)
    ctx.poll(true)
  }
}

onEach('a fixed window is the longest one, whatever comes [SPEC 27]', (t, kit) => {
  const ctx = kit.context({ poll: { maxNs: 20_000, policy: 'fixed', guards: false } })
  let misses = 0
  for (let slept = 0; slept < 3; ) {
    const before = ctx.stats()
    sleep(ctx, 1)
    const after = ctx.stats()
    if (after.turns !== before.turns + 1) continue // one before it did not sleep, for want of a CPU
    slept++
    misses += after.spinMisses - before.spinMisses
  }
  const { windowNs, spinWastedNs } = ctx.stats()
  t.is(windowNs, 20_000)
  t.is(misses, 3)
  t.true(spinWastedNs >= 3 * 20_000)
})

onEach('events that come late are not spun for, and what a wake-up takes is shown where it is taken off [SPEC 27]', (t, kit) => {
  for (const policy of ['classic', 'handler', 'cost'] as const) {
    const ctx = kit.context({ poll: { maxNs: 20_000, policy, guards: false } })
    sleep(ctx, 10)
    const { windowNs, spinMisses, wakeUpNs } = ctx.stats()
    t.is(windowNs, 0, policy)
    t.is(spinMisses, 0, policy)
    t.is(wakeUpNs > 0, policy !== 'classic', policy)
  }
})

onEach("without a policy it is 'cost', and a change of parameters begins anew [SPEC 27] [SPEC 31]", (t, kit) => {
  const ctx = kit.context({ poll: { maxNs: 20_000, guards: false } })
  sleep(ctx, 1)
  t.true(ctx.stats().wakeUpNs > 0)
  ctx.setPollParams({ policy: 'fixed' })
  sleep(ctx, 1)
  t.is(ctx.stats().windowNs, 20_000)
  ctx.setPollParams({ policy: 'cost' })
  sleep(ctx, 2)
  t.is(ctx.stats().windowNs, 0)
})

onEach('a budget that is used up is the reason why it does not spin [SPEC 28] [SPEC 53]', (t, kit) => {
  const ctx = kit.context({ poll: { maxNs: 500_000, policy: 'fixed', cpuBudget: 0.001, guards: false } })
  sleep(ctx, 3) // a bucket of 100 µs is spun in vain by the first of them
  t.is(ctx.stats().guard, 'the CPU budget is used up')
  ctx.setPollParams({ cpuBudget: 1 })
  sleep(ctx, 1)
  t.is(ctx.stats().guard, null)
})
