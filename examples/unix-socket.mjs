// An echo server on a Unix socket, with back-pressure, in Node's loop; the client is Node's.
import { rmSync } from 'node:fs'
import net from 'node:net'
import { watch } from 'fdmon'
import { accept, listenUnix, read, write } from 'fdmon/fd'

function serve(peer) {
  const buffer = Buffer.alloc(65_536)
  let rest = buffer.subarray(0, 0) // what could not be sent yet
  const end = () => (connection.remove(), peer.close())
  const send = () => {
    rest = rest.subarray(Math.max(write(peer, rest), 0))
    connection.setInterest({ read: rest.length === 0, write: rest.length > 0 })
  }
  const receive = () => {
    const bytes = read(peer, buffer)
    if (bytes > 0) send((rest = buffer.subarray(0, bytes)))
    if (bytes === 0) end()
  }
  const guarded = (step) => () => { try { step() } catch { end() } } // EPIPE, ECONNRESET: the peer's doing
  const connection = watch(peer, { read: guarded(receive), write: guarded(send) })
  connection.setInterest({ write: false })
}
const path = `/tmp/fdmon-example-${process.pid}`
const server = listenUnix(path)
const listening = watch(server, { read: () => serve(accept(server)) })
const client = net.connect(path, () => client.end('hello'))
client.on('data', (bytes) => console.log(`${bytes}`)).on('close', () => (listening.remove(), server.close(), rmSync(path)))
