// The documentation site: the pages of docs/, beside /api (typedoc) and /rust (rustdoc), which scripts/docs-site.mjs builds.
import { existsSync, readFileSync, statSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitepress'

const docs = fileURLToPath(new URL('..', import.meta.url))
const root = dirname(resolve(docs))
const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
const repository = manifest.homepage.replace(/#.*/, '')

const page = (text, link) => ({ text, link })

export default defineConfig({
  title: 'fdmon',
  description: manifest.description,
  lang: 'en',
  base: process.env.FDMON_SITE_BASE ?? '/',
  outDir: join(root, 'target', 'site'),
  cacheDir: join(root, 'target', 'site-cache'),
  appearance: true,
  // What is built by others; its links are checked in the built site.
  ignoreDeadLinks: [/^\/(api|rust)\//],
  markdown: { theme: { light: 'github-light-high-contrast', dark: 'github-dark-high-contrast' }, config: use },
  vite: { build: { chunkSizeWarningLimit: 2_000 }, logLevel: 'warn' },
  themeConfig: {
    search: { provider: 'local' },
    outline: [2, 3],
    nav: [
      page('Guide', '/guide/getting-started'),
      page('Recipes', '/recipes/'),
      { text: 'API', link: '/api/', target: '_self' },
      { text: 'Rust', link: '/rust/fdmon/index.html', target: '_self' },
    ],
    sidebar: [
      {
        text: 'Guide',
        items: [
          page('Getting started', '/guide/getting-started'),
          page('The model, in pictures', '/guide/model'),
          page('Tuning', '/guide/tuning'),
          page('Seeing what it does', '/guide/seeing'),
          page('Threads and channels', '/guide/workers'),
          page('File I/O', '/guide/files'),
          page('Other runtimes, WebAssembly', '/guide/wasi'),
          page('Errors', '/guide/errors'),
          page('FAQ', '/guide/faq'),
        ],
      },
      {
        text: 'Recipes',
        items: [
          page('Which one', '/recipes/'),
          page('timerfd', '/recipes/timerfd'),
          page('signalfd', '/recipes/signalfd'),
          page('inotify', '/recipes/inotify'),
          page('pidfd', '/recipes/pidfd'),
          page('eventfd', '/recipes/eventfd'),
          page('Pipes and FIFOs', '/recipes/pipes'),
          page('Sockets', '/recipes/sockets'),
          page('Descriptors over sockets', '/recipes/descriptors'),
          page('Words of shared memory', '/recipes/words'),
          page('Files through io_uring', '/recipes/files'),
          page('CAN', '/recipes/can'),
          page('GPIO', '/recipes/gpio'),
        ],
      },
      {
        text: 'Coming from',
        items: [
          page('npm epoll', '/migration/epoll'),
          page('uv_poll', '/migration/uv_poll'),
          page('mio', '/migration/mio'),
          page('event-manager', '/migration/event-manager'),
        ],
      },
      {
        text: 'Measured',
        collapsed: true,
        items: [
          page('Beside its peers', '/BENCHMARKS'),
          page('Policies of the window', '/POLICY'),
          page('Budgets of a turn', '/BUDGETS'),
          page("Inside Node's loop", '/ATTACH'),
          page('The main job', '/MAIN-JOB'),
          page('Channels', '/CHANNEL'),
          page('Reading files', '/FILES'),
          page('Network block device', '/NBD'),
          page('Platforms', '/PLATFORMS'),
          page('Kernels', '/KERNELS'),
          page('Traces', '/TRACES'),
          page('The stats page', '/STATS-PAGE'),
        ],
      },
      {
        text: 'Shown to hold',
        collapsed: true,
        items: [
          page('Behaviours and tests', '/SPEC-TESTS'),
          page('Models', '/MODELS'),
          page('Faults', '/FAULTS'),
          page('Verified', '/VERIFIED'),
          page('Layout of a channel', '/CHANNEL-LAYOUT'),
        ],
      },
    ],
    socialLinks: [{ icon: 'github', link: repository }],
    footer: { message: 'MIT or Apache-2.0, as you like' },
  },
})

/** Links that leave docs/ lead to the repository; pictures become part of the page, so that they follow its colours. */
function use(md) {
  const plainImage = md.renderer.rules.image
  md.renderer.rules.image = (tokens, index, options, env, self) => {
    const token = tokens[index]
    const from = token.attrGet('src') ?? ''
    if (!/(^|\/)pictures\/[\w-]+\.svg$/.test(from)) return plainImage(tokens, index, options, env, self)
    const text = readFileSync(resolve(dirname(env.path), from), 'utf8')
    // Styles are those of the theme; a template must not hold any.
    const svg = text.replace(/^<\?xml[^>]*>\s*/, '').replace(/<style>[^]*?<\/style>/, '')
    return `<span class="picture" v-pre>${svg}</span>`
  }
  md.core.ruler.push('repository-links', (state) => {
    for (const token of state.tokens.flatMap(({ children }) => children ?? [])) {
      if (token.type !== 'link_open') continue
      const href = token.attrGet('href') ?? ''
      if (/^\/(api|rust)\//.test(href)) token.attrSet('target', '_self')
      if (/^([a-z]+:|#|\/)/.test(href)) continue
      const [path] = href.split('#')
      const target = resolve(dirname(state.env.path), path)
      const page = target.startsWith(docs) && (existsSync(target) ? /\.md$|\/$/.test(path) : existsSync(`${target}.md`))
      if (page) continue
      if (!existsSync(target)) throw new Error(`${state.env.path}: ${href} leads nowhere; name a file of the repository`)
      const kind = statSync(target).isDirectory() ? 'tree' : 'blob'
      token.attrSet('href', `${repository}/${kind}/main/${relative(root, target)}${href.slice(path.length)}`)
    }
  })
}
