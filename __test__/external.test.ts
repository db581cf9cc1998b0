// External handlers.
import { drain, onEach, put } from './on-each.js'

onEach('a disabled external handler is silent, and its events arrive after the last enable [SPEC 14]', (t, kit) => {
  const ctx = kit.context()
  const [left, right] = kit.pair()
  const [other, toOther] = kit.pair()
  let external = 0
  let own = 0
  ctx.setFdHandler(left, { external: true, read: (fd) => void (external++, drain(fd)) })
  ctx.setFdHandler(other, { read: (fd) => void (own++, drain(fd)) })
  ctx.disableExternal()
  ctx.disableExternal()
  put(right)
  put(toOther)
  t.true(ctx.poll(true))
  t.false(ctx.poll(false))
  t.deepEqual([external, own], [0, 1])
  ctx.enableExternal()
  t.false(ctx.poll(false))
  ctx.enableExternal()
  t.true(ctx.poll(true))
  t.deepEqual([external, own], [1, 1])
})

onEach('a disabled external handler is not spun, and is looked at once it is enabled [SPEC 14] [SPEC 22]', (t, kit) => {
  const ctx = kit.spinning()
  const notifier = kit.notifier()
  let asked = 0
  let work = 1
  ctx.disableExternal()
  ctx.setFdHandler(notifier, {
    external: true,
    poll: () => (asked++, work > 0),
    pollReady: () => void work--,
  })
  ctx.poll(false)
  t.is(asked, 0)
  ctx.enableExternal()
  t.true(ctx.poll(true))
  t.is(work, 0)
})

onEach('disabled inside a callback of the same turn, a collected external event waits [SPEC 14]', (t, kit) => {
  const ctx = kit.context()
  const [left, right] = kit.pair()
  let reads = 0
  ctx.schedule(() => ctx.disableExternal())
  ctx.setFdHandler(left, { external: true, read: (fd) => void (reads++, drain(fd)) })
  put(right)
  ctx.poll(true)
  t.is(reads, 0)
  ctx.enableExternal()
  t.true(ctx.poll(true))
  t.is(reads, 1)
})
