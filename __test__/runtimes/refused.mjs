// Of the smoke suite, where the loop is not libuv (Bun, Deno): what needs it is refused in words, before anything of it is touched.
import { AioContext, currentContext, defaultContext, FdmonError, IoThread, readable, watch } from 'fdmon'
import { socketpair } from 'fdmon/fd'
import { equal, refuses } from './steps.mjs'

const advice = '; run the context with poll() or run(), or use Node'

/** What is refused with two sockets and a context. */
const CALLS = {
  'attach()': (ctx) => ctx.attach(),
  'watch()': (ctx, fd) => watch(fd, { read() {} }),
  'watch() with a context': (ctx, fd) => watch(fd, { read() {} }, { context: ctx }),
  'readable()': (ctx, fd) => readable(fd),
  'readable() with a context': (ctx, fd) => readable(fd, { context: ctx }),
  'defaultContext()': () => defaultContext(),
  'new IoThread()': () => new IoThread(new URL('./io-thread.mjs', import.meta.url)),
}

export const refused = {
  ...Object.fromEntries(Object.entries(CALLS).map(([name, call]) => [`${name} is refused, and the context is as it was`, () => {
    const ctx = new AioContext()
    const [left, right] = socketpair()
    refuses(() => call(ctx, left), FdmonError, 'ERR_FDMON_UNSUPPORTED', advice)
    let ran = 0
    ctx.detach()
    ctx.schedule(() => ++ran)
    ctx.poll()
    equal([ran, ctx.close()], [1, { handlers: 0, bottomHalves: 0, timers: 0, io: 0 }])
    left.close()
    right.close()
  }])),

  'there is no context of an I/O thread': () => refuses(() => currentContext(), FdmonError, 'ERR_FDMON_WRONG_THREAD'),
}
