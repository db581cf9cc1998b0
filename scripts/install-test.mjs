// npm run test:install: the packed packages, installed into an empty project and used there.
//
//   node scripts/install-test.mjs [--local] [--quick] [--keep]
//
// --local packs the addon of "npm run build" first; --quick type-checks once, with the TypeScript of the checkout; --keep leaves the project.
//
// npm runs no script and finds no compiler, make or Python: its PATH has node and npm alone. It must take the package of this platform and
// no other. Then: ESM and CommonJS programs up to the first event of a timerfd, TypeScript ones under several versions and settings, the
// command, and the snippets of the README. Without --local also the WebAssembly build, as npm installs it for a machine that no addon is for.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { parseArgs } from 'node:util'
import { ANYWHERE, PROGRAMS, SETTINGS, SOURCES, TYPESCRIPTS } from './packages/consumers.mjs'
import { manifestOf, readJson, tarballs, versionsAgree, folder as packages } from './packages/release.mjs'
import { serve } from './packages/registry.mjs'
import { TARGETS } from './packages/targets.mjs'
import { fail, root, run, say, seconds, watch } from './step.mjs'

const LIMIT_MS = 120_000
const QUIET = ['--no-audit', '--no-fund', '--loglevel=error', '--fetch-timeout=60000', '--fetch-retries=4']
const { values } = parseArgs({ options: { local: { type: 'boolean' }, quick: { type: 'boolean' }, keep: { type: 'boolean' } } })
const since = performance.now()
if (values.local) run('pack', process.execPath, [join('scripts', 'pack.mjs'), '--local'])

const version = versionsAgree()
const libc = process.report.getReport().header.glibcVersionRuntime === undefined ? 'musl' : 'gnu'
const mine = `fdmon-linux-${process.arch}-${libc}`
const tarballOf = (name) => join(tarballs, `${name}-${version}.tgz`)
const wasi = 'fdmon-wasm32-wasi'
for (const name of ['fdmon', mine, ...(values.local ? [] : [wasi])]) {
  if (!existsSync(tarballOf(name))) fail(`install: ${tarballOf(name)} is missing; run: npm run packages:pack, or this with --local`)
}
const project = mkdtempSync(join(tmpdir(), 'fdmon-install-'))
process.on('exit', () => values.keep || rmSync(project, { recursive: true, force: true }))
if (values.keep) say(`install: the project is ${project}`)

/** Where each version of TypeScript is, and the folder that has the types of Node. */
const { compilers, types } = values.quick
  ? { compilers: { 'ts5.9': join(root, 'node_modules', 'typescript') }, types: join(root, 'node_modules') }
  : typescripts()
const path = barePath()
const registry = await serve(published(), upstream())
try {
  const { took, began } = await install()
  firstEvent(took, began)
  onlyMine()
  for (const name of Object.keys(PROGRAMS).slice(1)) event(name)
  typeScript()
  command()
  if (!values.local) await fallback()
} finally {
  registry.close()
}
run('README in the project', process.execPath, [join('scripts', 'readme-snippets.mjs'), '--installed', project, 'README.md'])
say(`install: ${mine} of ${version}, all as it must be, ${seconds(since)}`)

/** Everything that the registry would have: the manifests of all packages, the tarballs of those that npm may take here. */
function published() {
  const platforms = TARGETS.map(({ name }) => ({ manifest: manifestOf(name), path: undefined }))
  for (const one of platforms) if ([mine, ...(values.local ? [] : [wasi])].includes(one.manifest.name)) one.path = tarballOf(one.manifest.name)
  return [{ manifest: readJson(join(packages, 'release', 'fdmon', 'package.json')), path: tarballOf('fdmon') }, ...platforms]
}

function upstream() {
  const { stdout } = spawnSync('npm', ['config', 'get', 'registry'], { cwd: root, encoding: 'utf8' })
  return stdout.trim().replace(/\/*$/, '/')
}

/** A folder with node and npm and nothing else. */
function barePath() {
  const bin = join(project, 'bin')
  mkdirSync(bin)
  symlinkSync(process.execPath, join(bin, 'node'))
  const npm = process.env.PATH.split(delimiter).map((folder) => join(folder, 'npm')).find((file) => existsSync(file))
  symlinkSync(npm ?? fail('install: npm is not on the PATH'), join(bin, 'npm'))
  return bin
}

async function install() {
  for (const [name, text] of Object.entries({ ...PROGRAMS, ...SOURCES })) writeFileSync(join(project, name), text)
  const began = performance.now()
  await npmInstall(project)
  return { began, took: performance.now() - began }
}

/** What a user does in an empty folder. */
async function npmInstall(folder, ...more) {
  writeFileSync(join(folder, 'package.json'), '{ "name": "consumer", "version": "1.0.0", "private": true }\n')
  writeFileSync(join(folder, '.npmrc'), `registry=${registry.url}\ncache=${join(project, '.cache')}\n`)
  const args = ['install', `fdmon@${version}`, ...more, '--ignore-scripts', ...QUIET]
  // Not spawnSync: the registry is in this process.
  const { code, text } = await npm(args, folder)
  if (code !== 0) fail(`install: npm ${args.join(' ')}: exit code ${code}\n${text}`)
}

function npm(args, cwd) {
  return watch('npm', args, { cwd, env: { ...plain(), PATH: path } })
}

/** Without what npm hands down to the scripts of the checkout, and without any choice of an addon. */
function plain() {
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(npm_|NAPI_RS_|NODE_OPTIONS$|NODE_PATH$|INIT_CWD$)/.test(name)))
}

function node(args, cwd = project) {
  return spawnSync(process.execPath, args, { cwd, encoding: 'utf8', env: { ...plain(), PATH: path }, timeout: LIMIT_MS })
}

function firstEvent(took, began) {
  event(Object.keys(PROGRAMS)[0])
  const all = performance.now() - began
  say(`install: from the tarball to the first event ${(all / 1000).toFixed(2)} s, of which npm install ${(took / 1000).toFixed(2)} s`)
}

function event(name) {
  const { status, stdout, stderr } = node([name])
  if (status !== 0 || stdout !== 'event true\n') fail(`install: ${name}: exit code ${status}, it said '${stdout.trim()}' and should say 'event true'\n${stderr}`)
}

/** npm took the tarballs that it should, and nothing that is installed runs when it is installed. */
function onlyMine() {
  const wanted = ['fdmon', mine]
  const installed = readdirSync(join(project, 'node_modules')).filter((name) => name.startsWith('fdmon'))
  if (installed.sort().join() !== wanted.join()) fail(`install: node_modules has ${installed.join(', ')}; it should have ${wanted.join(', ')}`)
  const taken = [...new Set(registry.taken)].sort()
  if (taken.join() !== wanted.join()) fail(`install: npm downloaded ${taken.join(', ')}; it should download ${wanted.join(', ')}`)
  const lock = readJson(join(project, 'package-lock.json'))
  const scripts = Object.entries(lock.packages).filter(([, one]) => one.hasInstallScript).map(([name]) => name)
  if (scripts.length > 0) fail(`install: ${scripts.join(', ')} would run a script when installed`)
  const optional = Object.keys(lock.packages['node_modules/fdmon'].optionalDependencies ?? {}).sort()
  const all = TARGETS.map(({ name }) => manifestOf(name).name).sort()
  if (optional.join() !== all.join()) fail(`install: fdmon has the optional packages ${optional.join(', ')}; it should have ${all.join(', ')}`)
  const locked = all.filter((name) => !(`node_modules/${name}` in lock.packages))
  if (locked.length > 0) fail(`install: the lock file lacks ${locked.join(', ')}, so it would not do on another platform`)
  say(`install: npm took ${taken.join(' and ')}, no script, no compiler`)
}

/** The compilers, beside the project, kept between runs. */
function typescripts() {
  const folder = join(root, 'target', 'typescripts')
  const dependencies = { ...Object.fromEntries(Object.entries(TYPESCRIPTS).map(([name, its]) => [name, `npm:typescript@${its}`])), '@types/node': '20.19.0' }
  const wanted = `${JSON.stringify({ private: true, dependencies }, null, 2)}\n`
  const file = join(folder, 'package.json')
  const modules = join(folder, 'node_modules')
  const here = existsSync(file) && readFileSync(file, 'utf8') === wanted && Object.keys(dependencies).every((name) => existsSync(join(modules, name)))
  if (!here) {
    mkdirSync(folder, { recursive: true })
    writeFileSync(file, wanted)
    run('versions of TypeScript', 'npm', ['install', '--ignore-scripts', '--no-package-lock', ...QUIET], { cwd: folder })
  }
  return { compilers: Object.fromEntries(Object.keys(TYPESCRIPTS).map((name) => [name, join(modules, name)])), types: modules }
}

function typeScript() {
  mkdirSync(join(project, 'node_modules', '@types'), { recursive: true })
  for (const name of ['@types/node', 'undici-types']) symlinkSync(join(types, name), join(project, 'node_modules', name))
  const began = performance.now()
  const checked = []
  for (const [name, compilerOptions, files, versions] of values.quick ? SETTINGS.slice(0, 1) : SETTINGS) {
    writeFileSync(join(project, 'tsconfig.json'), JSON.stringify({ compilerOptions, files }))
    for (const compiler of Object.keys(compilers).filter((one) => versions.test(one))) {
      rmSync(join(project, 'out'), { recursive: true, force: true })
      const tsc = node([join(compilers[compiler], 'bin', 'tsc'), '--project', project, '--pretty', 'false'])
      if (tsc.status !== 0) fail(`install: ${compiler}, ${name}: exit code ${tsc.status}\n${tsc.stdout}${tsc.stderr}`)
      checked.push(`${compiler} ${name}`)
    }
    if (name !== 'nodenext' && name !== 'commonjs, node10') continue
    for (const file of readdirSync(join(project, 'out'))) event(join('out', file))
  }
  say(`install: type-checked as ${checked.join('; ')}: ${seconds(began)}`)
}

function command() {
  const { status, stdout, stderr } = node([join('node_modules', '.bin', 'fdmon'), 'probe', '--json'])
  if (status !== 0 || JSON.parse(stdout).native !== true) fail(`install: fdmon probe --json: exit code ${status}\n${stdout}${stderr}`)
  // Here is no taskset and no strace, as at many a user's.
  const few = ['--rounds', '1', '--events', '10', '--gap', '20', '--monitor', 'epoll', '--policy', 'blocking,cost', '--placement', 'free,one']
  const bench = node([join('node_modules', '.bin', 'fdmon'), 'bench', ...few, '--html', 'bench.html', '--json'])
  if (bench.status !== 0 || JSON.parse(bench.stdout).ok !== true) fail(`install: fdmon bench: exit code ${bench.status}\n${bench.stdout}${bench.stderr}`)
  if (!readFileSync(join(project, 'bench.html'), 'utf8').includes('</html>')) fail('install: fdmon bench --html wrote no whole page')
  const top = node([join('node_modules', '.bin', 'fdmon'), 'top', '--json'])
  if (top.status !== 0 || !Array.isArray(JSON.parse(top.stdout).processes)) fail(`install: fdmon top: exit code ${top.status}\n${top.stdout}${top.stderr}`)
  const tune = node([join('node_modules', '.bin', 'fdmon'), 'tune', '--quick', '--json', '--', process.execPath, '--version'])
  if (tune.status !== 0 || JSON.parse(tune.stdout).ok !== true) fail(`install: fdmon tune: exit code ${tune.status}\n${tune.stdout}${tune.stderr}`)
}

/** Where npm finds no addon for the processor it takes the WebAssembly build, and the loader takes that. */
async function fallback() {
  // Not below the project, whose packages would be found from there.
  const folder = mkdtempSync(join(tmpdir(), 'fdmon-fallback-'))
  process.on('exit', () => values.keep || rmSync(folder, { recursive: true, force: true }))
  writeFileSync(join(folder, 'anywhere.mjs'), ANYWHERE)
  const began = performance.now()
  await npmInstall(folder, '--cpu=wasm32')
  const installed = readdirSync(join(folder, 'node_modules')).filter((name) => name.startsWith('fdmon')).sort()
  if (installed.join() !== ['fdmon', wasi].join()) fail(`install: for wasm32 node_modules has ${installed.join(', ')}; it should have fdmon, ${wasi}`)
  const { status, stdout, stderr } = node(['--no-warnings', 'anywhere.mjs'], folder)
  if (status !== 0 || stdout !== 'event wasi\n') fail(`install: the WebAssembly build: exit code ${status}, it said '${stdout.trim()}' and should say 'event wasi'\n${stderr}`)
  say(`install: without an addon ${wasi} serves, ${seconds(began)}`)
}
