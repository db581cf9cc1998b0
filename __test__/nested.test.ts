// Turns inside callbacks.
import { drain, onEach, put, settle } from './on-each.js'

onEach('a nested turn runs the events that the outer turn had collected, each once [SPEC 19]', (t, kit) => {
  const ctx = kit.context()
  const pairs = Array.from({ length: 10 }, () => kit.pair())
  const calls = new Map<number, number>()
  let nested = 0
  for (const [left, right] of pairs) {
    ctx.setFdHandler(left, {
      read(fd) {
        calls.set(fd, (calls.get(fd) ?? 0) + 1)
        drain(fd)
        if (nested === 0) {
          nested++
          ctx.poll(false)
          t.is(calls.size, 10)
        }
      },
    })
    put(right)
  }
  t.true(ctx.poll(true))
  t.is(nested, 1)
  t.deepEqual([...calls.values()], Array(10).fill(1))
  t.false(ctx.poll(false))
})

onEach('no callback of a handler is entered while another of its callbacks runs [SPEC 19]', (t, kit) => {
  const ctx = kit.context()
  const [left, right] = kit.pair()
  let running = 0
  let deepest = 0
  let reads = 0
  ctx.setFdHandler(left, {
    read(fd) {
      running++
      deepest = Math.max(deepest, running)
      if (reads++ === 0) ctx.poll(false) // its data is still there
      drain(fd)
      running--
    },
  })
  put(right)
  ctx.poll(true)
  settle(ctx)
  t.is(deepest, 1)
})

onEach('the events of a handler whose callback runs arrive when it has returned [SPEC 19]', (t, kit) => {
  const ctx = kit.context()
  const [left, right] = kit.pair()
  let reads = 0
  ctx.setFdHandler(left, {
    read(fd) {
      drain(fd)
      if (reads++ === 0) {
        put(right)
        t.false(ctx.poll(false))
        t.is(reads, 1)
      }
    },
  })
  put(right)
  ctx.poll(true)
  t.true(ctx.poll(true))
  t.is(reads, 2)
})

onEach('the handler that runs does not end the nested sleep; others do [SPEC 19]', (t, kit) => {
  const ctx = kit.context()
  const [left, right] = kit.pair()
  const order: string[] = []
  const timer = ctx.timer(() => void order.push('timer'))
  ctx.setFdHandler(left, {
    read(fd) {
      if (order.length > 0) return void drain(fd)
      order.push('read') // the data stays, so the fd stays ready
      timer.arm(2_000_000)
      t.true(ctx.poll(true))
      order.push('back')
      drain(fd)
    },
  })
  put(right)
  ctx.poll(true)
  t.deepEqual(order, ['read', 'timer', 'back'])
})

onEach('a nested turn also runs the remaining bottom halves of the outer one [SPEC 37]', (t, kit) => {
  const ctx = kit.context()
  const order: string[] = []
  ctx.schedule(() => {
    order.push('first')
    ctx.poll(false)
    order.push('back in first')
  })
  ctx.schedule(() => void order.push('second'))
  ctx.poll(false)
  t.deepEqual(order, ['first', 'second', 'back in first'])
  t.false(ctx.poll(false))
})

onEach('handlers are added, replaced and removed in nested turns [SPEC 3]', (t, kit) => {
  const ctx = kit.context()
  const [a, toA] = kit.pair()
  const [b, toB] = kit.pair()
  const order: string[] = []
  put(toA)
  put(toB)
  ctx.setFdHandler(a, {
    read(fd) {
      drain(fd)
      order.push('a')
      ctx.setFdHandler(b, {
        read(fd) {
          drain(fd)
          order.push('b nested')
          ctx.setFdHandler(a, null)
          ctx.setFdHandler(b, null)
        },
      })
      ctx.poll(true)
    },
    write: () => void order.push('a write'),
  })
  ctx.poll(true)
  settle(ctx)
  t.deepEqual(order, ['a', 'b nested'])
})

onEach('fifty turns deep, each level has a batch of its own [SPEC 19]', (t, kit) => {
  const ctx = kit.context()
  let depth = 0
  const dive = (): void => {
    if (++depth < 50) {
      ctx.schedule(dive)
      ctx.poll(false)
    }
  }
  ctx.schedule(dive)
  ctx.poll(false)
  t.is(depth, 50)
  t.false(ctx.poll(false))
})

onEach('two contexts can run inside each other', (t, kit) => {
  const outer = kit.context()
  const inner = kit.context()
  const order: string[] = []
  inner.schedule(() => void order.push('inner'))
  outer.schedule(() => {
    inner.poll(true)
    order.push('outer')
  })
  outer.poll(true)
  t.deepEqual(order, ['inner', 'outer'])
})

onEach('a handler that replaced itself in its callback runs in a nested turn [SPEC 7] [SPEC 19]', (t, kit) => {
  const ctx = kit.context()
  const [left, right] = kit.pair()
  const order: string[] = []
  ctx.setFdHandler(left, {
    read(fd) {
      drain(fd)
      order.push('old')
      ctx.setFdHandler(left, { read: (fd) => void (drain(fd), order.push('new')) })
      put(right)
      t.true(ctx.poll(true))
      order.push('back')
    },
  })
  put(right)
  t.true(ctx.poll(true))
  t.deepEqual(order, ['old', 'new', 'back'])
})

onEach('nested turns inside a large batch leave no event behind [SPEC 19]', (t, kit) => {
  const ctx = kit.context()
  const calls = new Map<number, number>()
  let nested = 0
  for (let count = 0; count < 200; count++) {
    const notifier = kit.notifier()
    ctx.setFdHandler(notifier, {
      read(fd) {
        calls.set(fd, (calls.get(fd) ?? 0) + 1)
        notifier.testAndClear()
        if (calls.size % 3 === 0 && nested < 60) {
          nested++
          ctx.poll(false)
        }
      },
    })
    notifier.set()
  }
  ctx.poll(true)
  settle(ctx)
  t.is(calls.size, 200)
  t.true([...calls.values()].every((count) => count === 1))
})
