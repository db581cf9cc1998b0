// watch(), readable() and defaultContext(): readiness in Node's own loop, in one call.
// Tag: kernel
import { spawnSync } from 'node:child_process'
import { closeSync, constants, mkdtempSync, openSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { inspect } from 'node:util'
import type { AioContext } from 'fdmon'
import { defaultContext, Events, EventNotifier, FdmonError, readable, watch } from 'fdmon'
import { memfd, read, setNonblock, socketpair, write } from 'fdmon/fd'
import test from 'ava'
import { inProcess } from './in-process.js'
import { ended, inWorker, message } from './in-worker.js'
import { drain, onEach, onEachAlone, put, refuses, type Kit } from './on-each.js'

/** A FIFO: the reading end, and the path to open others. */
function fifo(kit: Kit): { fd: number; openWriter: () => number } {
  const folder = mkdtempSync(join(tmpdir(), 'fdmon-fifo-'))
  kit.own(folder, () => rmSync(folder, { recursive: true }))
  const path = join(folder, 'fifo')
  if (spawnSync('mkfifo', [path]).status !== 0) throw new Error('mkfifo failed')
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
  kit.own(fd, () => closeSync(fd))
  return { fd, openWriter: () => openSync(path, constants.O_WRONLY | constants.O_NONBLOCK) }
}

/** What an iteration gave, or 'waiting' when it has nothing yet. */
async function now<T>(step: Promise<T>): Promise<T | 'waiting'> {
  return Promise.race([step, pause(20, 'waiting' as const)])
}

onEach('watch() attaches the context it is given and calls handlers there [SPEC 51]', async (t, kit) => {
  const context = kit.context()
  const [left, right] = kit.pair()
  const seen = new Promise<[number, number]>((resolve) => {
    const registration = watch(left, { read: (fd, events) => (registration.remove(), resolve([fd, events])) }, { context })
    t.is(registration.fd, left.fd)
  })
  put(right)
  t.deepEqual(await seen, [left.fd, Events.IN])
  t.is(context.stats().handlers.length, 0)
})

onEach('watch() of an fd that has handlers replaces them, and frees their signal', async (t, kit) => {
  const context = kit.context()
  const [left, right] = kit.pair()
  const abort = new AbortController()
  const first = watch(left, { read: () => t.fail() }, { context, signal: abort.signal })
  const bytes = new Promise<number>((resolve) => watch(left, { read: (fd) => resolve(drain(fd)) }, { context }))
  first.remove()
  abort.abort()
  put(right)
  t.is(await bytes, 1)
  t.is(context.stats().handlers.length, 1)
})

onEach('a signal removes the handlers, also when it aborts in the callback or has aborted already', async (t, kit) => {
  const context = kit.context()
  const [left, right] = kit.pair()
  const early = watch(left, { read: () => t.fail() }, { context, signal: AbortSignal.abort() })
  t.is(early.fd, left.fd)
  t.is(context.stats().handlers.length, 0)
  early.remove()
  early.setInterest({ read: false })
  const abort = new AbortController()
  let reads = 0
  await new Promise<void>((resolve) => {
    const read = (): void => (reads++, abort.abort(), resolve())
    watch(left, { read, write: () => void (reads > 0 && t.fail()) }, { context, signal: abort.signal })
    put(right)
  })
  await pause(10)
  t.is(reads, 1)
  t.is(context.stats().handlers.length, 0)
  const later = new AbortController()
  watch(left, { read: () => t.fail() }, { context, signal: later.signal })
  later.abort()
  await pause(5)
  t.is(context.stats().handlers.length, 0)
})

onEach('a signal that aborts after the end of its handlers does nothing', async (t, kit) => {
  const abort = new AbortController()
  const [left] = kit.pair()
  const removed = kit.context()
  watch(left, { read() {} }, { context: removed, signal: abort.signal }).remove()
  const closed = kit.context()
  watch(left, { read() {} }, { context: closed, signal: abort.signal })
  closed.close()
  watch(left, { read() {} }, { context: removed })
  t.notThrows(() => abort.abort())
  t.is(removed.stats().handlers.length, 1)
})

onEach('watch() and readable() refuse bad input, and register nothing [SPEC 13]', async (t, kit) => {
  const context = kit.context()
  const [left] = kit.pair()
  const handlers = { read() {} }
  refuses(t, () => watch(-1, handlers, { context }), ['fd', '-1'], 'ERR_FDMON_BAD_FD')
  refuses(t, () => watch('x' as any, handlers, { context }), ['fd'])
  refuses(t, () => watch(left, {} as any, { context }), ['handlers'])
  refuses(t, () => watch(left, { read: 1 } as any, { context }), ['handlers.read', '1'])
  refuses(t, () => watch(left, handlers, { context: {} } as any), ['options.context', 'AioContext'])
  refuses(t, () => watch(left, handlers, { context, ref: 0 } as any), ['options.ref', '0'])
  refuses(t, () => watch(left, handlers, { context, signal: {} } as any), ['options.signal'])
  refuses(t, () => watch(left, handlers, { context, once: true } as any), ['once'])
  refuses(t, () => watch(left, handlers, 1 as any), ['options', '1'])
  refuses(t, () => readable('x' as any, { context }), ['fd'])
  refuses(t, () => readable(left, { context: 1 } as any), ['options.context', '1'])
  refuses(t, () => readable(left, { context, ref: true } as any), ['ref'])
  refuses(t, () => readable(left, { context, signal: 1 } as any), ['options.signal', '1'])
  const closedFd = readable(999_999, { context })
  refuses(t, () => closedFd[Symbol.asyncIterator](), ['999999'], 'ERR_FDMON_BAD_FD')
  t.is(context.stats().handlers.length, 0)
  context.close()
  refuses(t, () => watch(left, handlers, { context }), [], 'ERR_FDMON_CLOSED')
  refuses(t, () => readable(left, { context }), [], 'ERR_FDMON_CLOSED')
})

onEach('each step of readable() is one time that the fd is readable', async (t, kit) => {
  const context = kit.context()
  const [left, right] = kit.pair()
  let steps = 0
  put(right)
  for await (const events of readable(left, { context })) {
    t.is(events & Events.IN, Events.IN)
    t.is(drain(left), 1)
    if (++steps === 5) break
    put(right)
  }
  t.is(steps, 5)
  t.is(context.stats().handlers.length, 0, 'break has removed the handler')
})

onEach('what is not read comes again with the next step', async (t, kit) => {
  const [left, right] = kit.pair()
  const steps = readable(left, { context: kit.context() })[Symbol.asyncIterator]()
  put(right)
  t.false((await steps.next()).done)
  t.false((await steps.next()).done)
  drain(left)
  const third = steps.next()
  t.is(await now(third), 'waiting')
  put(right)
  t.false((await third).done)
  t.true((await steps.return!()).done)
  t.true((await steps.next()).done)
})

onEach('several next() at once are served in their order, one an event', async (t, kit) => {
  const [left, right] = kit.pair()
  const steps = readable(left, { context: kit.context() })[Symbol.asyncIterator]()
  const order: number[] = []
  const all = [0, 1, 2].map((index) => steps.next().then(({ done }) => (drain(left), order.push(index), done)))
  for (let round = 0; round < 3; round++) {
    t.is(order.length, round)
    put(right)
    await all[round]
  }
  t.deepEqual(order, [0, 1, 2])
  const waiting = [steps.next(), steps.next()]
  await steps.return!()
  for (const step of waiting) t.true((await step).done)
})

onEachAlone('a slow consumer costs no turns', async (t, kit) => {
  const context = kit.context()
  const [left, right] = kit.pair()
  const steps = readable(left, { context })[Symbol.asyncIterator]()
  put(right)
  t.false((await steps.next()).done)
  await pause(10)
  const { events } = context.stats()
  const { reads } = context.stats().handlers[0]!
  for (let round = 0; round < 20; round++) {
    put(right)
    await pause(1)
  }
  const after = context.stats()
  t.true(after.events - events <= 1, `${after.events - events} events for nobody`)
  t.true(after.handlers[0]!.reads - reads <= 1)
  t.false((await steps.next()).done)
  t.is(drain(left), 21)
})

test('a slow consumer costs no turns, in a process that has nothing else to do', async (t) => {
  const { said, code, stderr } = await inProcess(
    `const ctx = context({ monitor: 'epoll' })
     const [left, right] = fd.socketpair()
     const steps = fdmon.readable(left, { context: ctx })[Symbol.asyncIterator]()
     fd.write(right, Buffer.from('x'))
     setTimeout(() => {
       const { turns } = ctx.stats()
       setTimeout(() => { say(ctx.stats().turns - turns); process.exit() }, 200)
     }, 50)
     void steps.next()`,
    { monitor: 'epoll' },
  )
  t.is(code, 0, stderr)
  t.true(Number(said[0]) < 10, `${said[0]} turns while nobody waits`)
})

onEach('readable() ends when the signal aborts, also one that has aborted already', async (t, kit) => {
  const context = kit.context()
  const [left, right] = kit.pair()
  const abort = new AbortController()
  const steps = readable(left, { context, signal: abort.signal })[Symbol.asyncIterator]()
  const waiting = steps.next()
  abort.abort()
  t.true((await waiting).done)
  t.true((await steps.next()).done)
  put(right)
  for await (const _events of readable(left, { context, signal: abort.signal })) t.fail()
  t.is(context.stats().handlers.length, 0)
})

onEach('readable() ends when the other side has hung up: a socket, with what it left read first', async (t, kit) => {
  for (const left of [0, 3]) {
    const [ours, theirs] = socketpair()
    for (let count = 0; count < left; count++) put(theirs)
    theirs.close()
    let bytes = 0
    const context = kit.context()
    for await (const events of readable(ours, { context })) {
      t.is(events & Events.IN, Events.IN)
      bytes += Math.max(0, read(ours, new Uint8Array(1)))
    }
    t.is(bytes, left)
    t.is(context.stats().handlers.length, 0)
    ours.close()
  }
})

onEach('readable() ends when the last writer of a FIFO has gone, with what it left read first', async (t, kit) => {
  for (const left of [0, 2]) {
    const { fd, openWriter } = fifo(kit)
    const writer = openWriter()
    if (left > 0) write(writer, new Uint8Array(left))
    const steps = readable(fd, { context: kit.context() })[Symbol.asyncIterator]()
    const first = steps.next()
    if (left === 0) t.is(await now(first), 'waiting')
    closeSync(writer)
    let bytes = 0
    for (let step = await first; step.done !== true; step = await steps.next()) {
      bytes += Math.max(0, read(fd, new Uint8Array(1)))
    }
    t.is(bytes, left)
  }
})

onEach('readable() goes on while the other side only has nothing to say any more: a read of 0 bytes tells', async (t, kit) => {
  const [left, right] = kit.pair()
  const steps = readable(left, { context: kit.context() })[Symbol.asyncIterator]()
  const first = steps.next()
  t.is(await now(first), 'waiting')
  put(right)
  t.false((await first).done)
  drain(left)
  const second = steps.next()
  t.is(await now(second), 'waiting')
  right.close()
  t.true((await second).done)
})

onEach('readable() ends, and watch() is called no more, when the handlers are replaced, removed or closed with the context', async (t, kit) => {
  const [left, right] = kit.pair()
  const ways: Record<string, (context: AioContext) => unknown> = {
    replaced: (context) => context.setFdHandler(left, { read() {} }),
    removed: (context) => context.setFdHandler(left, null),
    closed: (context) => context.close(),
    'replaced by another iteration': (context) => readable(left, { context })[Symbol.asyncIterator](),
  }
  for (const [name, way] of Object.entries(ways)) {
    const context = kit.context()
    const steps = readable(left, { context })[Symbol.asyncIterator]()
    const waiting = steps.next()
    t.is(await now(waiting), 'waiting')
    way(context)
    t.true((await waiting).done, name)
    t.true((await steps.next()).done, name)
    t.true((await steps.return!()).done, name)
    context.close()
  }
  put(right)
})

onEach('an fd that its owner closed first ends an iteration with BAD_FD where the monitor sees it, and removing it is silent [SPEC 13]', async (t, { monitor }) => {
  const { said, code, signal, stderr } = await inProcess(
    `process.on('uncaughtException', (error) => say('uncaught', error.code))
     const ctx = context()
     const [left, right] = fd.socketpair()
     const [other] = fd.socketpair()
     const steps = fdmon.readable(left, { context: ctx })[Symbol.asyncIterator]()
     const registration = fdmon.watch(other, { read() { say('never') } }, { context: ctx })
     let over = false
     void steps.next().then(({ done }) => { over = true; say('over', done) })
     setTimeout(() => {
       left.close()
       other.close()
       const { turns } = ctx.stats()
       ctx.schedule(() => {}) // the next turn looks
       setTimeout(() => {
         say('busy', ctx.stats().turns - turns > 50)
         registration.remove()
         void steps.return()
         setTimeout(() => { say('left', ctx.stats().handlers.length, over); ctx.close() }, 10)
       }, 50)
     }, 20)`,
    { monitor },
  )
  t.deepEqual({ code, signal }, { code: 0, signal: null }, stderr)
  t.true(said.includes('busy false'), said.join('\n'))
  t.true(said.includes('left 0 true'), said.join('\n'))
  t.true(said.includes('over true'), said.join('\n'))
  t.false(said.includes('never'))
  // Reported once, several of one turn together, or not at all where the kernel forgot the fd.
  const reports = said.filter((line) => line.startsWith('uncaught'))
  t.true(reports.length <= 2, said.join('\n'))
})

test.serial('defaultContext() is one for the thread, attached, and made anew when it was closed', async (t) => {
  const ctx = defaultContext()
  t.is(defaultContext(), ctx)
  t.is(ctx.name, 'default')
  refuses(t, () => ctx.check(), [], 'ERR_FDMON_ATTACHED')
  const bell = new EventNotifier({ value: 1 })
  await new Promise<void>((resolve) => {
    const registration = watch(bell, { read: () => (registration.remove(), resolve()) })
  })
  ctx.close()
  t.not(defaultContext(), ctx)
  for await (const _events of readable(bell)) break
  defaultContext().detach()
  const again = watch(bell, { read() {} })
  refuses(t, () => defaultContext().check(), [], 'ERR_FDMON_ATTACHED')
  again.remove()
  bell.close()
})

test('a worker has a default context of its own', async (t) => {
  const worker = inWorker(
    `const bell = new fdmon.EventNotifier({ value: 1 })
     const registration = fdmon.watch(bell, { read() { registration.remove(); parentPort.postMessage(fdmon.defaultContext().id) } })`,
  )
  t.not(await message(worker), defaultContext().id)
  t.is(await ended(worker), 0)
})

onEach('a file, which has no readiness, is readable at each step', async (t, kit) => {
  const file = memfd('fdmon-test', 4096)
  setNonblock(file)
  let steps = 0
  const context = kit.context()
  for await (const events of readable(file, { context })) {
    t.is(events & Events.IN, Events.IN)
    if (++steps === 3) break
  }
  file.close()
  t.is(steps, 3)
  t.throws(() => watch(file, { read() {} }, { context }), { instanceOf: FdmonError })
})

test('readable: a reset is a step in which read() throws, not the end of a stream [SPEC 51]', async (t) => {
  const { said, code, stderr } = await inProcess(
    `const net = require('node:net')
     const path = '/tmp/fdmon-reset-' + process.pid
     const server = fd.listenUnix(path)
     const client = fd.connectUnix(path)
     const peer = fd.accept(server)
     fd.write(peer, Buffer.from('never read'))
     fd.write(client, Buffer.from('to be reset'))
     const bytes = Buffer.alloc(4)
     void (async () => {
       let steps = 0
       try {
         for await (const _events of fdmon.readable(client)) {
           if (++steps === 1) { peer.close(); fd.read(client, Buffer.alloc(64)) }
           else say(fd.read(client, bytes))
         }
         say('ended')
       } catch (error) { say(error.syscall, error.errno === require('node:os').constants.errno.ECONNRESET) }
       client.close(); server.close(); require('node:fs').rmSync(path)
     })()
     fd.write(peer, Buffer.from('.'))`,
    {},
  )
  t.deepEqual({ code, said }, { code: 0, said: ['read true'] }, stderr)
})

test('watch: with a signal that is aborted already, handlers are still checked, and nothing is registered', (t) => {
  const [left, right] = socketpair()
  const signal = AbortSignal.abort()
  const registration = watch(left, { read() {} }, { signal })
  t.is(registration.fd, left.fd)
  t.regex(inspect(registration), /live: false/)
  refuses(t, () => watch(left, { reed() {} } as never, { signal }), ['handlers.reed'])
  left.close()
  right.close()
})
