// What a runtime whose loop is not libuv must refuse, in words, before anything of libuv is touched.
import { AioContext, FdmonError, IoThread, defaultContext, readable, watch } from 'fdmon'
import { socketpair } from 'fdmon/fd'
import { report, thrown } from './steps.mjs'

const [left, right] = socketpair()
const ctx = new AioContext()
const calls = {
  'attach()': () => ctx.attach(),
  'watch()': () => watch(left, { read() {} }),
  'watch() with a context': () => watch(left, { read() {} }, { context: ctx }),
  'readable()': () => readable(left),
  'readable() with a context': () => readable(left, { context: ctx }),
  'defaultContext()': () => defaultContext(),
  'new IoThread()': () => new IoThread(new URL('io-thread.mjs', import.meta.url)),
}
for (const [name, call] of Object.entries(calls)) {
  const error = thrown(call)
  report({ name, typed: error instanceof FdmonError, code: error.code, message: error.message })
}

// The context is as it was.
let ran = 0
ctx.detach()
ctx.schedule(() => ++ran)
ctx.poll()
report({ name: 'poll() afterwards', ran, leak: ctx.close() })
left.close()
right.close()
