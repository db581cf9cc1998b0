// The page that --html writes: one file without scripts that loads nothing, light or dark as the reader's system is.
import { escape, latencyAgainstCpu, markOf, percentileCurves } from './plots.js'
import type { Report } from './report.js'
import { groupsOf, sentenceOf, type Group } from './results.js'
import { placementNamed, roundsOf } from './settings.js'
import { STYLE } from './style.js'
import { fields, HEAD, LEGEND } from './table.js'

/** The whole page. */
export function pageOf(report: Report): string {
  const { machine, date, settings, notes, problems, rows, seconds } = report
  const groups = groupsOf(rows)
  const placements = [...new Set(groups.map(({ placement }) => placement))]
  const sections = placements.map(
    (placement) =>
      `<section><h2>${escape(capital(placementNamed(placement)))}</h2>${groups.filter((group) => group.placement === placement).map(groupHtml).join('')}</section>`,
  )
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>fdmon bench: latency beside what it costs</title>
<style>${STYLE}</style>
</head>
<body>
<header>
<h1>Latency beside what it costs</h1>
<p>${escape(machine)}</p>
<p>${escape(date.slice(0, 16).replace('T', ' '))} UTC, ${Math.round(seconds)} s: ${roundsOf(settings)}; a spin lasts ${settings.windowUs} µs at most.</p>
${legend(report)}
</header>
<main>
${[...problems, ...notes].map((note) => `<p class="note">${escape(capital(note))}.</p>`).join('\n')}
${sections.join('\n')}
</main>
<footer>
<p>${escape(LEGEND)}</p>
<p>In the plots of latency against CPU, near the corner at the bottom left is better; lines go from the least to the most of the rounds.
Percentile curves have the events of all rounds. Made by <code>npx fdmon bench --html</code>; the figures are in this page as JSON.</p>
</footer>
<script type="application/json" id="report">${JSON.stringify(report).replaceAll('<', '\\u003c')}</script>
</body>
</html>
`
}

function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1)
}

function legend({ rows }: Report): string {
  const policies = [...new Set(rows.map(({ policy }) => policy))]
  const monitors = [...new Set(rows.map(({ monitor }) => monitor))]
  const items = [
    ...policies.map((policy) => `<li><span class="line ${policy}"></span>${policy}</li>`),
    ...monitors.map((monitor) => `<li>${markOf(monitor)}${monitor}</li>`),
  ]
  return `<ul class="legend">${items.join('')}</ul>`
}

function groupHtml(group: Group): string {
  const every = group.gapUs === 0 ? 'The next event as soon as one is handled' : `An event every ${group.gapUs} µs`
  const monitors = [...new Set(group.rows.map(({ monitor }) => monitor))]
  const sentence = sentenceOf(group)
  const guards = [...new Set(group.rows.flatMap(({ guard }) => guard ?? []))]
  const plots = [
    latencyAgainstCpu('Latency against CPU', group),
    ...monitors.map((monitor) => percentileCurves(`Percentiles on ${monitor}`, group.rows.filter((row) => row.monitor === monitor), group)),
  ]
  return (
    `<article><h3>${escape(every)}</h3>` +
    (sentence === undefined ? '' : `<p>${escape(capital(sentence))}.</p>`) +
    guards.map((guard) => `<p>Not every row spins: guard <code>${escape(guard)}</code>.</p>`).join('') +
    `<div class="plots">${plots.map((plot) => `<figure>${plot}</figure>`).join('')}</div>${tableHtml(group)}</article>`
  )
}

function tableHtml({ rows }: Group): string {
  const cells = (row: (typeof rows)[number]): string =>
    fields(row)
      .map((text, at) => (at < 2 ? `<th scope="row"${at === 1 ? ` class="${row.policy}"` : ''}>${escape(text)}</th>` : `<td>${escape(text)}</td>`))
      .join('')
  const head = HEAD.map((name) => `<th scope="col">${name}</th>`).join('')
  return `<details open><summary>Figures</summary><div class="scroll" tabindex="0"><table><thead><tr>${head}</tr></thead><tbody>${rows.map((row) => `<tr>${cells(row)}</tr>`).join('')}</tbody></table></div></details>`
}
