// A process as tables: its contexts with the window as a sparkline, and their handlers.
import { paint, table, wrap, type Terminal } from '../terminal.js'
import type { ContextRates } from './rates.js'
import { count, duration, percent, sparkline } from './units.js'

/** What is shown. */
export interface View {
  pid: number
  command: string
  /** The time that the rates are of. */
  seconds: number
  contexts: ContextRates[]
  /** Contexts that are not among them. */
  leftOut: number
  /** What a descriptor is. */
  what: (fd: number) => string
}

const CONTEXTS = ['context', 'on', 'turns/s', 'events/s', 'sleeps/s', 'hits/s', 'misses/s', 'CPU', 'in vain', 'window', 'before'] as const
const HANDLERS = ['context', 'fd', 'reads/s', 'writes/s', 'hits/s', 'spins', 'gap', 'what'] as const
/** Columns of a sparkline where a line may be as long as it likes. */
const SPARK = 20

/** What the columns mean. */
export const LEGEND =
  'Rates are a second. hits, misses: spins that found something, and that did not. CPU: of the thread; in vain: what of that was spun ' +
  'without a hit. window: how long a turn spins at most now; before: at the updates up to now. spins: whether the handler is on the spin list. gap: what the ' +
  'policy takes for the time between its events.'

/** Everything, for a terminal or a file. */
export function show(view: View, terminal: Terminal): string {
  const { bold, dim } = paint(terminal)
  const { pid, command, contexts, leftOut, seconds } = view
  const head = `${bold(`${pid}`)} ${cut(command, terminal.width - `${pid} `.length)}`
  const notes = contexts.flatMap(({ name, guard }) => (guard === null ? [] : [`${name} spins less than it is asked to: ${guard}`]))
  if (leftOut > 0) notes.push(`${leftOut} more contexts are not shown: the page has no room for them`)
  if (contexts.length === 0) notes.push('It has no context now.')
  if (seconds === 0 && contexts.length > 0) notes.push('Its statistics stood still: rates are unknown.')
  const parts = [`${head}\n`]
  if (contexts.length > 0) parts.push(contextTable(contexts, terminal))
  const rows = handlerRows(view)
  if (rows.length > 0) parts.push(table(terminal, HANDLERS, rows, { right: [1, 2, 3, 4, 6] }))
  if (notes.length > 0) parts.push(notes.map((note) => dim(wrap(terminal, note))).join(''))
  return parts.join('\n')
}

function contextTable(contexts: readonly ContextRates[], terminal: Terminal): string {
  const { green, yellow } = paint(terminal)
  const rows = contexts.map((context) => {
    const { name, monitor, turns, events, sleeps, spinHits, spinMisses, cpu, wasted, windowNs, maxNs, windows } = context
    const window = maxNs === 0 ? 'off' : `${duration(windowNs)} of ${duration(maxNs)}`
    const vain = percent(wasted)
    return [
      ...[name, monitor, ...[turns, events, sleeps, spinHits, spinMisses].map(count), percent(cpu)],
      wasted >= 0.1 ? yellow(vain) : vain,
      window,
      maxNs === 0 ? '' : green(sparkline(windows, maxNs, SPARK)),
    ]
  })
  return table(terminal, CONTEXTS, rows, { right: [2, 3, 4, 5, 6, 7, 8, 9] })
}

function handlerRows({ contexts, what }: View): string[][] {
  return contexts.flatMap(({ name, handlers, live }) => {
    const rows = handlers.map(({ fd, reads, writes, pollHits, polling, estimateNs }) => [
      ...[name, `${fd}`, count(reads), count(writes), count(pollHits)],
      ...[polling ? 'yes' : 'no', estimateNs === 0 ? '–' : duration(estimateNs), what(fd)],
    ])
    if (live > handlers.length) rows.push([name, '…', '', '', '', '', '', `${live - handlers.length} more handlers`])
    return rows
  })
}

function cut(text: string, width: number): string {
  return text.length <= width ? text : `${text.slice(0, Math.max(0, width - 1))}…`
}

/** The processes that publish. */
export function showProcesses(processes: readonly { pid: number; command: string; contexts: number; handlers: number; events: number }[], terminal: Terminal): string {
  const rows = processes.map(({ pid, command, contexts, handlers, events }) => {
    const numbers = [`${pid}`, `${contexts}`, `${handlers}`, count(events)]
    return [...numbers, cut(command, Math.max(20, terminal.width - 40))]
  })
  return table(terminal, ['pid', 'contexts', 'handlers', 'events', 'command'], rows, { right: [0, 1, 2, 3] })
}
