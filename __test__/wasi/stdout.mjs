// Waits for room in standard output, a pipe.
import { AioContext } from 'fdmon'
import { write } from 'fdmon/fd'

const ctx = new AioContext()
let rooms = 0
const registration = ctx.setFdHandler(1, {
  write(fd) {
    rooms++
    write(fd, new TextEncoder().encode('room\n'))
    if (rooms === 2) registration.setInterest({ write: false })
  },
})
ctx.pollUntil(() => rooms === 2)
if (!ctx.poll(false)) write(1, new TextEncoder().encode('quiet\n'))
ctx.close()
