// What callbacks throw, and descriptors that are closed under the loop.
import type { FdmonError } from 'fdmon'
import { drain, onEach, put, settle } from './on-each.js'

onEach('one that throws does not stop the others of its turn [SPEC 21]', (t, kit) => {
  const ctx = kit.context()
  const pairs = Array.from({ length: 10 }, () => kit.pair())
  let reads = 0
  const error = new Error('the third')
  for (const [left, right] of pairs) {
    ctx.setFdHandler(left, {
      read(fd) {
        drain(fd)
        if (++reads === 3) throw error
      },
    })
    put(right)
  }
  t.is(
    t.throws(() => ctx.poll(true)),
    error,
  )
  t.is(reads, 10)
  t.false(ctx.poll(false))
})

onEach('write still runs when read threw, and several errors are an AggregateError in their order [SPEC 21]', (t, kit) => {
  const ctx = kit.context()
  const [left, right] = kit.pair()
  ctx.setFdHandler(left, {
    read(fd) {
      drain(fd)
      throw new Error('read')
    },
    write() {
      ctx.setFdHandler(left, null)
      throw new Error('write')
    },
  })
  ctx.schedule(() => {
    throw new Error('schedule')
  })
  const timer = ctx.timer(() => {
    throw new Error('timer')
  })
  timer.arm(0)
  put(right)
  const error = t.throws(() => ctx.poll(true), { instanceOf: AggregateError })
  t.deepEqual(
    error?.errors.map((one: Error) => one.message),
    ['schedule', 'read', 'write', 'timer'],
  )
  t.regex(error?.message ?? '', /4 callbacks.*\.errors/)
  t.false(ctx.poll(false))
})

onEach('a thrown value that is no Error comes out as it is [SPEC 21]', (t, kit) => {
  const ctx = kit.context()
  for (const value of [undefined, null, 0, 'text', { a: 1 }, Symbol.iterator]) {
    ctx.schedule(() => {
      // eslint-disable-next-line @typescript-eslint/only-throw-error
      throw value
    })
    let caught: unknown = 'nothing'
    try {
      ctx.poll(true)
    } catch (error) {
      caught = error
    }
    t.is(caught, value)
  }
})

onEach('the error of a nested turn reaches the callback that ran it, and only that [SPEC 21]', (t, kit) => {
  const ctx = kit.context()
  ctx.schedule(() => {
    ctx.schedule(() => {
      throw new RangeError('inner')
    })
    t.throws(() => ctx.poll(false), { instanceOf: RangeError })
    throw new TypeError('outer')
  })
  t.throws(() => ctx.poll(true), { instanceOf: TypeError, message: 'outer' })
})

onEach('an error of an earlier callback is not reported by a nested turn [SPEC 21]', (t, kit) => {
  const ctx = kit.context()
  ctx.schedule(() => {
    throw new RangeError('earlier')
  })
  ctx.schedule(() => void t.notThrows(() => ctx.poll(false)))
  t.throws(() => ctx.poll(true), { instanceOf: RangeError })
})

onEach('a registered fd that was closed is removed and reported once, as BAD_FD; no busy loop [SPEC 13]', (t, kit) => {
  const ctx = kit.context()
  const [left] = kit.pair()
  const registration = ctx.setFdHandler(left, { read: () => t.fail() })
  const number = left.fd
  left.close()
  const errors: FdmonError[] = []
  for (let turn = 0; turn < 5; turn++) {
    try {
      ctx.poll(false)
    } catch (error) {
      errors.push(error as FdmonError)
    }
  }
  // epoll forgets a closed fd by itself; poll reports it.
  t.true(errors.length <= 1)
  if (kit.monitor === 'poll') {
    t.is(errors[0]?.code, 'ERR_FDMON_BAD_FD')
    t.true(errors[0]?.message.includes(String(number)))
  }
  t.notThrows(() => registration.remove())
  t.notThrows(() => ctx.setFdHandler(number, null))
  t.is(settle(ctx), 0)
  t.notThrows(() => ctx.close())
})

onEach('closing a context with a handler whose fd was closed succeeds in silence [SPEC 13]', (t, kit) => {
  const ctx = kit.context()
  const [left] = kit.pair()
  ctx.setFdHandler(left, { read() {}, write() {} })
  left.close()
  t.notThrows(() => ctx.close())
})

onEach('a callback that closes its fd and removes its handler, in either order, is fine [SPEC 13]', (t, kit) => {
  const ctx = kit.context()
  for (const order of ['close first', 'remove first']) {
    const [left, right] = kit.pair()
    const registration = ctx.setFdHandler(left, {
      read() {
        if (order === 'close first') left.close()
        registration.remove()
        if (order === 'remove first') left.close()
      },
      write: () => t.fail(),
    })
    put(right)
    t.true(ctx.poll(true))
    t.is(settle(ctx), 0)
  }
})

onEach('what a hook throws outside a turn is thrown by the call that ran it, once its work is done [SPEC 21]', (t, kit) => {
  const ctx = kit.spinning()
  const notifier = kit.notifier()
  let work = 2
  const registration = ctx.setFdHandler(notifier, {
    poll: () => work > 0,
    pollReady: () => void work--,
    pollEnd() {
      throw new RangeError('hook')
    },
  })
  while (work > 0) ctx.poll(true)
  t.throws(() => registration.remove(), { instanceOf: RangeError })
  t.notThrows(() => registration.remove())
  t.is(ctx.close().handlers, 0)
})

onEach('what a hook throws inside a turn is reported by the turn [SPEC 21]', (t, kit) => {
  const ctx = kit.spinning()
  const notifier = kit.notifier()
  const order: string[] = []
  let work = 2
  const registration = ctx.setFdHandler(notifier, {
    poll: () => work > 0,
    pollReady: () => void work--,
    pollEnd() {
      throw new RangeError('hook')
    },
  })
  while (work > 0) ctx.poll(true)
  ctx.schedule(() => {
    registration.remove()
    order.push('goes on')
  })
  ctx.schedule(() => void order.push('next'))
  t.throws(() => ctx.poll(false), { instanceOf: RangeError })
  t.deepEqual(order, ['goes on', 'next'])
})

onEach('what the condition of pollUntil() throws ends it, together with what pollEnd throws then [SPEC 21]', (t, kit) => {
  const ctx = kit.spinning()
  const notifier = kit.notifier()
  let work = 2
  ctx.setFdHandler(notifier, {
    poll: () => work > 0,
    pollReady: () => void work--,
    pollEnd() {
      throw new TypeError('hook')
    },
  })
  const condition = (): boolean => {
    if (work === 0) throw new RangeError('condition')
    return false
  }
  const error = t.throws(() => ctx.pollUntil(condition), { instanceOf: AggregateError })
  t.deepEqual(
    error?.errors.map((one: Error) => one.message),
    ['condition', 'hook'],
  )
  let ran = 0
  for (let round = 1; round <= 2; round++) {
    ctx.schedule(() => (ran++, ctx.stop()))
    ctx.run()
    t.is(ran, round, 'a stop belongs to the run that it ends')
  }
})

onEach('a callback that closes the context and throws is heard [SPEC 21, 38]', (t, kit) => {
  const ctx = kit.context()
  ctx.schedule(() => {
    ctx.close()
    throw new RangeError('on the way out')
  })
  ctx.schedule(() => t.fail())
  t.throws(() => ctx.run(), { instanceOf: RangeError, message: 'on the way out' })
  t.throws(() => ctx.poll(false), { code: 'ERR_FDMON_CLOSED' })
})
