// fdmon tune: the halving on made-up objectives, and the command on programs whose score is known. No test looks at how long
// anything took.
import test from 'ava'
import { BASELINE, candidatesFor, codeOf, variableOf } from '../dist/cjs/cli/tune/candidates.js'
import { halve, isGain, median, rungsOf, runsOf } from '../dist/cjs/cli/tune/halving.js'
import { show, type TuneReport } from '../dist/cjs/cli/tune/report.js'
import { resultOf, type Goal } from '../dist/cjs/cli/tune/score.js'
import { scoreIn, type Part } from '../dist/cjs/cli/tune/workload.js'
import { begin, childrenOf, end, fdmon, isGone, until } from './cli-kit.js'
import { dice } from './dice.js'

const GOAL: Goal = { latencyWeight: 1, cpuBudget: 1, higher: false }
/** Prints a score by what it is told. */
const SCORED = `case "$FDMON_POLL" in *'"maxNs":0'*) echo p99 10;; *262144*fixed*) echo p99 2;; *32768*handler*) echo p99 40;; *) echo p99 8;; esac`

test('each step has half the candidates and twice the rounds, and the last enough for a spread', (t) => {
  t.deepEqual(rungsOf(20, 1), [
    { candidates: 20, rounds: 1 },
    { candidates: 10, rounds: 2 },
    { candidates: 5, rounds: 4 },
    { candidates: 3, rounds: 8 },
  ])
  t.deepEqual(rungsOf(10, 1).at(-1), { candidates: 3, rounds: 5 })
  t.deepEqual(rungsOf(2, 1), [{ candidates: 2, rounds: 5 }])
  t.is(runsOf(rungsOf(20, 1)), 21 + 22 + 24 + 32)
})

test('of made-up candidates one of the two best is found, although each run is off by up to 20 % and the machine gets 10 times slower', async (t) => {
  const candidates = Array.from({ length: 20 }, (_, at) => at)
  let found = 0
  for (let seed = 1; seed <= 50; seed++) {
    const throwDice = dice(seed)
    const best = throwDice(20)
    let runs = 0
    const { standings, baseline } = await halve<number, number>(candidates, rungsOf(20, 1), {
      // Cost grows with the distance from the best; null = the baseline. Time passes, and everything takes longer.
      run: (candidate) => {
        const drift = 1 + runs++ / 10
        const cost = candidate === null ? 1 : 0.3 + 0.25 * Math.min(Math.abs(candidate - best), 4)
        return Promise.resolve(cost * drift * (0.8 + throwDice(401) / 1000))
      },
      result: (sample, base) => sample / base,
    })
    t.is(runs, runsOf(rungsOf(20, 1)))
    t.is(baseline.length, 15)
    t.is(standings.length, 20)
    const [first] = standings
    t.is(first?.rung, 3)
    t.is(first?.results.length, 15)
    if (Math.abs((first?.candidate ?? NaN) - best) <= 1 && isGain(first?.results ?? [])) found++
  }
  t.true(found >= 45, `${found} of 50`)
})

test('in each round all take turns with the baseline, and each round begins with another', async (t) => {
  const order: (string | null)[] = []
  await halve<string, number>(['a', 'b'], [{ candidates: 2, rounds: 3 }], {
    run: (candidate) => {
      order.push(candidate)
      return Promise.resolve(1)
    },
    result: (sample, base) => sample / base,
  })
  t.deepEqual(order, [null, 'a', 'b', 'a', 'b', null, 'b', null, 'a'])
})

test('where nothing is better than the baseline, nothing is a gain', async (t) => {
  let gains = 0
  for (let seed = 1; seed <= 50; seed++) {
    const throwDice = dice(seed)
    const { standings } = await halve<number, number>([1, 2, 3, 4, 5, 6, 7, 8], rungsOf(8, 2), {
      run: (candidate) => Promise.resolve((candidate === null ? 1 : 1.1) * (0.9 + throwDice(201) / 1000)),
      result: (sample, base) => sample / base,
    })
    if (isGain(standings[0]?.results ?? [])) gains++
  }
  t.true(gains <= 3, `${gains} of 50`)
  t.false(isGain([]))
  t.false(isGain([0.5, 0.6, 1.1, 1.2]))
  t.true(isGain([0.5, 0.6, 0.9, 1.2]))
})

test('who is out of the question comes last, whatever else', async (t) => {
  const { standings } = await halve<number, number>([1, 2, 3, 4, 5, 6], rungsOf(6, 1), {
    run: (candidate) => Promise.resolve(candidate ?? 10),
    result: (sample, base) => (sample < 3 ? Infinity : sample / base),
  })
  t.deepEqual(standings.map(({ candidate }) => candidate).slice(0, 3), [3, 4, 5])
  t.is(median([Infinity, Infinity]), Infinity)
})

test('a run costs its time and its CPU time over the baseline; over the CPU budget it is out; a score takes their place', (t) => {
  const part = (timeNs: number, cpuNs: number, share = 0.1, score: number | null = null): Part => ({ name: '', timeNs, cpuNs, share, p99Ns: null, score })
  t.is(resultOf([part(10, 20)], [part(40, 20)], GOAL), 0.5)
  t.is(resultOf([part(10, 20)], [part(10, 10)], { ...GOAL, latencyWeight: 0 }), 2)
  t.true(Math.abs(resultOf([part(1, 0), part(100, 0)], [part(4, 0), part(100, 0)], GOAL) - 0.5) < 1e-9)
  t.is(resultOf([part(1, 1, 0.6)], [part(9, 9)], { ...GOAL, cpuBudget: 0.5 }), Infinity)
  t.true(resultOf([part(1, 1, 0.6)], [part(9, 9, 0.7)], { ...GOAL, cpuBudget: 0.5 }) < 1, 'it needs that much anyway')
  const [few, many] = [[part(9, 9, 0.1, 5)], [part(1, 1, 0.1, 10)]]
  t.true(Math.abs(resultOf(few, many, GOAL) - 0.5) < 1e-9)
  t.true(Math.abs(resultOf(many, few, { ...GOAL, higher: true }) - 0.5) < 1e-9)
})

test('the last score in a text counts, and what is none is named', (t) => {
  t.is(scoreIn('p99 5\nx\np99 7.5 µs\n', /p99 (\S+)/), 7.5)
  t.throws(() => scoreIn('nothing', /p99 (\S+)/), { message: /printed nothing that --score p99/ })
  t.throws(() => scoreIn('p99 soon', /p99 (\S+)/), { message: /'soon', which is no number/ })
})

test('candidates are all different, and can be pasted', (t) => {
  for (const quick of [false, true]) {
    const all = candidatesFor(quick)
    t.is(all.length, quick ? 10 : 20)
    t.is(new Set(all.map(variableOf)).size, all.length)
  }
  t.is(codeOf({ maxNs: 65_536, policy: 'cost', latencyWeight: 4 }), "new AioContext({ poll: { maxNs: 65_536, policy: 'cost', latencyWeight: 4 } })")
  t.is(variableOf(BASELINE), `FDMON_POLL='{"maxNs":0}'`)
})

test('for events of its own it tells time beside CPU time, of each gap and each candidate', (t) => {
  const { status, stdout, stderr } = fdmon(['tune', '--quick', '--gap', '20,60', '--monitor', 'epoll', '--json'])
  t.is(status, 0, stderr)
  const { baseline, candidates, rungs, workload, best, code } = JSON.parse(stdout) as TuneReport
  t.regex(workload, /on epoll, 20, 60 µs apart/)
  t.deepEqual(rungs.map(({ candidates: some }) => some), [10, 5, 3])
  t.is(candidates.length, 10)
  t.is(best === null, code === null)
  for (const parts of [baseline, ...candidates.map((candidate) => candidate.parts)]) {
    t.deepEqual(parts.map(({ name }) => name), ['20 µs', '60 µs'])
    for (const { timeUs, cpuUs, p99Us, share } of parts) {
      t.true(timeUs.median > 0 && cpuUs.median > 0 && (p99Us?.median ?? 0) >= timeUs.least)
      t.true(share > 0 && share <= 1, `a thread uses ${share} of a CPU`) // the default budget lets it spin all the time
    }
  }
})

test('for a program it takes what that prints, told by FDMON_POLL what to try', (t) => {
  const lower = fdmon(['tune', '--quick', '--score', 'p99 (\\S+)', '--json', '--', 'sh', '-c', SCORED])
  t.is(lower.status, 0, lower.stderr)
  const report = JSON.parse(lower.stdout) as TuneReport
  t.deepEqual(report.best, { maxNs: 262_144, policy: 'fixed' })
  t.is(report.variable, `FDMON_POLL='{"maxNs":262144,"policy":"fixed"}'`)
  t.is(report.candidates[0]?.parts[0]?.score?.median, 2)
  t.is(report.baseline[0]?.score?.median, 10)
  t.true((report.baseline[0]?.timeUs.median ?? 0) > 0)
  const higher = fdmon(['tune', '--quick', '--score', 'p99 (\\S+)', '--higher', '--', 'sh', '-c', SCORED])
  t.is(higher.status, 0, higher.stderr)
  t.regex(higher.stdout, /^new AioContext\(\{ poll: \{ maxNs: 32_768, policy: 'handler' \} \}\)$/m)
  t.regex(higher.stdout, /^sh +10\.0 → 40\.0 \(\+300 %\) .* → .* → .* %$/m)
  t.regex(higher.stdout, /^never spins +× 1\.00 +10\.0 /m)
})

test('without a score it takes the time and the CPU time of the program and what that starts', (t) => {
  const { status, stdout, stderr } = fdmon(['tune', '--quick', '--json', '--', 'sh', '-c', 'sh -c "i=0; while [ \\$i -lt 20000 ]; do i=\\$((i+1)); done"; exit 0'])
  t.is(status, 0, stderr)
  const { baseline } = JSON.parse(stdout) as TuneReport
  t.is(baseline[0]?.score, null)
  t.true((baseline[0]?.cpuUs.least ?? 0) > 0 && (baseline[0]?.timeUs.least ?? 0) > 0)
})

test('a program that fails, hangs, is not there or prints no score is told of, and the exit code is 1', (t) => {
  const tuned = (args: string[], command: string[]) => fdmon(['tune', '--quick', ...args, '--', ...command])
  for (const [result, why] of [
    [tuned([], ['sh', '-c', 'echo broken >&2; exit 3']), /^fdmon: with FDMON_POLL='\{"maxNs":0\}' the program ended with exit code 3: broken$/m],
    [tuned(['--timeout', '1'], ['sleep', '1000']), /was not finished after 1 s; raise --timeout/],
    [tuned([], ['/nowhere/at-all']), /\/nowhere\/at-all cannot be run: ENOENT/],
    [tuned(['--score', 'p99 (\\d+)'], ['true']), /printed nothing that --score/],
  ] as const) {
    t.is(result.status, 1, result.stderr)
    t.is(result.stdout, '')
    t.regex(result.stderr, why)
  }
})

test('after SIGTERM the program that it runs is gone', async (t) => {
  const child = begin(['tune', '--', 'sh', '-c', 'sleep 1000; true'])
  const ended = end(child)
  const shell = await until(() => childrenOf(child.pid ?? 0, 'sleep')[0])
  const [sleeper = 0] = await until(() => childrenOf(shell, 'sleep').length > 0 && childrenOf(shell, 'sleep'))
  child.kill('SIGTERM')
  t.is((await ended).code, 143)
  await until(() => isGone(shell) && isGone(sleeper))
  t.pass()
})

test('wrong options of tune end with 2, and its help fits', (t) => {
  for (const args of [['--gap', 'x'], ['--rounds', '0'], ['--cpu-budget', '0'], ['--score', 'none'], ['--score', '('], ['--monitor', 'kqueue'], ['--latency-weight', ''], ['--nope']]) {
    const { status, stdout, stderr } = fdmon(['tune', ...args])
    t.is(status, 2, args.join(' '))
    t.is(stdout, '')
    t.true(stderr.includes('fdmon'), stderr)
  }
  const { status, stdout } = fdmon(['tune', '--help'])
  t.is(status, 0)
  for (const line of stdout.split('\n')) t.true(line.length <= 82, line)
})

test('where it is best never to spin, the table says so', (t) => {
  const spread = { median: 5, least: 4, most: 6 }
  const part = { name: '20 µs', timeUs: spread, cpuUs: spread, p99Us: spread, score: null, share: 0.5 }
  const report: TuneReport = {
    ...{ ok: true, version: '1', date: '', machine: 'a machine', workload: 'events', seconds: 1, goal: { ...GOAL, cpuBudget: 0.5 } },
    ...{ rungs: [{ candidates: 1, rounds: 5 }], best: null, code: null, variable: null, baseline: [part], baselineRounds: 5, notes: ['a note'] },
    candidates: [{ params: { maxNs: 1000 }, result: null, rounds: 5, parts: [part] }],
  }
  const text = show(report, { width: 80, colour: false })
  t.regex(text, /^Never spin\. No candidate is better/m)
  t.regex(text, /^cost, 1 µs +over the CPU budget/m)
  t.regex(text, /at most 50 % of a CPU/)
  const best = { maxNs: 1000 }
  const gained = show({ ...report, best, code: codeOf(best), variable: variableOf(best), candidates: [{ params: best, result: 0.5, rounds: 5, parts: [{ ...part, timeUs: { ...spread, median: 1 } }] }] }, { width: 100, colour: false })
  t.regex(gained, /^20 µs +5\.00 → 1\.00 \(−80 %\) +5\.00 → 5\.00 \(±0 %\) +5\.00 → 5\.00 \(±0 %\) +50 → 50 %$/m)
})
