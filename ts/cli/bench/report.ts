// What `fdmon bench` has found, and where: what --json prints and the page shows.
import { cpus, loadavg, release } from 'node:os'
import type { Row } from './results.js'
import type { Settings } from './settings.js'

export interface Report {
  /** Whether every row was measured and no event was lost. */
  ok: boolean
  version: string
  /** When it began, in UTC. */
  date: string
  /** What it ran on, in a line. */
  machine: string
  seconds: number
  settings: Settings
  /** What counted system calls. */
  systemCallsBy: 'perf' | 'strace' | null
  /** What was left out, and what to know of the figures. */
  notes: string[]
  problems: string[]
  rows: Row[]
}

/** The machine in a line. */
export function machineLine(version: string): string {
  const all = cpus()
  return `fdmon ${version}, Node ${process.versions.node}, Linux ${release()}, ${all.length} × ${all[0]?.model.trim() ?? 'CPU'}`
}

/** A machine that is busy with other things spreads the figures. */
export function loadNote(): string[] {
  const [load = 0] = loadavg()
  const count = cpus().length
  return load > count / 4 ? [`the machine was busy when it began (load ${load.toFixed(1)} on ${count} CPUs), so expect wide spreads`] : []
}

/** What went wrong in the rows. */
export function problemsOf(rows: readonly Row[]): string[] {
  return rows.flatMap(({ placement, gapUs, monitor, policy, failed, lost }) => {
    const name = `${placement}, ${gapUs} µs, ${monitor}, ${policy}`
    if (failed !== null) return [`${name} failed: ${failed}`]
    return lost > 0 ? [`${name} lost ${lost} events`] : []
  })
}
