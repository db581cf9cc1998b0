// Processes for tests: what ends, sleeps or fails as a whole.
import { spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const require = createRequire(import.meta.url)

export interface End {
  code: number | null
  signal: NodeJS.Signals | null
  /** Its standard output, by lines. */
  said: string[]
  stderr: string
}

const prologue = `const fdmon = require(${JSON.stringify(require.resolve('fdmon'))})
  const fd = require(${JSON.stringify(require.resolve('fdmon/fd'))})
  const { monitor, ...data } = JSON.parse(process.argv[1])
  const say = (...words) => require('node:fs').writeSync(1, words.join(' ') + '\\n')
  const set = (notifier) => notifier.set()
  const context = (options = {}) => new fdmon.AioContext({ monitor, ...options })
  const spinning = (poll = {}) => context({ poll: { maxNs: 50_000_000, grow: 1_000_000, policy: 'classic', guards: false, ...poll } })
  const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms))
`

/**
 * Runs a piece of CommonJS in a process of its own, with `fdmon`, `fd`, `context()`, `spinning()`, `say()` and `data` at hand.
 * One that has not ended after 20 s is killed, which is an end by SIGKILL.
 */
export function inProcess(source: string, data: { monitor?: string; [key: string]: unknown } = {}, command: readonly string[] = []): Promise<End> {
  const args = ['-e', prologue + source, JSON.stringify(data)]
  const [program, ...before] = [...command, process.execPath]
  const child = spawn(program!, [...before, ...args], { env: { ...process.env, NODE_OPTIONS: '' }, stdio: ['ignore', 'pipe', 'pipe'] })
  let stdout = ''
  let stderr = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => void (stdout += text))
  child.stderr.setEncoding('utf8').on('data', (text: string) => void (stderr += text))
  const limit = setTimeout(() => child.kill('SIGKILL'), 20_000)
  return new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code, signal) => {
      clearTimeout(limit)
      resolve({ code, signal, said: stdout.split('\n').filter(Boolean), stderr })
    })
  })
}

/** Whether system calls can be counted here. */
export const canTrace = spawnSync('strace', ['-o', '/dev/null', 'true'], { stdio: 'ignore' }).status === 0

/**
 * The system calls of the main thread, in order, between the two times that it does `process.kill(process.pid, 0)`; those
 * of the memory allocator and of thread locks left out.
 */
export async function tracedCalls(source: string, data: { monitor?: string; [key: string]: unknown } = {}): Promise<{ calls: string[]; end: End }> {
  const folder = mkdtempSync(join(tmpdir(), 'fdmon-trace-'))
  try {
    const out = join(folder, 'out')
    const end = await inProcess(source, data, ['strace', '-f', '-o', out])
    const lines = readFileSync(out, 'utf8').split('\n').map((line) => /^(\d+)\s+(\w+)\((.*)$/.exec(line))
    const mark = lines.findIndex((line) => line?.[2] === 'kill')
    const main = lines[mark]?.[1]
    const of = lines.flatMap((line) => (line?.[1] === main && line ? [`${line[2]}(${line[3]}`] : []))
    const marks = of.flatMap((call, index) => (call.startsWith('kill(') ? [index] : []))
    if (marks.length !== 2) throw new Error(`${marks.length} marks\n${end.stderr}`)
    const noise = /^(futex|madvise|mprotect|mmap|munmap|brk|sched_yield|clock_gettime|restart_syscall|getpid)\(/
    return { calls: of.slice(marks[0]! + 1, marks[1]).filter((call) => !noise.test(call)), end }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}
