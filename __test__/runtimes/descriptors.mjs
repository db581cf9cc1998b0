// Of the smoke suite: each kind of descriptor that Node cannot make.
import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { accept, connectUnix, inotify, InotifyEvents, listenUnix, pidfd, read, signalfd, timerfd, write } from 'fdmon/fd'
import { equal, withContext } from './steps.mjs'

export const descriptors = {
  'a timerfd ticks': withContext((ctx) => {
    const clock = timerfd({ intervalNs: 1_000_000 })
    let ticks = 0n
    ctx.setFdHandler(clock, { read: () => (ticks += clock.read()) })
    ctx.pollUntil(() => ticks >= 3n)
    ctx.setFdHandler(clock, null)
    clock.close()
  }),

  'a Unix socket accepts, and carries bytes': withContext((ctx) => {
    const server = listenUnix(`\0fdmon ${process.pid}`)
    const client = connectUnix(`\0fdmon ${process.pid}`)
    let connection
    let bytes = 0
    ctx.setFdHandler(server, {
      read() {
        connection = accept(server)
        ctx.setFdHandler(connection, { read: (fd) => (bytes += read(fd, new Uint8Array(8))) })
      },
    })
    write(client, new Uint8Array(3))
    ctx.pollUntil(() => bytes > 0)
    equal(bytes, 3)
    for (const fd of [server, connection]) ctx.setFdHandler(fd, null)
    for (const fd of [server, connection, client]) fd.close()
  }),

  'a signalfd tells of a signal': withContext((ctx) => {
    const signals = signalfd(['SIGUSR2'])
    const seen = []
    ctx.setFdHandler(signals, { read: () => seen.push(...signals.readSignals().map(({ signal }) => signal)) })
    process.kill(process.pid, 'SIGUSR2')
    ctx.pollUntil(() => seen.length > 0)
    equal(seen, ['SIGUSR2'])
    ctx.setFdHandler(signals, null)
    signals.close()
  }),

  'inotify names a file that was written': withContext((ctx) => {
    const folder = mkdtempSync(join(tmpdir(), 'fdmon-'))
    const watcher = inotify()
    watcher.addWatch(folder, InotifyEvents.CLOSE_WRITE)
    const names = []
    ctx.setFdHandler(watcher, { read: () => names.push(...watcher.readEvents().map(({ name }) => name)) })
    writeFileSync(join(folder, 'note'), 'x')
    ctx.pollUntil(() => names.length > 0)
    equal(names, ['note'])
    ctx.setFdHandler(watcher, null)
    watcher.close()
    rmSync(folder, { recursive: true })
  }),

  'a pidfd tells of the end of a child, whose exit code the runtime has': withContext(async (ctx) => {
    const child = spawn('sh', ['-c', 'exit 7'])
    const code = new Promise((resolve) => child.on('exit', resolve))
    const end = pidfd(child.pid)
    const registration = ctx.setFdHandler(end, { read: () => (registration.remove(), ctx.stop()) })
    ctx.run()
    end.close()
    equal(await code, 7)
  }),
}
