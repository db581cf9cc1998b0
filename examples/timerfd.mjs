// A timerfd: four ticks, 10 ms apart.
import { AioContext } from 'fdmon'
import { timerfd } from 'fdmon/fd'

const ctx = new AioContext()
const clock = timerfd({ intervalNs: 10_000_000 })
let ticks = 0
ctx.setFdHandler(clock, {
  read() {
    ticks += Number(clock.read()) // how often it expired since the last read
    console.log(`tick ${ticks}`)
    if (ticks >= 4) ctx.stop()
  },
})
ctx.run()
ctx.close()
clock.close()
