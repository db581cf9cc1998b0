// Of the smoke suite: what this kernel and runtime allow, and the choice of a monitor.
import { AioContext, capabilities, FdmonError } from 'fdmon'
import { read, socketpair, write } from 'fdmon/fd'
import { equal, refuses } from './steps.mjs'

const asked = process.env.FDMON_MONITOR ?? 'auto'

export const monitors = {
  'capabilities() says what is here, and why the rest is not': () => {
    const { native, monitors: found, features, cpus, cpuQuota } = capabilities()
    equal([typeof native, Object.keys(found).sort(), cpus >= 1, cpuQuota === null || cpuQuota > 0], ['boolean', ['epoll', 'io_uring', 'poll', 'wasi'], true, true])
    for (const [name, { available, reason }] of Object.entries(found)) {
      if (!available && reason.length < 5) throw new Error(`${name} is not available, and the reason is '${reason}'`)
    }
    equal([found.wasi.available, found.poll.available], native ? [false, true] : [true, false])
    equal(Object.values(features).every((one) => typeof one === 'boolean'), true)
  },

  'the monitor that was asked for runs, and the context says why': () => {
    const ctx = new AioContext()
    const [left, right] = socketpair()
    ctx.setFdHandler(left, { read() {} })
    ctx.poll(false)
    equal([asked === 'auto' || ctx.monitor === asked, ctx.monitorReason.length > 0], [true, true])
    if (asked !== 'auto') equal([ctx.monitorReason.includes('FDMON_MONITOR'), ctx.stats().monitor], [true, asked])
    ctx.close()
    left.close()
    right.close()
  },

  'on each monitor that is here a byte arrives, and the others are refused in words': () => {
    for (const [monitor, { available }] of Object.entries(capabilities().monitors)) {
      if (!available) {
        refuses(() => new AioContext({ monitor }), FdmonError, 'ERR_FDMON_UNSUPPORTED', `'${monitor}'`)
        continue
      }
      const ctx = new AioContext({ monitor })
      const [left, right] = socketpair()
      let bytes = 0
      ctx.setFdHandler(left, { read: (fd) => (bytes += read(fd, new Uint8Array(8))) })
      write(right, new Uint8Array(5))
      ctx.pollUntil(() => bytes > 0)
      equal([ctx.monitor, bytes], [monitor, 5])
      ctx.close()
      left.close()
      right.close()
    }
  },

  'no other name is a monitor': () => refuses(() => new AioContext({ monitor: 'kqueue' }), FdmonError, 'ERR_FDMON_INVALID_ARG', 'kqueue'),
}
