// What the scripts that measure share: the workload to run, what counts its instructions and system calls, and on what machine.
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { cpus, release, tmpdir } from 'node:os'
import { join } from 'node:path'
import { systemCallCounter } from '../examples/main-job/counter.mjs'
import { buildProgram, fail, has, root, say } from './step.mjs'

const folder = mkdtempSync(join(tmpdir(), 'fdmon-counts-'))
process.on('exit', () => rmSync(folder, { recursive: true, force: true }))

/** What the last run under callgrind left, for callgrind_annotate. */
export const callgrindFile = join(folder, 'callgrind.out')

/** Counts system calls; ends the script where that, or valgrind, is missing. */
export function needCounters() {
  if (!has('valgrind')) fail('valgrind is missing; run: apt-get install valgrind')
  const counter = systemCallCounter()
  if (!counter) fail('strace is missing; run: apt-get install strace')
  return counter
}

/** Builds a bench of the crate as it is released; returns the program. */
export function buildBench(name) {
  return buildProgram(name, ['bench', '--bench', name])
}

/** Instructions in user space of a whole run, by callgrind. */
export function instructionsOf(command) {
  const args = ['--tool=callgrind', `--callgrind-out-file=${callgrindFile}`, ...command]
  const { status, stdout, stderr } = spawnSync('valgrind', args, { encoding: 'utf8' })
  const collected = /Collected : (\d+)/.exec(stderr)
  if (status !== 0 || !collected) throw new Error(`${command.slice(1).join(' ')}: exit code ${status}\n${stdout}${stderr}`)
  return Number(collected[1])
}

/** System calls of a whole run. */
export function systemCallsOf(counter, command) {
  const [tool, ...args] = [...counter.command, ...command]
  const { status, stderr, error } = spawnSync(tool, args, { cwd: root, encoding: 'utf8', timeout: 120_000 })
  if (status !== 0) throw new Error(`${command.join(' ')}: ${error?.message ?? `exit code ${status}`}\n${stderr}`)
  return counter.counted()
}

/** The middle of an odd number of values. */
export function median(values) {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]
}

/** Where and of what something was measured. */
export function machine() {
  const first = (command, args) => execFileSync(command, args, { cwd: root, encoding: 'utf8' }).split('\n')[0].trim()
  const changed = first('git', ['status', '--porcelain', '--', 'crates', 'ts', 'Cargo.lock']) === '' ? '' : ' with changes'
  return {
    commit: first('git', ['rev-parse', '--short', 'HEAD']) + changed,
    kernel: release(),
    cpu: cpus()[0]?.model.trim() || 'CPU',
    cpuCount: cpus().length,
    tools: `${first('rustc', ['--version']).replace(/ \(.*/, '')}, Node ${process.versions.node}, ${first('valgrind', ['--version'])}`,
  }
}

/** `machine()` as the line below a table. */
export function machineLine({ commit, kernel, cpu, cpuCount, tools } = machine()) {
  return `Commit ${commit}; ${cpuCount} × ${cpu}, Linux ${kernel}; ${tools}.`
}

/** A row of a Markdown table. */
export function line(cells) {
  return `| ${cells.join(' | ')} |\n`
}

/** A Markdown table: a column of text, and columns of numbers. */
export function table(head, rows) {
  return line(head) + line(head.map((_, at) => (at === 0 ? '---' : '---:'))) + rows.map(line).join('')
}

/** 10,000 */
export function count(number) {
  return number.toLocaleString('en-US')
}

/** Says of each goal whether it was kept; ends the script where one was missed by more than half, which is what CI lets pass on a noisy machine. */
export function checkGoals(goals) {
  const missed = goals.filter(({ goal, value, kept, half }) => {
    say(`${half ? (kept ? 'kept' : 'kept at half the goal') : 'MISSED'}: ${goal}: ${value}`)
    return !half
  })
  if (missed.length > 0) fail(`${missed.length} of the goals are missed by more than half`)
}
