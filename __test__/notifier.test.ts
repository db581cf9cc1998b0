// EventNotifier: the counter, its handle in another thread, and handles that mean nothing any more.
// Tag: kernel
import { closeSync, openSync, readFileSync, readdirSync, readlinkSync } from 'node:fs'
import { constants } from 'node:os'
import { inspect } from 'node:util'
import { Worker } from 'node:worker_threads'
import test, { type ExecutionContext } from 'ava'
import { EventNotifier, FdmonError } from 'fdmon'
import { read, setNonblock } from 'fdmon/fd'

const any = (value: unknown): any => value

function refuses(t: ExecutionContext, body: () => unknown, code: string, ...words: string[]): FdmonError {
  const error = t.throws<FdmonError>(body, { instanceOf: FdmonError, code })
  for (const word of words) t.true(error.message.includes(word), `"${error.message}" names ${word}`)
  t.regex(error.message, /; \S.{8,}$/)
  return error
}

test('set makes it true once, however often it was set', (t) => {
  using notifier = new EventNotifier()
  t.false(notifier.testAndClear())
  notifier.set()
  notifier.set()
  t.true(notifier.testAndClear())
  t.false(notifier.testAndClear())
})

test('a first value other than 0 is set already', (t) => {
  using notifier = new EventNotifier({ value: 3 })
  const counter = new BigUint64Array(1)
  t.is(read(notifier, new Uint8Array(counter.buffer)), 8)
  t.is(counter[0], 3n)
  using zero = new EventNotifier({ value: 0 })
  t.false(zero.testAndClear())
  using largest = new EventNotifier({ value: 0xffff_ffff })
  t.true(largest.testAndClear())
})

test('it is an eventfd, close-on-exec and non-blocking', (t) => {
  using notifier = new EventNotifier()
  t.is(readlinkSync(`/proc/self/fd/${notifier.fd}`), 'anon_inode:[eventfd]')
  t.regex(readFileSync(`/proc/self/fdinfo/${notifier.fd}`, 'utf8'), /flags:\s+02004002/)
  setNonblock(notifier, true)
})

test('close is idempotent, and afterwards every use says closed', (t) => {
  const notifier = new EventNotifier()
  t.is(inspect(notifier), `EventNotifier { fd: ${notifier.fd} }`)
  notifier.close()
  notifier.close()
  notifier[Symbol.dispose]()
  t.is(notifier.fd, -1)
  t.is(inspect(notifier), 'EventNotifier { closed }')
  refuses(t, () => notifier.set(), 'ERR_FDMON_CLOSED', 'EventNotifier')
  refuses(t, () => notifier.testAndClear(), 'ERR_FDMON_CLOSED', 'EventNotifier')
  refuses(t, () => notifier.handle, 'ERR_FDMON_CLOSED', 'EventNotifier')
})

test('a descriptor closed by somebody else is BAD_FD', (t) => {
  const notifier = new EventNotifier()
  closeSync(notifier.fd)
  t.is(refuses(t, () => notifier.set(), 'ERR_FDMON_BAD_FD', String(notifier.fd)).errno, constants.errno.EBADF)
  refuses(t, () => notifier.testAndClear(), 'ERR_FDMON_BAD_FD')
  refuses(t, () => notifier.close(), 'ERR_FDMON_BAD_FD')
  t.is(notifier.fd, -1)
})

test('bad options are refused by name and value', (t) => {
  for (const value of [-1, 1.5, 2 ** 32, Number.NaN, '1', 1n, null]) {
    refuses(t, () => new EventNotifier({ value: any(value) }), 'ERR_FDMON_INVALID_ARG', 'value')
  }
  refuses(t, () => new EventNotifier(any({ initial: 1 })), 'ERR_FDMON_INVALID_ARG', 'initial', 'value')
  for (const options of [null, 5, 'x']) {
    refuses(t, () => new EventNotifier(any(options)), 'ERR_FDMON_INVALID_ARG', 'options')
  }
})

test('a handle is plain data, and from duplicates at once', (t) => {
  const notifier = new EventNotifier()
  using twin = EventNotifier.from(structuredClone(notifier.handle))
  t.not(twin.fd, notifier.fd)
  t.regex(readFileSync(`/proc/self/fdinfo/${twin.fd}`, 'utf8'), /flags:\s+02004002/)
  notifier.set()
  notifier.close()
  t.true(twin.testAndClear())
  twin.set()
  t.true(twin.testAndClear())
})

test('a worker rings the same counter and closes its own side only', async (t) => {
  using notifier = new EventNotifier()
  const script = `
    const { workerData } = require('node:worker_threads')
    const { EventNotifier } = require('fdmon')
    const notifier = EventNotifier.from(workerData)
    notifier.set()
    notifier.close()
  `
  const worker = new Worker(script, { eval: true, workerData: notifier.handle, execArgv: [] })
  const code = await new Promise((resolve, reject) => worker.on('exit', resolve).on('error', reject))
  t.is(code, 0)
  t.true(notifier.testAndClear())
})

test('a handle whose descriptor was closed is refused with what to do', (t) => {
  const notifier = new EventNotifier()
  const { handle } = notifier
  notifier.close()
  refuses(t, () => EventNotifier.from(handle), 'ERR_FDMON_BAD_FD', String(handle.fd), 'open until')
})

test.serial('a handle whose number is another file now is refused, also when that is an eventfd', (t) => {
  const notifier = new EventNotifier()
  const { handle } = notifier
  notifier.close()
  const file = openSync('/dev/null', 'r')
  t.is(file, handle.fd)
  refuses(t, () => EventNotifier.from(handle), 'ERR_FDMON_BAD_FD', 'another file')
  closeSync(file)
  using older = new EventNotifier()
  const again = new EventNotifier()
  const stale = { ...again.handle, id: older.handle.id }
  refuses(t, () => EventNotifier.from(stale), 'ERR_FDMON_BAD_FD', 'another file')
  again.close()
})

test('a refused handle leaves no descriptor behind', (t) => {
  const file = openSync('/proc/self/exe', 'r')
  // By what they are open for: the numbers in between may be taken by whatever else runs in this process.
  const same = (): number => {
    const target = readlinkSync(`/proc/self/fd/${file}`)
    return readdirSync('/proc/self/fd').filter((fd) => {
      try {
        return readlinkSync(`/proc/self/fd/${fd}`) === target
      } catch {
        return false // the one by which the folder was read
      }
    }).length
  }
  const before = same()
  t.true(before >= 1)
  using notifier = new EventNotifier()
  for (let i = 0; i < 3; i += 1) t.throws(() => EventNotifier.from({ ...notifier.handle, fd: file }))
  t.is(same(), before)
  closeSync(file)
})

test('what is no handle is refused by name and value', (t) => {
  using notifier = new EventNotifier()
  const { handle } = notifier
  for (const value of [undefined, null, 5, 'x', [], {}, { type: 'other' }]) {
    refuses(t, () => EventNotifier.from(any(value)), 'ERR_FDMON_INVALID_ARG', 'handle')
  }
  refuses(t, () => EventNotifier.from({ ...handle, fd: -1 }), 'ERR_FDMON_INVALID_ARG', 'handle.fd')
  refuses(t, () => EventNotifier.from({ ...handle, fd: any('3') }), 'ERR_FDMON_INVALID_ARG', 'handle.fd')
  refuses(t, () => EventNotifier.from({ ...handle, id: any(null) }), 'ERR_FDMON_INVALID_ARG', 'handle.id')
  refuses(t, () => EventNotifier.from({ ...handle, pid: 1 }), 'ERR_FDMON_INVALID_ARG', 'handle.pid', String(process.pid))
})
