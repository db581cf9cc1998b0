// Registering, replacing and removing handlers, and which of their callbacks run.
import { closeSync, openSync } from 'node:fs'
import { EventNotifier, Events, type Registration } from 'fdmon'
import { drain, onEach, put, refuses } from './on-each.js'

/** A file that epoll refuses because it has no poll operation. */
const openNull = (): number => openSync(process.execPath, 'r')

onEach('read is called with the fd and the event mask, and the turn is progress [SPEC 8] [SPEC 16]', (t, kit) => {
  const ctx = kit.context()
  const [left, right] = kit.pair()
  const calls: [number, number][] = []
  ctx.setFdHandler(left, {
    read(fd, events) {
      calls.push([fd, events])
      drain(fd)
    },
  })
  t.false(ctx.poll(false))
  put(right)
  t.true(ctx.poll(true))
  t.false(ctx.poll(false))
  t.deepEqual(calls, [[left.fd, Events.IN]])
})

onEach('callbacks are called on the object that was registered', (t, kit) => {
  const ctx = kit.context()
  const [left, right] = kit.pair()
  class Connection {
    bytes = 0
    read(fd: number): void {
      this.bytes += drain(fd)
    }
  }
  const connection = new Connection()
  ctx.setFdHandler(left, connection)
  put(right)
  put(right)
  ctx.poll(true)
  t.is(connection.bytes, 2)
})

onEach('read runs before write, and both in one turn [SPEC 20]', (t, kit) => {
  const ctx = kit.context()
  const [left, right] = kit.pair()
  const order: string[] = []
  ctx.setFdHandler(left, {
    write: () => void order.push('write'),
    read: (fd) => void (order.push('read'), drain(fd)),
  })
  put(right)
  t.true(ctx.poll(true))
  t.deepEqual(order, ['read', 'write'])
})

onEach('write does not run when read removed its handler [SPEC 20]', (t, kit) => {
  const ctx = kit.context()
  const [left, right] = kit.pair()
  let writes = 0
  ctx.setFdHandler(left, { read: () => ctx.setFdHandler(left, null), write: () => void writes++ })
  put(right)
  ctx.poll(true)
  t.false(ctx.poll(false))
  t.is(writes, 0)
})

onEach('write does not run when read replaced its handler, and the new one runs in the next turn [SPEC 7] [SPEC 20]', (t, kit) => {
  const ctx = kit.context()
  const [left, right] = kit.pair()
  const order: string[] = []
  ctx.setFdHandler(left, {
    read() {
      order.push('old read')
      ctx.setFdHandler(left, { read: (fd) => void (order.push('new read'), drain(fd)) })
    },
    write: () => void order.push('old write'),
  })
  put(right)
  ctx.poll(true)
  t.deepEqual(order, ['old read'])
  ctx.poll(true)
  t.deepEqual(order, ['old read', 'new read'])
})

onEach('write does not run when read turned its interest off [SPEC 8]', (t, kit) => {
  const ctx = kit.context()
  const [left, right] = kit.pair()
  let writes = 0
  const registration: Registration = ctx.setFdHandler(left, {
    read: (fd) => (drain(fd), registration.setInterest({ write: false })),
    write: () => void writes++,
  })
  put(right)
  ctx.poll(true)
  t.false(ctx.poll(false))
  t.is(writes, 0)
})

onEach('replacing a handler drops the events that were collected for it [SPEC 7] [SPEC 10]', (t, kit) => {
  const ctx = kit.context()
  const [a, toA] = kit.pair()
  const [b, toB] = kit.pair()
  const order: string[] = []
  const replaceOther = (name: string, other: typeof a) => (fd: number) => {
    order.push(name)
    drain(fd)
    ctx.setFdHandler(other, { read: (fd) => void (order.push('replacement'), drain(fd)) })
  }
  ctx.setFdHandler(a, { read: replaceOther('a', b) })
  ctx.setFdHandler(b, { read: replaceOther('b', a) })
  put(toA)
  put(toB)
  ctx.poll(true)
  t.is(order.length, 1)
  ctx.poll(true)
  t.is(order.length, 2)
  t.is(order[1], 'replacement')
})

onEach('a handler that another callback of the same turn removed does not run [SPEC 10]', (t, kit) => {
  const ctx = kit.context()
  const pairs = Array.from({ length: 8 }, () => kit.pair())
  const registrations: Registration[] = []
  let calls = 0
  for (const [left, right] of pairs) {
    registrations.push(
      ctx.setFdHandler(left, {
        read() {
          calls++
          for (const registration of registrations) registration.remove()
        },
      }),
    )
    put(right)
  }
  t.true(ctx.poll(true))
  t.false(ctx.poll(false))
  t.is(calls, 1)
})

onEach('a callback adds handlers, and they run from the next turn on [SPEC 3]', (t, kit) => {
  const ctx = kit.context()
  const [left, right] = kit.pair()
  const [other, toOther] = kit.pair()
  const order: string[] = []
  put(toOther)
  put(right)
  ctx.setFdHandler(left, {
    read(fd) {
      order.push('first')
      drain(fd)
      ctx.setFdHandler(other, { read: (fd) => void (order.push('second'), drain(fd)) })
    },
  })
  ctx.poll(true)
  t.deepEqual(order, ['first'])
  ctx.poll(true)
  t.deepEqual(order, ['first', 'second'])
})

onEach('a handler is removed by the object that it was registered with, also when that has been closed [SPEC 13]', (t, kit) => {
  const ctx = kit.context()
  const notifier = new EventNotifier({ value: 1 })
  ctx.setFdHandler(notifier, { read: () => t.fail() })
  const other = kit.notifier()
  let runs = 0
  ctx.setFdHandler(other, { read: () => void (other.testAndClear() && runs++) })
  notifier.close()
  ctx.setFdHandler(notifier, null)
  ctx.setFdHandler(notifier, null)
  t.is(ctx.stats().handlers.length, 1)
  other.set()
  t.true(ctx.poll(true))
  t.is(runs, 1)
  t.false(ctx.poll(false))
})

onEach('removing an unknown fd does nothing [SPEC 6]', (t, kit) => {
  const ctx = kit.context()
  t.notThrows(() => ctx.setFdHandler(99_999, null))
  t.notThrows(() => ctx.setFdHandler({ fd: -1 }, null))
  const notifier = kit.notifier()
  t.notThrows(() => ctx.setEventNotifier(notifier, null))
})

onEach('a token whose handler was replaced does nothing [SPEC 8]', (t, kit) => {
  const ctx = kit.context()
  const [left, right] = kit.pair()
  let reads = 0
  const stale = ctx.setFdHandler(left, { read() {} })
  ctx.setFdHandler(left, { read: (fd) => void (reads++, drain(fd)) })
  stale.setInterest({ read: false })
  stale.remove()
  stale[Symbol.dispose]()
  put(right)
  t.true(ctx.poll(true))
  t.is(reads, 1)
})

onEach('a token of a slot that was used again does nothing [SPEC 8]', (t, kit) => {
  const ctx = kit.context()
  const stale = []
  for (let round = 0; round < 20; round++) {
    const notifier = kit.notifier()
    const registration = ctx.setFdHandler(notifier, { read() {} })
    registration.remove()
    stale.push(registration)
  }
  const [left, right] = kit.pair()
  let reads = 0
  ctx.setFdHandler(left, { read: (fd) => void (reads++, drain(fd)) })
  for (const registration of stale) registration.remove()
  put(right)
  t.true(ctx.poll(true))
  t.is(reads, 1)
})

onEach('interest is changed alone, and what was left out keeps its value [SPEC 8]', (t, kit) => {
  const ctx = kit.context()
  const [left, right] = kit.pair()
  const order: string[] = []
  const registration = ctx.setFdHandler(left, {
    read: (fd) => void (order.push('read'), drain(fd)),
    write: () => void order.push('write'),
  })
  registration.setInterest({ write: false })
  t.false(ctx.poll(false))
  registration.setInterest({ read: false })
  put(right)
  t.false(ctx.poll(false))
  registration.setInterest({ read: true, write: true })
  t.true(ctx.poll(false))
  t.deepEqual(order, ['read', 'write'])
})

onEach('a hang-up runs the callback there is, so that the loop is never busy for nothing [SPEC 20]', (t, kit) => {
  const ctx = kit.context()
  const [left, right] = kit.pair()
  const masks: number[] = []
  ctx.setFdHandler(left, {
    write(_fd, events) {
      masks.push(events)
      ctx.setFdHandler(left, null)
    },
  })
  right.close()
  t.true(ctx.poll(true))
  t.is(masks.length, 1)
  t.not(masks[0]! & Events.HUP, 0)
})

onEach('an event notifier is registered like any fd, and its counter is the handler’s to clear', (t, kit) => {
  const ctx = kit.context()
  const notifier = kit.notifier()
  let rings = 0
  ctx.setEventNotifier(notifier, { read: () => void (rings += Number(notifier.testAndClear())) })
  notifier.set()
  notifier.set()
  t.true(ctx.poll(true))
  t.false(ctx.poll(false))
  t.is(rings, 1)
  ctx.setEventNotifier(notifier, null)
  notifier.set()
  t.false(ctx.poll(false))
})

onEach('an fd without a poll operation is always ready [SPEC 43]', (t, kit) => {
  const ctx = kit.context()
  const file = kit.own(openNull(), (fd) => closeSync(fd))
  let reads = 0
  ctx.setFdHandler(file, { read: () => void reads++ })
  t.true(ctx.poll(true))
  t.true(ctx.poll(true))
  t.is(reads, 2)
  t.is(ctx.monitor, kit.monitor)
})

onEach('each of 2,000 ready fds runs exactly once a turn, on any number of batches [SPEC 20]', (t, kit) => {
  const ctx = kit.context()
  const calls = new Map<number, number>()
  for (let count = 0; count < 2000; count++) {
    const notifier = kit.notifier()
    ctx.setFdHandler(notifier, { read: (fd) => void (calls.set(fd, (calls.get(fd) ?? 0) + 1), notifier.testAndClear()) })
    notifier.set()
  }
  let turns = 0
  while (calls.size < 2000 && turns++ < 10) ctx.poll(true)
  t.is(calls.size, 2000)
  t.true([...calls.values()].every((count) => count === 1))
  t.false(ctx.poll(false))
})

onEach('a closed fd is refused when it is registered, and the old handler stays [SPEC 13]', (t, kit) => {
  const ctx = kit.context()
  const notifier = kit.notifier()
  const number = notifier.fd
  notifier.close()
  refuses(t, () => ctx.setFdHandler(number, { read() {} }), [String(number)], 'ERR_FDMON_BAD_FD')
  refuses(t, () => ctx.setFdHandler(notifier, { read() {} }), ['-1'], 'ERR_FDMON_BAD_FD')
  t.false(ctx.poll(false))
})
