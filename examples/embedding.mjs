// One loop inside another: the outer one waits for `backendFd`, at most as long as `prepareNs()` says.
import { AioContext } from 'fdmon'
import { timerfd } from 'fdmon/fd'

const inner = new AioContext({ name: 'inner' })
const clock = timerfd({ intervalNs: 5_000_000 })
let ticks = 0
inner.setFdHandler(clock, { read: () => (ticks += Number(clock.read())) })

const outer = new AioContext({ name: 'outer' }) // stands for any loop that can watch an fd
outer.setFdHandler(inner.backendFd, { read() {} })
const alarm = outer.timer(() => {})
while (ticks < 3) {
  const ns = inner.prepareNs() // -1 = for ever, 0 = there is something to do
  if (ns > 0) alarm.arm(ns)
  outer.poll(ns !== 0)
  alarm.cancel()
  if (inner.check()) inner.dispatch()
}
console.log(`${ticks} ticks, ${inner.stats().sleeps} sleeps of its own`)
outer.close()
inner.close()
clock.close()
