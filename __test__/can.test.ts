// CAN: a frame over a virtual bus where the kernel has one, and else the reason why not.
import { spawnSync } from 'node:child_process'
import { constants } from 'node:os'
import test from 'ava'
import { FdmonError } from 'fdmon'
import { canSocket, read, write } from 'fdmon/fd'
import { any, flags, openFiles, readUntil, refuses } from './fd-kit.js'

const bus = `fdmon${process.pid % 1_000_000}`
const ip = (...words: string[]): boolean => spawnSync('ip', words, { stdio: 'ignore' }).status === 0

/** Why there is no CAN, or undefined. */
function noCan(): FdmonError | undefined {
  try {
    canSocket('fdmon-none').close()
  } catch (error) {
    if (error instanceof FdmonError && error.code === 'ERR_FDMON_UNSUPPORTED') return error
  }
  return undefined
}

test('a frame goes over a virtual bus; where the kernel has no CAN, the error says so', (t) => {
  const error = noCan()
  if (error !== undefined) {
    t.log(error.message)
    refuses(t, () => canSocket('vcan0'), 'ERR_FDMON_UNSUPPORTED', 'CAN')
    t.true([constants.errno.EAFNOSUPPORT, constants.errno.EPROTONOSUPPORT, constants.errno.EPERM, constants.errno.EACCES].includes(error.errno ?? 0))
    t.is(error.syscall, 'socket')
    return
  }
  if (!ip('link', 'add', 'dev', bus, 'type', 'vcan')) {
    t.log('CAN is there, but "ip link add type vcan" is refused (no module vcan, or no CAP_NET_ADMIN): no frame was sent')
    t.pass()
    return
  }
  t.teardown(() => ip('link', 'delete', bus))
  t.true(ip('link', 'set', bus, 'up'))
  using sender = canSocket(bus)
  using receiver = canSocket(bus)
  t.deepEqual(flags(sender.fd), [true, true])
  t.is(read(receiver, new Uint8Array(16)), -constants.errno.EAGAIN)
  const frame = Buffer.alloc(16)
  frame.writeUInt32LE(0x123, 0)
  frame[4] = 2
  frame.set([0xca, 0xfe], 8)
  t.is(write(sender, frame), 16)
  const got = Buffer.alloc(16)
  readUntil(receiver, () => read(receiver, got) === 16)
  t.deepEqual(got, frame)
})

test('an interface that is not there, or is not CAN, is named', (t) => {
  const missing = t.throws<FdmonError>(() => canSocket('fdmon-none'), { instanceOf: FdmonError })
  const loopback = t.throws<FdmonError>(() => canSocket('lo'), { instanceOf: FdmonError })
  if (noCan() !== undefined) {
    t.log('the kernel has no CAN, which is said before the interface is looked for')
    for (const error of [missing, loopback]) t.is(error.code, 'ERR_FDMON_UNSUPPORTED')
    return
  }
  for (const [error, name] of [[missing, 'fdmon-none'], [loopback, 'lo']] as const) {
    t.is(error.code, 'ERR_FDMON_SYSCALL')
    t.is(error.errno, constants.errno.ENODEV)
    t.true(error.message.includes(`interface_ = "${name}"`), error.message)
  }
})

test('what is no name of an interface is refused by name and value', (t) => {
  for (const name of ['', 'sixteen-bytes-xx', 'a/b', 'a b', 'a\0b', 0, null, undefined, {}]) {
    refuses(t, () => canSocket(any(name)), 'ERR_FDMON_INVALID_ARG', 'interface_')
  }
})

test.serial('what fails leaves no descriptor', (t) => {
  const before = openFiles()
  for (let round = 0; round < 3; round++) t.throws(() => canSocket('fdmon-none'))
  t.deepEqual(openFiles(), before)
})
