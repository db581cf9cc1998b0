// The smoke suite of the whole API, the same on every runtime, target and kernel: `node suite.mjs`, with FDMON_MONITOR for one monitor.
//
// Each line that it says is JSON: first what it runs on, then a line a step, at last "end". What a runtime or a kernel cannot do
// is a step too: the typed error that the documentation promises. No step waits for a time to pass, so it may run in slow guests.
import { arch, release } from 'node:os'
import { AioContext, capabilities, FdmonError } from 'fdmon'
import { attached, endAttached } from './attached.mjs'
import { channel } from './channel.mjs'
import { descriptors } from './descriptors.mjs'
import { files } from './files.mjs'
import { loop } from './loop.mjs'
import { modules } from './modules.mjs'
import { monitors } from './monitors.mjs'
import { refused } from './refused.mjs'
import { spin } from './spin.mjs'
import { refuses, report, runtime, steps } from './steps.mjs'
import { threads } from './threads.mjs'

const asked = process.env.FDMON_MONITOR ?? 'auto'
const here = capabilities().monitors
const version = process.versions[runtime]
report({ about: { runtime: `${runtime} ${version}`, arch: arch(), kernel: release(), monitor: asked, native: capabilities().native } })

if (here[asked]?.available === false) {
  await steps({
    [`${asked} is refused, in words, and nothing else is harmed`]: () => {
      refuses(() => new AioContext(), FdmonError, 'ERR_FDMON_UNSUPPORTED', `'${asked}'`)
      const ctx = new AioContext({ monitor: 'poll' })
      let ran = 0
      ctx.schedule(() => ++ran)
      ctx.poll()
      ctx.close()
      if (ran !== 1) throw new Error('the loop did not run')
    },
  })
  report({ refused: here[asked].reason })
  report('end')
} else {
  for (const list of [monitors, loop, descriptors, spin, files, threads, channel, modules]) await steps(list)
  if (runtime === 'node') {
    await steps(attached)
    // Said by a watcher, which keeps the process alive until then and has nothing left to live for afterwards.
    endAttached(() => report('end'))
  } else {
    await steps(refused)
    report('end')
  }
}
