// One process of `npm run bench:attach`: what an attached context costs while nothing happens. Prints a line of JSON.
//
//   node scripts/attach/idle.mjs '{"spinFirst": true, "context": true, "ms": 3000}'
import { AioContext } from 'fdmon'
import { timerfd } from 'fdmon/fd'

const { context, spinFirst, ms } = JSON.parse(process.argv[2])
const keep = setInterval(() => {}, 0x7fff_ffff)
let ctx
if (context) {
  ctx = new AioContext({ monitor: 'epoll', poll: { maxNs: 500_000, policy: 'classic' } }).attach()
  const clock = timerfd({ intervalNs: 50_000 })
  ctx.setFdHandler(clock, { poll: 'kernel', read: () => clock.read() })
  if (spinFirst) await new Promise((resolve) => setTimeout(resolve, 500))
  clock.set({})
}
const { spinHits, windowNs } = ctx?.stats() ?? {}
await new Promise((resolve) => setTimeout(resolve, 50))
const before = process.cpuUsage()
const since = process.hrtime.bigint()
await new Promise((resolve) => setTimeout(resolve, ms))
const { user, system } = process.cpuUsage(before)
const share = (user + system) / (Number(process.hrtime.bigint() - since) / 1000)
process.stdout.write(`${JSON.stringify({ share, spinHits, windowNs })}\n`)
ctx?.close()
clearInterval(keep)
