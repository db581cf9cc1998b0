// Timers of a context: nanoseconds, monotonic, never early.
import { AioContext } from 'fdmon'

const ctx = new AioContext()
const start = process.hrtime.bigint()
const since = () => `${(Number(process.hrtime.bigint() - start) / 1e6).toFixed(1)} ms`

let left = 3
const again = ctx.timer(() => {
  if (--left > 0) again.arm(2_000_000)
  console.log(`again after ${since()}`)
})
again.arm(2_000_000)

const end = ctx.timer(() => {
  console.log(`the end after ${since()}`)
  ctx.stop()
})
end.armAt(start + 20_000_000n) // on the clock of process.hrtime.bigint()

const never = ctx.timer(() => console.log('not seen'))
never.arm(1_000_000)
never.cancel()
ctx.run()
ctx.close()
