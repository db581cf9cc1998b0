// examples/nbd-server as a command: its arguments, its socket, signals, exit codes.
import { readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import test from 'ava'
import { Command, main, NbdServer, pattern, RawClient, request, runServer, temporary } from './nbd-kit.js'

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  test.serial(`${signal} ends the server with 0, and what it has read of a client is answered before`, async (t) => {
    const server = await NbdServer.start(t)
    const [client, idle] = [await RawClient.go(server), await RawClient.go(server)]
    t.is((await client.ask(Command.WRITE, 0, pattern(4096))).error, 0)
    const half = await RawClient.go(server)
    half.socket.write(request(Command.WRITE, 0, 5000))
    await server.stop(t, signal)
    for (const one of [client, idle, half]) await one.end()
    t.true(readFileSync(server.file).subarray(0, 4096).equals(pattern(4096)))
    t.deepEqual(server.lines, [])
  })
}

test.serial('a socket that a killed server left is taken over; one that is in use, or no socket, is not', async (t) => {
  const server = await NbdServer.start(t)
  const second = runServer(server.file, server.path)
  t.is(second.status, 1)
  t.regex(second.stderr, /^nbd-server: bind failed .*Address already in use/)
  server.process.kill('SIGKILL')
  const folder = temporary(t)
  const stale = join(folder, 'stale')
  const listener = createServer().listen(stale)
  await new Promise((resolve) => listener.once('listening', resolve))
  t.is(runServer(server.file, stale).status, 1)
  listener.close()
  const file = join(folder, 'file')
  writeFileSync(file, 'precious')
  t.is(runServer(server.file, file).status, 1)
  t.is(readFileSync(file, 'utf8'), 'precious')
})

test.serial('what is wrong with the arguments ends it with 2, what is wrong with the file with 1', (t) => {
  const folder = temporary(t)
  const socket = join(folder, 'socket')
  for (const args of [[], [main], [main, socket, '--spin', '-1'], [main, socket, '--spin', '1.5'], [main, socket, '--monitor', 'kqueue'], [main, socket, '--nonsense'], [main, socket, 'more']]) {
    const { status, stderr } = runServer(...args)
    t.is(status, 2, args.join(' '))
    t.regex(stderr, /^error: /)
  }
  const help = runServer('--help')
  t.is(help.status, 0)
  for (const word of ['--read-only', '--spin', '--name', '--monitor', '--engine']) t.true(help.stdout.includes(word))
  for (const [file, words] of [[join(folder, 'missing'), /ENOENT/], [folder, /EISDIR|neither a file nor a block device/], ['/dev/null', /neither a file nor a block device/]] as const) {
    const { status, stderr, stdout } = runServer(file, socket)
    t.is(status, 1)
    t.is(stdout, '')
    t.regex(stderr, words)
    t.is(stderr.trimEnd().split('\n').length, 1)
  }
})
