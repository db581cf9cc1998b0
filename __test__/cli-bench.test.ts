// fdmon bench: what it measures and counts, what it refuses, and how it ends. No test looks at how long anything took.
import { mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { capabilities } from 'fdmon'
import { cpuList, eventsFor, pairOf, planOf } from '../dist/cjs/cli/bench/plan.js'
import type { Report } from '../dist/cjs/cli/bench/report.js'
import { figure, quantile, sentenceOf, spreadOf, type Row } from '../dist/cjs/cli/bench/results.js'
import { settingsOf } from '../dist/cjs/cli/bench/settings.js'
import { begin, childrenOf, cpusOfThreads, end, fdmon, isGone, until } from './cli-kit.js'

const SHORT = ['bench', '--rounds', '2', '--events', '20', '--gap', '50', '--monitor', 'epoll', '--policy', 'blocking,fixed', '--placement', 'one', '--no-system-calls']
/** Long enough that whatever a test does to it happens while it measures. */
const LONG = ['bench', '--rounds', '1000', '--events', '1000', '--gap', '1000', '--monitor', 'epoll', '--policy', 'blocking', '--no-system-calls']
const escape = '\u001b['

function scratch(t: { teardown(done: () => void): void }): string {
  const folder = mkdtempSync(join(tmpdir(), 'fdmon-test-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

test('every row is measured in every round, without a lost event, and those that lose are kept', (t) => {
  const args = ['bench', '--rounds', '2', '--events', '20', '--gap', '5,50', '--monitor', 'poll,epoll', '--policy', 'blocking,fixed', '--placement', 'one,unguarded', '--no-system-calls', '--json']
  const { status, stdout, stderr } = fdmon(args)
  t.is(status, 0, stderr)
  const { ok, rows, problems } = JSON.parse(stdout) as Report
  t.true(ok)
  t.deepEqual(problems, [])
  // Unguarded there is nothing to compare for who does not spin.
  t.is(rows.length, 2 * 2 * (2 + 1))
  t.is(new Set(rows.map(({ placement, gapUs, monitor, policy }) => [placement, gapUs, monitor, policy].join())).size, rows.length)
  for (const row of rows) {
    const name = JSON.stringify(row)
    t.is(row.failed, null, name)
    t.is(row.lost, 0, name)
    t.is(row.rounds, 2, name)
    t.is(row.events, 40, name)
    t.is(row.p999Us, null, name)
    for (const { least, median, most } of [row.p50Us, row.p99Us, row.cpuUs, row.processCpuUs, row.switches, row.sleeps]) t.true(least <= median && median <= most, name)
    t.true(row.p50Us.least > 0 && row.cpuUs.least > 0, name)
    t.true(row.percentiles.length > 5, name)
    t.true(row.percentiles.every(([, us], at) => at === 0 || us >= (row.percentiles[at - 1]?.[1] ?? 0)), name)
    t.is(row.guard, row.placement === 'one' && row.policy === 'fixed' ? 'one CPU is usable' : null, name)
    if (row.policy === 'blocking') t.true(row.sleeps.least >= 0.9, name)
  }
})

for (const tool of ['strace', 'whatever is there']) {
  test(`system calls are counted by ${tool}: without a spin, at least the wait and the producer's signal`, (t) => {
    const bin = join(scratch(t), 'bin')
    mkdirSync(bin)
    symlinkSync('/usr/bin/strace', join(bin, 'strace'))
    const env = tool === 'strace' ? { PATH: bin } : {}
    const { status, stdout, stderr } = fdmon(['bench', '--rounds', '1', '--events', '20', '--gap', '50', '--monitor', 'epoll', '--policy', 'blocking', '--json'], env)
    t.is(status, 0, stderr)
    const { rows, systemCallsBy, notes } = JSON.parse(stdout) as Report
    if (tool === 'strace') t.is(systemCallsBy, 'strace', notes.join('\n'))
    t.true(notes.some((note) => note.includes(`counted by ${systemCallsBy}`)), notes.join('\n'))
    t.true(rows.length > 0)
    for (const { systemCalls } of rows) t.true((systemCalls ?? 0) >= 2, `${systemCalls}`)
  })
}

test('free and two are measured where there are two CPUs, and told where not', (t) => {
  const { status, stdout, stderr } = fdmon([...SHORT, '--placement', 'two,free', '--json'])
  t.is(status, 0, stderr)
  const { rows, notes } = JSON.parse(stdout) as Report
  const placements = [...new Set(rows.map(({ placement }) => placement))]
  if (capabilities().cpus < 2) t.true(notes.some((note) => note.startsWith('placement two is left out: only one CPU')))
  else t.deepEqual(placements, ['one', 'two', 'free'])
  t.true(rows.every(({ guard, placement }) => placement === 'one' || guard !== 'one CPU is usable'))
})

test('each side has a CPU of its own in the placement two, and both have one in the placement one', async (t) => {
  for (const placement of ['two', 'one']) {
    if (placement === 'two' && capabilities().cpus < 2) continue // the test above has its note
    const child = begin([...LONG, '--placement', placement])
    const ended = end(child)
    const [runner = 0] = await until(() => {
      const found = childrenOf(child.pid ?? 0, 'runner.js')
      return found.length > 0 && found
    })
    const wanted = placement === 'two' ? 2 : 1
    const pinned = await until(() => {
      const single = new Set(cpusOfThreads(runner).filter((list) => /^\d+$/.test(list)))
      return single.size === wanted && single
    })
    t.is(pinned.size, wanted)
    child.kill('SIGTERM')
    await ended
  }
})

test('the table has every row and no colour in a pipe, and fits into a narrow terminal', (t) => {
  const { status, stdout, stderr } = fdmon(SHORT)
  t.is(status, 0, stderr)
  t.is(stderr, '')
  t.false(stdout.includes(escape))
  t.regex(stdout, /^monitor +policy +p50 µs +p99 +p99\.9 +CPU +all CPU +calls +csw$/m)
  for (const policy of ['blocking', 'fixed']) t.regex(stdout, new RegExp(`^epoll +${policy} +[\\d.]+ \\([\\d.]+–[\\d.]+\\)`, 'm'))
  t.regex(stdout, /guard 'one CPU is usable'/)
  for (const width of [80, 40]) {
    const narrow = fdmon(SHORT, { COLUMNS: `${width}` })
    t.is(narrow.status, 0)
    for (const line of narrow.stdout.split('\n')) t.true(line.length <= width, line)
    t.regex(narrow.stdout, width === 80 ? /^epoll +fixed +/m : /^epoll fixed: p50 µs /m)
  }
  t.true(fdmon(SHORT, { FORCE_COLOR: '1' }).stdout.includes(escape))
})

const wrong: [string[], RegExp][] = [
  [['--gap', '5x'], /--gap .*'5x'/],
  [['--gap', '100001'], /--gap .*'100001'/],
  [['--gap', ''], /--gap /],
  [['--monitor', 'epoll,kqueue'], /--monitor .*'kqueue' is none of io_uring, epoll, poll/],
  [['--policy', 'adaptive'], /--policy .*'adaptive' is none of blocking, fixed/],
  [['--placement', 'three'], /--placement .*'three' is none of two, free/],
  [['--rounds', '0'], /--rounds .*'0'.*from 1 to 1000/],
  [['--events', '1.5'], /--events .*'1\.5'.*from 10 to 100000/],
  [['--window', '-1'], /--window .*'-1'/],
  [['--html', '/nowhere/page.html'], /--html .*'\/nowhere\/page\.html'.*ENOENT/],
  [['--html', '/'], /--html .*'\/'.*folder/],
  [['--jsn'], /--jsn/],
  [['extra'], /too many arguments/],
]
for (const [args, message] of wrong) {
  test(`fdmon bench ${args.join(' ')} ends with 2 and says what is wrong`, (t) => {
    const { status, stdout, stderr } = fdmon(['bench', ...args])
    t.is(status, 2)
    t.is(stdout, '')
    t.regex(stderr, message)
  })
}

test('fdmon bench --help names every option, placement and exit code', (t) => {
  const { status, stdout } = fdmon(['bench', '--help'], { COLUMNS: '80' })
  t.is(status, 0)
  for (const word of ['--quick', '--rounds', '--events', '--gap', '--monitor', '--policy', '--placement', '--window', '--no-system-calls', '--json', '--html', 'unguarded', 'Exit codes']) {
    t.true(stdout.includes(word), word)
  }
  for (const line of stdout.split('\n')) t.true(line.length <= 80, line)
})

test('without taskset, perf and strace it measures what it can, and says how to get them', (t) => {
  const bin = join(scratch(t), 'bin')
  mkdirSync(bin)
  symlinkSync(process.execPath, join(bin, 'node'))
  const { status, stdout, stderr } = fdmon(['bench', '--rounds', '1', '--events', '20', '--gap', '50', '--monitor', 'epoll', '--policy', 'blocking', '--json'], { PATH: bin })
  t.is(status, 0, stderr)
  const { notes, rows, systemCallsBy } = JSON.parse(stdout) as Report
  t.is(systemCallsBy, null)
  t.true(notes.some((note) => note.includes('taskset is missing') && note.includes('apt-get install util-linux')), notes.join('\n'))
  t.true(notes.some((note) => note.includes('strace is missing; run: apt-get install strace')), notes.join('\n'))
  t.true(rows.length > 0 && rows.every(({ systemCalls }) => systemCalls === null))
})

test('what cannot be measured here is left out with its reason; nothing left is a failure', (t) => {
  const refused = { available: false, reason: 'EPERM: a seccomp profile refuses it', advice: 'allow it' }
  const found = { ...capabilities(), monitors: { ...capabilities().monitors, io_uring: refused } }
  const settings = settingsOf({ monitor: ['io_uring', 'epoll'], placement: ['one'] })
  const { cells, notes } = planOf(settings, found, true)
  t.deepEqual([...new Set(cells.map(({ monitor }) => monitor))], ['epoll'])
  t.deepEqual(notes, ['io_uring is left out: EPERM: a seccomp profile refuses it; allow it'])
  t.is(planOf(settingsOf({ monitor: ['io_uring'] }), found, true).cells.length, 0)
})

test('a measuring process that dies is a failed row, which is told, and the exit code is 1', async (t) => {
  const child = begin([...SHORT, '--rounds', '1', '--gap', '100000', '--json'])
  const ended = end(child)
  const [runner = 0] = await until(() => {
    const found = childrenOf(child.pid ?? 0, 'runner.js')
    return found.length > 0 && found
  })
  process.kill(runner, 'SIGKILL')
  const { code, stdout } = await ended
  t.is(code, 1)
  const { ok, rows, problems } = JSON.parse(stdout) as Report
  t.false(ok)
  const failed = rows.filter((row) => row.failed !== null)
  t.is(failed.length, 1)
  t.regex(failed[0]?.failed ?? '', /ended with SIGKILL/)
  t.is(problems.length, 1)
  t.is(rows.length, 4) // 50 and 100,000 µs, each blocking and fixed
})

for (const [signal, expected] of [['SIGINT', 130], ['SIGTERM', 143], ['SIGKILL', null]] as const) {
  test(`after ${signal} neither a process nor a file is left`, async (t) => {
    const TMPDIR = scratch(t)
    const child = begin([...LONG, '--placement', 'one'], { TMPDIR })
    const ended = end(child)
    const runners = await until(() => {
      const found = childrenOf(child.pid ?? 0, 'runner.js')
      return found.length > 0 && found
    })
    child.kill(signal)
    const { code, stdout } = await ended
    t.is(code, expected)
    t.is(stdout, '')
    for (const runner of runners) await until(() => isGone(runner))
    t.deepEqual(readdirSync(TMPDIR), [])
  })
}

test('a reader that has seen enough is no error', async (t) => {
  const child = begin(SHORT)
  child.stdout.destroy()
  const code = await new Promise((resolve) => child.on('exit', resolve))
  t.is(code, 0)
})

test('of two CPUs those are taken that do not share a core', (t) => {
  t.deepEqual(pairOf([0, 1, 2, 3], (cpu) => [cpu & ~1, cpu | 1]), [0, 2])
  t.deepEqual(pairOf([4, 5], () => [4, 5]), [4, 5])
  t.deepEqual(cpuList('0-2,8'), [0, 1, 2, 8])
})

test('far events are fewer, unless their number is given', (t) => {
  t.deepEqual([5, 200, 1000, 100_000].map((gap) => eventsFor({ events: undefined, quick: false }, gap)), [1000, 1000, 200, 100])
  t.is(eventsFor({ events: undefined, quick: true }, 5), 200)
  t.is(eventsFor({ events: 77, quick: true }, 1000), 77)
})

test('medians, spreads, quantiles and figures', (t) => {
  t.deepEqual(spreadOf([3, 1, 2]), { median: 2, least: 1, most: 3 })
  t.deepEqual(spreadOf([4, 1, 2, 3]), { median: 2.5, least: 1, most: 4 })
  t.is(quantile([1, 2, 3, 4], 0.5), 2)
  t.is(quantile([1, 2, 3, 4], 0.99), 4)
  t.deepEqual([0.123, 9.99, 9.996, 12.34, 99.96, 1234.5, null, NaN].map(figure), ['0.12', '9.99', '10.0', '12.3', '100', '1235', '–', '–'])
})

test('rows whose spreads overlap are not told apart', (t) => {
  const row = (policy: string, p50: number, most: number, cpu: number): Row =>
    ({ policy, monitor: 'epoll', failed: null, p50Us: { median: p50, least: p50, most }, cpuUs: { median: cpu, least: cpu, most: cpu } }) as Row
  const group = { placement: 'two', gapUs: 5 } as const
  const [fast, same, slow] = [row('cost', 1, 1.5, 9), row('fixed', 1.4, 2, 10), row('blocking', 30, 31, 4)]
  t.is(sentenceOf({ ...group, rows: [slow, same, fast] }), 'soonest: cost on epoll, 1.00 µs for 9.00 µs of CPU; within its spread: fixed on epoll; cheapest: blocking on epoll, 30.0 µs for 4.00 µs of CPU')
  t.is(sentenceOf({ ...group, rows: [fast, same] }), 'soonest and cheapest: cost on epoll, 1.00 µs for 9.00 µs of CPU; no other row differs by more than the spread')
  t.is(sentenceOf({ ...group, rows: [fast] }), undefined)
})
