// A memfd that somebody else made.
import test from 'ava'
import { openSync, closeSync } from 'node:fs'
import { MemFd, memfd, receiveFds, sendFds, socketpair } from 'fdmon/fd'
import { refuses } from './on-each.js'

test('MemFd.from() maps the memory of a memfd that came over a socket, by a descriptor of its own', (t) => {
  using file = memfd('travels', 5000)
  const words = new Int32Array(file.map(), 0, 8)
  const [left, right] = socketpair()
  sendFds(left, new Uint8Array(1), [file])
  const { fds } = receiveFds(right, new Uint8Array(1))
  const received = MemFd.from(fds[0]!)
  t.true(received instanceof MemFd)
  t.deepEqual([received.name, received.size], ['travels', 5000])
  t.false(received.fd === fds[0]!.fd || received.fd === file.fd)
  const same = new Int32Array(received.map(), 0, 8)
  Atomics.store(words, 3, 7)
  t.is(Atomics.load(same, 3), 7)
  for (const fd of [...fds, received, left, right]) fd.close()
  Atomics.store(same, 3, 8)
  t.is(Atomics.load(words, 3), 8, 'a mapping outlives the descriptors')
})

test('MemFd.from() refuses what is no memfd, or is closed', (t) => {
  const [left, right] = socketpair()
  refuses(t, () => MemFd.from(left), [`fd = ${left.fd}`, 'not a memfd'])
  const file = openSync('/proc/self/exe', 'r')
  refuses(t, () => MemFd.from(file), [`fd = ${file}`])
  closeSync(file)
  refuses(t, () => MemFd.from(-1), ['fd = -1'], 'ERR_FDMON_BAD_FD')
  refuses(t, () => MemFd.from('x' as never), ['fd'])
  left.close()
  right.close()
})
