// `fdmon probe`: capabilities() as a table, and one line of advice for what is missing.
import Table from 'cli-table3'
import { capabilities, type Capabilities } from '../capabilities.js'

/** What `fdmon probe` prints. */
export function probe(json: boolean, colour: boolean): string {
  const found = capabilities()
  if (json) return `${JSON.stringify(found, null, 2)}\n`
  const advice = adviceFor(found)
  return `${tables(found, colour)}\n${advice === null ? '' : `\n${advice}\n`}`
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

/** The most useful thing that could be changed here, or null. */
function adviceFor(found: Capabilities): string | null {
  const usable = Math.min(found.cpus, Math.ceil(found.cpuQuota ?? Infinity))
  if (usable <= 1) {
    return 'Advice: one usable CPU, so contexts do not spin here; give the process a second CPU if latency matters.'
  }
  const { epoll, io_uring } = found.monitors
  if (!epoll.available) {
    return 'Advice: epoll is unavailable, so cost grows with the number of descriptors; allow epoll_create1 in the sandbox.'
  }
  if (!io_uring.available) {
    return `Advice: without io_uring (${io_uring.reason}) monitor 'auto' uses poll and epoll; nothing needs to change.`
  }
  const missing = Object.entries(found.features).filter(([, here]) => !here)
  if (missing.length === 0) return null
  return `Advice: ${missing.map(([name]) => name).join(', ')} unavailable; a newer kernel may have it, and all works without.`
}
