// Starts the other process and hands it a port: over a Unix socket, with the descriptors of the memory and of the bell.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { readable } from 'fdmon'
import { accept, listenUnix, sendFds } from 'fdmon/fd'

/** Resolves when the port is on its way, with a promise of the peer's exit code. */
export async function startPeer(program, args, port) {
  const folder = mkdtempSync(join(tmpdir(), 'fdmon-peer-'))
  const path = join(folder, 'socket')
  const server = listenUnix(path)
  const child = spawn(program, [...args, path], { stdio: ['ignore', 'inherit', 'inherit'] })
  const exited = once(child, 'exit').then(([code, signal]) => code ?? signal)
  for await (const _ of readable(server)) {
    const connection = accept(server)
    if (connection === undefined) continue
    const { handle } = port
    sendFds(connection, new Uint8Array([handle.port]), handle.fds) // the peer knows all else
    connection.close()
    break
  }
  server.close()
  rmSync(folder, { recursive: true })
  return { exited }
}
