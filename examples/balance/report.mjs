// What was measured, as a table.
import Table from 'cli-table3'

const percent = (share) => `${(100 * share).toFixed(0)} %`
const largest = (members) => {
  const events = members.map((member) => member.events)
  return percent(Math.max(...events) / events.reduce((sum, count) => sum + count, 0))
}

export function table({ moves, before, after, sent, taken, lost }) {
  const rows = new Table({
    head: ['thread', 'fds', 'events', 'load', `fds after ${moves} moves`, 'events', 'load'],
    colAligns: ['left', 'right', 'right', 'right', 'right', 'right', 'right'],
    style: { head: [], border: [] },
  })
  const cells = ({ sources, events, load }) => [sources.length, events, percent(load)]
  before.forEach((member, at) => rows.push([member.name, ...cells(member), ...cells(after[at])]))
  return `${rows}
largest share of the events: ${largest(before)}, then ${largest(after)}
${sent} events, ${taken} taken, ${lost} lost`
}
