// A pair of sockets with back-pressure: `write` is watched only while the other side has no room.
import { AioContext } from 'fdmon'
import { read, socketpair, write } from 'fdmon/fd'

const ctx = new AioContext()
const [left, right] = socketpair()
const data = Buffer.alloc(1 << 20, 'x')
const buffer = Buffer.alloc(65_536)
let sent = 0
let received = 0
const sender = ctx.setFdHandler(left, {
  write(fd) {
    const bytes = write(fd, data.subarray(sent)) // negative: the socket is full
    if (bytes > 0) sent += bytes
    sender.setInterest({ write: sent < data.length })
  },
})
ctx.setFdHandler(right, {
  read(fd) {
    const bytes = read(fd, buffer)
    if (bytes > 0) received += bytes
  },
})
ctx.pollUntil(() => received === data.length)
console.log(`${received} bytes in ${ctx.stats().turns} turns`)
ctx.close()
