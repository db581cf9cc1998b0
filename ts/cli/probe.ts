// `fdmon probe`: capabilities() as a table, and a line of advice for each thing that could be better.
import Table from 'cli-table3'
import { capabilities, type Capabilities } from '../capabilities.js'

/** What `fdmon probe` prints. */
export function probe(json: boolean, colour: boolean): string {
  const found = capabilities()
  return json ? `${JSON.stringify(found, null, 2)}\n` : describe(found, colour)
}

/** The tables and the advice, for a person. */
export function describe(found: Capabilities, colour: boolean): string {
  const advice = adviceFor(found).map((line) => `Advice: ${line}.\n`)
  return `${tables(found, colour)}\n${advice.length === 0 ? '' : `\n${advice.join('')}`}`
}

function tables(found: Capabilities, colour: boolean): string {
  const style = { head: colour ? ['bold'] : [], border: colour ? ['grey'] : [] }
  const monitors = new Table({ head: ['monitor', 'available', 'why'], style, wordWrap: true, colWidths: [12, 11, 70] })
  for (const [name, { available, reason }] of Object.entries(found.monitors)) {
    monitors.push([name, available ? 'yes' : 'no', reason])
  }
  const rest = new Table({ head: ['feature', 'here'], style })
  for (const [name, here] of Object.entries(found.features)) rest.push([name, here ? 'yes' : 'no'])
  rest.push(['native addon', found.native ? 'yes' : 'no (WebAssembly)'])
  rest.push(['usable CPUs', String(found.cpus)])
  rest.push(['CPU quota', found.cpuQuota === null ? 'none' : `${found.cpuQuota} CPUs`])
  return `${monitors.toString()}\n${rest.toString()}`
}

/** What could be changed here: one line for each refused monitor, for features, for CPUs. */
function adviceFor(found: Capabilities): string[] {
  const lines = Object.entries(found.monitors).flatMap(([name, { available, advice }]) =>
    available || advice === undefined ? [] : [`${name}: ${advice}`],
  )
  if (!found.monitors.io_uring.available) {
    lines.push("without io_uring, monitor 'auto' uses poll and epoll; nothing has to change")
  }
  const missing = Object.entries(found.features).filter(
    ([name, here]) => !here && (found.monitors.io_uring.available || !name.startsWith('ioUring')),
  )
  if (missing.length > 0) {
    lines.push(`a newer kernel or a wider sandbox may have ${missing.map(([name]) => name).join(', ')}; all else works without`)
  }
  if (Math.min(found.cpus, Math.ceil(found.cpuQuota ?? Infinity)) <= 1) {
    lines.push('one CPU is usable, so contexts do not spin here; give the process a second one if latency matters')
  }
  return lines
}
