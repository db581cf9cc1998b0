// A program for fdmon top to watch: a loop that lets nobody in, with an event each millisecond, until it is killed.
const { AioContext, EventNotifier, publishStats } = require('fdmon')

if (process.argv[2] === 'publish') publishStats()
const ctx = new AioContext({ name: 'demo', monitor: 'epoll', poll: { maxNs: 200_000, policy: 'fixed', guards: false } })
const bell = new EventNotifier()
const silent = new EventNotifier()
ctx.setEventNotifier(bell, { read: () => void bell.testAndClear(), poll: 'kernel' })
ctx.setEventNotifier(silent, { read: () => void silent.testAndClear() })
const timer = ctx.timer(() => {
  bell.set()
  timer.arm(1_000_000)
})
timer.arm(1_000_000)
process.stdout.write('ready\n')
ctx.run()
