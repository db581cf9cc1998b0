// The command line, and capabilities().
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import test from 'ava'
import { capabilities } from 'fdmon'

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

test('fdmon probe prints the monitors as a table, without colour where there is no terminal', (t) => {
  const { status, stdout, stderr } = fdmon('probe')
  t.is(status, 0, stderr)
  for (const word of ['poll', 'epoll', 'io_uring', 'usable CPUs']) t.true(stdout.includes(word), stdout)
  t.false(stdout.includes('\u001b['))
})

test('fdmon probe --json prints what capabilities() returns', (t) => {
  const { status, stdout } = fdmon('probe', '--json')
  t.is(status, 0)
  t.deepEqual(JSON.parse(stdout), JSON.parse(JSON.stringify(capabilities())))
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
