// System calls an event, counted from outside in runs of their own: by perf, which hardly slows them, or by strace, which makes
// each take some 50 µs longer and so spoils whatever depends on time.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Child } from './child.js'
import { taskOf } from './measure.js'
import type { Cell } from './plan.js'

/** What counts, or why nothing does. */
export interface Counter {
  by: 'perf' | 'strace' | null
  /** What to know of the counts. */
  note: string
  /** Calls an event of a cell, or why they cannot be had. */
  count(cell: Cell, windowUs: number): Promise<Counted>
}

export type Counted = { calls: number } | { failed: string }

const PERF = ['perf', 'stat', '-x', ',', '-e', 'raw_syscalls:sys_enter', '-o']
const STRACE = ['strace', '-c', '-f', '-o']
/** A run almost without events, so that what a process does to start is taken off. */
const BASE_EVENTS = 10
/** Time that the counted events may take. */
const COUNTED_US = { perf: 200_000, strace: 100_000 }
/** What an event takes besides its gap. */
const OVERHEAD_US = { perf: 40, strace: 400 }

/** Looks for a tool that is there and is allowed. */
export function counter(): Counter {
  const folder = mkdtempSync(join(tmpdir(), 'fdmon-bench-'))
  process.on('exit', () => rmSync(folder, { recursive: true, force: true }))
  const out = join(folder, 'out')
  const tried = ([command = '', ...args]: string[]): { there: boolean; works: boolean } => {
    const { status, error } = spawnSync(command, [...args, out, process.execPath, '--version'], { stdio: 'ignore' })
    return { there: error === undefined, works: status === 0 && counted(out) > 0 }
  }
  if (tried(PERF).works) return counting('perf', [...PERF, out], out, 'system calls are counted by perf, in runs of their own')
  const strace = tried(STRACE)
  if (strace.works) {
    return counting('strace', [...STRACE, out], out, 'system calls are counted by strace, in runs of their own that it slows: those of adaptive policies may differ')
  }
  const why = strace.there ? 'strace is there but may not trace here (ptrace is refused); run where it may' : 'strace is missing; run: apt-get install strace'
  return { by: null, note: `system calls are not counted: ${why}`, count: () => Promise.resolve({ failed: why }) }
}

function counted(out: string): number {
  try {
    const text = readFileSync(out, 'utf8')
    const byPerf = /^(\d+),[^,]*,raw_syscalls:sys_enter/m.exec(text)
    const byStrace = /^\s*100\.00\s+\S+\s+\d+\s+(\d+)\s.*total$/m.exec(text)
    return Number((byPerf ?? byStrace)?.[1] ?? 0)
  } catch {
    return 0
  }
}

function counting(by: 'perf' | 'strace', wrapper: string[], out: string, note: string): Counter {
  const bases = new Map<string, number>()
  const run = async (cell: Cell, windowUs: number, events: number): Promise<Counted> => {
    rmSync(out, { force: true })
    const child = new Child(cell.place, wrapper)
    const answer = await child.measure({ ...taskOf(cell, windowUs), warmUp: 0, events })
    await child.end()
    if ('failed' in answer) return answer
    const calls = counted(out)
    return calls === 0 ? { failed: `${by} counted nothing` } : { calls }
  }
  return {
    by,
    note,
    async count(cell, windowUs) {
      const events = Math.max(100, Math.min(2000, Math.round(COUNTED_US[by] / (cell.gapUs + OVERHEAD_US[by]))))
      const key = `${cell.place.name} ${cell.monitor}`
      let base = bases.get(key)
      if (base === undefined) {
        const found = await run({ ...cell, policy: 'blocking', gapUs: 20 }, windowUs, BASE_EVENTS)
        if ('failed' in found) return found
        bases.set(key, (base = found.calls))
      }
      const all = await run(cell, windowUs, events)
      return 'failed' in all ? all : { calls: Math.max(0, all.calls - base) / (events - BASE_EVENTS) }
    },
  }
}
