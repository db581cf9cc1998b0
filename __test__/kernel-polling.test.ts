// Spinning on the kernel's readiness of plain descriptors: poll: 'kernel'.
// Tag: kernel
import { execFileSync } from 'node:child_process'
import { closeSync, constants, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Events, type AioContext } from 'fdmon'
import { timerfd, write } from 'fdmon/fd'
import { drain, onEach, put, refuses, seesReadiness, settle, type Kit } from './on-each.js'

/** A member of the spin list that never hits; in its fifth round it does this. */
function inTheSpin(ctx: AioContext, kit: Kit, act: () => void): void {
  let first = true
  let rounds = 0
  ctx.setFdHandler(kit.notifier(), {
    poll: () => first || (rounds++ === 4 && (act(), false)),
    pollReady: () => void (first = false),
  })
  ctx.poll(false)
}

/** The reading end of a FIFO that another program could have opened, with a byte in it. */
function fifo(kit: Kit): number {
  const folder = kit.own(mkdtempSync(join(tmpdir(), 'fdmon-test-')), (path) => rmSync(path, { recursive: true }))
  const path = join(folder, 'fifo')
  execFileSync('mkfifo', [path])
  const reader = kit.own(openSync(path, constants.O_RDONLY | constants.O_NONBLOCK), closeSync)
  writeSync(kit.own(openSync(path, constants.O_WRONLY), closeSync), 'x')
  return reader
}

const ready = {
  socket(kit: Kit) {
    const [ours, theirs] = kit.pair()
    put(theirs)
    return ours
  },
  FIFO: fifo,
  timerfd: (kit: Kit) => kit.own(timerfd({ delayNs: 1 }), (timer) => timer.close()),
  eventfd(kit: Kit) {
    const notifier = kit.notifier()
    notifier.set()
    return notifier
  },
}

for (const kind of Object.keys(ready) as (keyof typeof ready)[]) {
  onEach(`the kernel's readiness is spun on, and a find needs no sleep: ${kind} [SPEC 30]`, (t, kit) => {
    const ctx = kit.spinningLong()
    const before = ctx.stats()
    let reads = 0
    ctx.setFdHandler(ready[kind](kit), {
      poll: 'kernel',
      read(fd, events) {
        t.true((events & Events.IN) !== 0)
        drain(fd)
        reads++
      },
    })
    t.true(ctx.poll(true))
    t.is(reads, 1)
    const after = ctx.stats()
    t.is(after.sleeps, before.sleeps)
    t.is(after.spinHits, before.spinHits + 1)
    t.is(after.events, before.events + 1)
    t.is(after.handlers[0]?.reads, 1)
    t.is(settle(ctx), 0)
  })
}

onEach('what becomes readable while it spins is found by the spin [SPEC 30]', (t, kit) => {
  const ctx = kit.spinningLong()
  const [ours, theirs] = kit.pair()
  let reads = 0
  ctx.setFdHandler(ours, { poll: 'kernel', read: (fd) => void (reads += drain(fd)) })
  inTheSpin(ctx, kit, () => put(theirs))
  const before = ctx.stats()
  while (reads === 0) ctx.poll(true)
  const after = ctx.stats()
  t.is(after.sleeps, before.sleeps)
  t.is(after.spinHits, before.spinHits + 1)
})

onEach('room to write is found by the spin, and interest can be dropped [SPEC 8, 30]', (t, kit) => {
  const ctx = kit.spinningLong()
  const [ours, theirs] = kit.pair()
  const block = new Uint8Array(65_536)
  while (write(ours, block) > 0);
  let writes = 0
  const registration = ctx.setFdHandler(ours, { poll: 'kernel', read() {}, write: () => void writes++ })
  inTheSpin(ctx, kit, () => {
    while (drain(theirs) > 0);
  })
  const { sleeps } = ctx.stats()
  while (writes === 0) ctx.poll(true)
  t.is(ctx.stats().sleeps, sleeps)
  registration.setInterest({ write: false })
  settle(ctx)
  const heard = writes
  put(theirs)
  ctx.poll(true)
  t.is(writes, heard)
})

onEach('a hang-up is found by the spin [SPEC 8, 30]', (t, kit) => {
  const ctx = kit.spinningLong()
  const [ours, theirs] = kit.pair()
  let seen = 0
  const registration = ctx.setFdHandler(ours, {
    poll: 'kernel',
    read(_, events) {
      seen |= events
      registration.remove()
    },
  })
  inTheSpin(ctx, kit, () => theirs.close())
  const { sleeps } = ctx.stats()
  while (seen === 0) ctx.poll(true)
  t.true((seen & Events.HUP) !== 0)
  t.is(ctx.stats().sleeps, sleeps)
})

onEach('with spinning off it waits in the kernel as any other [SPEC 30, 31]', (t, kit) => {
  const ctx = kit.spinningLong()
  const [ours, theirs] = kit.pair()
  let reads = 0
  ctx.setFdHandler(ours, { poll: 'kernel', read: (fd) => void (reads += drain(fd)) })
  ctx.setPollParams({ maxNs: 0 })
  const before = ctx.stats()
  for (let round = 1; round <= 3; round++) {
    put(theirs)
    while (reads < round) ctx.poll(true)
  }
  const after = ctx.stats()
  t.is(after.spinHits, before.spinHits)
  t.is(after.spinMisses, before.spinMisses)
  t.true(after.sleeps > before.sleeps)
})

onEach('beside a member with a predicate both are served [SPEC 24, 30]', (t, kit) => {
  const ctx = kit.spinningLong()
  const [ours, theirs] = kit.pair()
  let reads = 0
  let work = 1
  let hits = 0
  ctx.setFdHandler(ours, { poll: 'kernel', read: (fd) => void (reads += drain(fd)) })
  ctx.setFdHandler(kit.notifier(), { poll: () => work > 0, pollReady: () => void (work--, hits++) })
  ctx.poll(false)
  const { sleeps } = ctx.stats()
  for (let round = 1; round <= 20; round++) {
    work = 1
    ctx.poll(true)
    t.deepEqual([hits, reads], [round + 1, round - 1])
    put(theirs)
    ctx.poll(true)
    t.deepEqual([hits, reads], [round + 1, round])
  }
  t.is(ctx.stats().sleeps, sleeps)
})

onEach('a handler without poll turns it into waiting where readiness costs a system call [SPEC 9, 30]', (t, kit) => {
  const ctx = kit.spinningLong()
  const [ours, theirs] = kit.pair()
  const notifier = kit.notifier()
  let reads = 0
  ctx.setFdHandler(ours, { poll: 'kernel', read: (fd) => void (reads += drain(fd)) })
  ctx.setFdHandler(notifier, { read: () => void notifier.testAndClear() })
  const { spinHits } = ctx.stats()
  put(theirs)
  while (reads === 0) ctx.poll(true)
  const after = ctx.stats()
  const spins = seesReadiness(kit.monitor)
  t.is(after.spinHits - spinHits, spins ? 1 : 0)
  t.is(after.guard === null, spins, `${after.guard}`)
  ctx.setFdHandler(notifier, null)
  put(theirs)
  while (reads === 1) ctx.poll(true)
  t.is(ctx.stats().guard, null)
  t.is(ctx.stats().spinHits, after.spinHits + 1)
})

onEach('it takes no pollReady, and what else is not known is refused by name', (t, kit) => {
  const ctx = kit.context()
  const notifier = kit.notifier()
  const set = (handlers: unknown) => () => ctx.setFdHandler(notifier, handlers as { read(): void })
  refuses(t, set({ poll: 'kernel', read() {}, pollReady() {} }), ['handlers.pollReady'])
  refuses(t, set({ poll: 'kernel' }), ['handlers', 'read'])
  refuses(t, set({ poll: 'kernle', read() {}, pollReady() {} }), ['handlers.poll', 'kernle'])
})
