// Unix sockets: names, connections, and what goes wrong with them.
// Tag: kernel
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { constants, tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { AioContext } from 'fdmon'
import { accept, connectUnix, Fd, listenUnix, memfd, read, timerfd, write } from 'fdmon/fd'
import { any, flags, openFiles, readUntil, refuses } from './fd-kit.js'

const { EADDRINUSE, EAGAIN, ECONNREFUSED, EINVAL, ENOENT, ENOTSOCK } = constants.errno

function temporary(t: ExecutionContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'fdmon-test-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

let names = 0
const abstract = (): string => `\0fdmon-test-${process.pid}-${names++}`

/** The connection that waits, which must be there. */
function accepted(t: ExecutionContext, server: Fd): Fd {
  const connection = accept(server)
  if (connection === undefined) throw new Error('nobody waits')
  t.true(connection instanceof Fd)
  return connection
}

for (const [kind, name] of [
  ['a path', (t: ExecutionContext) => join(temporary(t), 'ä socket')],
  ['an abstract name', abstract],
  ['an abstract name with NULs in it', () => `${abstract()}\0\0x`],
] as const) {
  test(`bytes go both ways between two sockets that met at ${kind}`, (t) => {
    const path = name(t)
    using server = listenUnix(path)
    t.is(accept(server), undefined)
    using client = connectUnix(path)
    using connection = accepted(t, server)
    t.is(accept(server), undefined)
    for (const fd of [server, client, connection]) t.deepEqual(flags(fd.fd), [true, true])
    const buffer = Buffer.alloc(16)
    t.is(read(connection, buffer), -EAGAIN)
    write(client, Buffer.from('ping'))
    t.is(read(connection, buffer), 4)
    write(connection, Buffer.from('answer'))
    t.is(read(client, buffer), 6)
    t.is(buffer.toString('latin1', 0, 6), 'answer')
  })
}

test('a socket that listens is readable when somebody connects', (t) => {
  const path = abstract()
  using server = listenUnix(path)
  using ctx = new AioContext()
  let connection: Fd | undefined
  ctx.setFdHandler(server, { read: () => void (connection = accept(server)) })
  ctx.poll(false)
  t.is(connection, undefined)
  using client = connectUnix(path)
  ctx.pollUntil(() => connection !== undefined)
  ctx.setFdHandler(server, null)
  t.true(client.fd > 2)
  connection?.close()
})

test('accept takes connections in their order, also those whose client is gone', (t) => {
  const path = abstract()
  using server = listenUnix(path)
  for (const word of ['one', 'two', 'three']) {
    using client = connectUnix(path)
    write(client, Buffer.from(word))
  }
  const buffer = Buffer.alloc(16)
  const words: string[] = []
  for (let connection = accept(server); connection !== undefined; connection = accept(server)) {
    words.push(buffer.toString('latin1', 0, read(connection, buffer)))
    t.is(read(connection, buffer), 0)
    connection.close()
  }
  t.deepEqual(words, ['one', 'two', 'three'])
})

test('the file of a socket stays after closing and is to be removed before listening again', (t) => {
  const path = join(temporary(t), 'socket')
  listenUnix(path).close()
  t.true(existsSync(path))
  const error = refuses(t, () => listenUnix(path), 'ERR_FDMON_SYSCALL', path, 'remove it')
  t.is(error.errno, EADDRINUSE)
  t.is(error.syscall, 'bind')
  t.is(refuses(t, () => connectUnix(path), 'ERR_FDMON_SYSCALL', path, 'start the server').errno, ECONNREFUSED)
  rmSync(path)
  listenUnix(path).close()
})

test('an abstract name is free again with its socket, and until then in use', (t) => {
  const path = abstract()
  const server = listenUnix(path)
  t.is(refuses(t, () => listenUnix(path), 'ERR_FDMON_SYSCALL', path.slice(1), 'another name').errno, EADDRINUSE)
  server.close()
  t.is(refuses(t, () => connectUnix(path), 'ERR_FDMON_SYSCALL', path.slice(1)).errno, ECONNREFUSED)
  listenUnix(path).close()
})

test('the longest names are taken, and longer ones refused with the limit', (t) => {
  const folder = temporary(t)
  const file = `${folder}/`.padEnd(107, 'x')
  const name = abstract().padEnd(108, 'y')
  for (const path of [file, name]) {
    using server = listenUnix(path)
    using client = connectUnix(path)
    accepted(t, server).close()
    t.true(client.fd > 2)
    for (const body of [() => listenUnix(`${path}z`), () => connectUnix(`${path}z`)]) {
      refuses(t, body, 'ERR_FDMON_INVALID_ARG', 'path', '107', '108 bytes')
    }
  }
  refuses(t, () => listenUnix('ä'.repeat(54)), 'ERR_FDMON_INVALID_ARG', '108 bytes')
})

test('what is no path is refused by name and value', (t) => {
  for (const path of ['', '\0', 'a\0', 'a\0b', 5, null, undefined, {}, Buffer.from('/tmp/x')]) {
    refuses(t, () => listenUnix(any(path)), 'ERR_FDMON_INVALID_ARG', 'path')
    refuses(t, () => connectUnix(any(path)), 'ERR_FDMON_INVALID_ARG', 'path')
  }
})

test('a path that cannot be used says why', (t) => {
  const folder = temporary(t)
  const missing = join(folder, 'no', 'socket')
  t.is(refuses(t, () => listenUnix(missing), 'ERR_FDMON_SYSCALL', missing, 'directory').errno, ENOENT)
  t.is(refuses(t, () => connectUnix(missing), 'ERR_FDMON_SYSCALL', missing, 'server').errno, ENOENT)
  const file = join(folder, 'file')
  writeFileSync(file, '')
  chmodSync(file, 0o777)
  t.is(refuses(t, () => listenUnix(file), 'ERR_FDMON_SYSCALL', file).errno, EADDRINUSE)
  t.is(refuses(t, () => connectUnix(file), 'ERR_FDMON_SYSCALL', file).errno, ECONNREFUSED)
})

test('a full queue is EAGAIN with what to do', (t) => {
  const path = abstract()
  using server = listenUnix(path)
  const clients: Fd[] = []
  const fill = (): void => {
    while (clients.length < 5000) clients.push(connectUnix(path))
  }
  const error = refuses(t, fill, 'ERR_FDMON_SYSCALL', path.slice(1), 'queue')
  t.is(error.errno, EAGAIN)
  t.is(error.syscall, 'connect')
  accepted(t, server).close()
  clients.push(connectUnix(path))
  for (const client of clients) client.close()
})

// Serial, which is before all others, for the descriptors of the process.
test.serial('what fails leaves no descriptor', (t) => {
  const before = openFiles()
  for (let round = 0; round < 3; round++) {
    t.throws(() => listenUnix('/no/such/folder/socket'))
    t.throws(() => connectUnix('/no/such/folder/socket'))
    t.throws(() => accept(0))
  }
  t.deepEqual(openFiles(), before)
})

test('accept refuses what does not listen, by fd and value', (t) => {
  const path = abstract()
  using server = listenUnix(path)
  using client = connectUnix(path)
  using timer = timerfd()
  using file = memfd('accept', 1)
  const error = refuses(t, () => accept(client), 'ERR_FDMON_SYSCALL', `fd = ${client.fd}`, 'listenUnix')
  t.is(error.errno, EINVAL)
  t.is(error.syscall, 'accept4')
  for (const fd of [timer, file]) t.is(refuses(t, () => accept(fd), 'ERR_FDMON_SYSCALL', 'socket').errno, ENOTSOCK)
  refuses(t, () => accept(1_000_000), 'ERR_FDMON_BAD_FD', '1000000')
  refuses(t, () => accept(-1), 'ERR_FDMON_BAD_FD', '-1')
  for (const fd of ['3', null, undefined, {}, 1.5]) refuses(t, () => accept(any(fd)), 'ERR_FDMON_INVALID_ARG', 'fd')
  t.true(server.fd > 2)
})

test("Node's own clients and servers meet ours", async (t) => {
  // Up to Node 20, Node fills an abstract name up with NULs.
  const filled = Number.parseInt(process.versions.node, 10) < 22
  for (const path of [join(temporary(t), 'socket'), abstract()]) {
    const ours = path.startsWith('\0') && filled ? path.padEnd(108, '\0') : path
    using server = listenUnix(ours)
    const socket = connect(path)
    await once(socket, 'connect')
    using connection = accepted(t, server)
    write(connection, Buffer.from('from fdmon'))
    const [chunk] = await once(socket, 'data')
    t.is(String(chunk), 'from fdmon')
    socket.destroy()
  }
  const path = abstract()
  const server = createServer((socket) => socket.end('from Node')).listen(path)
  await once(server, 'listening')
  using client = connectUnix(filled ? path.padEnd(108, '\0') : path)
  await once(server, 'connection')
  const buffer = Buffer.alloc(64)
  let bytes = 0
  await new Promise((resolve) => setImmediate(resolve))
  readUntil(client, () => (bytes = read(client, buffer)) > 0)
  t.is(buffer.toString('latin1', 0, bytes), 'from Node')
  server.close()
})

test('accept takes TCP connections too', async (t) => {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const fd = any(server)._handle.fd as number
  const { port } = server.address() as { port: number }
  // Another process connects, while this one does not let Node accept.
  const code = `require('node:net').connect(${port}, '127.0.0.1').on('connect', () => process.exit())`
  execFileSync(process.execPath, ['-e', code])
  const connection = accept(fd)
  t.true(connection instanceof Fd)
  connection?.close()
  t.is(accept(fd), undefined)
  server.close()
})
