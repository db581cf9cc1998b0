// `fdmon tune`: which parameters of spinning are worth it on this machine, for events as they come or for a program.
import { InvalidArgumentError, type Command } from 'commander'
import { capabilities } from '../../capabilities.js'
import type { MonitorName, PollParams } from '../../options.js'
import { planOf, type Place } from '../bench/plan.js'
import { loadNote, machineLine } from '../bench/report.js'
import { firstMonitor, integer, list, microseconds, MONITORS, word } from '../bench/settings.js'
import { progress } from '../progress.js'
import { terminalOf } from '../terminal.js'
import { candidatesFor, codeOf, nameOf, variableOf } from './candidates.js'
import { halve, median, rungsOf, runsOf } from './halving.js'
import { bestOf, candidatesOf, partsOf, show, type TuneReport } from './report.js'
import { resultOf, type Goal } from './score.js'
import { events, program, type Sample, type Workload } from './workload.js'

const HELP = `
Without COMMAND it takes the workload of fdmon bench: events from another thread,
at each gap. With COMMAND it runs that program again and again, with candidates in
the environment variable FDMON_POLL, which contexts obey that are made without the
option poll.

Many candidates run a little, the better half twice as long, and so on; all of a
round take turns with a loop that never spins, and are compared with it alone. A
candidate costs latency-weight × time + CPU time, or what --score finds. One that
uses more of a CPU than --cpu-budget is out.

Examples:
  fdmon tune
  fdmon tune --gap 20 --cpu-budget 0.5
  fdmon tune -- node server-under-load.js
  fdmon tune --score 'p99 ([0-9.]+)' -- node server-under-load.js

Exit codes: 0, also when it is best never to spin; 1 when something could not be
measured; 2 for a wrong option; 130 after Ctrl-C.`

export interface TuneOptions {
  quick?: boolean
  gap?: number[]
  monitor?: MonitorName
  rounds: number
  latencyWeight: number
  cpuBudget: number
  score?: RegExp
  higher?: boolean
  timeout: number
  json?: boolean
}

function number(least: number, most: number, what: string) {
  return (value: string): number => {
    const found = Number(value)
    if (value.trim() !== '' && found > least && found <= most) return found
    throw new InvalidArgumentError(`Pass ${what} above ${least} and at most ${most}.`)
  }
}

function pattern(value: string): RegExp {
  let made: RegExp
  try {
    made = new RegExp(value)
  } catch (error) {
    throw new InvalidArgumentError(`${(error as Error).message}.`)
  }
  if ((new RegExp(`${value}|`).exec('')?.length ?? 0) < 2) throw new InvalidArgumentError('Put what is the score into parentheses.')
  return made
}

/** Adds the arguments and options to a command. */
export function withTuneOptions(command: Command): Command {
  return command
    .argument('[command...]', 'the program, behind --')
    .option('-q, --quick', 'half the candidates, fewer events: some seconds')
    .option('--gap <µs,…>', 'time from an event that was handled to the next (default: 10,50,200)', list(microseconds))
    .option('--monitor <name>', `one of ${MONITORS.join(', ')} (default: the first that is to be had)`, word(MONITORS))
    .option('--rounds <n>', 'rounds that all candidates have; the last have more', integer(1, 100, 'rounds'), 1)
    .option('--latency-weight <n>', 'ns of CPU that a ns of time is worth', number(0, 1e6, 'a number'), 1)
    .option('--cpu-budget <share>', 'share of a CPU that may be used', number(0, 64, 'a share'), 1)
    .option('--score <regexp>', 'what the program prints is its score; in parentheses', pattern)
    .option('--higher', 'of the score, more is better')
    .option('--timeout <s>', 'the longest run of the program', integer(1, 86_400, 'seconds'), 120)
    .option('--json', 'print JSON for machines')
    .addHelpText('after', HELP)
}

/** The exit code. */
export async function tune(command: readonly string[], options: TuneOptions, version: string): Promise<number> {
  const since = performance.now()
  const date = new Date().toISOString()
  const { quick = false, latencyWeight, cpuBudget, higher = false } = options
  const goal: Goal = { latencyWeight, cpuBudget, higher }
  const notes = loadNote()
  const workload = command.length > 0 ? program(command, { score: options.score, timeoutMs: options.timeout * 1000 }) : ownWorkload(options, notes)
  const candidates = candidatesFor(quick)
  const rungs = rungsOf(candidates.length, options.rounds)
  const bar = progress(runsOf(rungs))
  const outcome = await compete(workload, candidates, rungs, goal, bar.next).finally(bar.end)
  await workload.end()
  const best = bestOf(outcome)
  const baseline = partsOf(outcome.baseline)
  const alike = outcome.standings.every(({ results }) => Math.abs(median(results) - 1) < 0.05)
  if (command.length > 0 && alike) notes.push('No candidate made a difference: does the program make its contexts without the option poll?')
  const report: TuneReport = {
    ...{ ok: true, version, date, machine: machineLine(version), workload: workload.title, seconds: (performance.now() - since) / 1000 },
    ...{ goal, rungs, best, code: best && codeOf(best), variable: best && variableOf(best) },
    ...{ baseline, baselineRounds: outcome.baseline.length, candidates: candidatesOf(outcome), notes },
  }
  process.stdout.write(options.json === true ? `${JSON.stringify(report, null, 2)}\n` : show(report, terminalOf(process.stdout)))
  return 0
}

function compete(workload: Workload, candidates: readonly PollParams[], rungs: ReturnType<typeof rungsOf>, goal: Goal, next: (what: string) => void) {
  return halve<PollParams, Sample>(candidates, rungs, {
    async run(candidate, rung) {
      next(`step ${rung + 1} of ${rungs.length}: ${candidate === null ? 'never spins' : nameOf(candidate)}`)
      return workload.run(candidate)
    },
    result: (sample, baseline) => resultOf(sample, baseline, goal),
  })
}

/** That of `fdmon bench`, where the scheduler likes: as a program is run. */
function ownWorkload({ gap = [10, 50, 200], monitor = firstMonitor(), quick = false }: TuneOptions, notes: string[]): Workload {
  const { available, reason } = capabilities().monitors[monitor]
  if (!available) throw new Error(`${monitor} is not to be had: ${reason}`)
  const plan = (name: 'free' | 'one'): Place | undefined =>
    planOf({ quick, rounds: 1, events: undefined, gapsUs: [1], monitors: [monitor], policies: ['cost'], placements: [name], windowUs: 1, systemCalls: false }).cells[0]?.place
  const place = plan('free') ?? plan('one')
  if (place === undefined) throw new Error('neither of two CPUs nor of one can a workload be made: taskset is missing; run: apt-get install util-linux')
  if (place.name === 'one') notes.push('One CPU is usable, where guards keep every context from spinning: so there is nothing to tune.')
  return events({ place, monitor, gapsUs: [...new Set(gap)].toSorted((a, b) => a - b), quick })
}
