// The native that other modules ask for the number of bytes that wait.
import { createRequire } from 'node:module'
import { constants } from 'node:os'
import test from 'ava'
import { memfd, read, socketpair, timerfd, write } from 'fdmon/fd'

const native = createRequire(import.meta.url)('../native/binding.cjs') as typeof import('../native/binding.cjs')

test('fdPending counts the bytes that can be read', (t) => {
  const [one, other] = socketpair()
  t.is(native.fdPending(other.fd), 0)
  write(one, new Uint8Array(5))
  write(one, new Uint8Array(7))
  t.is(native.fdPending(other.fd), 12)
  t.is(native.fdPending(one.fd), 0)
  read(other, new Uint8Array(4))
  t.is(native.fdPending(other.fd), 8)
  one.close()
  t.is(native.fdPending(other.fd), 8)
  other.close()
  using file = memfd('pending', 100)
  t.is(native.fdPending(file.fd), 100)
})

test('fdPending answers what has no bytes with the negative errno', (t) => {
  const { EBADF, EINVAL, ENOTTY } = constants.errno
  t.is(native.fdPending(-1), -EBADF)
  t.is(native.fdPending(1_000_000), -EBADF)
  using timer = timerfd()
  t.true([-ENOTTY, -EINVAL].includes(native.fdPending(timer.fd)))
})
