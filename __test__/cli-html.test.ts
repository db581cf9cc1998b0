// The page that fdmon bench --html writes, as Chromium shows it.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import test from 'ava'
import type { Report } from '../dist/cjs/cli/bench/report.js'
import { withPage } from '../scripts/chromium.mjs'
import { fdmon } from './cli-kit.js'

const folder = mkdtempSync(join(tmpdir(), 'fdmon-test-'))
const file = join(folder, 'bench.html')
const made = fdmon(['bench', '--rounds', '2', '--events', '50', '--gap', '5,200', '--monitor', 'epoll,poll', '--placement', 'one,unguarded', '--html', file, '--json', '--no-system-calls'])
test.after.always(() => rmSync(folder, { recursive: true, force: true }))

/** What a reader sees, measured in the page: sizes of texts, and how they stand out from what is behind them. */
const LOOK = `(() => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number)
  const light = (colour) => {
    const [r, g, b] = numbers(colour).map((value) => (value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4))
    return 0.2126 * r + 0.7152 * g + 0.0722 * b
  }
  const contrast = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05) }
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) { const { backgroundColor } = getComputedStyle(at); if (!/, 0\\)$/.test(backgroundColor)) return backgroundColor }
  }
  const texts = [...document.querySelectorAll('h1,h2,h3,p,li,summary,th,td,code,svg text')].map((element) => {
    const style = getComputedStyle(element)
    const scale = element.ownerSVGElement ? element.ownerSVGElement.getBoundingClientRect().width / element.ownerSVGElement.viewBox.baseVal.width : 1
    return { text: element.textContent, size: parseFloat(style.fontSize) * scale, contrast: contrast(element.ownerSVGElement ? style.fill : style.color, behind(element)) }
  })
  const drawn = [...document.querySelectorAll('.curve,.mark')].map((element) => contrast(element.matches('.curve') ? getComputedStyle(element).stroke : getComputedStyle(element).fill, behind(element)))
  const count = (selector) => document.querySelectorAll(selector).length
  return {
    texts, drawn, background: light(getComputedStyle(document.body).backgroundColor),
    wide: document.documentElement.scrollWidth, inner: innerWidth,
    columns: new Set([...document.querySelectorAll('article:first-of-type figure')].map((figure) => figure.getBoundingClientRect().left)).size,
    outside: [...document.querySelectorAll('svg[role=img] text')].filter((text) => { const [a, b] = [text.getBoundingClientRect(), text.ownerSVGElement.getBoundingClientRect()]; return a.left < b.left - 1 || a.right > b.right + 1 || a.bottom > b.bottom + 1 }).map((text) => text.textContent),
    figures: count('figure'), curves: count('.curve'), marks: count('.mark'), rows: count('tbody tr'), named: count('svg[role=img][aria-label]'), scripts: count('script:not([type="application/json"])'),
    report: JSON.parse(document.querySelector('#report').textContent),
  }
})()`

interface Looks {
  texts: { text: string; size: number; contrast: number }[]
  drawn: number[]
  background: number
  wide: number
  inner: number
  columns: number
  outside: string[]
  figures: number
  curves: number
  marks: number
  rows: number
  named: number
  scripts: number
  report: Report
}

test('the page is one file that asks for nothing else and runs no script', (t) => {
  t.is(made.status, 0, made.stderr)
  t.true(made.stderr.includes(`${file} written`))
  const text = readFileSync(file, 'utf8')
  t.notRegex(text, /(src|href)=|@import|url\(/)
  t.notRegex(text, /NaN|undefined|Infinity/)
})

for (const width of [360, 1440]) {
  for (const dark of [false, true]) {
    test(`the page is readable ${width} pixels wide and ${dark ? 'dark' : 'light'}, without an error in the console`, async (t) => {
      const { rows } = JSON.parse(made.stdout) as Report
      await withPage({ width, dark }, async (page) => {
        const said: string[] = []
        const asked: string[] = []
        page.on('console', (message) => said.push(message.text()))
        page.on('pageerror', (error) => said.push(error.message))
        page.on('request', (request) => asked.push(request.url()))
        const url = pathToFileURL(file).href
        await page.goto(url)
        const looks: Looks = await page.evaluate(LOOK)
        t.deepEqual(said, [])
        t.deepEqual(asked, [url])
        t.is(looks.scripts, 0)
        t.deepEqual(looks.report.rows, rows)
        // Two placements of two gaps, each with a plot of all rows and one a monitor.
        t.is(looks.figures, 2 * 2 * (1 + 2))
        t.is(looks.named, looks.figures)
        for (const drawn of [looks.curves, looks.marks, looks.rows]) t.is(drawn, rows.length)
        t.true(looks.wide <= looks.inner, `${looks.wide} pixels in ${looks.inner}`)
        t.deepEqual(looks.outside, [])
        t.is(looks.columns === 1, width < 400)
        t.true(dark ? looks.background < 0.05 : looks.background > 0.9, `${looks.background}`)
        for (const { text, size, contrast } of looks.texts) t.true(size >= 10 && contrast >= 4.5, `${text}: ${size} pixels, contrast ${contrast}`)
        for (const contrast of looks.drawn) t.true(contrast >= 3, `${contrast}`)
      })
    })
  }
}
