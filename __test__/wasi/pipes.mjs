// Watches two descriptors that its parent has made, 3 and 4, until the first ends.
import { closeSync, writeSync } from 'node:fs'
import { AioContext } from 'fdmon'
import { read } from 'fdmon/fd'

const ctx = new AioContext()
const say = (text) => void writeSync(1, `${text}\n`)
const bytes = new Uint8Array(64)
let over = false
const registrations = [3, 4].map((fd) =>
  ctx.setFdHandler(fd, {
    read(number) {
      const size = read(number, bytes)
      if (size === 0) over = true
      say(`${number}: ${size === 0 ? 'the end' : new TextDecoder().decode(bytes.subarray(0, size))}`)
      if (over) registrations[0].remove()
    },
  }),
)
say('ready')
const { handlers } = ctx.stats()
ctx.pollUntil(() => over)
say(`fds: ${handlers.map(({ fd }) => fd).sort().join()}`)
say(`quiet: ${!ctx.poll(false)}`)
closeSync(3)
try {
  ctx.setFdHandler(3, { read() {} })
} catch ({ message }) {
  say(`refused: ${message.slice(0, 6)}`)
}
ctx.close()
