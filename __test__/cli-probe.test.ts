// fdmon probe: what it advises, and how it prints where there is little room, or colour.
import { spawnSync } from 'node:child_process'
import test from 'ava'
import { capabilities, type Capabilities } from 'fdmon'
import { featureAdvice, FEATURES, isOlder } from '../dist/cjs/cli/features.js'
import { adviceFor, describe, type Surroundings } from '../dist/cjs/cli/probe.js'
import { wrap } from '../dist/cjs/cli/terminal.js'
import { fdmon, main } from './cli-kit.js'

const ESCAPE = '\u001b['
const surroundings: Surroundings = { kernel: '6.1.0-13-amd64', onlineCpus: 4, cpuList: '0-3', ioUringDisabled: null, seccomp: 'filter' }

/** A machine that has everything, but for what is said. */
function machine(but: Partial<Capabilities> = {}): Capabilities {
  const monitor = { available: true, reason: 'works here' }
  const features = Object.fromEntries(Object.keys(FEATURES).map((name) => [name, true]))
  return { native: true, monitors: { io_uring: monitor, epoll: monitor, poll: monitor, wasi: { available: false, reason: 'native' } }, features, cpus: 4, cpuQuota: null, ...but }
}

test('each feature that capabilities() names has a release, a use and what to do without', (t) => {
  t.deepEqual(Object.keys(capabilities().features).sort(), Object.keys(FEATURES).sort())
  for (const [name, { since, use, without }] of Object.entries(FEATURES)) {
    t.regex(since, /^\d+\.\d+(\.\d+)?$/, name)
    t.true(use !== '' && without !== '', name)
  }
})

test('releases are compared by their numbers', (t) => {
  for (const [kernel, since] of [['5.15.0-91-generic', '6.1'], ['6.1.0-13-amd64', '6.9'], ['6.9.3', '6.12'], ['2.6.26', '2.6.27']] as const) t.true(isOlder(kernel, since), kernel)
  for (const [kernel, since] of [['6.12.1', '6.9'], ['6.9.0-rc1', '6.9'], ['7.0', '6.15'], ['2.6.27', '2.6.27']] as const) t.false(isOlder(kernel, since), kernel)
})

test('a feature that an older kernel lacks is advised a newer one; one that a newer kernel refuses is not', (t) => {
  t.regex(featureAdvice('ioUringNapi', '6.1.0'), /^Linux 6\.9 or newer has it, and this is 6\.1\.0; /)
  t.regex(featureAdvice('ioUringNapi', '6.18.2'), /new enough.*sandbox/)
})

test('nothing is advised where nothing is missing', (t) => {
  t.deepEqual(adviceFor(machine(), surroundings), [])
  t.true(describe({ ...machine(), surroundings, advice: [] }, { width: Infinity, colour: false }).includes('Nothing to advise'))
})

test('a missing feature has one line; those of a refused io_uring share that of the monitor', (t) => {
  const without = (name: string): Capabilities['features'] => ({ ...machine().features, [name]: false })
  t.deepEqual(adviceFor(machine({ features: without('ioUringNapi') }), surroundings).map(({ about }) => about), ['ioUringNapi'])
  const monitors = { ...machine().monitors, io_uring: { available: false, reason: 'EPERM', advice: 'allow it' } }
  const lines = adviceFor(machine({ monitors, features: { ...without('ioUringNapi'), memfd: false } }), surroundings)
  t.deepEqual(lines.map(({ about }) => about), ['io_uring', 'auto', 'memfd'])
})

test('one usable CPU and a quota below the usable CPUs are advised about', (t) => {
  const about = (cpus: number, cpuQuota: number | null): string => adviceFor(machine({ cpus, cpuQuota }), surroundings).map(({ about, text }) => `${about}: ${text}`).join('\n')
  t.regex(about(1, null), /^usable CPUs: .*do not spin.*affinity mask.*has 4/)
  t.regex(about(4, 0.5), /^CPU quota: contexts do not spin here; raise it/)
  t.regex(about(4, 2.5), /^CPU quota: a spinning context uses it up.*cpuBudget/)
  t.is(about(4, 4), '')
})

test('on one CPU of several, fdmon probe says so', (t) => {
  const { status, stdout, stderr } = spawnSync('taskset', ['-c', '0', process.execPath, main, 'probe', '--json'], { encoding: 'utf8' })
  t.is(status, 0, stderr)
  const found = JSON.parse(stdout) as { cpus: number; surroundings: Surroundings; advice: { about: string }[] }
  t.is(found.cpus, 1)
  t.is(found.surroundings.cpuList, '0')
  t.true(found.advice.some(({ about }) => about === 'usable CPUs'))
})

test('fdmon probe keeps within a narrow width, and says the same', (t) => {
  const words = (text: string): string[] => text.split(/[\s:]+/)
  const wide = fdmon(['probe'])
  for (const width of [100, 72, 40]) {
    const { status, stdout } = fdmon(['probe'], { COLUMNS: `${width}` })
    t.is(status, 0)
    for (const line of stdout.split('\n')) t.true(line.length <= width, `${width}: ${line}`)
    // Where rows are paragraphs, each is named by its first column, whose own name then is not there.
    const missing = words(wide.stdout).filter((word) => !words(stdout).includes(word))
    t.deepEqual(missing, width === 40 ? ['monitor', 'feature'] : [], `${width}`)
  }
})

test('colours are for terminals and FORCE_COLOR; NO_COLOR beats it', (t) => {
  t.false(fdmon(['probe']).stdout.includes(ESCAPE))
  t.true(fdmon(['probe'], { FORCE_COLOR: '1' }).stdout.includes(ESCAPE))
  t.false(fdmon(['probe'], { FORCE_COLOR: '0' }).stdout.includes(ESCAPE))
  t.false(fdmon(['probe'], { FORCE_COLOR: '1', NO_COLOR: '1' }).stdout.includes(ESCAPE))
})

test('lines break between words, and a word that is too long stays whole', (t) => {
  t.is(wrap({ width: 9, colour: false }, 'one two three'), 'one two\n  three\n')
  t.is(wrap({ width: 3, colour: false }, '  longer'), '  longer\n')
  t.is(wrap({ width: Infinity, colour: false }, 'one two'), 'one two\n')
})
