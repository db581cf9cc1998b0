// A defect of the native part: a panic becomes an error, the context closes, and the process goes on.
//
// There is no switch for this in the product. The tests take the pending words away from under a context, which makes
// whatever looks at one panic; through the package nobody can.
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import test from 'ava'
import { inProcess } from './in-process.js'
import { monitors, onEach } from './on-each.js'

const binding = join(dirname(createRequire(import.meta.url).resolve('fdmon/package.json')), 'native', 'binding.cjs')

const sabotage = `const { NativeContext } = require(data.binding)
  const natives = new Map()
  const { hot } = NativeContext.prototype
  NativeContext.prototype.hot = function () { natives.set(this.id, this); return hot.call(this) }
  const nativeOf = (ctx) => natives.get(ctx.id)
  /** From here on native panics when it looks at any slot but the first. */
  const breakIt = (ctx) => nativeOf(ctx).setWords(new Int32Array(1))
  const ready = (value = 1) => new fdmon.EventNotifier({ value })
  const filled = (options) => {
    const ctx = context(options)
    for (let at = 0; at < 5; at++) ctx.setFdHandler(ready(), { read() {} })
    return ctx
  }
  const told = (call) => { try { return String(call()) } catch (error) { return [error.constructor.name, error.code].join(' ') } }
  const sets = () => require('node:fs').readdirSync('/proc/self/fd').filter((fd) => {
    try { return /eventpoll|io_uring|timerfd/.test(require('node:fs').readlinkSync('/proc/self/fd/' + fd)) } catch { return false }
  }).length
`

onEach('a panic in a turn is ERR_FDMON_INTERNAL, and the context is closed [SPEC 21]', async (t, { monitor }) => {
  const end = await inProcess(
    `${sabotage}
     const other = context()
     const before = sets()
     const ctx = filled()
     breakIt(ctx)
     say(told(() => ctx.poll(true)))
     try { ctx.poll(true) } catch (error) { say(error.code, error.message) }
     say(told(() => ctx.stats()))
     say(told(() => ctx.setFdHandler(ready(), { read() {} })))
     say(JSON.stringify(ctx.close()))
     say(sets() - before)
     other.schedule(() => say('another goes on'))
     say(other.poll(true))`,
    { monitor, binding },
  )
  t.is(end.code, 0, end.stderr)
  t.is(end.said[0], 'FdmonError ERR_FDMON_INTERNAL')
  t.regex(end.said[1] ?? '', /^ERR_FDMON_CLOSED .*create a new AioContext/)
  t.deepEqual(end.said.slice(2), [
    'FdmonError ERR_FDMON_CLOSED',
    'FdmonError ERR_FDMON_CLOSED',
    '{"handlers":0,"bottomHalves":0,"timers":0,"io":0}',
    '0',
    'another goes on',
    'true',
  ])
})

onEach('a panic while Node runs the turns is an uncaught exception, and Node goes on [SPEC 21, 51]', async (t, { monitor }) => {
  const end = await inProcess(
    `${sabotage}
     process.on('uncaughtException', (error) => say('uncaught', error.code))
     const ctx = filled({ poll: { maxNs: data.maxNs } }).attach()
     breakIt(ctx)
     setTimeout(() => {
       say(told(() => ctx.poll(false)))
       say('a timer of Node')
     }, 50)`,
    { monitor, binding, maxNs: 100_000 },
  )
  t.is(end.code, 0, end.stderr)
  t.deepEqual(end.said, ['uncaught ERR_FDMON_INTERNAL', 'FdmonError ERR_FDMON_CLOSED', 'a timer of Node'])
})

onEach('whatever of a context panics, the process goes on and the error says so [SPEC 21]', async (t, { monitor }) => {
  const end = await inProcess(
    `${sabotage}
     const names = Object.entries(Object.getOwnPropertyDescriptors(NativeContext.prototype))
       .filter(([name, { value }]) => typeof value === 'function' && name !== 'constructor').map(([name]) => name)
     const others = { setPollParams: [{}], setAioParams: [{}], addFrame: [new Int32Array(8)], setWords: [new Int32Array(1)], attach: [() => {}],
       register: [0, 1, 1, 0, null, -1], timerArmAt: [3, 1n], setReferenced: [true], keep: [true], more: [0], dispatch: [0] }
     const seen = {}
     for (const name of names) {
       const ctx = filled({ poll: { maxNs: 1000 } })
       const slot = 3
       ctx.bottomHalf(() => {}).schedule()
       ctx.timer(() => {}).arm(0)
       ctx.poll(false)
       const native = nativeOf(ctx)
       breakIt(ctx)
       seen[name] = told(() => native[name](...(others[name] ?? [slot, 0])))
       if (seen[name].includes('INTERNAL') && !native.closed) say(name, 'did not close')
       if (native.closed && name !== 'close' && !seen[name].includes('INTERNAL')) say(name, seen[name], 'closed')
     }
     for (const [name, hot] of Object.entries(nativeOf(context()).hot())) {
       const ctx = filled()
       ctx.poll(false)
       breakIt(ctx)
       seen['hot ' + name] = told(() => nativeOf(ctx).hot()[name](name === 'turn' ? 1 : 3, 0))
     }
     say(JSON.stringify(Object.entries(seen).filter(([, text]) => text.includes('INTERNAL')).map(([name]) => name)))
     say(Object.keys(seen).length)`,
    { monitor, binding },
  )
  t.is(end.code, 0, end.stderr)
  const panicked = JSON.parse(end.said.find((line) => line.startsWith('[')) ?? '[]') as string[]
  t.is(end.said.length, 2, end.said.join('\n'))
  for (const name of ['remove', 'setInterest', 'check', 'close', 'hot turn']) t.true(panicked.includes(name), `${name}: ${end.said.join('\n')}`)
})

test('a worker whose context panicked ends as any other [SPEC 21]', async (t) => {
  const end = await inProcess(
    `const { Worker } = require('node:worker_threads')
     const worker = new Worker(data.source, { eval: true, workerData: data })
     worker.on('message', (text) => say(text))
     worker.on('error', (error) => say('error', error.code))
     worker.on('exit', (code) => say('exit', code))`,
    {
      monitor: monitors[0]!,
      binding,
      source: `const data = require('node:worker_threads').workerData
        const fdmon = require(data.binding.replace(/native.*/, 'dist/cjs/index.js'))
        const { NativeContext } = require(data.binding)
        let native
        const { hot } = NativeContext.prototype
        NativeContext.prototype.hot = function () { native = this; return hot.call(this) }
        const ctx = new fdmon.AioContext().attach()
        for (let at = 0; at < 5; at++) ctx.setFdHandler(new fdmon.EventNotifier({ value: 1 }), { read() {} })
        native.setWords(new Int32Array(1))`,
    },
  )
  t.is(end.code, 0, end.stderr)
  t.deepEqual(end.said, ['error ERR_FDMON_INTERNAL', 'exit 1'])
})
