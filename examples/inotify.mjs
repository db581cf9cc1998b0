// inotify: tells which files of a folder were written, here by another program.
import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { AioContext } from 'fdmon'
import { inotify, InotifyEvents } from 'fdmon/fd'

const folder = mkdtempSync(join(tmpdir(), 'fdmon-'))
const ctx = new AioContext()
const watcher = inotify()
watcher.addWatch(folder, InotifyEvents.CLOSE_WRITE)
const written = []
ctx.setFdHandler(watcher, {
  read() {
    for (const { name } of watcher.readEvents()) written.push(name)
  },
})
spawn('sh', ['-c', 'echo 1 >a; echo 2 >b; echo 3 >c'], { cwd: folder })
ctx.pollUntil(() => written.length === 3)
console.log(written.join(' ')) // a b c
ctx.close()
watcher.close()
rmSync(folder, { recursive: true })
