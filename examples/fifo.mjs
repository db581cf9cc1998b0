// A FIFO that another program writes into.
import { execFileSync, spawn } from 'node:child_process'
import { closeSync, constants, mkdtempSync, openSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { watch } from 'fdmon'
import { read } from 'fdmon/fd'

const folder = mkdtempSync(join(tmpdir(), 'fdmon-'))
const path = join(folder, 'fifo')
execFileSync('mkfifo', [path])
const fifo = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
spawn('sh', ['-c', 'seq 1 100000 >"$0"', path])

const buffer = Buffer.alloc(65_536)
let total = 0
const registration = watch(fifo, {
  read(fd) {
    const bytes = read(fd, buffer) // negative: nothing there now; 0: the writer is gone
    if (bytes > 0) total += bytes
    if (bytes !== 0) return
    console.log(`${total} bytes`) // 588895 bytes
    registration.remove()
    closeSync(fifo)
    rmSync(folder, { recursive: true })
  },
})
