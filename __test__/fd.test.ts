// fdmon/fd: every function with good input, and every argument with bad input.
import { spawn } from 'node:child_process'
import {
  closeSync,
  fstatSync,
  ftruncateSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { createRequire } from 'node:module'
import { constants, tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { inspect } from 'node:util'
import { Worker } from 'node:worker_threads'
import test, { type ExecutionContext } from 'ava'
import { FdmonError } from 'fdmon'
import * as fds from 'fdmon/fd'

const { inotify, InotifyEvents, memfd, pidfd, read, setNonblock, socketpair, timerfd, write } = fds
const any = (value: unknown): any => value
const { EAGAIN, EBADF, EISDIR, ENOENT, EPIPE } = constants.errno

/** Asserts an FdmonError with this code whose message has all the words and ends with advice after a semicolon. */
function refuses(t: ExecutionContext, body: () => unknown, code: string, ...words: string[]): FdmonError {
  const error = t.throws<FdmonError>(body, { instanceOf: FdmonError, code })
  for (const word of words) t.true(error.message.includes(word), `"${error.message}" names ${word}`)
  t.regex(error.message, /; \S.{8,}$/)
  return error
}

/** Flags of an open file, from /proc: [non-blocking, close-on-exec]. */
function flags(fd: number): [boolean, boolean] {
  const octal = /^flags:\s+(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))?.[1] ?? '0'
  const bits = Number.parseInt(octal, 8)
  return [(bits & 0o4000) !== 0, (bits & 0o2000000) !== 0]
}

function temporary(t: ExecutionContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'fdmon-test-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

test('every descriptor is close-on-exec and non-blocking', (t) => {
  const [one, other] = socketpair()
  const all = { timer: timerfd(), watcher: inotify(), process: pidfd(process.pid), one, other }
  for (const [name, fd] of Object.entries(all)) {
    t.deepEqual(flags(fd.fd), [true, true], name)
    fd.close()
  }
  using file = memfd('flags', 1)
  t.true(flags(file.fd)[1])
})

test('a child process inherits none of them', async (t) => {
  using timer = timerfd()
  const child = spawn('ls', ['-l', '/proc/self/fd'], { stdio: ['ignore', 'pipe', 'inherit'] })
  let output = ''
  for await (const chunk of child.stdout) output += String(chunk)
  t.true(timer.fd > 2)
  t.false(output.includes('timerfd'))
})

test('close gives the number back, twice is once, and afterwards the fd is -1', (t) => {
  const timer = timerfd()
  const { fd } = timer
  t.is(readlinkSync(`/proc/self/fd/${fd}`), 'anon_inode:[timerfd]')
  timer.close()
  t.is(timer.fd, -1)
  timer.close()
  timer[Symbol.dispose]()
  t.is(inspect(timer), 'TimerFd { closed }')
})

test('using closes at the end of the block', (t) => {
  let kept
  {
    using timer = timerfd()
    kept = timer
    t.true(timer.fd > 2)
    t.is(inspect(timer), `TimerFd { fd: ${timer.fd} }`)
  }
  t.is(kept.fd, -1)
})

test('closing a number that somebody else has closed is said', (t) => {
  const timer = timerfd()
  const { fd } = timer
  closeSync(fd)
  const error = refuses(t, () => timer.close(), 'ERR_FDMON_BAD_FD', 'fd', String(fd))
  t.is(error.errno, EBADF)
  t.is(error.syscall, 'close')
})

test('the classes cannot be constructed from outside', (t) => {
  for (const name of ['TimerFd', 'Inotify', 'PidFd', 'MemFd'] as const) {
    refuses(t, () => new (any(fds[name]))(0), 'ERR_FDMON_INVALID_ARG', 'fdmon/fd')
  }
})

test('a closed descriptor is refused by its methods and by every function that takes one', (t) => {
  const timer = timerfd()
  const watcher = inotify()
  const file = memfd('closed', 8)
  for (const fd of [timer, watcher, file]) fd.close()
  refuses(t, () => timer.read(), 'ERR_FDMON_CLOSED', 'TimerFd')
  refuses(t, () => timer.set({}), 'ERR_FDMON_CLOSED', 'TimerFd')
  refuses(t, () => watcher.readEvents(), 'ERR_FDMON_CLOSED', 'Inotify')
  refuses(t, () => watcher.addWatch('/', 1), 'ERR_FDMON_CLOSED', 'Inotify')
  refuses(t, () => watcher.removeWatch(1), 'ERR_FDMON_CLOSED', 'Inotify')
  refuses(t, () => file.map(), 'ERR_FDMON_CLOSED', 'MemFd')
  refuses(t, () => read(timer, new Uint8Array(8)), 'ERR_FDMON_BAD_FD', '-1')
  refuses(t, () => setNonblock(timer), 'ERR_FDMON_BAD_FD', '-1')
})

const notFds: [unknown, string][] = [
  [-1, 'ERR_FDMON_BAD_FD'],
  [1.5, 'ERR_FDMON_INVALID_ARG'],
  [Number.NaN, 'ERR_FDMON_INVALID_ARG'],
  [2 ** 31, 'ERR_FDMON_INVALID_ARG'],
  ['3', 'ERR_FDMON_INVALID_ARG'],
  [3n, 'ERR_FDMON_INVALID_ARG'],
  [null, 'ERR_FDMON_INVALID_ARG'],
  [undefined, 'ERR_FDMON_INVALID_ARG'],
  [{}, 'ERR_FDMON_INVALID_ARG'],
  [{ fd: '3' }, 'ERR_FDMON_INVALID_ARG'],
  [() => 3, 'ERR_FDMON_INVALID_ARG'],
]

test('what is no descriptor is refused by name and value, by read, write and setNonblock', (t) => {
  for (const [value, code] of notFds) {
    refuses(t, () => read(any(value), new Uint8Array(1)), code, 'fd')
    refuses(t, () => write(any(value), new Uint8Array(1)), code, 'fd')
    refuses(t, () => setNonblock(any(value)), code, 'fd')
  }
})

test('a number that is not open is BAD_FD with errno and system call', (t) => {
  const cases: [string, () => unknown][] = [
    ['read', () => read(1_000_000, new Uint8Array(1))],
    ['write', () => write(1_000_000, new Uint8Array(1))],
    ['fcntl', () => setNonblock(1_000_000)],
  ]
  for (const [syscall, body] of cases) {
    const error = refuses(t, body, 'ERR_FDMON_BAD_FD', '1000000')
    t.is(error.errno, EBADF)
    t.is(error.syscall, syscall)
  }
})

test('an error has errno and syscall only when a system call failed', (t) => {
  t.deepEqual(Object.keys(refuses(t, () => read(any('3'), new Uint8Array(1)), 'ERR_FDMON_INVALID_ARG')), ['code'])
  const error = refuses(t, () => setNonblock(1_000_000), 'ERR_FDMON_BAD_FD')
  t.deepEqual(Object.keys(error), ['code', 'errno', 'syscall'])
  t.is(error.name, 'FdmonError')
})

test('read and write take a number, an Fd, or anything with an fd', (t) => {
  const [one, other] = socketpair()
  const buffer = Buffer.alloc(8)
  t.is(write(one.fd, Buffer.from('ab')), 2)
  t.is(write(one, Buffer.from('cd')), 2)
  t.is(write({ fd: one.fd }, Buffer.from('ef')), 2)
  t.is(read({ fd: other.fd }, buffer), 6)
  t.is(buffer.toString('latin1', 0, 6), 'abcdef')
  one.close()
  other.close()
})

test('nothing to read and no room to write are the number -EAGAIN, not an error', (t) => {
  const [one, other] = socketpair()
  t.is(read(other, new Uint8Array(8)), -EAGAIN)
  const block = new Uint8Array(65_536)
  let result = 0
  for (let i = 0; i < 1000 && result !== -EAGAIN; i += 1) result = write(one, block)
  t.is(result, -EAGAIN)
  one.close()
  other.close()
})

test('the end of a stream reads as 0, and writing to a closed peer is EPIPE', (t) => {
  const [one, other] = socketpair()
  one.close()
  t.is(read(other, new Uint8Array(8)), 0)
  const error = refuses(t, () => write(other, new Uint8Array(8)), 'ERR_FDMON_SYSCALL', 'EPIPE', String(other.fd))
  t.is(error.errno, EPIPE)
  t.is(error.syscall, 'write')
  other.close()
})

test('read and write use the view, not the whole buffer under it', (t) => {
  const [one, other] = socketpair()
  const memory = new Uint8Array([1, 2, 3, 4, 5, 6, 7, 8])
  t.is(write(one, memory.subarray(2, 5)), 3)
  const target = new Uint8Array(8)
  t.is(read(other, target.subarray(4)), 3)
  t.deepEqual([...target], [0, 0, 0, 0, 3, 4, 5, 0])
  t.is(write(one, new Uint8Array(0)), 0)
  t.is(read(other, new Uint8Array(0)), 0)
  one.close()
  other.close()
})

test('read fills a view over a SharedArrayBuffer', (t) => {
  const [one, other] = socketpair()
  const target = new Uint8Array(new SharedArrayBuffer(4))
  write(one, new Uint8Array([9, 8, 7]))
  t.is(read(other, target), 3)
  t.deepEqual([...target], [9, 8, 7, 0])
  one.close()
  other.close()
})

test('a buffer that is no Uint8Array is refused', (t) => {
  const [one, other] = socketpair()
  for (const value of [undefined, null, 'abc', 8, [], {}, new ArrayBuffer(8), new Int32Array(2), new DataView(new ArrayBuffer(8))]) {
    refuses(t, () => read(one, any(value)), 'ERR_FDMON_INVALID_ARG', 'buffer', 'Uint8Array')
    refuses(t, () => write(one, any(value)), 'ERR_FDMON_INVALID_ARG', 'buffer', 'Uint8Array')
  }
  one.close()
  other.close()
})

test('other failures of a read carry errno, system call and advice', (t) => {
  const folder = openSync(tmpdir(), 'r')
  const error = refuses(t, () => read(folder, new Uint8Array(8)), 'ERR_FDMON_SYSCALL', 'EISDIR', String(folder))
  t.is(error.errno, EISDIR)
  t.is(error.syscall, 'read')
  closeSync(folder)
})

test('setNonblock turns waiting off and on', (t) => {
  const [one, other] = socketpair()
  setNonblock(one, false)
  t.false(flags(one.fd)[0])
  setNonblock(one)
  t.true(flags(one.fd)[0])
  setNonblock(one, true)
  t.true(flags(one.fd)[0])
  for (const on of [1, 'yes', null]) refuses(t, () => setNonblock(one, any(on)), 'ERR_FDMON_INVALID_ARG', 'on')
  one.close()
  other.close()
})

test('a timer without times does not fire', async (t) => {
  using timer = timerfd()
  await sleep(5)
  t.is(timer.read(), 0n)
})

test('a timer counts the expirations since the last read', async (t) => {
  using timer = timerfd({ intervalNs: 1_000_000 })
  await sleep(20)
  const ticks = timer.read()
  t.true(ticks >= 15n, String(ticks))
  t.true(timer.read() < ticks)
})

test('a delay alone fires once, and a delay of 0 at once', async (t) => {
  using once = timerfd({ delayNs: 1_000_000n })
  using now = timerfd({ delayNs: 0 })
  await sleep(10)
  t.is(once.read(), 1n)
  t.is(now.read(), 1n)
  await sleep(5)
  t.is(once.read(), 0n)
  t.is(now.read(), 0n)
})

test('a timer is set anew and disarmed, which forgets what was not read', async (t) => {
  using timer = timerfd({ intervalNs: 1_000_000, clock: 'realtime' })
  await sleep(5)
  timer.set({})
  t.is(timer.read(), 0n)
  timer.set({ delayNs: 1 })
  await sleep(2)
  t.is(timer.read(), 1n)
})

test('bad times and clocks are refused by name and value', (t) => {
  using timer = timerfd()
  for (const value of [-1, -1n, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 60, 2n ** 63n, '5', null]) {
    for (const name of ['intervalNs', 'delayNs']) {
      refuses(t, () => timerfd({ [name]: any(value) }), 'ERR_FDMON_INVALID_ARG', name)
      refuses(t, () => timer.set({ [name]: any(value) }), 'ERR_FDMON_INVALID_ARG', name)
    }
  }
  refuses(t, () => timerfd({ clock: any('utc') }), 'ERR_FDMON_INVALID_ARG', 'clock', 'utc', 'monotonic')
  refuses(t, () => timerfd(any({ interval: 5 })), 'ERR_FDMON_INVALID_ARG', 'interval', 'intervalNs')
  refuses(t, () => timer.set(any({ clock: 'monotonic' })), 'ERR_FDMON_INVALID_ARG', 'clock')
  for (const value of [null, 5, 'x', []]) {
    refuses(t, () => timerfd(any(value)), 'ERR_FDMON_INVALID_ARG', 'options')
    refuses(t, () => timer.set(any(value)), 'ERR_FDMON_INVALID_ARG', 'options')
  }
})

test('the largest times are taken', (t) => {
  using timer = timerfd({ delayNs: 2n ** 63n - 1n, intervalNs: Number.MAX_SAFE_INTEGER })
  t.is(timer.read(), 0n)
})

test('inotify tells what happened in a directory, in order and with names', (t) => {
  const folder = temporary(t)
  using watcher = inotify()
  t.deepEqual(watcher.readEvents(), [])
  const wd = watcher.addWatch(folder, InotifyEvents.CREATE | InotifyEvents.CLOSE_WRITE | InotifyEvents.MOVE)
  writeFileSync(join(folder, 'ä file'), 'x')
  mkdirSync(join(folder, 'sub'))
  renameSync(join(folder, 'ä file'), join(folder, 'b'))
  const events = watcher.readEvents()
  t.deepEqual(
    events.map(({ events, name }) => [events, name]),
    [
      [InotifyEvents.CREATE, 'ä file'],
      [InotifyEvents.CLOSE_WRITE, 'ä file'],
      [InotifyEvents.CREATE, 'sub'],
      [InotifyEvents.MOVED_FROM, 'ä file'],
      [InotifyEvents.MOVED_TO, 'b'],
    ],
  )
  t.true(events.every((event) => event.wd === wd))
  t.is(events[2]?.mask, InotifyEvents.CREATE | InotifyEvents.ISDIR)
  t.true((events[3]?.cookie ?? 0) > 0)
  t.is(events[3]?.cookie, events[4]?.cookie)
  t.deepEqual(watcher.readEvents(), [])
})

test('inotify loses none of more events than one read holds', (t) => {
  const folder = temporary(t)
  using watcher = inotify()
  watcher.addWatch(folder, InotifyEvents.CREATE)
  const long = 'n'.repeat(200)
  for (let i = 0; i < 400; i += 1) writeFileSync(join(folder, `${long}${i}`), '')
  const names: string[] = []
  for (let events = watcher.readEvents(); events.length > 0; events = watcher.readEvents()) {
    names.push(...events.map((event) => event.name))
  }
  t.is(names.length, 400)
  t.is(names[399], `${long}399`)
})

test('a watch of a file has no names, and its end is told', (t) => {
  const folder = temporary(t)
  const path = join(folder, 'file')
  writeFileSync(path, '')
  using watcher = inotify()
  const wd = watcher.addWatch(path, InotifyEvents.CLOSE_WRITE)
  writeFileSync(path, 'more')
  watcher.removeWatch(wd)
  t.deepEqual(watcher.readEvents(), [
    { wd, mask: InotifyEvents.CLOSE_WRITE, events: InotifyEvents.CLOSE_WRITE, cookie: 0, name: '' },
    { wd, mask: InotifyEvents.IGNORED, events: 0, cookie: 0, name: '' },
  ])
})

test('bad paths, events and watches are refused by name and value', (t) => {
  using watcher = inotify()
  for (const path of ['', 'a\0b', 5, null, undefined, {}]) {
    refuses(t, () => watcher.addWatch(any(path), 1), 'ERR_FDMON_INVALID_ARG', 'path')
  }
  for (const events of [0, -1, 2 ** 32, 1.5, '1', undefined]) {
    refuses(t, () => watcher.addWatch('/', any(events)), 'ERR_FDMON_INVALID_ARG', 'events')
  }
  const missing = refuses(t, () => watcher.addWatch('/no/such/path', 1), 'ERR_FDMON_SYSCALL', '/no/such/path')
  t.is(missing.errno, ENOENT)
  t.is(missing.syscall, 'inotify_add_watch')
  for (const wd of [-1, 1.5, '1', undefined]) refuses(t, () => watcher.removeWatch(any(wd)), 'ERR_FDMON_INVALID_ARG', 'wd')
  t.is(refuses(t, () => watcher.removeWatch(77), 'ERR_FDMON_SYSCALL', 'wd = 77').syscall, 'inotify_rm_watch')
})

test('a pidfd is of the process asked for, and Node still gets the exit code of its child', async (t) => {
  const child = spawn('sh', ['-c', 'exit 3'])
  const pid = child.pid ?? 0
  using exit = pidfd(pid)
  t.is(exit.pid, pid)
  t.is(readlinkSync(`/proc/self/fd/${exit.fd}`), 'anon_inode:[pidfd]')
  const code = await new Promise((resolve) => child.on('exit', resolve))
  t.is(code, 3)
})

test('a process id that cannot be is refused, and one that is not there is ESRCH', (t) => {
  for (const pid of [0, -1, 1.5, Number.NaN, 2 ** 31, '1', undefined]) {
    refuses(t, () => pidfd(any(pid)), 'ERR_FDMON_INVALID_ARG', 'pid')
  }
  const error = refuses(t, () => pidfd(0x7fff_fffe), 'ERR_FDMON_SYSCALL', 'pid = 2147483646')
  t.is(error.errno, constants.errno.ESRCH)
  t.is(error.syscall, 'pidfd_open')
})

test('two mappings of a memfd are the same memory, and they outlive its descriptor', (t) => {
  const file = memfd('shared', 4096)
  t.is(fstatSync(file.fd).size, 4096)
  const one = new Int32Array(file.map())
  const other = new Int32Array(file.map())
  file.close()
  t.is(one.length, 1024)
  t.true(one.every((word) => word === 0))
  Atomics.store(one, 1023, 42)
  t.is(Atomics.load(other, 1023), 42)
  t.not(one.buffer, other.buffer)
})

test('a memfd never shrinks, so a mapping can always be read', (t) => {
  using file = memfd('sealed', 8192)
  t.throws(() => ftruncateSync(file.fd, 1), { code: 'EPERM' })
  t.is(new Uint8Array(file.map())[8191], 0)
})

test('a memfd has its name and size, also when it is no multiple of a page', (t) => {
  using file = memfd('odd name', 5000)
  t.is(file.name, 'odd name')
  t.is(file.size, 5000)
  t.is(file.map().byteLength, 5000)
  t.true(readlinkSync(`/proc/self/fd/${file.fd}`).startsWith('/memfd:odd name'))
})

test('mappings are given back when they are collected', async (t) => {
  using file = memfd('collected', 1 << 20)
  const count = () => readFileSync('/proc/self/maps', 'utf8').split('/memfd:collected').length - 1
  for (let i = 0; i < 20; i += 1) new Uint8Array(file.map())[0] = i
  t.true(count() > 0)
  const gc = (await import('node:v8')).setFlagsFromString
  gc('--expose-gc')
  const collect = (await import('node:vm')).runInNewContext('gc') as () => void
  for (let i = 0; i < 50 && count() > 2; i += 1) {
    collect()
    await sleep(5)
  }
  t.true(count() <= 2, `${count()} are still mapped`)
})

test('a mapping cannot be transferred away from under its users', (t) => {
  using file = memfd('kept', 4096)
  const memory = file.map()
  try {
    // Node 20 makes a copy, later versions throw a DataCloneError.
    t.not(structuredClone(memory, { transfer: [memory] }), memory)
  } catch (error) {
    t.is((error as Error).name, 'DataCloneError')
  }
  t.is(memory.byteLength, 4096)
  t.is(new Uint8Array(memory)[4095], 0)
})

test('bad names and sizes are refused by name and value', (t) => {
  for (const name of [5, null, undefined, 'a\0b', 'x'.repeat(250)]) {
    refuses(t, () => memfd(any(name), 8), 'ERR_FDMON_INVALID_ARG', 'name')
  }
  for (const size of [0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 60, '8', 8n, undefined]) {
    refuses(t, () => memfd('x', any(size)), 'ERR_FDMON_INVALID_ARG', 'size')
  }
})

test('a size that no memory can hold is a typed error, at the file or at the mapping', (t) => {
  const error = t.throws(() => memfd('huge', Number.MAX_SAFE_INTEGER).map(), { instanceOf: FdmonError })
  t.regex(error?.message ?? '', /size|bytes/)
})

test('running out of descriptors is a typed error that says what to do', (t) => {
  const all: fds.Fd[] = []
  const script = `
    const { timerfd } = require('fdmon/fd')
    const all = []
    try { for (;;) all.push(timerfd()) } catch (error) { console.log(error.code, error.errno, error.message) }`
  const result = new Promise<string>((resolve) => {
    const child = spawn('sh', ['-c', 'ulimit -n 64; exec "$0" -e "$1"', process.execPath, script])
    let output = ''
    child.stdout.on('data', (chunk) => (output += String(chunk)))
    child.stderr.on('data', (chunk) => (output += String(chunk)))
    child.on('close', () => resolve(output))
  })
  t.is(all.length, 0)
  return result.then((output) => t.regex(output, /^ERR_FDMON_SYSCALL 24 .*ulimit -n/))
})

test('both kinds of import give the same names and the same objects', async (t) => {
  const require = createRequire(import.meta.url)
  for (const entry of ['fdmon', 'fdmon/fd']) {
    const cjs = require(entry) as Record<string, unknown>
    const esm = (await import(entry)) as Record<string, unknown>
    t.deepEqual(Object.keys(esm).sort(), Object.keys(cjs).sort(), entry)
    for (const name of Object.keys(cjs)) t.is(esm[name], cjs[name], `${entry} ${name}`)
  }
})

test('a worker makes descriptors and mappings, gets typed errors, and may end with them open', async (t) => {
  const script = `
    const { parentPort } = require('node:worker_threads')
    const { FdmonError } = require('fdmon')
    const { memfd, timerfd, pidfd } = require('fdmon/fd')
    const memory = new Int32Array(memfd('worker', 4096).map())
    memory[0] = 5
    let right = false
    try { pidfd(0x7ffffffe) } catch (error) { right = error instanceof FdmonError && error.syscall === 'pidfd_open' }
    timerfd()
    parentPort.postMessage([memory[0], right])
  `
  for (let round = 0; round < 3; round += 1) {
    const worker = new Worker(script, { eval: true, execArgv: [] })
    const [value, right] = await new Promise<[number, boolean]>((resolve, reject) => {
      worker.on('message', resolve)
      worker.on('error', reject)
    })
    t.is(value, 5)
    t.true(right)
    await worker.terminate()
  }
})

test('memory that a worker gave away against the rules can be read when the worker is gone', async (t) => {
  const script = `
    const { parentPort } = require('node:worker_threads')
    const { memfd } = require('fdmon/fd')
    let memory = memfd('lent', 4096).map()
    memfd('kept', 4096).map()
    new Int32Array(memory)[0] = 7
    // ArrayBuffer.prototype.transfer() of Node 22 makes a buffer that can be sent; before, it is copied.
    if (memory.transfer) memory = memory.transfer()
    parentPort.postMessage(memory, [memory])
  `
  const worker = new Worker(script, { eval: true, execArgv: [] })
  const memory = await new Promise<ArrayBuffer>((resolve, reject) => worker.on('message', resolve).on('error', reject))
  await worker.terminate()
  // Node 20 sent a copy; later versions sent the memory itself, which is blank now.
  t.true([0, 7].includes(new Int32Array(memory)[0] ?? -1))
  t.false(readFileSync('/proc/self/maps', 'utf8').includes('/memfd:kept'))
})
