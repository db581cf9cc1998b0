// The results as tables for a person: one for each placement and gap, rows that lose included.
import { stripVTControlCharacters } from 'node:util'
import { paint, table, wrap, type Terminal } from '../terminal.js'
import type { Report } from './report.js'
import { figure, groupsOf, sentenceOf, verdict, type Row, type Spread } from './results.js'
import { placementNamed, roundsOf } from './settings.js'

export const HEAD = ['monitor', 'policy', 'p50 µs', 'p99', 'p99.9', 'CPU', 'all CPU', 'calls', 'csw'] as const

/** `12.3 (11.8–40.0)` */
export function spread({ median, least, most }: Spread): string {
  return `${figure(median)} (${figure(least)}–${figure(most)})`
}

/** The fields of a row, as in {@link HEAD}. */
export function fields(row: Row): string[] {
  const { monitor, policy, failed, p50Us, p99Us, p999Us, cpuUs, processCpuUs, systemCalls, switches } = row
  if (failed !== null) return [monitor, policy, `failed: ${failed}`, ...Array<string>(HEAD.length - 3).fill('')]
  const rest = [p99Us.median, p999Us, cpuUs.median, processCpuUs.median, systemCalls, switches.median]
  return [monitor, policy, spread(p50Us), ...rest.map(figure)]
}

/** What the columns mean. */
export const LEGEND =
  'p50, p99, p99.9: µs from the moment at which an event was due until its handler ran; the median of the rounds (least–most of them). ' +
  "CPU: µs of the loop's thread, an event; all CPU: of the whole process, in which the producer waits awake. " +
  'calls: system calls of the process, an event. csw: its context switches, an event.'

/** Everything, for a terminal or a file. */
export function show(report: Report, terminal: Terminal): string {
  const { bold, green, dim, yellow } = paint(terminal)
  const { settings, notes, machine } = report
  const parts = [
    `${wrap(terminal, machine)}${wrap(terminal, `${roundsOf(settings)}; a spin lasts ${settings.windowUs} µs at most`)}`,
  ]
  for (const group of groupsOf(report.rows)) {
    const best = verdict(group)
    const rows = group.rows.map((row) => {
      const cells = fields(row)
      if (row === best?.soonest) cells[2] = green(cells[2] ?? '')
      if (row === best?.cheapest) cells[5] = green(cells[5] ?? '')
      return cells
    })
    const title = bold(`${placementNamed(group.placement)}; an event every ${group.gapUs} µs`)
    const sentence = sentenceOf(group)
    const guards = new Set(group.rows.flatMap(({ guard }) => guard ?? []))
    parts.push(
      wrap(terminal, title) +
        rowsIn(terminal, rows) +
        (sentence === undefined ? '' : wrap(terminal, `  ${sentence}`)) +
        [...guards].map((guard) => wrap(terminal, `  not every row spins: guard '${guard}'`)).join(''),
    )
  }
  parts.push(wrap(terminal, dim(LEGEND)) + [...notes, ...report.problems].map((note) => wrap(terminal, yellow(`Note: ${note}.`))).join(''))
  return parts.join('\n')
}

/** Where there is no room for columns, each row is a paragraph that is named after what it runs on and by which rule. */
function rowsIn(terminal: Terminal, rows: readonly string[][]): string {
  const right = HEAD.map((_, at) => at).slice(3)
  const columns = table({ ...terminal, width: Infinity }, HEAD, rows, { right })
  if (stripVTControlCharacters(columns).split('\n').every((line) => line.length <= terminal.width)) return columns
  return rows
    .map(([monitor = '', policy = '', ...rest]) => {
      const figures = rest.flatMap((text, at) => (text === '' ? [] : [`${HEAD[at + 2]} ${text}`]))
      return wrap(terminal, `${monitor} ${policy}: ${figures.join(', ')}`)
    })
    .join('')
}
