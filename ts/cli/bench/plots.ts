// Plots as SVG, drawn when the page is written: percentile curves, and latency against CPU. The page colours them, by class.
// Axes, polylines and three marks are all that they need; a library of plots would be half of the package.
import { figure, type Group, type Row, type Spread } from './results.js'

/** What a screen of a phone shows at its own size; wider ones show several side by side. */
const WIDTH = 360
const HEIGHT = 260
const BOX = { left: 48, right: 348, top: 26, bottom: 216 }

/** A circle, a square and a triangle of about the same area, around 0, 0. */
const SHAPES: Readonly<Record<string, string>> = {
  io_uring: 'M4.4 0A4.4 4.4 0 1 1-4.4 0A4.4 4.4 0 1 1 4.4 0Z',
  epoll: 'M-3.9-3.9H3.9V3.9H-3.9Z',
  poll: 'M0-6.2L5.4 3.1H-5.4Z',
}
const DECADES = [1e-3, 1e-2, 1e-1, 1, 10, 1e2, 1e3, 1e4, 1e5, 1e6]

/** Text that HTML takes for text. */
export function escape(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;')
}

/** A logarithmic scale: where a value is on an axis. */
interface Scale {
  domain: [number, number]
  at(value: number): number
}

/** From `domain` to `range`; what lies below the domain is put at its edge, since a logarithm has no zero. */
function logarithmic(domain: [number, number], [begin, end]: [number, number]): Scale {
  const [from, to] = domain.map(Math.log) as [number, number]
  return { domain, at: (value) => begin + ((Math.log(Math.max(value, domain[0])) - from) / (to - from)) * (end - begin) }
}

/** A scale around all values, of at least a third of a decade. */
function around(values: readonly number[], range: [number, number]): Scale {
  const some = values.filter((value) => value > 0 && Number.isFinite(value))
  const [least, most] = some.length === 0 ? [1, 10] : [Math.min(...some), Math.max(...some)]
  return logarithmic([least / 1.25, Math.max(most * 1.25, least * 2.15)], range)
}

/** The fewest of these that make three: powers of ten, and parts of them where the scale is short. */
const STEPS = [[1], [1, 3], [1, 2, 5], [1, 1.5, 2, 3, 4, 5, 7], [1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9]]

function ticksOf(scale: Scale): number[] {
  const [from, to] = scale.domain
  const inside = STEPS.map((steps) => DECADES.flatMap((power) => steps.map((step) => power * step)).filter((value) => value >= from && value <= to))
  return inside.find((values) => values.length >= 3) ?? inside.at(-1) ?? []
}

function tickText(value: number): string {
  return value >= 1000 ? `${Number((value / 1000).toPrecision(2))}k` : String(Number(value.toPrecision(2)))
}

function frame(title: string, summary: string, axes: { x: string; y: string }, inside: string): string {
  return (
    `<svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${escape(`${title}. ${summary}`)}">` +
    `<text class="title" x="8" y="15">${escape(title)}</text>` +
    `<text class="axis" x="8" y="${HEIGHT - 6}">↑ ${escape(axes.y)}</text>` +
    `<text class="axis end" x="${BOX.right}" y="${HEIGHT - 6}">${escape(axes.x)} →</text>${inside}</svg>`
  )
}

function grid(x: { at: number; text: string }[], y: Scale): string {
  const columns = x.map(
    ({ at, text }) => `<path class="grid" d="M${px(at)} ${BOX.top}V${BOX.bottom}"/><text class="tick middle" x="${px(at)}" y="${BOX.bottom + 15}">${text}</text>`,
  )
  const rows = ticksOf(y).map(
    (value) => `<path class="grid" d="M${BOX.left} ${px(y.at(value))}H${BOX.right}"/><text class="tick end" x="${BOX.left - 6}" y="${px(y.at(value) + 4)}">${tickText(value)}</text>`,
  )
  return [...columns, ...rows].join('')
}

function px(value: number): string {
  return String(Math.round(value * 10) / 10)
}

/** The latency of every percentile, one curve a policy; the tail is drawn out as 1/(1 − p). */
export function percentileCurves(title: string, rows: readonly Row[], group: Group): string {
  const away = (percentile: number): number => 1 / (1 - percentile / 100)
  const measured = group.rows.filter(({ percentiles }) => percentiles.length > 0)
  // The same scales for all monitors of a group.
  const y = around(measured.flatMap(({ percentiles }) => percentiles.map(([, us]) => us)), [BOX.bottom, BOX.top])
  const last = Math.max(10, ...measured.flatMap(({ percentiles }) => percentiles.map(([percentile]) => away(percentile))))
  const x = logarithmic([1, last], [BOX.left, BOX.right])
  const ticks = [0, 50, 90, 99, 99.9, 99.99].filter((percentile) => away(percentile) <= last * 1.01)
  const path = (points: Row['percentiles']): string => `M${points.map(([percentile, us]) => `${px(x.at(away(percentile)))} ${px(y.at(us))}`).join('L')}`
  const curves = rows
    .filter(({ percentiles }) => percentiles.length > 0)
    .map((row) => `<path class="curve ${row.policy}" d="${path(row.percentiles)}"><title>${escape(tipOf(row))}</title></path>`)
  const summary = rows.map((row) => tipOf(row)).join('; ')
  const axes = { x: 'percentile', y: 'latency, µs' }
  return frame(title, summary, axes, grid(ticks.map((percentile) => ({ at: x.at(away(percentile)), text: percentile === 0 ? 'min' : String(percentile) })), y) + curves.join(''))
}

/** What each row's latency costs; lines from the least to the most of the rounds. */
export function latencyAgainstCpu(title: string, { rows }: Group): string {
  const good = rows.filter(({ failed }) => failed === null)
  const all = (of: (row: Row) => Spread): number[] => good.flatMap((row) => [of(row).least, of(row).most])
  const x = around(all(({ cpuUs }) => cpuUs), [BOX.left, BOX.right])
  const y = around(all(({ p50Us }) => p50Us), [BOX.bottom, BOX.top])
  const marks = good.map((row) => {
    const [across, up] = [x.at(row.cpuUs.median), y.at(row.p50Us.median)]
    const whiskers = `M${px(x.at(row.cpuUs.least))} ${px(up)}H${px(x.at(row.cpuUs.most))}M${px(across)} ${px(y.at(row.p50Us.least))}V${px(y.at(row.p50Us.most))}`
    return (
      `<g class="${row.policy}"><title>${escape(tipOf(row))}</title><path class="whisker" d="${whiskers}"/>` +
      `<path class="mark" transform="translate(${px(across)} ${px(up)})" d="${SHAPES[row.monitor]}"/></g>`
    )
  })
  const axes = { x: 'CPU of the loop, µs an event', y: 'p50, µs' }
  return frame(title, good.map((row) => tipOf(row)).join('; '), axes, grid(ticksOf(x).map((value) => ({ at: x.at(value), text: tickText(value) })), y) + marks.join(''))
}

function tipOf({ monitor, policy, p50Us, p99Us, cpuUs }: Row): string {
  return `${policy} on ${monitor}: p50 ${figure(p50Us.median)} µs, p99 ${figure(p99Us.median)} µs, ${figure(cpuUs.median)} µs of CPU an event`
}

/** The mark of a monitor, for the legend. */
export function markOf(monitor: string): string {
  return `<svg class="swatch" viewBox="-8 -8 16 16" aria-hidden="true"><path d="${SHAPES[monitor]}"/></svg>`
}
