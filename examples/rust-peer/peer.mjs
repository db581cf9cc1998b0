// Starts the other process, and hands it a port or is handed one: over a Unix socket, with the descriptors of the memory and of the bell.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Channel, ChannelPort, readable } from 'fdmon'
import { accept, listenUnix, receiveFds, sendFds } from 'fdmon/fd'

/** This process makes the channel. Resolves to its port of it, when the other one is on its way, and a promise of the peer's exit code. */
export async function startPeer(program, args) {
  const { port1, port2 } = new Channel({ memory: 'memfd' })
  const { connection, exited } = await start(program, args)
  const { handle } = port2
  sendFds(connection, new Uint8Array([handle.port]), handle.fds) // the peer knows all else
  connection.close()
  // A port that is closed before the peer has taken it is closed for the peer as well.
  return { port: port1, exited: exited.finally(() => port2.close()) }
}

/** The peer makes the channel, of this capacity. Resolves to the port that it hands over. */
export async function startMaker(program, args, capacity) {
  const { connection, exited } = await start(program, ['--make', `${capacity}`, ...args])
  const number = new Uint8Array(1)
  for await (const _ of readable(connection)) {
    const { bytes, fds } = receiveFds(connection, number)
    if (bytes !== 1 || fds.length !== 2) throw new Error(`the peer handed over ${bytes} bytes and ${fds.length} descriptors`)
    const port = ChannelPort.from({ type: 'fdmon.Channel', port: number[0], memory: 'memfd', pid: process.pid, fds, ids: [-1, -1] })
    for (const fd of [connection, ...fds]) fd.close() // the port has its own
    return { port, exited }
  }
  throw new Error('the peer ended before it handed over a port')
}

/** Starts it, and waits until it connects. */
async function start(program, args) {
  const folder = mkdtempSync(join(tmpdir(), 'fdmon-peer-'))
  const path = join(folder, 'socket')
  const server = listenUnix(path)
  const child = spawn(program, [...args, path], { stdio: ['ignore', 'inherit', 'inherit'] })
  const exited = once(child, 'exit').then(([code, signal]) => code ?? signal)
  let connection
  for await (const _ of readable(server)) if ((connection = accept(server))) break
  server.close()
  rmSync(folder, { recursive: true })
  return { connection, exited }
}
