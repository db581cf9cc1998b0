// `fdmon bench`: latency beside what it costs, for monitor × policy × placement × gap.
import { writeFileSync } from 'node:fs'
import { progress } from '../progress.js'
import { terminalOf } from '../terminal.js'
import { counter, type Counted, type Counter } from './calls.js'
import { measureAll } from './measure.js'
import { pageOf } from './page.js'
import { planOf } from './plan.js'
import { loadNote, machineLine, problemsOf, type Report } from './report.js'
import { rowOf, type Row } from './results.js'
import type { Output, Settings } from './settings.js'
import { show } from './table.js'

const UNCOUNTED: Counter = { by: null, note: 'system calls are not counted: --no-system-calls', count: () => Promise.resolve({ failed: '--no-system-calls' }) }

/** Measures, prints and writes; the exit code. */
export async function bench({ json, html, ...settings }: Settings & Output, version: string): Promise<number> {
  const report = await measure(settings, version)
  process.stdout.write(json ? `${JSON.stringify(report, null, 2)}\n` : show(report, terminalOf(process.stdout)))
  if (html !== undefined) {
    writeFileSync(html, pageOf(report))
    process.stderr.write(`fdmon: ${html} written\n`)
  }
  for (const problem of report.problems) process.stderr.write(`fdmon: ${problem}\n`)
  return report.ok ? 0 : 1
}

async function measure(settings: Settings, version: string): Promise<Report> {
  const since = performance.now()
  const date = new Date().toISOString()
  const { cells, notes } = planOf(settings)
  notes.push(...loadNote())
  const tool = settings.systemCalls && cells.length > 0 ? counter() : UNCOUNTED
  notes.push(tool.note)
  const bar = progress(cells.length * (settings.rounds + (tool.by === null ? 0 : 1)))
  const measured = await measureAll(cells, settings, ({ monitor, policy, gapUs }, round) =>
    bar.next(`round ${round + 1} of ${settings.rounds}: ${policy} on ${monitor}, ${gapUs} µs`),
  )
  const rows: Row[] = []
  const uncounted: string[] = []
  for (const one of measured) {
    let counted: Counted | undefined
    if (tool.by !== null && one.failed === undefined) {
      const { policy, monitor, gapUs, place } = one.cell
      bar.next(`system calls: ${policy} on ${monitor}, ${gapUs} µs`)
      counted = await tool.count(one.cell, settings.windowUs)
      if ('failed' in counted) uncounted.push(`the system calls of ${place.name}, ${gapUs} µs, ${monitor}, ${policy} could not be counted: ${counted.failed}`)
    }
    rows.push(rowOf(one, counted !== undefined && 'calls' in counted ? counted.calls : undefined))
  }
  bar.end()
  notes.push(...uncounted.slice(0, 3), ...(uncounted.length > 3 ? [`those of ${uncounted.length - 3} more rows could not be counted either`] : []))
  const problems = cells.length === 0 ? ['nothing that was asked for can be measured here', ...notes] : problemsOf(rows)
  const seconds = (performance.now() - since) / 1000
  return { ok: problems.length === 0, version, date, machine: machineLine(version), seconds, settings, systemCallsBy: tool.by, notes, problems, rows }
}
