// Counts and times one workload of one peer: each the difference of two lengths, so that what comes before and after cancels.
import { execFile, spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { systemCallCounter } from '../../../examples/main-job/counter.mjs'
import { instructionsOf, median, systemCallsOf } from '../../measure.mjs'
import { root } from '../../step.mjs'

const NODE = fileURLToPath(new URL('node/main.mjs', import.meta.url))
/** Of threads: how often they sleep and wake differs from run to run. */
const TIMES = 3

/** The command that does `ops` of a workload. */
export function command(programs, { args, length = '--ops', node }, peer, ops) {
  if (node) return [process.execPath, NODE, ...args, peer, length, `${ops}`]
  const program = peer === 'libuv' ? [programs.libuv, args[0]] : [programs.rust, args[0], peer]
  return [...program, ...args.slice(1), length, `${ops}`]
}

/** What a run says of its measured part. */
export function run(program, prefix = []) {
  const [tool, ...args] = [...prefix, ...program]
  const { status, stdout, stderr, error } = spawnSync(tool, args, { encoding: 'utf8', timeout: 180_000 })
  if (status !== 0) throw new Error(`${program.slice(1).join(' ')}: ${error?.message ?? `exit code ${status}`}\n${stderr}`)
  return JSON.parse(stdout)
}

const switches = ({ voluntary, involuntary }) => voluntary + involuntary

/** The counts of a workload, an operation. */
export function counts(programs, workload, peer, { quick, counter }) {
  const [short, long] = quick ? workload.quick : workload.lengths
  const of = (ops) => command(programs, workload, peer, ops)
  const each = (count) => (count(long) - count(short)) / (long - short) / (workload.times ?? 1)
  // A smoke run sees that each does its work; that counting works is seen with the first.
  if (quick && peer !== workload.fdmon[0]) return { switches: each((ops) => switches(run(of(ops)))) }
  const times = workload.counts.includes('instructions') || quick ? 1 : TIMES
  const often = (count) => median(Array.from({ length: times }, count))
  const result = {}
  if (workload.counts.includes('instructions')) result.instructions = each((ops) => instructionsOf(of(ops)))
  if (workload.counts.includes('calls')) result.calls = often(() => each((ops) => systemCallsOf(counter, of(ops))))
  if (workload.counts.includes('switches')) result.switches = often(() => each((ops) => switches(run(of(ops)))))
  return result
}

/** The same of programs that do nothing for a while: all at once, as none of them is in the way of another. */
export async function idleCounts(programs, workload, peers, { quick }) {
  const one = async (peer, amount) => {
    const counter = systemCallCounter()
    const [tool, ...args] = [...counter.command, ...command(programs, workload, peer, amount)]
    const { stdout } = await promisify(execFile)(tool, args, { cwd: root, timeout: 60_000 })
    return { calls: counter.counted(), voluntary: JSON.parse(stdout).voluntary }
  }
  const [short, long] = quick ? workload.quick : workload.lengths
  const rows = []
  for (const peer of peers) rows.push(Promise.all([one(peer, short), one(peer, long)]))
  // What is there at any length cancels; going to sleep is a switch in both, each further one was a wake-up.
  // Node makes some calls more or less in its start, which do not cancel.
  const asked = (counted) => Object.fromEntries(Object.entries(counted).filter(([what]) => workload.counts.includes(what)))
  return (await Promise.all(rows)).map(([less, more]) => asked({ calls: Math.max(0, more.calls - less.calls), wakeUps: Math.max(0, more.voluntary - less.voluntary) }))
}
