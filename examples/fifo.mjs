// A FIFO that another program writes into.
import { execFileSync, spawn } from 'node:child_process'
import { closeSync, constants, mkdtempSync, openSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { AioContext } from 'fdmon'
import { read } from 'fdmon/fd'

const folder = mkdtempSync(join(tmpdir(), 'fdmon-'))
const path = join(folder, 'fifo')
execFileSync('mkfifo', [path])
const fifo = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
spawn('sh', ['-c', 'seq 1 100000 >"$0"', path])

const ctx = new AioContext()
const buffer = Buffer.alloc(65_536)
let total = 0
ctx.setFdHandler(fifo, {
  read(fd) {
    const bytes = read(fd, buffer) // negative: nothing there now; 0: the writer is gone
    if (bytes > 0) total += bytes
    if (bytes === 0) ctx.stop()
  },
})
ctx.run()
console.log(`${total} bytes`) // 588895 bytes
closeSync((ctx.close(), fifo))
rmSync(folder, { recursive: true })
