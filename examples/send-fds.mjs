// A descriptor travels over a socket: the other side gets a duplicate, with its own number.
import { AioContext } from 'fdmon'
import { receiveFds, sendFds, socketpair, timerfd } from 'fdmon/fd'

const ctx = new AioContext()
const [left, right] = socketpair()
const open = [left, right]
const timer = timerfd({ delayNs: 1_000_000 })
ctx.setFdHandler(right, {
  read(fd) {
    const { bytes, fds } = receiveFds(fd, new Uint8Array(64))
    console.log(`${bytes} byte and ${fds.length} descriptor`)
    open.push(...fds)
    for (const received of fds) {
      ctx.setFdHandler(received, { read: () => (console.log('the timer fired here'), ctx.stop()) })
    }
  },
})
sendFds(left, new Uint8Array(1), [timer])
timer.close() // the duplicate keeps the timer
ctx.run()
ctx.close()
for (const fd of open) fd.close()
