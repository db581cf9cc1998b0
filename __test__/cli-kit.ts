// What the tests of the commands share.
import { spawn, spawnSync, type ChildProcessWithoutNullStreams } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

export const main = fileURLToPath(new URL('../dist/cjs/cli/main.js', import.meta.url))

/** Nothing of the caller's own environment that says how to print. */
const PLAIN = { NO_COLOR: undefined, FORCE_COLOR: undefined, COLUMNS: undefined, FDMON_MONITOR: undefined }

/** Runs the command line to its end. */
export function fdmon(args: readonly string[], env: NodeJS.ProcessEnv = {}): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(process.execPath, [main, ...args], { encoding: 'utf8', env: { ...process.env, ...PLAIN, ...env } })
}

/** Begins to run it. */
export function begin(args: readonly string[], env: NodeJS.ProcessEnv = {}): ChildProcessWithoutNullStreams {
  return spawn(process.execPath, [main, ...args], { env: { ...process.env, ...PLAIN, ...env } })
}

/** How a process ended. */
export function end(child: ChildProcessWithoutNullStreams): Promise<{ code: number | null; signal: string | null; stdout: string }> {
  let stdout = ''
  child.stdout.on('data', (text: Buffer) => (stdout += text.toString()))
  return new Promise((resolve) => child.on('close', (code, signal) => resolve({ code, signal, stdout })))
}

/** Waits until something is there. */
export async function until<T>(look: () => T | undefined | false): Promise<T> {
  for (;;) {
    const found = look()
    if (found) return found
    await sleep(10)
  }
}

/** The children of a process that run such a program. */
export function childrenOf(pid: number, program: string): number[] {
  const text = (file: string): string => (existsSync(file) ? readFileSync(file, 'utf8') : '')
  return text(`/proc/${pid}/task/${pid}/children`)
    .split(' ')
    .filter((child) => child !== '' && text(`/proc/${child}/cmdline`).includes(program))
    .map(Number)
}

/** The CPUs that each thread of a process may use. */
export function cpusOfThreads(pid: number): string[] {
  return readdirSync(`/proc/${pid}/task`).map((thread) => /^Cpus_allowed_list:\s*(\S+)/m.exec(readFileSync(`/proc/${pid}/task/${thread}/status`, 'utf8'))?.[1] ?? '')
}

/** Whether it is gone, or only waits for its parent to hear of it. */
export function isGone(pid: number): boolean {
  try {
    return /^State:\s*[ZX]/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))
  } catch {
    return true
  }
}
