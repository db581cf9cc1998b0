// Descriptors over Unix sockets: what arrives, what is refused, and that nothing leaks.
// Tag: kernel
import { once } from 'node:events'
import { closeSync, openSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { constants } from 'node:os'
import { inspect } from 'node:util'
import test from 'ava'
import { EventNotifier } from 'fdmon'
import { Fd, memfd, read, receiveFds, sendFds, socketpair, timerfd, write } from 'fdmon/fd'
import { any, flags, inProcess, openFiles, refuses } from './fd-kit.js'

const { EAGAIN, EBADF, EMFILE, ENOTSOCK, EPIPE } = constants.errno
const byte = new Uint8Array([7])

test('descriptors arrive in their order as Fd objects of their own, close-on-exec', (t) => {
  const [one, other] = socketpair()
  const file = memfd('sent', 5)
  writeFileSync(file.fd, 'hello')
  using timer = timerfd()
  const buffer = new Uint8Array(8)
  t.is(sendFds(one, new Uint8Array([1, 2, 3]), [file, timer.fd, { fd: one.fd }]), 3)
  file.close()
  const { bytes, fds } = receiveFds(other, buffer)
  t.is(bytes, 3)
  t.deepEqual([...buffer.subarray(0, 4)], [1, 2, 3, 0])
  t.is(fds.length, 3)
  const [first, second, third] = fds.map(({ fd }) => fd)
  t.is(readFileSync(`/proc/self/fd/${first}`, 'utf8'), 'hello')
  t.is(readlinkSync(`/proc/self/fd/${second}`), 'anon_inode:[timerfd]')
  t.is(readlinkSync(`/proc/self/fd/${third}`), readlinkSync(`/proc/self/fd/${one.fd}`))
  for (const fd of fds) {
    t.true(fd instanceof Fd)
    t.true(flags(fd.fd)[1])
    t.is(inspect(fd), `ReceivedFd { fd: ${fd.fd} }`)
    fd.close()
    t.is(fd.fd, -1)
  }
  one.close()
  other.close()
})

test('a received notifier is the same counter', (t) => {
  const [one, other] = socketpair()
  using notifier = new EventNotifier()
  sendFds(one, byte, [notifier])
  const { fds } = receiveFds(other, new Uint8Array(1))
  write(fds[0]!, new Uint8Array(new BigUint64Array([1n]).buffer))
  t.true(notifier.testAndClear())
  for (const fd of [one, other, ...fds]) fd.close()
})

test('nothing to receive and no room to send are -EAGAIN, and the end is 0', (t) => {
  const [one, other] = socketpair()
  t.deepEqual(receiveFds(other, new Uint8Array(1)), { bytes: -EAGAIN, fds: [] })
  let result = 0
  for (let i = 0; i < 1000 && result !== -EAGAIN; i++) result = sendFds(one, new Uint8Array(65_536), [one])
  t.is(result, -EAGAIN)
  one.close()
  const buffer = new Uint8Array(65_536)
  for (let got = receiveFds(other, buffer); got.bytes !== 0; got = receiveFds(other, buffer)) {
    t.true(got.bytes > 0)
    for (const fd of got.fds) fd.close()
  }
  t.deepEqual(receiveFds(other, buffer), { bytes: 0, fds: [] })
  other.close()
})

test('without descriptors they are write and read, and meet these', (t) => {
  const [one, other] = socketpair()
  t.is(sendFds(one, byte, []), 1)
  t.is(read(other, new Uint8Array(8)), 1)
  t.is(write(one, new Uint8Array(2)), 2)
  t.deepEqual(receiveFds(other, new Uint8Array(8)), { bytes: 2, fds: [] })
  one.close()
  other.close()
})

test('one call does not mix the descriptors of two', (t) => {
  const [one, other] = socketpair()
  using file = memfd('mixed', 1)
  sendFds(one, byte, [file])
  sendFds(one, byte, [file, one])
  const counts = [receiveFds(other, new Uint8Array(64)), receiveFds(other, new Uint8Array(64))].map(({ bytes, fds }) => {
    for (const fd of fds) fd.close()
    return [bytes, fds.length]
  })
  t.deepEqual(counts, [[1, 1], [1, 2]])
  one.close()
  other.close()
})

test.serial('253 descriptors go at once, and 254 are refused', (t) => {
  const before = openFiles()
  const [one, other] = socketpair()
  const { length } = openFiles()
  t.is(sendFds(one, byte, Array.from({ length: 253 }, () => one)), 1)
  const { bytes, fds } = receiveFds(other, new Uint8Array(8))
  t.is(bytes, 1)
  t.is(fds.length, 253)
  t.is(openFiles().length, length + 253)
  for (const fd of fds) fd.close()
  const many = Array.from({ length: 254 }, () => one)
  refuses(t, () => sendFds(one, byte, many), 'ERR_FDMON_INVALID_ARG', 'fds.length', '254', '253')
  one.close()
  other.close()
  t.deepEqual(openFiles(), before)
})

test('when not all can be opened, those that were are closed and an error is thrown', (t) => {
  const run = inProcess(
    `const { openSync, closeSync, readdirSync } = require('node:fs')
    const [one, other] = fds.socketpair()
    fds.sendFds(one, new Uint8Array([5]), [one, one, one])
    const fill = () => { const opened = []; try { for (;;) opened.push(openSync('/dev/null')) } catch { return opened } }
    const opened = fill()
    const results = []
    for (const free of [0, 2]) {
      fds.sendFds(one, new Uint8Array([5]), [one, one, one])
      for (const fd of opened.splice(0, free)) closeSync(fd)
      const buffer = new Uint8Array(8)
      try { fds.receiveFds(other, buffer); results.push('received') }
      catch (error) { results.push([error.code, error.errno, error.syscall, error.message.includes('only ' + free + ' of'), /; \\S/.test(error.message), buffer[0]]) }
      const again = fill()
      results.push(again.length)
      opened.push(...again)
    }
    console.log(JSON.stringify(results))`,
    'ulimit -n 100; exec "$@"',
  )
  t.is(run.stderr, '')
  const error = ['ERR_FDMON_SYSCALL', EMFILE, 'recvmsg']
  t.deepEqual(JSON.parse(run.stdout), [[...error, true, true, 5], 0, [...error, true, true, 5], 2])
})

test('a socket of another family is refused, as it would lose the descriptors', async (t) => {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const fd = any(server)._handle.fd as number
  refuses(t, () => sendFds(fd, byte, [0]), 'ERR_FDMON_INVALID_ARG', `fd = ${fd}`, 'Unix socket')
  refuses(t, () => receiveFds(fd, new Uint8Array(1)), 'ERR_FDMON_INVALID_ARG', `fd = ${fd}`, 'Unix socket')
  server.close()
  using file = memfd('no socket', 1)
  t.is(refuses(t, () => sendFds(file, byte, [0]), 'ERR_FDMON_SYSCALL', `fd = ${file.fd}`).errno, ENOTSOCK)
  t.is(refuses(t, () => receiveFds(file, new Uint8Array(1)), 'ERR_FDMON_SYSCALL', `fd = ${file.fd}`).errno, ENOTSOCK)
})

test('a closed peer is EPIPE, without a signal', (t) => {
  const [one, other] = socketpair()
  one.close()
  const error = refuses(t, () => sendFds(other, byte, [other]), 'ERR_FDMON_SYSCALL', `fd = ${other.fd}`, 'closed')
  t.is(error.errno, EPIPE)
  t.is(error.syscall, 'sendmsg')
  other.close()
})

test('a descriptor of the list that is not open is named', (t) => {
  const [one, other] = socketpair()
  const error = refuses(t, () => sendFds(one, byte, [one, 1_000_000]), 'ERR_FDMON_BAD_FD', 'fds[1]', '1000000')
  t.is(error.errno, EBADF)
  t.is(error.syscall, 'sendmsg')
  const closed = openSync('/dev/null', 'r')
  closeSync(closed)
  t.deepEqual(receiveFds(other, new Uint8Array(1)), { bytes: -EAGAIN, fds: [] }, 'nothing was sent')
  const timer = timerfd()
  timer.close()
  refuses(t, () => sendFds(one, byte, [timer]), 'ERR_FDMON_BAD_FD', 'fds[0]', '-1')
  one.close()
  other.close()
})

test('bad arguments are refused by name and value', (t) => {
  const [one, other] = socketpair()
  for (const fd of ['3', null, undefined, {}, 1.5]) {
    refuses(t, () => sendFds(any(fd), byte, []), 'ERR_FDMON_INVALID_ARG', 'fd')
    refuses(t, () => receiveFds(any(fd), new Uint8Array(1)), 'ERR_FDMON_INVALID_ARG', 'fd')
    refuses(t, () => sendFds(one, byte, [one, any(fd)]), 'ERR_FDMON_INVALID_ARG', 'fds[1]')
  }
  for (const fd of [-1, 1_000_000]) {
    refuses(t, () => sendFds(fd, byte, []), 'ERR_FDMON_BAD_FD', String(fd))
    refuses(t, () => receiveFds(fd, new Uint8Array(1)), 'ERR_FDMON_BAD_FD', String(fd))
  }
  for (const fds of [undefined, null, 3, one, new Set([3])]) {
    refuses(t, () => sendFds(one, byte, any(fds)), 'ERR_FDMON_INVALID_ARG', 'fds')
  }
  for (const buffer of [undefined, null, 'a', new ArrayBuffer(4), new DataView(new ArrayBuffer(4))]) {
    refuses(t, () => sendFds(one, any(buffer), []), 'ERR_FDMON_INVALID_ARG', 'buffer', 'Uint8Array')
    refuses(t, () => receiveFds(one, any(buffer)), 'ERR_FDMON_INVALID_ARG', 'buffer', 'Uint8Array')
  }
  refuses(t, () => sendFds(one, new Uint8Array(0), [one]), 'ERR_FDMON_INVALID_ARG', 'buffer.length', '1 byte')
  refuses(t, () => receiveFds(one, new Uint8Array(0)), 'ERR_FDMON_INVALID_ARG', 'buffer.length', '1 byte')
  one.close()
  other.close()
})

test('only the view is filled, also one over shared memory', (t) => {
  const [one, other] = socketpair()
  const memory = new Uint8Array(new SharedArrayBuffer(8))
  sendFds(one, new Uint8Array([1, 2, 3, 4]).subarray(1, 3), [one])
  const { bytes, fds } = receiveFds(other, memory.subarray(4))
  t.is(bytes, 2)
  t.deepEqual([...memory], [0, 0, 0, 0, 2, 3, 0, 0])
  for (const fd of [one, other, ...fds]) fd.close()
})
