// Counts the system calls of a command and its threads: by perf, which hardly slows them, or by strace, which makes each
// take some 50 µs longer and so spoils whatever depends on time.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fail, has, root } from '../step.mjs'

const PERF = ['perf', 'stat', '-x', ',', '-e', 'raw_syscalls:sys_enter', '-o']
const STRACE = ['strace', '-c', '-f', '-o']
const folder = mkdtempSync(join(tmpdir(), 'fdmon-calls-'))
const out = join(folder, 'out')
process.on('exit', () => rmSync(folder, { recursive: true, force: true }))

const byPerf = spawnSync(PERF[0], [...PERF.slice(1), out, 'true']).status === 0 && counted() > 0
if (!byPerf && !has('strace', ['-V'])) fail('strace is missing; run: apt-get install strace')

/** How they are counted, for a footnote. */
export const counter = byPerf ? '`perf stat -e raw_syscalls:sys_enter`' : '`strace -c -f`, which slows what it counts'

/** The system calls that a command makes from its start to its end. */
export function countSystemCalls(command) {
  const [tool, ...args] = byPerf ? PERF : STRACE
  const result = spawnSync(tool, [...args, out, ...command], { cwd: root, encoding: 'utf8', timeout: 120_000 })
  if (result.status !== 0) {
    throw new Error(`${tool} ${command.join(' ')}: ${result.error?.message ?? `exit code ${result.status}`}\n${result.stderr}`)
  }
  return counted()
}

function counted() {
  const text = readFileSync(out, 'utf8')
  const found = /^(\d+),[^,]*,raw_syscalls:sys_enter/m.exec(text) ?? /^\s*100\.00\s+\S+\s+\d+\s+(\d+)\s.*total$/m.exec(text)
  return found ? Number(found[1]) : 0
}
