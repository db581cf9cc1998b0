// inotify: tells which files of a folder were written, here by another program.
import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { readable } from 'fdmon'
import { inotify, InotifyEvents } from 'fdmon/fd'

const folder = mkdtempSync(join(tmpdir(), 'fdmon-'))
const watcher = inotify()
watcher.addWatch(folder, InotifyEvents.CLOSE_WRITE)
spawn('sh', ['-c', 'echo 1 >a; echo 2 >b; echo 3 >c'], { cwd: folder })

const written = []
for await (const _events of readable(watcher)) {
  for (const { name } of watcher.readEvents()) written.push(name)
  if (written.length === 3) break
}
console.log(written.join(' ')) // a b c
watcher.close()
rmSync(folder, { recursive: true })
