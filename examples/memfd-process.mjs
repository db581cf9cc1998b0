// Memory shared by two processes: the child makes it and sends its descriptor, the parent maps it and reads what is there.
import { spawn } from 'node:child_process'
import { readable } from 'fdmon'
import { accept, listenUnix, MemFd, receiveFds } from 'fdmon/fd'

const name = `\0fdmon-memfd-${process.pid}`
const program = `
  import { connectUnix, memfd, sendFds } from 'fdmon/fd'
  const file = memfd('shared', 4096)
  Atomics.store(new Int32Array(file.map()), 0, 42)
  sendFds(connectUnix('\\0' + process.argv[1]), Buffer.from('.'), [file])`
const server = listenUnix(name)
spawn(process.execPath, ['--input-type=module', '--eval', program, name.slice(1)], { stdio: 'inherit' })

for await (const _events of readable(server)) break // somebody has connected
const peer = accept(server)
for await (const _events of readable(peer)) break
const { fds } = receiveFds(peer, Buffer.alloc(1))
const file = MemFd.from(fds[0])
console.log(`${file.name}, ${file.size} bytes: ${Atomics.load(new Int32Array(file.map()), 0)}`)
for (const fd of [...fds, file, peer, server]) fd.close()
