// Of the smoke suite: ESM and CommonJS are one implementation.
import { createRequire } from 'node:module'
import * as esm from 'fdmon'
import * as esmFd from 'fdmon/fd'
import { equal } from './steps.mjs'

const { fdmon, fd } = createRequire(import.meta.url)('./required.cjs')
const names = (module) => Object.keys(module).filter((name) => name !== 'default' && name !== '__esModule' && name !== 'module.exports').sort()

export const modules = {
  'ESM and CommonJS export the same names, and they are the same objects': async () => {
    const dynamic = await import('fdmon')
    for (const [one, other] of [[esm, fdmon], [dynamic, fdmon], [esmFd, fd]]) {
      equal(names(one), names(other))
      equal(names(one).filter((name) => one[name] !== other[name]), [])
    }
    equal(names(esm).includes('AioContext') && names(esmFd).includes('timerfd'), true)
  },

  'an error of the one is an FdmonError of the other': () => {
    try {
      new fdmon.AioContext({ monitor: 'none' })
    } catch (error) {
      return equal([error instanceof esm.FdmonError, error instanceof Error], [true, true])
    }
    throw new Error('it threw nothing')
  },

  'a descriptor of the one is watched by the other': () => {
    const ctx = new fdmon.AioContext()
    const clock = esmFd.timerfd({ delayNs: 1_000 })
    let ticks = 0n
    ctx.setFdHandler(clock, { read: () => (ticks += clock.read()) })
    ctx.pollUntil(() => ticks > 0n)
    ctx.close()
    clock.close()
  },
}
