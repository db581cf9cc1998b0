// What the loop does, on channels of node:diagnostics_channel: its spins, its window, who is spun on.
import { subscribe } from 'node:diagnostics_channel'
import { AioContext, EventNotifier } from 'fdmon'

subscribe('fdmon:poll:end', ({ result, windowNs }) => console.log(`spun, at most ${windowNs} ns: ${result}`))
subscribe('fdmon:window', ({ change, fromNs, toNs }) => console.log(`the window has ${change} from ${fromNs} to ${toNs} ns`))
subscribe('fdmon:handler', ({ change }) => console.log(`a handler was ${change}`))
subscribe('fdmon:monitor', ({ to, reason }) => console.log(`moved to ${to}: ${reason}`))

const ctx = new AioContext({ poll: { maxNs: 1_000_000_000, policy: 'classic', guards: false } })
const bell = new EventNotifier()
let messages = 1
ctx.setFdHandler(bell, { poll: () => messages > 0, pollReady: () => void messages-- })

for (let turn = 0; turn < 3; turn++) {
  const timer = ctx.timer(() => messages++)
  timer.arm(100_000)
  while (timer.pending || messages > 0) ctx.poll()
}
ctx.close()
bell.close()
