// Kernel busy polling of network queues: its options, its refusals, and that traffic goes on.
// Tag: kernel
import { spawnSync } from 'node:child_process'
import { createRequire } from 'node:module'
import test, { type ExecutionContext } from 'ava'
import { AioContext, capabilities, type BusyPoll, type FdmonError, type MonitorName } from 'fdmon'
import { drain, onEach, put, refuses } from './on-each.js'
import { refusing } from './refusing.js'

const { features } = capabilities()
const onEpoll = features['epollBusyPoll'] === true
const onRings = features['ioUringNapi'] === true
const offered = (monitor: MonitorName): boolean => (monitor === 'epoll' && onEpoll) || (monitor === 'io_uring' && onRings)
const fdmon = JSON.stringify(createRequire(import.meta.url).resolve('fdmon'))
const busy: BusyPoll = { usecs: 50, budget: 8, prefer: true }
const shown = 'kernelBusyPoll = { usecs: 50, budget: 8, prefer: true } is refused'

/** The call throws where the monitor, or this kernel, cannot do it. */
function onlyWhere(t: ExecutionContext, can: boolean, call: () => unknown): void {
  if (can) t.notThrows(call)
  else refuses(t, call, [shown], 'ERR_FDMON_UNSUPPORTED')
}

test('each part of kernelBusyPoll is checked and named, in the constructor, the setter and the remote [SPEC 13]', (t) => {
  using ctx = new AioContext()
  const remote = AioContext.remote(ctx.id)
  const bad: [unknown, string, string][] = [
    [5, '', '5'],
    [[], '', '[]'],
    [{}, '.usecs', 'undefined'],
    [{ usecs: 0 }, '.usecs', '= 0 '],
    [{ usecs: 0.5 }, '.usecs', '0.5'],
    [{ usecs: -1 }, '.usecs', '-1'],
    [{ usecs: 2 ** 31 }, '.usecs', '2147483647 µs'],
    [{ usecs: '50' }, '.usecs', "'50'"],
    [{ usecs: 50, budget: 65_536 }, '.budget', '65535'],
    [{ usecs: 50, budget: null }, '.budget', 'null'],
    [{ usecs: 50, prefer: 1 }, '.prefer', 'true or false'],
    [{ usecs: 50, us: 1 }, '.us', 'usecs, budget, prefer'],
  ]
  for (const [value, part, word] of bad) {
    const poll = { kernelBusyPoll: value } as any
    refuses(t, () => new AioContext({ poll }), [`options.poll.kernelBusyPoll${part} = `, word])
    refuses(t, () => ctx.setPollParams(poll), [`params.kernelBusyPoll${part} = `, word])
    refuses(t, () => remote.setPollParams(poll), [`params.kernelBusyPoll${part} = `, word])
  }
  t.notThrows(() => ctx.setPollParams({ kernelBusyPoll: undefined as any }))
  t.notThrows(() => ctx.setPollParams({ kernelBusyPoll: null }))
})

onEach('kernel busy polling is set where it can be had, refused elsewhere, and events arrive all the same [SPEC 30]', (t, kit) => {
  const can = offered(kit.monitor)
  onlyWhere(t, can, () => new AioContext({ monitor: kit.monitor, poll: { kernelBusyPoll: busy } }).close())
  const ctx = kit.context()
  const [left, right] = kit.pair()
  let bytes = 0
  ctx.setFdHandler(left, { read: () => void (bytes += drain(left)) })
  for (const kernelBusyPoll of [busy, null, busy]) {
    onlyWhere(t, can || kernelBusyPoll === null, () => ctx.setPollParams({ kernelBusyPoll }))
    put(right)
    t.true(ctx.poll())
    t.false(ctx.poll(false))
  }
  t.is(bytes, 3)
  t.is(ctx.monitor, kit.monitor)
  // Left out, it keeps its value, and that is no second request.
  t.notThrows(() => ctx.setPollParams({ maxNs: 1000 }))
})

onEach('what a remote asks for and is refused, the next turn throws [SPEC 30] [SPEC 31]', (t, kit) => {
  const ctx = kit.context()
  const remote = AioContext.remote(ctx.id)
  let ran = 0
  remote.setPollParams({ kernelBusyPoll: busy })
  ctx.schedule(() => void ran++)
  onlyWhere(t, offered(kit.monitor), () => ctx.poll())
  t.is(ran, 1)
  remote.setPollParams({ kernelBusyPoll: null, maxNs: 1000 })
  t.false(ctx.poll(false))
})

test('monitor auto does it on its ring, or goes where it can be had [SPEC 30] [SPEC 45]', (t) => {
  if (process.env['FDMON_MONITOR']) {
    t.pass('FDMON_MONITOR decides; run without it')
    return
  }
  const here = onEpoll || onRings
  onlyWhere(t, here, () => new AioContext({ poll: { kernelBusyPoll: busy } }).close())
  using ctx = new AioContext()
  const before = [ctx.monitor, ctx.monitorReason]
  onlyWhere(t, here, () => ctx.setPollParams({ kernelBusyPoll: busy }))
  const after = [ctx.monitor, ctx.monitorReason]
  t.deepEqual(after, onRings || !here ? before : ['epoll', 'auto: epoll, since kernel busy polling was asked for'])
  // Without a ring.
  const ring = { mode: 'off' } as const
  onlyWhere(t, onEpoll, () => {
    using other = new AioContext({ ring, poll: { kernelBusyPoll: busy } })
    t.is(other.monitorReason, 'auto: epoll, since kernel busy polling was asked for')
  })
})

test('a sandbox in which rings cannot do it is named, and auto moves to epoll [SPEC 30] [SPEC 45]', (t) => {
  const source = `
    const { AioContext } = require(${fdmon})
    const poll = { kernelBusyPoll: ${JSON.stringify(busy)} }
    const tried = (options) => {
      try {
        const ctx = new AioContext({ ...options, poll })
        return { monitor: ctx.monitor, reason: ctx.monitorReason }
      } catch ({ code, message, syscall }) {
        return { code, message, syscall }
      }
    }
    console.log(JSON.stringify({ auto: tried({}), ring: tried({ monitor: 'io_uring' }) }))`
  const { stdout, stderr, status } = refusing(['io_uring_register=EPERM'], '-e', source)
  t.is(status, 0, stderr)
  const { auto, ring } = JSON.parse(stdout)
  if (onEpoll) t.deepEqual(auto, { monitor: 'epoll', reason: 'auto: epoll, since kernel busy polling was asked for' })
  else t.is(auto.code, 'ERR_FDMON_UNSUPPORTED')
  t.is(ring.code, 'ERR_FDMON_UNSUPPORTED')
  if (!capabilities().monitors.io_uring.available) return
  t.is(ring.syscall, 'io_uring_register')
  t.is(ring.message, `${shown}: the kernel says no (EPERM); allow it in the sandbox, or leave it out`)
})

test('on epoll, a budget above 64 needs a capability, and the refusal says so [SPEC 30]', (t) => {
  const source = `
    const { AioContext } = require(${fdmon})
    if (process.geteuid() === 0) process.seteuid(65534) // which takes the capabilities away
    const ctx = new AioContext({ monitor: 'epoll' })
    try {
      ctx.setPollParams({ maxNs: 1, kernelBusyPoll: { usecs: 50, budget: 65 } })
    } catch ({ code, message, errno, syscall }) {
      console.log(JSON.stringify({ code, message, errno, syscall }))
    }
    ctx.close()`
  const { stdout, stderr, status } = spawnSync(process.execPath, ['-e', source], { encoding: 'utf8' })
  t.is(status, 0, stderr)
  const error = JSON.parse(stdout) as FdmonError
  t.is(error.code, 'ERR_FDMON_UNSUPPORTED')
  t.is(error.syscall, 'ioctl')
  t.true(error.message.startsWith('kernelBusyPoll = { usecs: 50, budget: 65, prefer: false } is refused: '), error.message)
  if (onEpoll) t.is(error.errno, 1)
  if (onEpoll) t.true(error.message.includes('CAP_NET_ADMIN'), error.message)
})

test('a ring has no budget, and takes any [SPEC 30]', (t) => {
  const kernelBusyPoll = { usecs: 50, budget: 65_535 }
  const make = (): unknown => new AioContext({ monitor: 'io_uring', poll: { kernelBusyPoll } }).close()
  if (onRings) t.notThrows(make)
  else refuses(t, make, ['is refused'], 'ERR_FDMON_UNSUPPORTED')
})
