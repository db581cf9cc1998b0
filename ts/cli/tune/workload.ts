// What is run with each candidate: the two sides of `fdmon bench`, or the user's program. Neither tells a latency without the CPU
// time that it took.
import { spawn, type ChildProcess } from 'node:child_process'
import type { PollParams } from '../../options.js'
import { native, wasi } from '../../native.js'
import { Child } from '../bench/child.js'
import { eventsFor, type Place } from '../bench/plan.js'
import { quantile } from '../bench/results.js'
import { BASELINE, variableOf } from './candidates.js'

/** One quantity that was measured, with its cost. Times are nanoseconds. */
export interface Part {
  /** What it is of: a gap, or the program. */
  name: string
  /** The time that is to be short: of an event until its handler, or of the whole program. */
  timeNs: number
  /** CPU time: of the loop's thread an event, or of the program. */
  cpuNs: number
  /** Share of one CPU that this is. */
  share: number
  /** The 99th percentile; null of a program. */
  p99Ns: number | null
  /** What the program printed as its score; null without --score. */
  score: number | null
}

/** A run of one candidate. */
export type Sample = Part[]

export interface Workload {
  /** In words. */
  title: string
  run(params: PollParams | null): Promise<Sample>
  end(): Promise<void>
}

/** Events at each gap, as `fdmon bench` makes them. */
export function events({ place, monitor, gapsUs, quick }: { place: Place; monitor: string; gapsUs: readonly number[]; quick: boolean }): Workload {
  let child: Child | undefined
  return {
    title: `events between two threads on ${monitor}, ${gapsUs.join(', ')} µs apart; ${place.title}`,
    async run(params) {
      const sample: Sample = []
      for (const gapUs of gapsUs) {
        if (child === undefined || child.ended) child = new Child(place)
        const count = eventsFor({ events: undefined, quick }, gapUs)
        const answer = await child.measure({ monitor, policy: 'blocking', windowNs: 0, guards: true, poll: params ?? BASELINE, gapNs: gapUs * 1000, warmUp: Math.ceil(count / 4), events: count })
        if ('failed' in answer) throw new Error(answer.failed)
        if (answer.lost > 0) throw new Error(`${answer.lost} events were lost`)
        const sorted = answer.latenciesNs.toSorted((a, b) => a - b)
        // A thread that spins all the time uses one CPU, and not more than one because its two clocks are not read at once.
        const share = Math.min(1, answer.loopCpuNs / answer.elapsedNs)
        sample.push({ name: `${gapUs} µs`, timeNs: quantile(sorted, 0.5), cpuNs: answer.loopCpuNs / sorted.length, share, p99Ns: quantile(sorted, 0.99), score: null })
      }
      return sample
    },
    async end() {
      await child?.end()
    },
  }
}

const alive = new Set<ChildProcess>()
process.on('exit', () => {
  for (const child of alive) kill(child)
})

/** With all that it has started. */
function kill({ pid }: ChildProcess): void {
  try {
    if (pid !== undefined) process.kill(-pid, 'SIGKILL')
  } catch {
    // It has ended.
  }
}

/** Enough of what a program prints to find a score in it, and to say why it failed. */
const KEPT = 1_000_000

/** The user's program, which gets the parameters in FDMON_POLL. */
export function program(command: readonly string[], { score, timeoutMs }: { score: RegExp | undefined; timeoutMs: number }): Workload {
  if (wasi !== null) throw new Error('fdmon tune -- COMMAND needs the native addon, which tells the CPU time of a child')
  return {
    title: command.join(' '),
    async run(params) {
      const cpuBefore = native.childrenCpuNs()
      const since = process.hrtime.bigint()
      const { stdout } = await ended(command, params ?? BASELINE, timeoutMs)
      const timeNs = Number(process.hrtime.bigint() - since)
      const cpuNs = native.childrenCpuNs() - cpuBefore
      return [{ name: command[0] ?? '', timeNs, cpuNs, share: cpuNs / timeNs, p99Ns: null, score: score === undefined ? null : scoreIn(stdout, score) }]
    },
    end: () => Promise.resolve(),
  }
}

/** The last match counts. */
export function scoreIn(text: string, pattern: RegExp): number {
  const found = [...text.matchAll(new RegExp(pattern.source, 'gm'))].at(-1)
  if (found === undefined) throw new Error(`the program printed nothing that --score ${pattern.source} matches`)
  const number = Number((found[1] ?? '').trim())
  if (!Number.isFinite(number) || number <= 0) throw new Error(`the program's score is '${found[1] ?? ''}', which is no number above 0`)
  return number
}

function ended([file = '', ...args]: readonly string[], params: PollParams, timeoutMs: number): Promise<{ stdout: string }> {
  return new Promise((resolve, reject) => {
    const env = { ...process.env, FDMON_POLL: JSON.stringify(params) }
    const child = spawn(file, args, { env, stdio: ['ignore', 'pipe', 'pipe'], detached: true })
    let [stdout, stderr] = ['', '']
    let late = false
    const timer = setTimeout(() => {
      late = true
      kill(child)
    }, timeoutMs)
    const named = `with ${variableOf(params)} the program`
    alive.add(child)
    child.stdout.on('data', (text: Buffer) => (stdout = (stdout + text.toString()).slice(-KEPT)))
    child.stderr.on('data', (text: Buffer) => (stderr = (stderr + text.toString()).slice(-KEPT)))
    child.on('error', (error) => reject(new Error(`${file} cannot be run: ${(error as NodeJS.ErrnoException).code ?? error.message}`)))
    child.on('close', (code, signal) => {
      clearTimeout(timer)
      alive.delete(child)
      const last = stderr.trim().split('\n').at(-1) ?? ''
      if (late) reject(new Error(`${named} was not finished after ${timeoutMs / 1000} s; raise --timeout`))
      else if (code === 0) resolve({ stdout })
      else reject(new Error(`${named} ended with ${signal ?? `exit code ${code}`}${last === '' ? '' : `: ${last}`}`))
    })
  })
}
