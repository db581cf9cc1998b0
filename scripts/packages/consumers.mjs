// Programs as users write them, and the ways in which they type-check them.

/** Ends with the first event of a timerfd. */
const body = `
const ctx = new AioContext()
const clock = timerfd({ intervalNs: 1_000_000 })
ctx.setFdHandler(clock, { read: () => (console.log('event', clock.read() > 0n), ctx.stop()) })
ctx.run()
ctx.close()
clock.close()
`
const imports = "import { AioContext } from 'fdmon'\nimport { timerfd } from 'fdmon/fd'\n"
const typed = `
import { AioContext, EventNotifier, FdmonError, type AioContextOptions, type ContextStats, type FdLike, type Registration } from 'fdmon'
import { timerfd, type Fd } from 'fdmon/fd'

const options: AioContextOptions = { monitor: 'epoll', poll: { maxNs: 0 } }
const ctx: AioContext = new AioContext(options)
const clock = timerfd({ intervalNs: 1_000_000 })
const fd: FdLike & Fd = clock
const registration: Registration = ctx.setFdHandler(fd, { read: () => (console.log('event', clock.read() > 0n), ctx.stop()) })
ctx.run()
const stats: ContextStats = ctx.stats()
const bell = new EventNotifier()
try {
  // @ts-expect-error a number is no name of a monitor
  new AioContext({ monitor: 1 })
} catch (error) {
  if (!(error instanceof FdmonError) || stats.handlers.length !== 1) throw error
}
registration.remove()
bell.close()
ctx.close()
clock.close()
`

export const PROGRAMS = {
  'esm.mjs': imports + body,
  'commonjs.cjs': `const { AioContext } = require('fdmon')\nconst { timerfd } = require('fdmon/fd')\n${body}`,
  'dynamic.cjs': `Promise.all([import('fdmon'), import('fdmon/fd')]).then(([{ AioContext }, { timerfd }]) => {${body}})\n`,
}

/** Needs no descriptor and no Linux; says which monitor it was. */
export const ANYWHERE = `
import { AioContext } from 'fdmon'
const ctx = new AioContext()
const timer = ctx.timer(() => (console.log('event', ctx.stats().monitor), ctx.stop()))
timer.arm(1_000_000)
ctx.run()
ctx.close()
`

/** The files of the TypeScript programs; .mts and .cts are what they are everywhere, .ts is what the project is. */
export const SOURCES = { 'typed.mts': typed, 'typed.cts': typed, 'typed.ts': typed }

/** The versions of TypeScript that declarations must please. */
export const TYPESCRIPTS = { 'ts5.2': '5.2.2', 'ts5.9': '5.9.3', 'ts7.0': '7.0.2' }

const strict = { target: 'es2022', strict: true, skipLibCheck: false, types: ['node'], outDir: 'out' }
/** What a project may be set to: `[name, options, files, versions that know it]` */
export const SETTINGS = [
  ['nodenext', { ...strict, module: 'nodenext', moduleResolution: 'nodenext' }, ['typed.mts', 'typed.cts', 'typed.ts'], /./],
  ['bundler', { ...strict, module: 'esnext', moduleResolution: 'bundler' }, ['typed.ts'], /./],
  ['commonjs, node10', { ...strict, module: 'commonjs', moduleResolution: 'node10' }, ['typed.ts'], /^ts5/],
]
