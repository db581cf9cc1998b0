// The shortest way: handlers in Node's own loop, beside its timers and promises.
import { setTimeout as sleep } from 'node:timers/promises'
import { watch } from 'fdmon'
import { timerfd } from 'fdmon/fd'

const clock = timerfd({ intervalNs: 10_000_000 })
let ticks = 0n
const registration = watch(clock, {
  read() {
    ticks += clock.read() // how often it expired since the last read
    process.nextTick(() => console.log(`after tick ${ticks}`))
  },
})
await sleep(55)
registration.remove() // from here on nothing keeps the process alive
clock.close()
console.log('the end')
