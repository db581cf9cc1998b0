// fdmon top: what it shows of a process that publishes its statistics, in a terminal of tmux and in a pipe, and whom it believes.
import { spawn, spawnSync } from 'node:child_process'
import { chmodSync, copyFileSync, existsSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Worker } from 'node:worker_threads'
import test, { type ExecutionContext } from 'ava'
import { FdmonError, publishStats } from 'fdmon'
import { Page, snapshotOf, type ContextNumbers, type ReadAt, type Snapshot } from '../dist/cjs/cli/top/page.js'
import { Watch } from '../dist/cjs/cli/top/rates.js'
import { show } from '../dist/cjs/cli/top/show.js'
import { count, duration, percent, sparkline } from '../dist/cjs/cli/top/units.js'
import { fdmon, isGone, main, until } from './cli-kit.js'
import { Terminal } from './tmux.js'

const program = fileURLToPath(new URL('cli/published.cjs', import.meta.url))
const ESCAPE = '\u001b'

/** A folder for pages of one test, which ends with it. */
function home(t: ExecutionContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'fdmon-test-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

/** A process that publishes there. */
async function published(t: ExecutionContext, folder: string, how: 'environment' | 'publish' = 'environment'): Promise<{ pid: number; kill(signal: NodeJS.Signals): Promise<void> }> {
  const env = { ...process.env, XDG_RUNTIME_DIR: folder, FDMON_STATS: how === 'environment' ? '1' : '' }
  const child = spawn(process.execPath, [program, how], { env, stdio: ['ignore', 'pipe', 'inherit'] })
  const ended = new Promise<void>((resolve) => child.on('exit', () => resolve()))
  t.teardown(() => void child.kill('SIGKILL'))
  await new Promise((resolve) => child.stdout.once('data', resolve))
  const kill = async (signal: NodeJS.Signals): Promise<void> => {
    child.kill(signal)
    await ended
  }
  return { pid: child.pid ?? 0, kill }
}

/** A line of script, in a process of its own. */
function fdmonNode(script: string, folder: string, env: NodeJS.ProcessEnv = {}): { stdout: string; stderr: string } {
  return spawnSync(process.execPath, ['-e', script], { cwd: join(program, '..'), encoding: 'utf8', env: { ...process.env, XDG_RUNTIME_DIR: folder, ...env } })
}

interface Json {
  pid: number
  seconds: number
  contexts: (ContextNumbers & { windows: number[]; perSecond: Record<string, number>; handlers: { fd: number; what: string; reads: number; perSecond: Record<string, number> }[] })[]
}

for (const how of ['environment', 'publish'] as const) {
  test(`a process that asked by ${how === 'publish' ? 'publishStats()' : 'FDMON_STATS=1'} is listed, and shown from inside its run() [SPEC 53]`, async (t) => {
    const folder = home(t)
    const env = { XDG_RUNTIME_DIR: folder }
    const { pid } = await published(t, folder, how)
    const list = JSON.parse(fdmon(['top', '--json'], env).stdout) as { processes: { pid: number; command: string; contexts: number; handlers: number }[] }
    const row = list.processes.find((process) => process.pid === pid)
    t.like(row, { contexts: 1, handlers: 2 })
    t.true(row?.command.includes('published.cjs'))
    t.regex(fdmon(['top'], env).stdout, new RegExp(`^ +pid .*\n(.*\n)* *${pid} +1 +2 `))

    const { status, stdout, stderr } = fdmon(['top', `${pid}`, '--json'], env)
    t.is(status, 0, stderr)
    const { contexts, seconds } = JSON.parse(stdout) as Json
    t.true(seconds > 0)
    t.is(contexts.length, 1)
    const [context] = contexts
    t.like(context, { name: 'demo', monitor: 'epoll', policy: 'fixed', maxNs: 200_000, windowNs: 200_000, live: 2, guard: 'a handler has no poll' })
    t.true((context?.windows.length ?? 0) > 1)
    t.true((context?.events ?? 0) > 0 && (context?.perSecond['events'] ?? 0) > 0, stdout)
    const [busy, quiet] = context?.handlers ?? []
    t.true((busy?.reads ?? 0) > 0 && (busy?.perSecond['reads'] ?? 0) > 0, stdout)
    t.like(quiet, { what: 'eventfd', reads: 0 })
  })
}

test('in a pipe it prints one table without colours, which keeps within a narrow width', async (t) => {
  const folder = home(t)
  const { pid } = await published(t, folder)
  const run = (width: string, args: string[] = []) => fdmon(['top', `${pid}`, '--interval', '300', ...args], { XDG_RUNTIME_DIR: folder, COLUMNS: width })
  const wide = run('')
  t.is(wide.status, 0, wide.stderr)
  t.false(wide.stdout.includes(ESCAPE))
  t.regex(wide.stdout, /^context +on +turns\/s .* window/m)
  t.regex(wide.stdout, /^demo +epoll .* 200 µs of 200 µs +█+$/m)
  t.regex(wide.stdout, /^demo +\d+ +\d.* eventfd$/m)
  t.regex(wide.stdout, /demo spins less than it is asked to: a handler has no poll/)
  for (const width of [79, 40]) {
    const { status, stdout } = run(`${width}`)
    t.is(status, 0)
    for (const line of stdout.split('\n')) t.true(line.length <= width, `${width}: ${line}`)
    t.regex(stdout, /200 µs of 200 µs/)
  }
  t.true(fdmon(['top', `${pid}`, '--interval', '100'], { XDG_RUNTIME_DIR: folder, FORCE_COLOR: '1' }).stdout.includes(ESCAPE))
  t.false(fdmon(['top', `${pid}`, '--interval', '100'], { XDG_RUNTIME_DIR: folder, FORCE_COLOR: '1', NO_COLOR: '1' }).stdout.includes(ESCAPE))
})

for (const [key, name] of [['q', 'q'], ['C-c', 'Ctrl-C']] as const) {
  test.serial(`in a terminal it is live, and ${name} gives back the terminal as it was`, async (t) => {
    t.timeout(200_000)
    const folder = home(t)
    const { pid } = await published(t, folder)
    const terminal = new Terminal()
    try {
      await terminal.start(`echo before; XDG_RUNTIME_DIR='${folder}' '${process.execPath}' '${main}' top ${pid} --interval 300; echo "ended with $?"; stty -a; sleep 1000`)
      const first = await terminal.until(t, 'the handlers', (screen) => /^demo +\d+ +[1-9]\d* .*eventfd$/m.test(screen))
      t.regex(first, /q quit/)
      t.regex(first, /^demo +epoll .*200 µs of 200 µs/m)
      for (const line of first.split('\n')) t.true(line.length <= 120, line)
      const bars = (screen: string): number => /█+/.exec(screen)?.[0].length ?? 0
      await terminal.until(t, 'the sparkline grows', (screen) => bars(screen) > bars(first))
      await terminal.tmux('send-keys', key)
      const last = await terminal.until(t, 'the end', (screen) => /ended with[^]*icanon[^]*\becho\b/.test(screen))
      t.regex(last, /^before\nended with 0\n/)
      t.regex(last, /(?<!-)icanon/)
      t.is((await terminal.tmux('display-message', '-p', '#{alternate_on} #{cursor_flag}')).trim(), '0 1')
    } finally {
      await terminal.end()
    }
  })
}

test.serial('it ends with the process that it shows, says so, and leaves the last table; in a low terminal it counts what does not fit', async (t) => {
  t.timeout(200_000)
  const folder = home(t)
  const { pid, kill } = await published(t, folder)
  const terminal = new Terminal()
  try {
    await terminal.start(`XDG_RUNTIME_DIR='${folder}' '${process.execPath}' '${main}' top ${pid} --interval 200; echo "ended with $?"; sleep 1000`, { columns: 60, rows: 8 })
    await terminal.until(t, 'the table', (screen) => /context|demo/.test(screen) && /… \d+ more lines/.test(screen))
    await kill('SIGKILL')
    await terminal.until(t, 'the end', (screen) => screen.includes(`fdmon: process ${pid} has ended`) && screen.includes('ended with 0'))
  } finally {
    await terminal.end()
  }
})

test('the page of a killed process is stale, and goes with the next look; one that ends in good order takes it along', async (t) => {
  const folder = home(t)
  const env = { XDG_RUNTIME_DIR: folder }
  const { pid, kill } = await published(t, folder)
  await kill('SIGKILL')
  t.is(readdirSync(folder).length, 1)
  const { status, stderr } = fdmon(['top', `${pid}`], env)
  t.is(status, 1)
  t.regex(stderr, new RegExp(`^fdmon: there is no process ${pid};`))
  t.deepEqual(readdirSync(folder), [])
  const script = "const { AioContext } = require('fdmon'); new AioContext().close(); process.stdout.write('' + require('fs').readdirSync(process.env.XDG_RUNTIME_DIR).length)"
  const child = spawn(process.execPath, ['-e', script], { cwd: join(program, '..'), env: { ...process.env, ...env, FDMON_STATS: '1' }, stdio: ['ignore', 'pipe', 'inherit'] })
  let text = ''
  child.stdout.on('data', (part: Buffer) => (text += part.toString()))
  t.is(await new Promise((resolve) => child.on('close', resolve)), 0)
  t.is(text, '1')
  t.deepEqual(readdirSync(folder), [])
})

test('a page is believed only if it is a file of the same user that nobody else can touch, of a process that runs', (t) => {
  const folder = home(t)
  const page = publishStats()
  t.teardown(() => page.close())
  const copy = join(folder, 'page')
  const refusedAs = (why: RegExp): void => void t.throws(() => new Page(copy), { message: why })
  copyFileSync(page.path, copy)
  chmodSync(copy, 0o600)
  new Page(copy).close()
  for (const mode of [0o644, 0o620]) {
    chmodSync(copy, mode)
    refusedAs(/others may read or write it/)
  }
  rmSync(copy)
  symlinkSync(page.path, copy)
  refusedAs(/ELOOP/)
  rmSync(copy)
  writeFileSync(copy, 'something else', { mode: 0o600 })
  refusedAs(/no stats page/)

  // The number of this process, at another time.
  const pid = process.pid
  const name = page.path.slice(page.path.lastIndexOf('/') + 1)
  const stale = join(folder, name)
  const bytes = new Uint8Array(512)
  bytes.set(new TextEncoder().encode('fdmonST\0'))
  new DataView(bytes.buffer).setUint32(8, 1, true)
  new DataView(bytes.buffer).setUint32(24, pid, true)
  writeFileSync(stale, bytes, { mode: 0o600 })
  fdmon(['top', '--json'], { XDG_RUNTIME_DIR: folder })
  t.false(existsSync(stale))
  // One of another namespace is left alone.
  const foreign = join(folder, `fdmon-${pid}-1.stats`)
  writeFileSync(foreign, bytes, { mode: 0o600 })
  fdmon(['top'], { XDG_RUNTIME_DIR: folder })
  t.true(existsSync(foreign))
})

test('who publishes nothing, is not there, or is no number, is told so', (t) => {
  const env = { XDG_RUNTIME_DIR: home(t) }
  const quiet = fdmon(['top', `${process.ppid}`], env)
  t.is(quiet.status, 1)
  t.regex(quiet.stderr, /publishes no statistics; start it with FDMON_STATS=1, or call publishStats\(\) in it/)
  t.is(fdmon(['top', '2147483647'], env).status, 1)
  for (const args of [['top', 'x'], ['top', '0'], ['top', '1', '2'], ['top', '--interval', '5', '1'], ['top', '--nope']]) {
    const { status, stdout, stderr } = fdmon(args, env)
    t.is(status, 2, args.join(' '))
    t.is(stdout, '')
    t.true(stderr.includes('fdmon'), stderr)
  }
  const help = fdmon(['top', '--help'])
  t.is(help.status, 0)
  for (const line of help.stdout.split('\n')) t.true(line.length <= 80, line)
})

test('publishStats() publishes until the last owner closes it, also one of a worker that ends', async (t) => {
  // Pages are the process's: this test must not share one with others.
  const script = `
    const { publishStats } = require('fdmon')
    const { existsSync } = require('node:fs')
    const { Worker } = require('node:worker_threads')
    const first = publishStats()
    const { path } = publishStats()
    const said = [existsSync(path), first.path === path]
    first.close()
    first.close()
    said.push(existsSync(path))
    const worker = new Worker("require('fdmon').publishStats(); setTimeout(() => {}, 50)", { eval: true })
    worker.on('exit', () => process.stdout.write(JSON.stringify([...said, existsSync(path)])))`
  const child = spawn(process.execPath, ['-e', script], { cwd: join(program, '..'), env: { ...process.env, XDG_RUNTIME_DIR: home(t) }, stdio: ['ignore', 'pipe', 'inherit'] })
  let text = ''
  child.stdout.on('data', (part: Buffer) => (text += part.toString()))
  t.is(await new Promise((resolve) => child.on('close', resolve)), 0)
  t.deepEqual(JSON.parse(text), [true, true, true, true])
})

test('where the page cannot be made, publishStats() says why [SPEC 13]', (t) => {
  const page = publishStats()
  t.teardown(() => page.close())
  const script = `
    const { FdmonError, publishStats } = require('fdmon')
    const fs = require('node:fs')
    const page = publishStats()
    page.close()
    fs.mkdirSync(page.path)
    try { publishStats() } catch ({ code, syscall, message }) { console.log(JSON.stringify({ code, syscall, named: message.includes(page.path) })) }`
  const { stdout, stderr } = fdmonNode(script, home(t))
  t.deepEqual(JSON.parse(stdout || 'null'), { code: 'ERR_FDMON_SYSCALL', syscall: 'open', named: true }, stderr)
  const nonsense = fdmonNode("try { new (require('fdmon').AioContext)() } catch ({ code, message }) { console.log(code, message) }", home(t), { FDMON_STATS: 'maybe' })
  t.regex(nonsense.stdout, /^ERR_FDMON_INVALID_ARG FDMON_STATS = 'maybe'/)
  t.true(FdmonError.prototype instanceof Error)
})

// --- the parts -----------------------------------------------------------------------------------------------------

function contextAt(timeNs: number, numbers: Partial<ContextNumbers> = {}): ContextNumbers {
  const zero = { turns: 0, waits: 0, sleeps: 0, spinHits: 0, spinMisses: 0, spinNs: 0, spinWastedNs: 0, windowNs: 0, wakeUpNs: 0, events: 0, dispatchNs: 0 }
  const more = { cpuNs: 0, notifiesSent: 0, notifiesElided: 0, submissions: 0, completions: 0, batchMax: 0, fallbacks: 0, ioInFlight: 0, ioBatchMax: 0 }
  return { ...zero, ...more, id: 1, name: 'one', monitor: 'poll', reason: '', guard: null, policy: 'cost', timeNs, maxNs: 1000, live: 0, handlers: [], ...numbers }
}

function snapshot(updates: number, contexts: ContextNumbers[]): Snapshot {
  return { timeNs: updates * 1e8, updates, contexts, leftOut: 0 }
}

test('rates are what was added between two looks, over the time between them', (t) => {
  const row = { fd: 3, polling: true, reads: 10, writes: 0, pollHits: 5, estimateNs: 0 }
  const watch = new Watch(snapshot(1, [contextAt(1e9, { turns: 100, windowNs: 1, handlers: [row, { ...row, fd: 4 }] })]))
  t.is(watch.rates()[0]?.turns, 0)
  const later = contextAt(3e9, { turns: 300, cpuNs: 1e9, spinWastedNs: 5e8, windowNs: 2, handlers: [row, { ...row, fd: 4, reads: 30 }, { ...row, fd: 5 }] })
  watch.look(snapshot(2, [later, contextAt(3e9, { id: 2, turns: 7 })]))
  watch.look(snapshot(2, [later])) // the same update again
  const [one, two] = watch.rates()
  t.like(one, { turns: 100, cpu: 0.5, wasted: 0.25, windows: [1, 2] })
  t.deepEqual(one?.handlers.map(({ fd, reads }) => [fd, reads]), [[4, 10], [3, 0], [5, 0]])
  t.is(two?.turns, 0, 'it was not there before')
  watch.next()
  watch.look(snapshot(3, [contextAt(4e9, { turns: 310, handlers: [{ ...row, fd: 4, reads: 2 }] })]))
  t.is(watch.rates()[0]?.turns, 10)
  t.is(watch.rates()[0]?.handlers[0]?.reads, 0, 'a counter that went back is another one')
})

test('numbers are short', (t) => {
  t.deepEqual([0, 0.42, 9.96, 1234, 12_345, 123_456, 4_500_000].map(count), ['0', '0.4', '10', '1234', '12.3k', '123k', '4.5M'])
  t.deepEqual([0, 850, 12_800, 3_400_000, 2.5e9].map(duration), ['0 ns', '850 ns', '12.8 µs', '3.4 ms', '2.5 s'])
  t.deepEqual([0, 0.012, 0.34, 1].map(percent), ['0 %', '1.2 %', '34 %', '100 %'])
  t.is(sparkline([9, 0, 1, 50, 100, 1000], 100, 5), '·▁▄██')
})

test('texts of others do nothing to the terminal', (t) => {
  const view = new DataView(new ArrayBuffer(512 + 16_384))
  view.setUint32(16, 16_384, true)
  view.setUint32(20, 1, true)
  view.setBigUint64(512 + 8, 1n, true)
  new Uint8Array(view.buffer).set(new TextEncoder().encode(`a${ESCAPE}[2Jb`), 512 + 256)
  const readAt: ReadAt = (bytes, position) => bytes.set(new Uint8Array(view.buffer, position, Math.min(bytes.length, view.byteLength - position)))
  const { contexts } = snapshotOf(readAt)
  t.is(contexts[0]?.name, 'a?[2Jb')
  const shown = show({ pid: 1, command: 'x', seconds: 1, contexts: new Watch({ timeNs: 0, updates: 1, contexts, leftOut: 2 }).rates(), leftOut: 2, what: () => '' }, { width: Infinity, colour: false })
  t.false(shown.includes(ESCAPE))
  t.regex(shown, /2 more contexts are not shown/)
  view.setBigUint64(512, 1n, true)
  t.deepEqual(snapshotOf(readAt).contexts, [], 'its writer died while it wrote')
})

test('half of an update is never shown [SPEC 53]', async (t) => {
  const memory = new SharedArrayBuffer(512 + 16_384)
  const bytes = new Uint8Array(memory)
  new DataView(memory).setUint32(16, 16_384, true)
  new DataView(memory).setUint32(20, 1, true)
  const writer = new Worker(
    `const { workerData: memory } = require('node:worker_threads')
     const [sequence, numbers] = [new BigInt64Array(memory, 512, 1), new BigInt64Array(memory, 512 + 8, 25)]
     for (let turn = 1n; ; turn++) {
       Atomics.add(sequence, 0, 1n)
       for (let at = 0; at < numbers.length; at++) Atomics.store(numbers, at, turn)
       Atomics.add(sequence, 0, 1n)
     }`,
    { eval: true, workerData: memory },
  )
  t.teardown(() => writer.terminate())
  await until(() => Atomics.load(new BigInt64Array(memory, 512, 1), 0) > 100n)
  const readAt: ReadAt = (into, position) => {
    if (into.length === 8) new DataView(into.buffer).setBigInt64(0, Atomics.load(new BigInt64Array(memory, position, 1), 0), true)
    else into.set(bytes.subarray(position, position + into.length))
  }
  const seen = new Set<number>()
  for (let whole = 0; whole < 300 || seen.size < 20; ) {
    const [context] = snapshotOf(readAt).contexts
    if (context === undefined) continue
    whole++
    seen.add(context.id)
    const { id, timeNs, maxNs, turns, ioBatchMax } = context
    if (![timeNs, maxNs, turns, ioBatchMax].every((number) => number === id)) return t.fail(JSON.stringify(context))
  }
  t.pass()
})

test('a process that has ended is gone for those who look at it', async (t) => {
  const folder = home(t)
  const { pid, kill } = await published(t, folder)
  await kill('SIGTERM')
  t.true(isGone(pid))
  const { status, stdout, stderr } = fdmon(['top', '--json'], { XDG_RUNTIME_DIR: folder })
  t.is(status, 0, stderr)
  t.deepEqual((JSON.parse(stdout) as { processes: { pid: number }[] }).processes.filter((process) => process.pid === pid), [])
})
