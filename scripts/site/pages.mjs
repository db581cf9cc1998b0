// Every page of the built site in Debian's Chromium: on a phone's width in the dark, on a desk's in the light.
//
// Wrong is: an error on the console, or on our pages a warning, a request that fails or leaves this machine, a page wider than its window, and
// text that stands out too little from what is behind it. Pictures of the pages go into a folder, to be looked at.
import { createServer } from 'node:http'
import { existsSync, mkdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { extname, join } from 'node:path'
import { withChromium } from '../chromium.mjs'
import { fail } from '../step.mjs'
import { FOREIGN } from './links.mjs'

const LOOKS = [
  { name: 'phone-dark', width: 390, height: 844, dark: true },
  { name: 'desk-light', width: 1280, height: 900, dark: false },
]
const TYPES = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml', '.json': 'application/json', '.woff2': 'font/woff2', '.png': 'image/png' }
const AT_ONCE = 3

export async function lookAtPages(site, pages, pictures) {
  rmSync(pictures, { recursive: true, force: true })
  const server = await serve(site)
  const origin = `http://127.0.0.1:${server.address().port}`
  const leadsOn = (path) => readFileSync(join(site, path), 'utf8').includes('http-equiv="refresh"')
  const wrong = []
  let seen = 0
  for (const look of LOOKS) {
    mkdirSync(join(pictures, look.name), { recursive: true })
    // Of what others generate the console is heard once; sources that rustdoc shows, and what only leads on, are left out.
    const queue = pages.filter((path) => isOurs(path) || (look === LOOKS[0] && !path.startsWith('rust/src/') && !leadsOn(path)))
    const worker = async (context) => {
      const page = await context.newPage()
      for (let path = queue.shift(); path !== undefined; path = queue.shift()) {
        for (const fault of await lookAt(page, origin, path, look, pictures)) {
          wrong.push(`${path}, ${look.name}: ${fault}`)
          process.stderr.write(`${wrong.at(-1)}\n`)
        }
        seen++
      }
    }
    await withChromium({ ...look, reducedMotion: 'reduce' }, (context) => Promise.all(Array.from({ length: AT_ONCE }, () => worker(context))))
  }
  server.close()
  server.closeAllConnections()
  if (wrong.length > 0) fail(`pages: ${wrong.length} things are wrong`)
  return `${pages.filter(isOurs).length} pages looked at ${LOOKS.length} ways, ${seen} with the generated ones, nothing wrong`
}

function isOurs(path) {
  return !/^(api|rust)\//.test(path)
}

async function lookAt(page, origin, path, look, pictures) {
  const faults = []
  const onConsole = (message) => {
    // rustdoc's pages warn of their own preloads.
    const counts = message.type() === 'error' || (message.type() === 'warning' && isOurs(path))
    if (counts && !FOREIGN.test(message.location().url)) faults.push(`console: ${message.text()}`)
  }
  const onError = (error) => faults.push(`uncaught: ${error.message}`)
  const onFailed = (request) => {
    // What the next page interrupts was only fetched ahead.
    if (request.failure()?.errorText !== 'net::ERR_ABORTED') faults.push(`${request.url()}: ${request.failure()?.errorText}`)
  }
  const onRequest = (request) => {
    if (!request.url().startsWith(origin) && !/^(data|blob|about):/.test(request.url())) faults.push(`asks elsewhere: ${request.url()}`)
  }
  page.on('console', onConsole).on('pageerror', onError).on('requestfailed', onFailed).on('request', onRequest)
  try {
    await page.goto(`${origin}/${path}`, { waitUntil: 'load' })
    const ours = isOurs(path)
    if (ours) await page.waitForFunction(() => document.querySelector('#app')?.__vue_app__ !== undefined)
    // What others generate is theirs to lay out; that our pages fit is ours.
    const { wide, faint } = await page.evaluate(measure, ours)
    if (ours && wide !== '') faults.push(`wider than ${look.width} pixels: ${wide}`)
    if (ours) faults.push(...faint)
    if (ours || /^(api\/index|rust\/fdmon\/index)\.html$/.test(path)) {
      const name = path.replace(/\.html$/, '').replaceAll('/', '-')
      await page.screenshot({ path: join(pictures, look.name, `${name}.png`), fullPage: !/^(FAULTS|POLICY)\./.test(path) })
    }
  } catch (error) {
    faults.push(error.message.split('\n')[0])
  } finally {
    page.off('console', onConsole).off('pageerror', onError).off('requestfailed', onFailed).off('request', onRequest)
  }
  return faults
}

/** Runs in the page: what sticks out of the window, and which text has too little contrast. */
function measure(ours) {
  const root = document.scrollingElement
  let wide = ''
  if (root.scrollWidth > root.clientWidth) {
    const out = [...document.body.querySelectorAll('*')].find((element) => element.getBoundingClientRect().right > root.clientWidth + 1)
    wide = `${root.scrollWidth}, ${out?.tagName} ${String(out?.className).slice(0, 60)} ${out?.textContent.trim().slice(0, 60)}`
  }
  const faint = new Set()
  if (!ours) return { wide, faint: [] }
  const parse = (color) => {
    const [r = 0, g = 0, b = 0, a = 1] = (color.match(/[\d.]+/g) ?? []).map(Number)
    return { r, g, b, a }
  }
  const over = (top, below) => ({ r: top.r * top.a + below.r * (1 - top.a), g: top.g * top.a + below.g * (1 - top.a), b: top.b * top.a + below.b * (1 - top.a), a: 1 })
  const luminance = ({ r, g, b }) => {
    const [x, y, z] = [r, g, b].map((c) => (c / 255 <= 0.03928 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4))
    return 0.2126 * x + 0.7152 * y + 0.0722 * z
  }
  const backgroundOf = (element) => {
    const layers = []
    for (let at = element; at; at = at.parentElement) layers.push(parse(getComputedStyle(at).backgroundColor))
    const page = parse(getComputedStyle(document.documentElement).getPropertyValue('--vp-c-bg').trim() === '' ? 'rgb(255,255,255)' : getComputedStyle(document.body).backgroundColor)
    return layers.reverse().reduce((below, top) => over(top, below), page.a === 0 ? { r: 255, g: 255, b: 255, a: 1 } : page)
  }
  const walker = document.createTreeWalker(document.querySelector('main, .VPContent') ?? document.body, NodeFilter.SHOW_TEXT)
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement
    if (node.data.trim() === '' || !element.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue
    const style = getComputedStyle(element)
    const svg = element.closest('svg') !== null
    const color = parse(svg ? style.fill : style.color)
    const background = backgroundOf(element)
    const [a, b] = [luminance(over(color, background)), luminance(background)]
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)
    const needed = element.closest('pre') !== null ? 3.5 : 4.5
    if (contrast < needed) faint.add(`contrast ${contrast.toFixed(1)}: "${node.data.trim().slice(0, 30)}" in ${element.tagName} ${String(element.getAttribute('class')).slice(0, 40)}`)
  }
  return { wide, faint: [...faint].slice(0, 4) }
}

function serve(site) {
  const server = createServer((request, response) => {
    const { pathname } = new URL(request.url, 'http://localhost')
    let file = join(site, decodeURIComponent(pathname))
    if (existsSync(file) && statSync(file).isDirectory()) file = join(file, 'index.html')
    if (!existsSync(file) && existsSync(`${file}.html`)) file = `${file}.html`
    if (!existsSync(file)) {
      // Browsers ask for it by themselves.
      response.writeHead(pathname === '/favicon.ico' ? 204 : 404).end()
      return
    }
    response.writeHead(200, { 'content-type': TYPES[extname(file)] ?? 'application/octet-stream' }).end(readFileSync(file))
  })
  return new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(server)))
}
