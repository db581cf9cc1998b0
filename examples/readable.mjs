// for await over readiness: each step is one time that there is something to read.
import { spawn } from 'node:child_process'
import { rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { readable } from 'fdmon'
import { accept, listenUnix, read } from 'fdmon/fd'

const path = join(tmpdir(), `fdmon-${process.pid}`)
const server = listenUnix(path)
const code = `require('node:net').connect(${JSON.stringify(path)}).end('hello from another process')`
spawn(process.execPath, ['-e', code], { stdio: 'inherit' })

let connection
for await (const _events of readable(server)) {
  connection = accept(server)
  if (connection !== undefined) break // which removes the handler
}
const buffer = Buffer.alloc(4096)
for await (const _events of readable(connection)) {
  const bytes = read(connection, buffer)
  if (bytes > 0) console.log(buffer.toString('utf8', 0, bytes))
  if (bytes === 0) break // it sends no more, but could still receive: that is no hang-up
}
for (const fd of [connection, server]) fd.close()
rmSync(path)
