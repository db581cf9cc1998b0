// Sleeps until standard input, a pipe, has something, with a timer besides, until its end.
import { writeSync } from 'node:fs'
import { AioContext, Events } from 'fdmon'
import { read } from 'fdmon/fd'

const ctx = new AioContext()
const say = (text) => void writeSync(1, `${text}\n`)
const bytes = new Uint8Array(64)
let [text, over, timed] = ['', false, false]
ctx.timer(() => (timed = true)).arm(1_000_000)
ctx.setFdHandler(0, {
  read(fd, events) {
    const size = read(fd, bytes)
    if (size > 0) text += new TextDecoder().decode(bytes.subarray(0, size))
    if (size === 0) over = (events & (Events.IN | Events.HUP)) !== 0
  },
})
say('ready')
ctx.pollUntil(() => over)
say(text)
say(`timer: ${timed}`)
say('hung up')
let looks = 0
while (!ctx.poll(false)) if (++looks === 10) say('ten looks saw nothing')
ctx.setFdHandler(0, null)
say(`progress: ${ctx.poll(false)}`)
ctx.close()
