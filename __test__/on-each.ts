// What the tests of the loop share: each behaviour is tested on every monitor that is built.
import test, { type ExecutionContext } from 'ava'
import {
  AioContext,
  capabilities,
  EventNotifier,
  FdmonError,
  type AioContextOptions,
  type FdmonErrorCode,
  type MonitorName,
} from 'fdmon'
import { read, socketpair, write, type Fd } from 'fdmon/fd'

/** The monitors that this kernel has. One without io_uring must be left out on purpose, by FDMON_WITHOUT_IO_URING=1. */
export const monitors = (['poll', 'epoll', 'io_uring'] as const).filter((name) => {
  const { available, reason, advice } = capabilities().monitors[name]
  if (available || (name === 'io_uring' && process.env['FDMON_WITHOUT_IO_URING'] === '1')) return available
  const without = name === 'io_uring' ? ', or set FDMON_WITHOUT_IO_URING=1 to test the others alone' : ''
  throw new Error(`${name} cannot be tested here: ${reason}; ${advice ?? 'run the tests on another kernel'}${without}`)
})

/** It sees readiness in memory, so a handler without `poll` does not keep it from spinning. */
export const seesReadiness = (monitor: MonitorName): boolean => monitor === 'io_uring'

/** What a test of one monitor is given; everything that it makes is closed at the end. */
export class Kit {
  readonly #closing: (() => unknown)[] = []

  constructor(readonly monitor: (typeof monitors)[number]) {}

  context(options: AioContextOptions = {}): AioContext {
    return this.own(new AioContext({ monitor: this.monitor, ...options }), (ctx) => ctx.close())
  }

  /** A context that spins, also on a machine with one CPU. */
  spinning(poll: AioContextOptions['poll'] = {}): AioContext {
    return this.context({ poll: { maxNs: 50_000_000, policy: 'classic', guards: false, ...poll } })
  }

  /** …with a window that outlasts any test. It opens by sleeps that the policy likes: on a busy machine one may be over before it begins. */
  spinningLong(options: AioContextOptions = {}): AioContext {
    const maxNs = 5_000_000_000
    const ctx = this.context({ ...options, poll: { maxNs, grow: 1_000_000, policy: 'classic', guards: false } })
    const timer = ctx.timer(() => {})
    while (ctx.stats().windowNs < maxNs / 2) {
      timer.arm(100_000)
      while (timer.pending) ctx.poll(true)
    }
    timer[Symbol.dispose]()
    return ctx
  }

  notifier(): EventNotifier {
    return this.own(new EventNotifier(), (notifier) => notifier.close())
  }

  pair(): [Fd, Fd] {
    const [left, right] = socketpair()
    this.own(left, (fd) => fd.close())
    this.own(right, (fd) => fd.close())
    return [left, right]
  }

  own<T>(thing: T, close: (thing: T) => unknown): T {
    this.#closing.push(() => close(thing))
    return thing
  }

  close(): void {
    for (const close of this.#closing.reverse()) close()
  }
}

type Body = (t: ExecutionContext, kit: Kit) => void | Promise<void>

/** A test for each monitor, with the name `<monitor>: <title>`. */
export function onEach(title: string, body: Body): void {
  for (const monitor of monitors) test(`${monitor}: ${title}`, (t) => withKit(t, monitor, body))
}

/** The same, one at a time: for what shares Node's loop with whatever else runs in it. */
export function onEachAlone(title: string, body: Body): void {
  for (const monitor of monitors) test.serial(`${monitor}: ${title}`, (t) => withKit(t, monitor, body))
}

async function withKit(t: ExecutionContext, monitor: (typeof monitors)[number], body: Body): Promise<void> {
  const kit = new Kit(monitor)
  try {
    await body(t, kit)
  } finally {
    kit.close()
  }
}

/** The call throws an FdmonError with this code, whose message has all the words. */
export function refuses(
  t: ExecutionContext,
  call: () => unknown,
  words: readonly string[] = [],
  code: FdmonErrorCode = 'ERR_FDMON_INVALID_ARG',
): void {
  const error = t.throws(call, { instanceOf: FdmonError }, words.join(', '))
  if (error === undefined) return
  t.is(error.code, code, error.message)
  for (const word of words) t.true(error.message.includes(word), `'${error.message}' has no '${word}'`)
  t.regex(error.message, /[;:] [a-z ]+/, `'${error.message}' says what to do`)
}

/** One byte into a descriptor. */
export function put(fd: Fd): void {
  write(fd, new Uint8Array(1))
}

/** All bytes that wait in a descriptor. */
export function drain(fd: { fd: number } | number): number {
  const size = read(fd, new Uint8Array(4096))
  return Math.max(size, 0)
}

/** Turns that do not wait, until one makes no progress. */
export function settle(ctx: AioContext): number {
  let turns = 0
  while (ctx.poll(false) && turns < 1000) turns++
  return turns
}
