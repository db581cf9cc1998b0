// npm run docs:screenshots: measures with "fdmon bench" and takes the pictures of its page, docs/pictures/bench*.png.
//
//   node scripts/screenshots.mjs PAGE.html      of a page that is there already
import { spawnSync } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { withPage } from './chromium.mjs'
import { fail, root, say, seconds } from './step.mjs'

/** Enough for a picture. */
const SHORT = ['--monitor', 'io_uring,epoll', '--gap', '5,20,50,200', '--events', '400']
const since = performance.now()
const folder = join(root, 'docs', 'pictures')
const page = process.argv[2] === undefined ? measured() : resolve(process.argv[2])
mkdirSync(folder, { recursive: true })
await take('bench.png', { width: 1440, dark: false, height: 1150 })
await take('bench-phone-dark.png', { width: 390, dark: true, height: 1500 })
say(`docs/pictures: ${seconds(since)}`)

function measured() {
  const file = join(root, 'target', 'bench.html')
  mkdirSync(join(root, 'target'), { recursive: true })
  const { status } = spawnSync(process.execPath, [join(root, 'dist', 'cjs', 'cli', 'main.js'), 'bench', ...SHORT, '--html', file], { stdio: 'inherit' })
  if (status !== 0) fail(`fdmon bench ended with exit code ${status}`)
  return file
}

async function take(name, { width, dark, height }) {
  await withPage({ width, dark }, async (tab) => {
    await tab.goto(pathToFileURL(page).href)
    await tab.screenshot({ path: join(folder, name), fullPage: true, clip: { x: 0, y: 0, width, height } })
  })
}
