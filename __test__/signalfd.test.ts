// signalfd: signals as records, in the main thread and in workers, and what becomes of the actions before.
// Serial, because signals belong to the process.
import { spawnSync } from 'node:child_process'
import { closeSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { constants } from 'node:os'
import { inspect } from 'node:util'
import { Worker } from 'node:worker_threads'
import test from 'ava'
import { read, signalfd, SignalFd, type SignalRecord } from 'fdmon/fd'
import { any, flags, inProcess, openFiles, readUntil, refuses } from './fd-kit.js'
import { ended, inWorker, message } from './in-worker.js'

const fds = JSON.stringify(createRequire(import.meta.url).resolve('fdmon/fd'))
const { signals: numbers } = constants

/** Whether this process has a handler for a signal. */
function isCaught(signal: NodeJS.Signals): boolean {
  const mask = /^SigCgt:\s+([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '0'
  return ((BigInt(`0x${mask}`) >> BigInt(numbers[signal] - 1)) & 1n) === 1n
}

/** The first `count` records. */
function take(signals: SignalFd, count: number): SignalRecord[] {
  const records: SignalRecord[] = []
  readUntil(signals, () => records.push(...signals.readSignals()) >= count)
  return records
}

test.serial('a signal from another process is told with its sender', (t) => {
  using signals = signalfd(['SIGUSR2', 'SIGHUP'])
  t.deepEqual(signals.readSignals(), [])
  const { pid } = spawnSync('sh', ['-c', 'kill -s USR2 $PPID'])
  const record = take(signals, 1)[0]
  t.deepEqual(record, {
    signal: 'SIGUSR2',
    signo: numbers.SIGUSR2,
    errno: 0,
    code: 0,
    pid,
    uid: process.getuid?.() ?? -1,
    fd: 0,
    tid: 0,
    band: 0,
    overrun: 0,
    status: 0,
    int: 0,
    ptr: 0n,
    utime: 0n,
    stime: 0n,
  })
  t.deepEqual(signals.readSignals(), [])
  t.is(signals.overruns, 0)
})

test.serial('several signals share a descriptor, in the order in which they came', (t) => {
  using signals = signalfd(['SIGUSR2', 'SIGHUP', 'SIGURG'])
  t.deepEqual(signals.signals, ['SIGUSR2', 'SIGHUP', 'SIGURG'])
  const names: NodeJS.Signals[] = []
  for (const signal of ['SIGURG', 'SIGUSR2', 'SIGHUP', 'SIGUSR2'] as const) {
    process.kill(process.pid, signal)
    names.push(...take(signals, 1).map((record) => record.signal))
  }
  t.deepEqual(names, ['SIGURG', 'SIGUSR2', 'SIGHUP', 'SIGUSR2'])
})

test.serial('SIGINT and SIGTERM are taken from Node, and get their actions back', (t) => {
  const run = inProcess(`
    const signals = fds.signalfd(['SIGINT', 'SIGTERM'])
    process.kill(process.pid, 'SIGTERM')
    process.kill(process.pid, 'SIGINT')
    const got = []
    const ctx = new fdmon.AioContext()
    ctx.setFdHandler(signals, { read: () => void got.push(...signals.readSignals().map((record) => record.signal)) })
    ctx.pollUntil(() => got.length === 2)
    ctx.close()
    console.log(got.sort().join(' '))
    signals.close()
    process.kill(process.pid, 'SIGTERM')
    setTimeout(() => console.log('alive'), 20_000)`)
  t.is(run.stderr, '')
  t.is(run.stdout, 'SIGINT SIGTERM\n')
  t.is(run.signal, 'SIGTERM')
})

test.serial('it is a descriptor like the others, and cannot be constructed', (t) => {
  const signals = signalfd(['SIGURG'])
  t.true(signals instanceof SignalFd)
  t.deepEqual(flags(signals.fd), [true, true])
  t.is(inspect(signals), `SignalFd { fd: ${signals.fd} }`)
  t.true(isCaught('SIGURG'))
  signals.close()
  t.false(isCaught('SIGURG'))
  signals.close()
  refuses(t, () => signals.readSignals(), 'ERR_FDMON_CLOSED', 'SignalFd')
  refuses(t, () => signals.overruns, 'ERR_FDMON_CLOSED', 'SignalFd')
  refuses(t, () => signals.lost, 'ERR_FDMON_CLOSED', 'SignalFd')
  refuses(t, () => new (any(SignalFd))(0), 'ERR_FDMON_INVALID_ARG', 'fdmon/fd')
})

test.serial('closing leaves nothing open, neither end of the pipe', (t) => {
  const before = openFiles()
  for (let round = 0; round < 10; round++) signalfd(['SIGURG', 'SIGUSR2']).close()
  t.deepEqual(openFiles(), before)
})

test.serial('a name twice, also by its other name, counts once', (t) => {
  using signals = signalfd(['SIGIO', 'SIGURG', 'SIGPOLL', 'SIGIO'])
  t.deepEqual(signals.signals, ['SIGIO', 'SIGURG'])
  process.kill(process.pid, 'SIGPOLL')
  t.deepEqual(take(signals, 1).map((record) => record.signal), ['SIGIO'])
})

test.serial('a second reader of a signal is refused, and the first keeps it', (t) => {
  using signals = signalfd(['SIGURG'])
  refuses(t, () => signalfd(['SIGUSR2', 'SIGURG']), 'ERR_FDMON_IN_USE', 'SIGURG')
  t.false(isCaught('SIGUSR2'), 'the others of the list are as before')
  process.kill(process.pid, 'SIGURG')
  t.is(take(signals, 1).length, 1)
  signals.close()
  signalfd(['SIGUSR2', 'SIGURG']).close()
})

test.serial('a signal that a listener of this thread waits for is refused by both its names', (t) => {
  const listener = (): void => {}
  process.on('SIGIO', listener)
  refuses(t, () => signalfd(['SIGIO']), 'ERR_FDMON_UNSUPPORTED', 'SIGIO', 'process.on')
  refuses(t, () => signalfd(['SIGPOLL']), 'ERR_FDMON_UNSUPPORTED', 'SIGPOLL', 'process.on')
  process.off('SIGIO', listener)
  signalfd(['SIGIO']).close()
})

test.serial('a worker is refused what a listener of the main thread waits for', async (t) => {
  const listener = (): void => {}
  process.on('SIGUSR2', listener)
  const source = `
    try { require(${fds}).signalfd(['SIGUSR2']); parentPort.postMessage('made') }
    catch (error) { parentPort.postMessage(error.code + ' ' + error.message) }`
  const worker = inWorker(source)
  const text = await message(worker)
  await ended(worker)
  process.off('SIGUSR2', listener)
  t.regex(text, /^ERR_FDMON_UNSUPPORTED signals = SIGUSR2 .*listens.*; /)
})

test.serial("SIGUSR1 is refused while it starts Node's inspector", (t) => {
  const run = inProcess(`
    const attempt = () => { try { fds.signalfd(['SIGUSR1']).close(); return 'made' } catch (error) { return error.code + ' ' + error.message } }
    console.log(attempt())
    const listener = () => {}
    process.on('SIGUSR1', listener).off('SIGUSR1', listener) // Node gives its own handler up by that
    console.log(attempt())`)
  t.regex(run.stdout, /^ERR_FDMON_UNSUPPORTED .*SIGUSR1.*inspector; .*\nmade\n$/)
})

test.serial('SIGCHLD is refused while Node has a child', (t) => {
  const run = inProcess(`
    const attempt = () => { try { fds.signalfd(['SIGCHLD']).close(); return 'made' } catch (error) { return error.code + ' ' + error.message } }
    const child = require('node:child_process').spawn('cat', { stdio: ['pipe', 'inherit', 'inherit'] })
    console.log(attempt())
    child.on('exit', () => setImmediate(() => console.log(attempt())))
    child.stdin.end()`)
  t.regex(run.stdout, /^ERR_FDMON_UNSUPPORTED .*SIGCHLD.*; .*pidfd.*\nmade\n$/)
})

test.serial('a listener that is added later takes the signal over, which `lost` tells', (t) => {
  using signals = signalfd(['SIGURG', 'SIGUSR2'])
  t.deepEqual(signals.lost, [])
  const listener = (): void => {}
  process.on('SIGUSR2', listener)
  t.deepEqual(signals.lost, ['SIGUSR2'])
  signals.close()
  t.true(isCaught('SIGUSR2'), "the listener's action is left in force")
  process.off('SIGUSR2', listener)
  t.false(isCaught('SIGUSR2'))
})

test.serial('what arrives while the pipe is full is counted', (t) => {
  using signals = signalfd(['SIGURG'])
  for (let sent = 0; sent < 1000; sent++) process.kill(process.pid, 'SIGURG')
  const records = take(signals, 1)
  t.true(records.length >= 32, `${records.length} of a pipe that holds 4 KiB or more`)
  t.true(signals.overruns > 0)
  t.true(records.length + signals.overruns <= 1000)
  process.kill(process.pid, 'SIGURG')
  t.is(take(signals, 1).length, 1)
})

test.serial('read() of the descriptor gives the records of signalfd(2)', (t) => {
  using signals = signalfd(['SIGURG'])
  process.kill(process.pid, 'SIGURG')
  const bytes = Buffer.alloc(1024)
  let length = 0
  readUntil(signals, () => (length = read(signals, bytes)) > 0)
  t.is(length, 128)
  t.is(bytes.readUInt32LE(0), numbers.SIGURG)
  t.is(bytes.readUInt32LE(12), process.pid)
})

test.serial('a signal whose reader was closed by number does no harm, not even SIGPIPE', (t) => {
  const signals = signalfd(['SIGPIPE', 'SIGURG'])
  closeSync(signals.fd)
  for (let sent = 0; sent < 10; sent++) process.kill(process.pid, 'SIGURG')
  for (let sent = 0; sent < 10; sent++) process.kill(process.pid, 'SIGPIPE')
  refuses(t, () => signals.close(), 'ERR_FDMON_BAD_FD')
  t.false(isCaught('SIGPIPE'))
  t.false(isCaught('SIGURG'))
  const run = inProcess(`
    fds.signalfd(['SIGPIPE']).close()
    const [one, other] = fds.socketpair()
    one.close()
    try { fds.write(other, new Uint8Array(1)) } catch (error) { console.log(error.errno) }`)
  t.is(run.stdout, `${constants.errno.EPIPE}\n`, 'SIGPIPE is ignored again, as Node has it')
})

test.serial('a worker reads signals, and its end puts the actions back', async (t) => {
  const before = openFiles()
  const source = `
    const signals = require(${fds}).signalfd(['SIGUSR2', 'SIGURG'])
    const ctx = new fdmon.AioContext()
    const got = []
    ctx.setFdHandler(signals, { read: () => void got.push(...signals.readSignals()) })
    parentPort.postMessage('ready')
    ctx.pollUntil(() => got.length > 0)
    parentPort.postMessage(got)
    ctx.close()
    parentPort.on('message', () => {})`
  const worker = inWorker(source)
  t.is(await message(worker), 'ready')
  t.true(isCaught('SIGUSR2'))
  process.kill(process.pid, 'SIGUSR2')
  const got = await message(worker)
  t.is(got[0].signal, 'SIGUSR2')
  t.is(got[0].pid, process.pid)
  refuses(t, () => signalfd(['SIGURG']), 'ERR_FDMON_IN_USE', 'SIGURG')
  await worker.terminate()
  t.false(isCaught('SIGUSR2'))
  t.false(isCaught('SIGURG'))
  t.deepEqual(openFiles(), before)
  signalfd(['SIGURG', 'SIGUSR2']).close()
})

test.serial('workers that end amid a storm of signals leave no handler, and no write to a closed pipe', async (t) => {
  const warm = inWorker('')
  await ended(warm)
  const before = openFiles()
  const storm = new Worker('for (;;) process.kill(process.pid, "SIGURG")', { eval: true, execArgv: [] })
  for (let round = 0; round < 20; round++) {
    const worker = inWorker(`require(${fds}).signalfd(['SIGURG']); parentPort.postMessage(1); ${round % 2 ? '' : 'setInterval(() => {}, 1000)'}`)
    await message(worker)
    if (round % 2) await ended(worker)
    else await worker.terminate()
    t.false(isCaught('SIGURG'))
    const own = signalfd(['SIGURG'])
    t.true(take(own, 1).every((record) => record.signal === 'SIGURG'))
    own.close()
  }
  await storm.terminate()
  t.deepEqual(openFiles(), before)
})

test.serial('bad lists and names are refused by name and value', (t) => {
  for (const value of [undefined, null, 'SIGTERM', 15, {}, [], new Set(['SIGTERM'])]) {
    refuses(t, () => signalfd(any(value)), 'ERR_FDMON_INVALID_ARG', 'signals')
  }
  for (const name of ['sigterm', 'TERM', 'SIGNOTHING', 'toString', '', 15, null, undefined, ['SIGTERM']]) {
    refuses(t, () => signalfd(any(['SIGURG', name])), 'ERR_FDMON_INVALID_ARG', 'signals[1]')
  }
  for (const name of ['SIGKILL', 'SIGSTOP'] as const) {
    refuses(t, () => signalfd([name]), 'ERR_FDMON_INVALID_ARG', 'signals[0]', name, 'kernel')
  }
  for (const name of ['SIGSEGV', 'SIGBUS', 'SIGILL', 'SIGFPE', 'SIGTRAP', 'SIGABRT', 'SIGIOT', 'SIGSYS'] as const) {
    refuses(t, () => signalfd(['SIGURG', name]), 'ERR_FDMON_UNSUPPORTED', 'signals[1]', name, 'cannot go on')
  }
  refuses(t, () => signalfd(['SIGPROF']), 'ERR_FDMON_UNSUPPORTED', 'SIGPROF', 'profiler')
  t.false(isCaught('SIGURG'))
})
