// A server and a client on a Unix socket, with an abstract name: there is no file to remove.
import { AioContext } from 'fdmon'
import { accept, connectUnix, listenUnix, read, write } from 'fdmon/fd'

const name = `\0fdmon-example-${process.pid}`
const ctx = new AioContext()
const buffer = Buffer.alloc(1024)
const server = listenUnix(name)
ctx.setFdHandler(server, {
  read() {
    const peer = accept(server) // undefined when nobody waits any more
    if (peer === undefined) return
    const registration = ctx.setFdHandler(peer, {
      read(fd) {
        const bytes = read(fd, buffer)
        if (bytes > 0) write(fd, buffer.subarray(0, bytes)) // an echo
        if (bytes === 0) peer.close(registration.remove())
      },
    })
  },
})
const client = connectUnix(name)
write(client, Buffer.from('hello'))
ctx.setFdHandler(client, { read: (fd) => ctx.stop(console.log(buffer.toString('utf8', 0, read(fd, buffer)))) })
ctx.run()
ctx.close()
for (const fd of [client, server]) fd.close()
