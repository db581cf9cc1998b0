// The pictures of numbers: the window over time, and latency beside CPU time.
import { line, path, picture, round, text } from './svg.mjs'

const PANELS = ['a', 'd', 'b']

/** The window under several policies, of traces, with each spin's end and the traffic below. */
export function windowOverTime({ maxNs, machine, phases, traces }) {
  const [width, left, right, top, each, gap] = [860, 66, 16, 44, 130, 44]
  const totalMs = phases.reduce((sum, { ms }) => sum + ms, 0)
  const x = (ms) => left + (Math.min(ms, totalMs) / totalMs) * (width - left - right)
  const parts = [text(left, 22, `The window while the traffic changes; at most ${maxNs / 1000} µs`, { weight: 600 })]
  traces.forEach(({ params, points, hitsMs, missesMs, cpuMs, hits, misses, sleeps }, index) => {
    const base = top + index * (each + gap) + each
    const y = (us) => base - (us / (maxNs / 1000)) * (each - 26)
    for (const us of [0, maxNs / 2000, maxNs / 1000]) {
      parts.push(line(left, y(us), width - right, y(us), { stroke: 'line', width: 1 }))
      parts.push(text(left - 8, y(us) + 4, `${round(us)} µs`, { anchor: 'end', size: 11, fill: 'soft' }))
    }
    let d = `M${round(x(0))} ${round(y(0))}`
    for (const [ms, toNs] of points) if (ms <= totalMs) d += `H${round(x(ms))}V${round(y(toNs / 1000))}`
    parts.push(path(`${d}H${round(x(totalMs))}`, { stroke: PANELS[index], width: 1.6 }))
    const ticks = (times, stroke, at) => {
      // One stroke a pixel is all that can be seen.
      const columns = new Set(times.map((ms) => Math.round(x(ms))))
      return columns.size === 0 ? '' : path([...columns].map((column) => `M${column} ${base + at}v6`).join(''), { stroke, width: 1 })
    }
    parts.push(ticks(hitsMs, 'c', 8), ticks(missesMs, 'e', 18))
    parts.push(text(left - 8, base + 14, 'hits', { anchor: 'end', size: 11, fill: 'c' }), text(left - 8, base + 25, 'misses', { anchor: 'end', size: 11, fill: 'e' }))
    parts.push(text(left, base - each + 16, Object.entries(params).map(([name, value]) => `${name}: ${typeof value === 'string' ? `'${value}'` : value}`).join(', '), { weight: 600, fill: PANELS[index], size: 12 }))
    parts.push(text(width - right, base - each + 16, `${hits} spins hit, ${misses} missed, ${sleeps} sleeps, ${cpuMs} ms of CPU`, { anchor: 'end', size: 12, fill: 'soft' }))
  })
  const bottom = top + traces.length * (each + gap) - 4
  let at = 0
  for (const { ms, words } of phases) {
    parts.push(line(x(at), 34, x(at), bottom, { stroke: 'line', width: 1, dash: '4 4' }))
    parts.push(text(x(at) + 4, bottom + 12, words, { size: 11, fill: 'soft' }), text(x(at) + 4, bottom + 28, `${ms} ms`, { size: 11, fill: 'soft' }))
    at += ms
  }
  parts.push(text(width - right, bottom + 48, machine, { anchor: 'end', size: 11, fill: 'soft' }))
  return picture(width, bottom + 60, 'How long a turn spins, over time, under the policies cost and classic', parts)
}

const STYLES = { blocking: ['ink', '2 3'], fixed: ['e', ''], classic: ['b', '7 3'], handler: ['d', '7 3 2 3'], cost: ['a', ''] }

/** Latency and CPU time an event by the gap between events, side by side; from one table of docs/POLICY.md. */
export function costCurves(report, placement, shape, sources, title) {
  const rows = table(report, `### ${placement}, ${shape}, ${sources}`)
  const [width, height, top, bottom] = [860, 372, 64, 316]
  const gaps = rows.map(({ gap }) => gap)
  const most = Math.max(...rows.flatMap(({ of }) => Object.keys(STYLES).flatMap((name) => [of[name].mean, of[name].cpu])))
  const [low, high] = [0.1, 10 ** Math.ceil(Math.log10(most))]
  const y = (us) => bottom - (Math.log10(Math.max(us, low) / low) / Math.log10(high / low)) * (bottom - top)
  const commit = /^Written by .*? Commit (.*)$/m.exec(report)?.[1] ?? ''
  const panel = (left, key, name) => {
    const right = left + 350
    const x = (index) => left + (index / (gaps.length - 1)) * (right - left)
    const parts = [text(left, 50, name, { size: 12, weight: 600 })]
    for (let us = low; us <= high * 1.001; us *= 10) {
      parts.push(line(left, y(us), right, y(us), { stroke: 'line', width: 1 }), text(left - 6, y(us) + 4, `${round(us)}`, { anchor: 'end', size: 11, fill: 'soft' }))
    }
    gaps.forEach((gap, index) => parts.push(text(x(index), bottom + 18, `${gap}`, { anchor: 'middle', size: 11, fill: 'soft' })))
    parts.push(text((left + right) / 2, bottom + 36, 'mean gap between events, µs', { anchor: 'middle', size: 11, fill: 'soft' }))
    for (const [policy, [stroke, dash]] of Object.entries(STYLES)) {
      const d = rows.map(({ of }, index) => `${index === 0 ? 'M' : 'L'}${round(x(index))} ${round(y(of[policy][key]))}`).join('')
      parts.push(path(d, { stroke, dash, width: policy === 'cost' ? 2.6 : 1.8 }))
    }
    return parts
  }
  const legend = Object.entries(STYLES).map(([policy, [stroke, dash]], index) => {
    const x = 430 + index * 84
    return [line(x, 18, x + 22, 18, { stroke, dash, width: policy === 'cost' ? 2.6 : 1.8 }), text(x + 27, 22, policy, { size: 12 })]
  })
  return picture(width, height, `${title}: mean latency and CPU time an event, by the gap between events, for each policy`, [
    text(20, 22, title.length > 40 ? title.replace(/: .*/, '') : title, { weight: 600 }),
    legend,
    panel(56, 'mean', 'mean latency of an event, µs'),
    panel(486, 'cpu', 'CPU time of an event, µs'),
    text(width - 24, height - 4, `docs/POLICY.md, commit ${commit}`, { anchor: 'end', size: 11, fill: 'soft' }),
  ])
}

/** Rows of a table of docs/POLICY.md: total (least–most)<br>mean · p50 · CPU · calls, by policy. */
function table(report, heading) {
  const part = report.split('\n').slice(report.split('\n').indexOf(heading) + 2)
  const lines = part.slice(0, part.indexOf(''))
  const cells = (row) => row.split('|').slice(1, -1).map((cell) => cell.trim())
  const [, ...policies] = cells(lines[0])
  return lines.slice(2).map((row) => {
    const [gap, ...figures] = cells(row)
    const of = figures.map((figure, index) => {
      const [mean, p50, cpu, calls] = figure.split('<br>')[1].split(' · ').map(Number)
      return [policies[index], { mean, p50, cpu, calls }]
    })
    return { gap: Number(gap), of: Object.fromEntries(of) }
  })
}

