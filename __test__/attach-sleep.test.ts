// What an attached context does while Node's loop sleeps: nothing is slept through, and nothing is paid for.
import test from 'ava'
import { canTrace, inProcess, tracedCalls } from './in-process.js'
import { monitors, onEach } from './on-each.js'

/** Node's loop sleeps before each round; without the context's callback it would until the process is killed. */
const rounds = `
  const until = (what, start) => new Promise((resolve) => {
    const late = setTimeout(() => { say('slept through:', what); process.exit(1) }, 5000)
    start(() => { clearTimeout(late); resolve() })
  })
  /** Each way to give a context something to do; the callback is called when it did it. */
  const actions = {
    'schedule()': (ctx, done) => ctx.schedule(done),
    'a bottom half': (ctx, done) => ctx.bottomHalf(done).schedule(),
    'an idle bottom half': (ctx, done) => ctx.bottomHalf(done).scheduleIdle(),
    'a timer that is due': (ctx, done) => ctx.timer(done).arm(0),
    'a timer': (ctx, done) => ctx.timer(done).arm(3_000_000),
    'a timer below a millisecond': (ctx, done) => ctx.timer(done).arm(300_000),
    'a handler that is ready': (ctx, done) => {
      const bell = new fdmon.EventNotifier({ value: 1 })
      const registration = ctx.setFdHandler(bell, { read() { registration.remove(); bell.close(); done() } })
    },
    'a predicate that says yes': (ctx, done) => {
      const bell = new fdmon.EventNotifier()
      const registration = ctx.setFdHandler(bell, { poll: () => true, pollReady() { registration.remove(); bell.close(); done() } })
    },
    'interest': (ctx, done) => {
      const [left, right] = fd.socketpair()
      const registration = ctx.setFdHandler(left, { read() {}, write() { registration.remove(); left.close(); right.close(); done() } })
      registration.setInterest({ write: true })
    },
    'interest given back': (ctx, done) => {
      const [left, right] = quiet
      registrations.get(ctx).setInterest({ write: true })
      onWrite.set(ctx, () => { registrations.get(ctx).setInterest({ write: false }); done() })
    },
    'a turn of its own that leaves work': (ctx, done) => {
      ctx.schedule(() => ctx.schedule(done))
      ctx.poll(false)
    },
    'external handlers that are enabled': (ctx, done) => {
      ctx.disableExternal()
      const bell = new fdmon.EventNotifier({ value: 1 })
      const registration = ctx.setFdHandler(bell, { external: true, read() { registration.remove(); bell.close(); done() } })
      setImmediate(() => ctx.enableExternal())
    },
    'a notification': (ctx, done) => {
      const { turns } = ctx.stats()
      ctx.notify()
      setTimeout(() => ctx.stats().turns > turns && done(), 50)
    },
  }
  const quiet = fd.socketpair()
  const registrations = new Map(), onWrite = new Map()
  function give(ctx) {
    const pair = fd.socketpair()
    const registration = ctx.setFdHandler(pair[0], { write: () => onWrite.get(ctx)?.() })
    registration.setInterest({ write: false })
    registrations.set(ctx, registration)
  }
`

onEach('what is registered, armed, scheduled or notified from Node\'s own callbacks is not slept through [SPEC 51]', async (t, { monitor }) => {
  const { said, code, stderr } = await inProcess(
    `${rounds}
     const froms = {
       'a timer of Node': (act) => setTimeout(act, 1),
       'setImmediate': (act) => setImmediate(act),
       'a nextTick': (act) => setTimeout(() => process.nextTick(act), 1),
       'a promise': (act) => setTimeout(() => Promise.resolve().then(act), 1),
       'a socket of Node': (act) => { server.once('connection', (socket) => (socket.destroy(), act())); require('node:net').connect(server.address().port).on('error', () => {}) },
     }
     const server = require('node:net').createServer().listen(0, async () => {
       for (const make of [context, () => spinning({ maxNs: 200_000 })]) {
         const ctx = make().attach()
         give(ctx)
         for (const [from, start] of Object.entries(froms)) {
           for (const [action, act] of Object.entries(actions)) {
             await until(action + ' from ' + from, (done) => start(() => act(ctx, done)))
           }
         }
         ctx.close()
       }
       server.close()
       say('all')
     })`,
    { monitor },
  )
  t.deepEqual({ code, said }, { code: 0, said: ['all'] }, stderr)
})

onEach('what another context\'s callback does to this one is not slept through, also when it runs before the sleep [SPEC 51]', async (t, { monitor }) => {
  const { said, code, stderr } = await inProcess(
    `${rounds}
     void (async () => {
       for (const order of ['before', 'after']) {
         for (const how of ['a bottom half', 'a hit of its spin', 'pollEnd']) {
           let target, other
           if (order === 'before') target = context().attach()
           other = spinning({ maxNs: 2_000_000 }).attach()
           if (order === 'after') target = context().attach()
           give(target)
           // The other one spins in prepare: its hits run there, and pollEnd before each sleep.
           const bell = new fdmon.EventNotifier()
           let hits = 1, inHit, inEnd
           other.setFdHandler(bell, {
             poll: () => hits > 0,
             pollReady() { hits = 0; const act = inHit; inHit = undefined; act?.() },
             read() { bell.testAndClear() },
             pollEnd() { const act = inEnd; inEnd = undefined; act?.() },
           })
           // Its own events, one after the other, keep its window open.
           const opens = other.timer(() => {
             if (inHit !== undefined && other.stats().windowNs > 1_000_000) hits = 1
             // Where it always has a timer within its window it never comes to its pollEnd.
             if (inHit !== undefined || (inEnd !== undefined && other.stats().windowNs === 0)) opens.arm(300_000)
           })
           for (const [action, act] of Object.entries(actions)) {
             await until([action, 'from', how, 'attached', order].join(' '), (done) => {
               if (how === 'a bottom half') other.schedule(() => act(target, done))
               else if (how === 'pollEnd') { inEnd = () => act(target, done); opens.arm(300_000) }
               else { inHit = () => act(target, done); opens.arm(300_000) }
             })
           }
           other.close()
           target.close()
         }
       }
       say('all')
     })()`,
    { monitor },
  )
  t.deepEqual({ code, said }, { code: 0, said: ['all'] }, stderr)
})

onEach('a timer beyond one of Node\'s is kept when that is cleared on the way to sleep [SPEC 51]', async (t, { monitor }) => {
  for (const swapped of [false, true]) {
    const { said, code, stderr } = await inProcess(
      `${rounds}
     const both = [1, 2].map(() => spinning({ maxNs: 20_000_000, shrink: 1 }).attach()) // the window stays open
     const [first, other] = data.swapped ? both.reverse() : both
     let hits = 1, begun = false, clear
     const bell = new fdmon.EventNotifier()
     other.setFdHandler(bell, {
       poll: () => hits > 0,
       pollReady: () => void (hits = 0),
       pollBegin() {},
       pollEnd() { if (clear !== undefined) { clearTimeout(clear); clear = undefined; begun = true } },
     })
     const warm = other.timer(() => (other.stats().windowNs < 20_000_000 ? warm.arm(300_000) : begin()))
     warm.arm(300_000)
     function begin() {
       const over = first.timer(() => { say('the timer ran', begun); process.exit() })
       over.arm(900_000_000)
       setImmediate(() => { clear = setTimeout(() => say('not cleared'), 600) })
     }`,
      { monitor, swapped },
    )
    t.deepEqual({ code, said }, { code: 0, said: ['the timer ran true'] }, stderr)
  }
})

onEach('contexts that spin let each other sleep when none has anything to do [SPEC 51]', async (t, { monitor }) => {
  const { said, code, stderr } = await inProcess(
    `const contexts = [1, 2, 3].map(() => spinning({ maxNs: 1_000_000 }).attach())
     for (const ctx of contexts) {
       // A window that is open, and work at the same time as the others.
       let times = 8
       const timer = ctx.timer(() => times-- > 0 && timer.arm(200_000))
       timer.arm(200_000)
     }
     setTimeout(() => {
       const before = contexts.map((ctx) => ctx.stats().turns)
       setTimeout(() => {
         say(JSON.stringify(contexts.map((ctx, index) => ctx.stats().turns - before[index])))
         process.exit()
       }, 200)
     }, 100)`,
    { monitor },
  )
  t.is(code, 0, stderr)
  // Threads of V8 wake the loop now and then; contexts that keep each other awake take thousands.
  for (const turns of JSON.parse(said[0]!)) t.true(turns < 100, `${turns} turns in 200 ms`)
})

/** A process in which Node's own timers go on beside a context that has nothing to do, or beside none. */
const idle = `
  const handlers = []
  if (data.attached) {
    const ctx = data.attached === 'spins' ? spinning({ maxNs: 20_000 }) : context()
    ctx.attach()
    const bell = new fdmon.EventNotifier()
    ctx.setFdHandler(bell, { read() {} })
    ctx.timer(() => {}).arm(1e12)
    handlers.push(ctx)
  }
  const mark = () => process.kill(process.pid, 0)
  let rounds = -20
  const step = () => {
    if (rounds === 0) mark()
    if (rounds++ < 40) return setTimeout(step, 2)
    mark()
    process.exit()
  }
  setTimeout(step, 10)
`

const names = (calls: readonly string[]): string[] => [...new Set(calls.map((call) => call.slice(0, call.indexOf('('))))].sort()

const traced = canTrace ? test : test.skip
for (const monitor of monitors) {
  traced(`${monitor}: an attached context that sleeps makes no system call when something else wakes the loop`, async (t) => {
    const without = await tracedCalls(idle, { monitor })
    t.deepEqual(names(without.calls), ['epoll_pwait'], without.calls.join('\n'))
    for (const attached of ['sleeps', 'spins']) {
      const { calls, end } = await tracedCalls(idle, { monitor, attached })
      // A spin may look at the loop, which is a call; it does not when its window is closed, as here.
      t.deepEqual(names(calls), ['epoll_pwait'], `${attached}\n${calls.join('\n')}\n${end.stderr}`)
      t.is(new Set(calls.map((call) => /^\w+\((\d+)/.exec(call)?.[1])).size, 1, 'all of them are those of Node\'s own loop')
      // One more a round is the worst that two clocks make of a timer of two milliseconds.
      t.true(calls.length <= 2 * without.calls.length, `${calls.length} calls, ${without.calls.length} without it`)
    }
  })
}

onEach('several contexts that spin come to their sleep together, whatever their windows do [SPEC 25] [SPEC 53]', async (t, { monitor }) => {
  const { said, code, stderr } = await inProcess(
    `const words = new Int32Array(new SharedArrayBuffer(64))
     const all = [0, 1, 2].map((index) => {
       const ctx = spinning({ maxNs: 1_000_000, shrink: 1 }).attach()
       const bell = new fdmon.EventNotifier({ value: 1 })
       const at = 4 * index
       ctx.setFdHandler(bell, {
         read() { bell.testAndClear() },
         poll: { memory: words, index: at, notEqual: { index: at + 1 }, suppress: { index: at + 2 } },
         pollReady() { words[at + 1] = words[at] },
       })
       return ctx
     })
     const turns = () => all.map((ctx) => ctx.stats().turns)
     let left = 20
     const grow = () => {
       all.forEach((ctx, index) => { words[4 * index]++; ctx.notify() })
       if (left-- > 0) return void setTimeout(grow, 1)
       // Windows that never shrink.
       setTimeout(() => {
         const before = turns()
         setTimeout(() => {
           say(JSON.stringify(turns().map((now, index) => now - before[index])))
           for (const ctx of all) ctx.close()
         }, 200)
       }, 20)
     }
     grow()`,
    { monitor },
  )
  t.is(code, 0, stderr)
  const grown: number[] = JSON.parse(said[0]!)
  t.true(grown.every((turns) => turns <= 8), `${grown.join()} turns in 200 ms`)
})

traced('epoll: an event of an attached context that does not spin costs one epoll_wait, no epoll_ctl and no timerfd_settime', async (t) => {
  const events = 50
  const { calls, end } = await tracedCalls(
    `const ctx = context().attach()
     const bell = new fdmon.EventNotifier()
     const mark = () => process.kill(process.pid, 0)
     ctx.timer(() => {}).arm(1e12)
     let seen = 0
     ctx.setFdHandler(bell, { read() {
       bell.testAndClear()
       if (++seen === 20) mark()
       if (seen === 20 + data.events) { mark(); process.exit() }
       setTimeout(() => bell.set(), 1)
     } })
     bell.set()`,
    { monitor: 'epoll', events },
  )
  const count = (name: RegExp): number => calls.filter((call) => name.test(call)).length
  const text = `${calls.join('\n')}\n${end.stderr}`
  t.is(count(/^epoll_ctl/), 0, text)
  t.is(count(/^timerfd_settime/), 0, text)
  t.is(count(/^write/), events, text)
  t.is(count(/^read/), events, text)
  // Node's own loop waits on one descriptor, the context on another.
  const own = /^\w+\((\d+)/.exec(calls.find((call) => call.startsWith('epoll_pwait('))!)![1]
  const waits = calls.filter((call) => /^epoll_p?wait2?\(/.test(call) && /^\w+\((\d+)/.exec(call)![1] !== own)
  t.is(waits.length, events, text)
})
