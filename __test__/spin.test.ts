// Spinning: predicates, begin and end, and what a hit runs. Words are tested in words.test.ts.
import type { FdmonError } from 'fdmon';
import { Events } from 'fdmon'
import { drain, onEach, put, refuses } from './on-each.js'

onEach('a hit runs pollReady, and no wait is needed to find it [SPEC 22] [SPEC 24]', (t, kit) => {
  const ctx = kit.spinning()
  const notifier = kit.notifier()
  let work = 1
  let hits = 0
  ctx.setFdHandler(notifier, {
    poll: () => work > 0,
    pollReady() {
      hits++
      work--
    },
    read: () => void notifier.testAndClear(),
  })
  t.true(ctx.poll(true))
  t.is(hits, 1)
  t.is(ctx.stats().sleeps, 0)
  t.is(ctx.stats().handlers[0]?.pollHits, 1)
})

onEach('a predicate gets the fd and is called on its handlers object', (t, kit) => {
  const ctx = kit.spinning()
  const notifier = kit.notifier()
  const seen: unknown[] = []
  const handlers = {
    ready: true,
    poll(fd: number): boolean {
      seen.push(fd)
      return this.ready
    },
    pollReady(fd: number): void {
      seen.push(fd)
      this.ready = false
    },
  }
  const registered = { poll: handlers.poll, pollReady: handlers.pollReady, ready: true }
  refuses(t, () => ctx.setFdHandler(notifier, registered), ['handlers.ready', 'remove it'])
  class Source {
    ready = true
    poll = handlers.poll
    pollReady = handlers.pollReady
  }
  ctx.setFdHandler(notifier, new Source())
  ctx.poll(true)
  t.deepEqual(seen.slice(-1), [notifier.fd])
  t.true(seen.every((fd) => fd === notifier.fd))
})

onEach('the predicate of a handler that was just added runs before any sleep [SPEC 22]', (t, kit) => {
  const ctx = kit.context() // spinning is off
  const notifier = kit.notifier()
  let hits = 0
  ctx.setFdHandler(notifier, { poll: () => hits === 0, pollReady: () => void hits++ })
  t.true(ctx.poll(true))
  t.is(hits, 1)
  t.is(ctx.stats().sleeps, 0)
})

onEach('begin and end are balanced when spin mode is left by suspend() [SPEC 25]', (t, kit) => {
  const ctx = kit.spinning()
  const notifier = kit.notifier()
  const order: string[] = []
  let work = 3
  ctx.setFdHandler(notifier, {
    poll: () => work > 0,
    pollReady: () => void work--,
    pollBegin: () => void order.push('begin'),
    pollEnd: () => void order.push('end'),
  })
  while (work > 0) ctx.poll(true)
  ctx.poll(false)
  t.deepEqual(order, ['begin'])
  ctx.suspend()
  t.deepEqual(order, ['begin', 'end'])
  ctx.suspend()
  t.deepEqual(order, ['begin', 'end'])
})

onEach('run() leaves spin mode when it ends [SPEC 25]', (t, kit) => {
  const ctx = kit.spinning()
  const notifier = kit.notifier()
  let begun = 0
  let work = 5
  ctx.setFdHandler(notifier, {
    poll: () => work > 0,
    pollReady() {
      if (--work === 0) ctx.stop()
    },
    pollBegin: () => void begun++,
    pollEnd: () => void begun--,
  })
  ctx.run()
  t.is(begun, 0)
})

for (const how of ['remove', 'replace', 'close', 'disable', 'maxNs 0'] as const) {
  onEach(`a begun handler gets its pollEnd at: ${how} [SPEC 11] [SPEC 25]`, (t, kit) => {
    const ctx = kit.spinning()
    const notifier = kit.notifier()
    const order: string[] = []
    let work = 2
    const registration = ctx.setFdHandler(notifier, {
      poll: () => work > 0,
      pollReady: () => void work--,
      pollBegin: () => void order.push('begin'),
      pollEnd: () => void order.push('end'),
      external: how === 'disable',
    })
    while (work > 0) ctx.poll(true)
    ctx.poll(false)
    t.deepEqual(order, ['begin'])
    if (how === 'remove') registration.remove()
    if (how === 'replace') ctx.setFdHandler(notifier, { read() {} })
    if (how === 'close') ctx.close()
    if (how === 'disable') ctx.disableExternal()
    if (how === 'maxNs 0') {
      ctx.setPollParams({ maxNs: 0 })
      ctx.poll(false)
    }
    t.deepEqual(order, ['begin', 'end'])
  })
}

onEach('a hit together with readable data runs read instead of pollReady [SPEC 24]', (t, kit) => {
  const ctx = kit.context()
  const [left, right] = kit.pair()
  const order: string[] = []
  let waiting = true
  ctx.setFdHandler(left, {
    poll: () => waiting,
    pollReady: () => void (order.push('pollReady'), (waiting = false)),
    read: (fd, events) => void (order.push(`read ${events & Events.IN}`), drain(fd), (waiting = false)),
  })
  put(right)
  while (ctx.poll(false));
  t.is(order.length, 1, order.join())
})

onEach('a predicate that throws is no hit, ends the spin and is reported after the callbacks [SPEC 21]', (t, kit) => {
  const ctx = kit.spinning()
  const notifier = kit.notifier()
  const [left, right] = kit.pair()
  let bad = true
  let reads = 0
  ctx.setFdHandler(left, { read: (fd) => void (reads++, drain(fd)) })
  ctx.setFdHandler(notifier, {
    poll() {
      if (!bad) return false
      bad = false
      throw new RangeError('from the predicate')
    },
    pollReady() {},
  })
  put(right)
  t.throws(() => ctx.poll(true), { instanceOf: RangeError, message: 'from the predicate' })
  while (ctx.poll(false));
  t.is(reads, 1)
})

onEach('a predicate that returns a promise is refused with what to do', (t, kit) => {
  const ctx = kit.context()
  const notifier = kit.notifier()
  const registration = ctx.setFdHandler(notifier, {
    poll: (async () => true) as unknown as () => boolean,
    pollReady() {},
  })
  refuses(t, () => ctx.poll(false), ['handlers.poll', 'Promise', 'async'])
  registration.remove()
})

for (const how of ['remove', 'replace', 'close', 'disable', 'maxNs 0'] as const) {
  for (const where of ['pollBegin', 'poll'] as const) {
    onEach(`a begun handler gets its pollEnd at: ${how}, also when its own ${where} does it [SPEC 11] [SPEC 25]`, (t, kit) => {
      const ctx = kit.spinning()
      const notifier = kit.notifier()
      const order: string[] = []
      const act = (from: string): void => {
        if (from !== where || order.includes(how)) return
        order.push(how)
        if (how === 'remove') ctx.setFdHandler(notifier, null)
        if (how === 'replace') ctx.setFdHandler(notifier, { read() {} })
        if (how === 'close') ctx.close()
        if (how === 'disable') ctx.disableExternal()
        if (how === 'maxNs 0') ctx.setPollParams({ maxNs: 0 })
      }
      ctx.setFdHandler(notifier, {
        read: () => void notifier.testAndClear(),
        poll() {
          if (order.length > 0) act('poll')
          return false
        },
        pollReady() {},
        pollBegin() {
          order.push('begin')
          act('pollBegin')
        },
        pollEnd: () => void order.push('end'),
        external: true,
      })
      notifier.set()
      ctx.poll(true) // joins the spin list
      for (let turn = 0; turn < 2 && !order.includes(how); turn++) {
        ctx.timer(() => {}).arm(1_000_000)
        try {
          ctx.poll(true)
        } catch (error) {
          t.is((error as FdmonError).code, 'ERR_FDMON_CLOSED')
        }
      }
      t.deepEqual(order, ['begin', how, 'end'])
    })
  }
}

for (const hook of ['pollBegin', 'pollEnd'] as const) {
  onEach(`a handler that a ${hook} registers is asked before the sleep of the same turn [SPEC 22]`, (t, kit) => {
    const ctx = kit.spinning({ maxNs: 2_000_000, grow: 1_000_000 })
    const [first, second] = [kit.notifier(), kit.notifier()]
    let hits = 0
    ctx.setFdHandler(first, {
      read: () => void first.testAndClear(),
      poll: () => false,
      pollReady() {},
      [hook]() {
        if (hits === 0) ctx.setFdHandler(second, { poll: () => hits === 0, pollReady: () => void hits++ })
      },
    })
    first.set()
    ctx.poll(true)
    let late = false
    ctx.timer(() => void (late = true)).arm(5_000_000_000)
    ctx.pollUntil(() => late || hits !== 0)
    t.is(hits, 1)
    t.false(late)
  })
}

onEach('what came while producers were told not to signal is not lost when a pollEnd turns spinning off [SPEC 25] [SPEC 31]', (t, kit) => {
  const ctx = kit.spinning({ maxNs: 2_000_000, grow: 1_000_000 })
  const bells = [kit.notifier(), kit.notifier()]
  const ready = [false, false]
  let off = false
  let hits = 0
  for (const [index, bell] of bells.entries()) {
    bell.set()
    ctx.setFdHandler(bell, {
      read: () => void bell.testAndClear(),
      poll: () => ready[index]!,
      pollReady() {
        hits++
        ready[index] = false
      },
      pollEnd() {
        if (!off) return
        off = false
        ready.fill(true)
        ctx.setPollParams({ maxNs: 0 })
      },
    })
  }
  ctx.poll(true)
  for (let turn = 0; turn < 5; turn++) {
    ctx.timer(() => {}).arm(1000) // the window grows
    ctx.poll(true)
  }
  off = true
  let late = false
  ctx.timer(() => void (late = true)).arm(5_000_000_000)
  ctx.pollUntil(() => late || hits === 2)
  t.false(off)
  t.is(hits, 2)
  t.false(late)
})

onEach('an exception in pollBegin or pollEnd does not unbalance them [SPEC 21] [SPEC 25]', (t, kit) => {
  const ctx = kit.spinning()
  const notifier = kit.notifier()
  let begun = 0
  let work = 2
  ctx.setFdHandler(notifier, {
    poll: () => work > 0,
    pollReady: () => void work--,
    pollBegin() {
      begun++
      throw new Error('begin')
    },
    pollEnd() {
      begun--
      throw new Error('end')
    },
  })
  const errors: string[] = []
  const keep = (call: () => unknown): void => {
    try {
      call()
    } catch (error) {
      errors.push(error instanceof AggregateError ? error.errors.map(String).join() : String(error))
    }
  }
  while (work > 0) keep(() => ctx.poll(true))
  keep(() => ctx.poll(false))
  keep(() => ctx.suspend())
  t.is(begun, 0)
  t.true(errors.some((error) => error.includes('begin')))
  t.true(errors.some((error) => error.includes('end')))
})

onEach('a predicate cannot run a turn of its own context', (t, kit) => {
  const ctx = kit.context()
  const notifier = kit.notifier()
  let once = true
  ctx.setFdHandler(notifier, {
    poll() {
      if (once) {
        once = false
        ctx.poll(false)
      }
      return false
    },
    pollReady() {},
  })
  refuses(t, () => ctx.poll(false), ['poll()'], 'ERR_FDMON_IN_USE')
})

onEach('a predicate that removes its own handler is not asked again', (t, kit) => {
  const ctx = kit.spinning()
  const notifier = kit.notifier()
  let asked = 0
  ctx.setFdHandler(notifier, {
    poll() {
      asked++
      ctx.setFdHandler(notifier, null)
      return true
    },
    pollReady: () => t.fail(),
  })
  ctx.poll(false)
  ctx.poll(false)
  t.is(asked, 1)
})

onEach('stop() in a predicate ends the loop without a sleep', (t, kit) => {
  const ctx = kit.spinning()
  const notifier = kit.notifier()
  let asked = 0
  ctx.setFdHandler(notifier, {
    poll() {
      if (++asked === 1) ctx.stop()
      return false
    },
    pollReady() {},
  })
  ctx.run()
  t.true(asked >= 1)
  t.is(ctx.stats().sleeps, 0)
})

onEach("poll: 'kernel' needs no pollReady, and the fd's own callbacks run [SPEC 30]", (t, kit) => {
  const ctx = kit.spinning()
  const [left, right] = kit.pair()
  let reads = 0
  try {
    ctx.setFdHandler(left, { poll: 'kernel', read: (fd) => void (reads++, drain(fd)) })
  } catch (error) {
    // Until the monitor can: a typed error, and the context stays usable.
    t.is((error as FdmonError).code, 'ERR_FDMON_UNSUPPORTED')
    t.false(ctx.poll(false))
    return
  }
  put(right)
  t.true(ctx.poll(true))
  t.is(reads, 1)
})

onEach('a source without a hit for idleNs leaves the spin list only where it does not starve [SPEC 29]', (t, kit) => {
  const ctx = kit.spinning({ idleNs: 0, maxNs: 1_000_000 })
  const notifier = kit.notifier()
  let work = 1
  ctx.setFdHandler(notifier, {
    poll: () => work > 0,
    pollReady: () => void work--,
    read: () => void notifier.testAndClear(),
  })
  ctx.poll(true)
  for (let turn = 0; turn < 5; turn++) ctx.poll(false)
  t.true(ctx.stats().handlers[0]?.polling)
})
