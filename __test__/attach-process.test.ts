// What keeps the process alive while a context is attached, and what does not.
import { onEach } from './on-each.js'
import { inProcess } from './in-process.js'

/** Each program ends by itself, having said this; one that is kept alive for ever is killed. */
function ends(title: string, said: readonly string[], source: string): void {
  onEach(`${title} [SPEC 51]`, async (t, { monitor }) => {
    const end = await inProcess(source, { monitor })
    t.deepEqual({ code: end.code, signal: end.signal, said: end.said }, { code: 0, signal: null, said: [...said] }, end.stderr)
    t.is(end.stderr, '')
  })
}

/** Something keeps each of these programs alive: 150 ms later it is still there, and ends by what is said then. */
const alive = (source: string): string => `${source}
  const late = setTimeout(() => { say('alive'); finish() }, 150)
  late.unref()`

ends('an attached context with nothing to wait for lets the process end', [], 'context().attach(); spinning().attach()')

ends('a handler keeps the process alive until it is removed', ['alive'], alive(
  `const bell = new fdmon.EventNotifier()
   const registration = context().attach().setFdHandler(bell, { read() {} })
   const finish = () => registration.remove()`,
))

ends('handlers that were registered before attach() keep it alive too, until close()', ['alive'], alive(
  `const ctx = context()
   for (let count = 0; count < 3; count++) ctx.setFdHandler(new fdmon.EventNotifier(), { read() {} })
   ctx.attach()
   const finish = () => ctx.close()`,
))

ends('detach() lets the process end, whatever the context waits for', ['alive'], alive(
  `const ctx = context().attach()
   ctx.setFdHandler(new fdmon.EventNotifier(), { read() {} })
   ctx.timer(() => say('never')).arm(1e9)
   const finish = () => ctx.detach()`,
))

ends('replacing handlers counts each fd once', ['alive'], alive(
  `const ctx = context().attach()
   const bell = new fdmon.EventNotifier()
   for (let count = 0; count < 3; count++) ctx.setFdHandler(bell, { read() {} })
   const finish = () => ctx.setFdHandler(bell, null)`,
))

ends('a pending timer keeps the process alive, one that was cancelled or is not armed does not', ['ran'],
  `const ctx = context().attach()
   ctx.timer(() => say('ran')).arm(100_000_000)
   const cancelled = ctx.timer(() => say('never'))
   cancelled.arm(3_000_000_000)
   cancelled.cancel()
   const disposed = ctx.timer(() => say('never'))
   disposed.arm(3_000_000_000)
   disposed[Symbol.dispose]()
   ctx.timer(() => say('never'))`,
)

ends('a scheduled bottom half runs before the process ends, one that is not scheduled does not keep it', ['scheduled', 'again', 'idle'],
  `const ctx = context().attach()
   ctx.schedule(() => { say('scheduled'); ctx.schedule(() => { say('again'); ctx.bottomHalf(() => say('idle')).scheduleIdle() }) })
   ctx.bottomHalf(() => say('never'))
   const cancelled = ctx.bottomHalf(() => say('never'))
   cancelled.schedule()
   cancelled.cancel()`,
)

ends('unref() and attach({ ref: false }) let the process end, and ref() takes it back', ['alive'], alive(
  `const bell = new fdmon.EventNotifier()
   const contexts = [context().attach({ ref: false }), context().attach().unref(), context().unref().attach(), context().attach()]
   for (const ctx of contexts) {
     ctx.setFdHandler(bell, { read() {} })
     ctx.timer(() => say('never')).arm(5e9)
   }
   contexts[3].attach({ ref: false })
   contexts[0].unref().ref()
   const finish = () => contexts[0].unref()`,
))

ends('a context that is not referenced runs while something else keeps the process alive', ['ran 3'],
  `const ctx = context().attach({ ref: false })
   const bell = new fdmon.EventNotifier()
   let runs = 0
   ctx.setFdHandler(bell, { read() { bell.testAndClear(); runs++ } })
   let rings = 3
   const ring = () => (rings-- > 0 ? (bell.set(), setTimeout(ring, 10)) : say('ran', runs))
   setTimeout(ring, 1)`,
)

ends('watch(…, { ref: false }) lets the process end, beside one that does not', ['alive'], alive(
  `const bells = [1, 2].map(() => new fdmon.EventNotifier())
   const options = { context: context().attach() }
   fdmon.watch(bells[0], { read() {} }, { ...options, ref: false })
   const registration = fdmon.watch(bells[1], { read() {} }, options)
   const finish = () => registration.remove()`,
))

ends('an iteration of readable() keeps the process alive until it ends', ['alive', 'over'], alive(
  `const bell = new fdmon.EventNotifier()
   const abort = new AbortController()
   void (async () => {
     for await (const events of fdmon.readable(bell, { context: context().attach(), signal: abort.signal })) say('never')
     say('over')
   })()
   const finish = () => abort.abort()`,
))

ends('beforeExit is emitted once, and what is scheduled there still runs', ['beforeExit', 'scheduled', 'beforeExit', 'exit'],
  `const ctx = context().attach()
   let times = 0
   ctx.schedule(() => {})
   process.on('beforeExit', () => { say('beforeExit'); if (times++ === 0) ctx.schedule(() => say('scheduled')) })
   process.on('exit', () => say('exit'))`,
)

ends('a stopped process is not kept by a turn() that nobody will end', [],
  `context().attach().turn().then(() => say('never'))`,
)

ends('a thousand attaches and detaches leave nothing behind', ['0'],
  `const count = () => require('node:fs').readdirSync('/proc/self/fd').length
   const ctx = context().attach()
   ctx.detach()
   setTimeout(() => {
     const before = count()
     for (let round = 0; round < 1000; round++) {
       ctx.attach()
       if (round % 2 === 0) ctx.schedule(() => {})
       ctx.detach()
     }
     // Fewer than before: Node has closed one that it opened while it started.
     setTimeout(() => say(Math.max(count() - before, 0)), 20)
   }, 50)`,
)
