// The command line, and capabilities().
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { release } from 'node:os'
import { fileURLToPath } from 'node:url'
import test from 'ava'
import { capabilities, type Capabilities } from 'fdmon'
import type { Report } from '../dist/cjs/cli/bench/report.js'
import type { Probe } from '../dist/cjs/cli/probe.js'
import { refusing } from './refusing.js'

const manifest = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as {
  version: string
  bin: { fdmon: string }
}
const main = fileURLToPath(new URL(`../${manifest.bin.fdmon}`, import.meta.url))

function fdmon(...args: string[]): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(process.execPath, [main, ...args], { encoding: 'utf8' })
}

test('capabilities() names each monitor with a reason', (t) => {
  const found = capabilities()
  t.true(found.native)
  t.true(found.monitors.poll.available)
  t.true(found.monitors.epoll.available)
  for (const [name, { available, reason }] of Object.entries(found.monitors)) {
    t.is(typeof available, 'boolean', name)
    t.not(reason, '', name)
  }
  t.false(found.monitors.wasi.available)
  t.true(found.cpus >= 1)
  t.true(found.cpuQuota === null || found.cpuQuota > 0)
  t.true(Object.values(found.features).every((here) => typeof here === 'boolean'))
})

test('capabilities() names the features of io_uring, and none of them where it is refused', (t) => {
  const { features, monitors } = capabilities()
  const ring = Object.entries(features).filter(([name]) => name.startsWith('ioUring'))
  for (const name of ['ioUringExtArg', 'ioUringDeferTaskrun', 'ioUringMultishotPoll', 'ioUringNapi']) t.true(name in features, name)
  t.is(features['ioUringExtArg'], monitors.io_uring.available)
  if (!monitors.io_uring.available) t.false(ring.some(([, here]) => here))
})

const refusals = [
  { pair: 'io_uring_setup=EPERM', reason: 'seccomp profile refuses io_uring_setup', advice: 'docker run' },
  { pair: 'io_uring_setup=ENOSYS', reason: 'ENOSYS', advice: 'Linux 5.11|CONFIG_IO_URING' },
  { pair: 'io_uring_setup=ENOMEM', reason: 'ENOMEM', advice: 'RLIMIT_AS' },
  { pair: 'io_uring_enter=EPERM', reason: 'seccomp profile refuses io_uring_enter', advice: 'docker run', needsRing: true },
  { pair: 'io_uring_enter=ENOSYS', reason: 'a sandbox hides it', advice: 'sandbox that passes', needsRing: true },
]
for (const { pair, reason, advice, needsRing } of refusals) {
  test(`where ${pair}, fdmon probe says so, and auto works all the same [SPEC 45]`, (t) => {
    // Where a sysctl refuses as well, or there is no ring to use, that is what is said.
    const other = needsRing === true && !capabilities().monitors.io_uring.available
    const result = refusing([pair], main, 'probe', '--json')
    t.is(result.status, 0, result.stderr)
    const { io_uring, poll, epoll } = (JSON.parse(result.stdout) as Capabilities).monitors
    t.false(io_uring.available)
    t.true(poll.available && epoll.available)
    if (!other && !/io_uring_disabled is [12]/.test(io_uring.reason)) {
      t.true(io_uring.reason.includes(reason), io_uring.reason)
      t.regex(io_uring.advice ?? '', new RegExp(advice))
    }
    t.deepEqual(Object.entries((JSON.parse(result.stdout) as Capabilities).features).filter(([name, here]) => here && name.startsWith('ioUring')), [])
    const shown = refusing([pair], main, 'probe').stdout
    t.regex(shown, /^Advice: io_uring: .+\.$/m, shown)
    t.true(shown.includes('nothing has to change'), shown)
  })

  test(`where ${pair}, who asks for io_uring hears why, also by FDMON_MONITOR [SPEC 45]`, (t) => {
    const script = `
      const { AioContext, FdmonError } = require('fdmon')
      const tried = (options) => {
        try {
          const ctx = new AioContext(options)
          return { monitor: ctx.monitor, reason: ctx.monitorReason, fallbacks: ctx.stats().fallbacks }
        } catch (error) {
          const { code, errno, syscall, message } = error
          return { typed: error instanceof FdmonError, code, errno, syscall, message }
        }
      }
      const auto = tried()
      const explicit = tried({ monitor: 'io_uring' })
      process.env.FDMON_MONITOR = 'io_uring'
      console.log(JSON.stringify({ auto, explicit, environment: tried() }))`
    const { status, stdout, stderr } = refusing([pair], '-e', script)
    t.is(status, 0, stderr)
    const { auto, explicit, environment } = JSON.parse(stdout)
    t.is(auto.monitor, 'poll')
    t.regex(auto.reason, /^auto: io_uring refused: E[A-Z]+/)
    for (const [option, error] of [['monitor', explicit], ['FDMON_MONITOR', environment]] as const) {
      t.true(error.typed, option)
      t.is(error.code, 'ERR_FDMON_UNSUPPORTED', error.message)
      t.true(error.errno > 0, error.message)
      t.true(error.syscall.startsWith('io_uring_'), error.syscall)
      t.regex(error.message, new RegExp(`${option}.* 'io_uring' is refused: E[A-Z]+.*; .*'auto'`))
    }
  })
}

test('where io_uring is refused, fdmon bench leaves it out and says why; asked for it alone, it fails [SPEC 45]', (t) => {
  const few = ['--rounds', '1', '--events', '10', '--gap', '20', '--policy', 'blocking', '--placement', 'one', '--no-system-calls', '--json']
  const both = refusing(['io_uring_setup=EPERM'], main, 'bench', '--monitor', 'io_uring,epoll', ...few)
  t.is(both.status, 0, both.stderr)
  const { rows, notes } = JSON.parse(both.stdout) as Report
  t.deepEqual(rows.map(({ monitor }) => monitor), ['epoll'])
  t.true(notes.some((note) => /^io_uring is left out: EPERM: /.test(note)), notes.join('\n'))
  const alone = refusing(['io_uring_setup=EPERM'], main, 'bench', '--monitor', 'io_uring', ...few)
  t.is(alone.status, 1)
  t.regex(alone.stderr, /^fdmon: io_uring is left out: EPERM: /m)
})

test('fdmon probe prints the monitors as a table, without colour where there is no terminal', (t) => {
  const { status, stdout, stderr } = fdmon('probe')
  t.is(status, 0, stderr)
  for (const word of ['poll', 'epoll', 'io_uring', 'usable CPUs']) t.true(stdout.includes(word), stdout)
  t.false(stdout.includes('\u001b['))
})

test('fdmon probe --json prints what capabilities() returns, what it depends on, and the advice', (t) => {
  const { status, stdout } = fdmon('probe', '--json')
  t.is(status, 0)
  const { surroundings, advice, ...found } = JSON.parse(stdout) as Probe
  t.deepEqual(found, JSON.parse(JSON.stringify(capabilities())))
  t.is(surroundings.kernel, release())
  t.true(surroundings.onlineCpus >= found.cpus)
  t.truthy(surroundings.cpuList)
  t.true(advice.every(({ about, text }) => about !== '' && text !== ''))
})

test('--help and --version end with 0, a usage error with 2 and a hint', (t) => {
  t.is(fdmon('--version').stdout.trim(), manifest.version)
  for (const args of [['--help'], ['probe', '--help'], ['--version']]) t.is(fdmon(...args).status, 0, args.join(' '))
  for (const args of [[], ['prob'], ['probe', '--jsn'], ['probe', 'extra'], ['--nope']]) {
    const { status, stdout, stderr } = fdmon(...args)
    t.is(status, 2, args.join(' '))
    t.is(stdout, '')
    t.true(stderr.includes('fdmon'), stderr)
  }
})
