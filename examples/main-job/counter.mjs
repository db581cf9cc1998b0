// Counts the system calls of a command and its threads: by perf, which hardly slows them, or by strace, which makes each
// take some 50 µs longer and so spoils whatever depends on time.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const PERF = ['perf', 'stat', '-x', ',', '-e', 'raw_syscalls:sys_enter', '-o']
const STRACE = ['strace', '-c', '-f', '-o']

/** What to put before a command, and how many calls it made once it has ended; undefined without such a tool. */
export function systemCallCounter(tools = { perf: true, strace: true }) {
  const folder = mkdtempSync(join(tmpdir(), 'fdmon-calls-'))
  process.on('exit', () => rmSync(folder, { recursive: true, force: true }))
  const out = join(folder, 'out')
  const works = (command) => spawnSync(command[0], [...command.slice(1), out, 'true'], { stdio: 'ignore' }).status === 0
  const counted = () => {
    const text = readFileSync(out, 'utf8')
    const byPerf = /^(\d+),[^,]*,raw_syscalls:sys_enter/m.exec(text)
    const byStrace = /^\s*100\.00\s+\S+\s+\d+\s+(\d+)\s.*total$/m.exec(text)
    return Number((byPerf ?? byStrace)?.[1] ?? 0)
  }
  // Perf may be there and not be allowed.
  if (tools.perf && works(PERF) && counted() > 0) return { name: 'perf', command: [...PERF, out], counted }
  if (tools.strace && works(STRACE)) return { name: 'strace', command: [...STRACE, out], counted }
  return undefined
}
