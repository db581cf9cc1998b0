// The documentation site in target/site: the pages of docs/ by VitePress, /api by typedoc, /rust by rustdoc.
//
//   npm run docs:site              builds it
//   npm run docs:site -- --check   and looks at it: every link, and every page in Chromium, with pictures in target/site-pictures
//   npm run docs:site -- --only check,pages,api,rust,pictures   some of the steps
import { spawnSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { fail, install, needCargo, root, run, say, seconds } from './step.mjs'

const since = performance.now()
const { values } = parseArgs({ options: { check: { type: 'boolean' }, only: { type: 'string' } } })
const site = join(root, 'target', 'site')
const steps = { pictures, pages, api, rust, ...(values.check || values.only ? { check } : {}) }
const chosen = values.only?.split(',') ?? Object.keys(steps)
for (const name of chosen) if (!(name in steps)) fail(`docs:site: there is no step "${name}"; there are ${Object.keys(steps).join(', ')}`)

install()
for (const name of chosen) {
  const begin = performance.now()
  const note = await steps[name]()
  say(`docs:site, ${name}: ${note}, ${seconds(begin)}`)
}
say(`docs:site: target/site, ${seconds(since)}`)

/** The drawn ones must be what their data give. */
function pictures() {
  run('pictures', process.execPath, [join('scripts', 'pictures.mjs'), '--check'])
  return 'as their data give them'
}

async function pages() {
  rmSync(site, { recursive: true, force: true })
  const { build } = await import('vitepress')
  await build(join(root, 'docs'))
  return `${htmlBelow(site).length} pages`
}

async function api() {
  const { Application } = await import('typedoc')
  const app = await Application.bootstrapWithPlugins({
    entryPoints: [join(root, 'ts', 'index.ts'), join(root, 'ts', 'fd.ts')],
    tsconfig: join(root, 'tsconfig.build.json'),
    name: 'fdmon',
    readme: 'none',
    // The addresses of sources need a commit that is published; the names of files are enough.
    disableSources: true,
    excludeInternal: true,
    excludePrivate: true,
    githubPages: false,
    navigationLinks: { Guide: process.env.FDMON_SITE_BASE ?? '/' },
    // That every name has a description is what scripts/api-docs.mjs checks.
    validation: { notExported: false, invalidLink: true, notDocumented: false },
    treatWarningsAsErrors: true,
    logLevel: 'Warn',
  })
  const project = await app.convert()
  if (!project) fail('docs:site: typedoc cannot read ts/; look above for the reason')
  // As they are imported, not as the files are called.
  for (const entry of project.children ?? []) entry.name = entry.name === 'index' ? 'fdmon' : `fdmon/${entry.name}`
  app.validate(project)
  await app.generateDocs(project, join(site, 'api'))
  if (app.logger.hasErrors() || app.logger.hasWarnings()) fail('docs:site: typedoc complains; look above')
  return `${htmlBelow(join(site, 'api')).length} pages`
}

/** In a folder of its own: target/doc may hold the pages of other crates, which would come along in the search. */
function rust() {
  needCargo()
  const target = join(root, 'target', 'site-rust')
  rmSync(join(target, 'doc'), { recursive: true, force: true })
  const args = ['doc', '--quiet', '--package', 'fdmon', '--all-features', '--no-deps', '--target-dir', target]
  const { status } = spawnSync('cargo', args, { cwd: root, stdio: 'inherit', env: { ...process.env, RUSTDOCFLAGS: '-D warnings' } })
  if (status !== 0) fail('docs:site: cargo doc failed; look above for the reason')
  mkdirSync(site, { recursive: true })
  rmSync(join(site, 'rust'), { recursive: true, force: true })
  cpSync(join(target, 'doc'), join(site, 'rust'), { recursive: true })
  const there = 'fdmon/index.html'
  writeFileSync(join(site, 'rust', 'index.html'), `<!doctype html><html lang="en"><meta charset="utf-8"><title>fdmon</title><meta http-equiv="refresh" content="0; url=${there}"><a href="${there}">The crate fdmon</a></html>\n`)
  return `${htmlBelow(join(site, 'rust')).length} pages`
}

async function check() {
  if (!existsSync(join(site, 'index.html'))) fail('docs:site: target/site is missing; run: npm run docs:site')
  const { checkLinks } = await import('./site/links.mjs')
  const { lookAtPages } = await import('./site/pages.mjs')
  const begin = performance.now()
  const links = await checkLinks(site)
  say(`docs:site, links: ${links}, ${seconds(begin)}`)
  const seen = await lookAtPages(site, htmlBelow(site), join(root, 'target', 'site-pictures'))
  return seen
}

/** Paths of the HTML files of a folder, relative to it. */
function htmlBelow(folder) {
  return readdirSync(folder, { recursive: true }).filter((name) => name.endsWith('.html')).sort()
}
