// One process of `npm run bench:attach`: a timer of the kernel wakes one way so many times, and nothing else happens. Its
// system calls are counted from outside, as the difference of two lengths.
//
//   node scripts/attach/calls.mjs '{"uvPollAddon": "…", "way": "…", "wakeUps": 1000}'
import { timerfd } from 'fdmon/fd'
import { ways } from './ways.mjs'

const { uvPollAddon, way, wakeUps } = JSON.parse(process.argv[2])
const clock = timerfd({ intervalNs: 500_000 })
let left = wakeUps
const stop = ways[way].start({ notifier: clock, uvPollAddon }, () => {
  if (--left === 0) {
    stop()
    clock.close()
  }
})
