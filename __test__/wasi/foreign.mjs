// Registers an eventfd that something else in this process has made: libuv has some.
import { readdirSync, readlinkSync } from 'node:fs'
import { AioContext } from 'fdmon'

const target = (fd) => {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`)
  } catch {
    return ''
  }
}
const eventfd = readdirSync('/proc/self/fd').find((fd) => target(fd) === 'anon_inode:[eventfd]')
const ctx = new AioContext()
try {
  ctx.setFdHandler(Number(eventfd), { read() {} })
  process.stdout.write('it was taken\n')
} catch ({ code }) {
  process.stdout.write(`${code}\n`)
}
ctx.close()
