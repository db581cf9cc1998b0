// How the addon is found. Each test lays out an installed package and starts a process in it that may believe to be elsewhere.
//
// The addons are programs that answer capabilities() with a name; what libraries really do is tested where a message says it.
import { spawnSync } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import test, { type ExecutionContext } from 'ava'
import { build } from 'esbuild'

const root = fileURLToPath(new URL('..', import.meta.url))
const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string }
const PLATFORMS = ['linux-x64-gnu', 'linux-x64-musl', 'linux-arm64-gnu', 'linux-arm64-musl']
const MAPPED = { gnu: '/usr/lib/x86_64-linux-gnu/libc.so.6', musl: '/lib/ld-musl-x86_64.so.1' }

/** Where a process believes to be, and how it is started. */
interface Place {
  platform?: string
  arch?: string
  /** The paths in /proc/self/maps; null when there is no such file. */
  maps?: string[] | null
  /** What process.report says; null when it cannot. */
  report?: object | null
  env?: Record<string, string>
  /** Whether a .node is a library, not a program of these tests. */
  libraries?: boolean
}

interface Said {
  loaded?: string
  code?: string
  message?: string
  causes?: string[]
  /** Child processes that were started. */
  spawned: number
  /** `process.report.excludeNetwork` before, during and after a report. */
  network: unknown[]
}

/** A folder with fdmon as it is installed, and the addons that are asked for: by package name, or by path. */
function installed(t: ExecutionContext, addons: string[] = [], text = addon): string {
  const folder = mkdtempSync(join(tmpdir(), 'fdmon-loader-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const home = join(folder, 'node_modules', 'fdmon')
  cpSync(join(root, 'dist'), join(home, 'dist'), { recursive: true })
  cpSync(join(root, 'package.json'), join(home, 'package.json'))
  for (const name of addons) {
    const inPackage = name.startsWith('fdmon-')
    const path = inPackage ? join('node_modules', name, 'index.cjs') : name
    put(folder, path, text(name))
    if (inPackage) put(folder, join('node_modules', name, 'package.json'), JSON.stringify({ name, version, main: 'index.cjs' }))
  }
  return folder
}

function put(folder: string, path: string, text: string): void {
  mkdirSync(dirname(join(folder, path)), { recursive: true })
  writeFileSync(join(folder, path), text)
}

function addon(name: string, its = version): string {
  return `exports.VERSION = '${its}'; exports.init = () => {}; exports.fdHot = () => ({}); exports.capabilities = () => '${name}'`
}

/** Makes the process believe, and counts what the loader must not do. */
const pretend = `
  const fs = require('node:fs')
  const children = require('node:child_process')
  const place = JSON.parse(process.env.PLACE)
  globalThis.seen = { spawned: 0, network: [] }
  for (const name of Object.keys(children)) if (/^(spawn|exec|fork)/.test(name)) children[name] = () => { seen.spawned++; throw new Error('no children') }
  for (const name of ['platform', 'arch']) if (place[name]) Object.defineProperty(process, name, { value: place[name] })
  const { readFileSync } = fs
  fs.readFileSync = (path, ...rest) => {
    if (path !== '/proc/self/maps' || place.maps === undefined) return readFileSync(path, ...rest)
    if (place.maps === null) throw Object.assign(new Error('no such file'), { code: 'ENOENT' })
    return place.maps.map((path) => '7f0000000000-7f0000001000 r-xp 00000000 fe:00 123        ' + path + '\\n').join('')
  }
  if (place.report !== undefined) {
    seen.network.push(process.report.excludeNetwork)
    process.report.getReport = () => {
      seen.network.push(process.report.excludeNetwork)
      if (place.report === null) throw new Error('no report')
      return place.report
    }
  }
  if (!place.libraries) require('node:module')._extensions['.node'] = (module, path) => module._compile(readFileSync(path, 'utf8'), path)
`

const main = `
  const fdmon = require('fdmon')
  let said
  try {
    said = { loaded: fdmon.capabilities() }
  } catch ({ code, message, cause }) {
    said = { code, message, causes: cause.errors.map((error) => error.message) }
  }
  if (seen.network.length > 0) seen.network.push(process.report.excludeNetwork)
  console.log(JSON.stringify({ ...said, ...seen }))
`

function start(folder: string, place: Place = {}): Said {
  put(folder, 'pretend.cjs', pretend)
  const { env, ...rest } = { arch: 'x64', maps: [MAPPED.gnu], ...place }
  const own = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('NAPI_RS_')))
  const child = spawnSync(process.execPath, ['--require', './pretend.cjs', '--eval', main], {
    cwd: folder,
    encoding: 'utf8',
    env: { ...own, NODE_OPTIONS: '', PLACE: JSON.stringify(rest), ...env },
  })
  if (child.status !== 0) throw new Error(child.stderr)
  return JSON.parse(child.stdout) as Said
}

/** The places that a message lists, with their reasons. */
function places({ message = '' }: Said): string[] {
  return message.split('\n').filter((line) => line.startsWith('  ')).map((line) => line.trim())
}

for (const platform of PLATFORMS) {
  test(`${platform}: its package is taken, and no other`, (t) => {
    const [, arch, libc] = platform.split('-') as [string, string, 'gnu' | 'musl']
    const folder = installed(t, [...PLATFORMS.map((name) => `fdmon-${name}`), 'fdmon-wasm32-wasi'])
    t.like(start(folder, { arch, maps: [MAPPED[libc]] }), { loaded: `fdmon-${platform}`, spawned: 0 })
  })

  test(`${platform}: a build of the checkout goes before the package`, (t) => {
    const [, arch, libc] = platform.split('-') as [string, string, 'gnu' | 'musl']
    const file = `node_modules/fdmon/native/fdmon.${platform}.node`
    const folder = installed(t, [file, `fdmon-${platform}`])
    t.like(start(folder, { arch, maps: [MAPPED[libc]] }), { loaded: file, spawned: 0 })
  })
}

const LIBRARIES: [string, 'gnu' | 'musl'][] = [
  ['/usr/lib/x86_64-linux-gnu/libc.so.6', 'gnu'],
  ['/lib/x86_64-linux-gnu/libc-2.31.so', 'gnu'],
  ['/lib64/ld-2.17.so', 'gnu'],
  ['/nix/store/abc-glibc-2.40/lib/ld-linux-x86-64.so.2', 'gnu'],
  ['/usr/lib/libc.so.6 (deleted)', 'gnu'],
  ['/lib/ld-musl-x86_64.so.1', 'musl'],
  ['/lib/ld-musl-aarch64.so.1 (deleted)', 'musl'],
  ['/lib/libc.musl-x86_64.so.1', 'musl'],
  ['/usr/lib/x86_64-linux-musl/libc.so', 'musl'],
]
test('the C library is told by what is mapped, not by the names of folders', (t) => {
  const folder = installed(t, ['fdmon-linux-x64-gnu', 'fdmon-linux-x64-musl'])
  for (const [path, libc] of LIBRARIES) {
    const maps = ['/srv/ld-musl-tests/libc.so.6/node', path, '/srv/ld-linux-1/ld-musl-2/addon.node', '[stack]']
    t.like(start(folder, { maps }), { loaded: `fdmon-linux-x64-${libc}` }, path)
  }
})

test('without /proc a report tells the C library, and looks up no peer', (t) => {
  const folder = installed(t, ['fdmon-linux-x64-gnu', 'fdmon-linux-x64-musl'])
  const reports: [object, string][] = [
    [{ header: { glibcVersionRuntime: '2.36' } }, 'gnu'],
    [{ header: {}, sharedObjects: ['/usr/bin/node', MAPPED.musl] }, 'musl'],
  ]
  for (const [report, libc] of reports) {
    const said = start(folder, { maps: null, report })
    const [before, during, after] = said.network
    t.is(said.loaded, `fdmon-linux-x64-${libc}`)
    t.is(during, true)
    t.is(after, before)
  }
})

test('when nothing tells the C library, musl is tried before glibc', (t) => {
  for (const report of [null, {}, { header: {} }]) {
    const both = installed(t, ['fdmon-linux-x64-gnu', 'fdmon-linux-x64-musl'])
    t.is(start(both, { maps: null, report }).loaded, 'fdmon-linux-x64-musl')
    t.is(start(installed(t, ['fdmon-linux-x64-gnu']), { maps: [], report }).loaded, 'fdmon-linux-x64-gnu')
  }
})

test('the C library of this process is known by /proc and by its report alike', (t) => {
  const { glibcVersionRuntime } = (process.report.getReport() as { header: { glibcVersionRuntime?: string } }).header
  const libc = glibcVersionRuntime === undefined ? 'musl' : 'gnu'
  const folder = installed(t, PLATFORMS.map((name) => `fdmon-${name}`))
  const wanted = `fdmon-linux-${process.arch}-${libc}`
  const here = spawnSync(process.execPath, ['--eval', 'console.log(require("fdmon").capabilities())'], { cwd: folder, encoding: 'utf8' })
  t.is(here.stdout.trim(), wanted, here.stderr)
  t.is(start(folder, { arch: process.arch, maps: null }).loaded, wanted)
})

test('where no package fits, the WebAssembly build is taken', (t) => {
  const folder = installed(t, [...PLATFORMS.map((name) => `fdmon-${name}`), 'fdmon-wasm32-wasi'])
  t.is(start(folder, { arch: 'riscv64' }).loaded, 'fdmon-wasm32-wasi')
  t.is(start(folder, { platform: 'darwin', arch: 'arm64' }).loaded, 'fdmon-wasm32-wasi')
  t.is(start(installed(t, ['fdmon-wasm32-wasi'])).loaded, 'fdmon-wasm32-wasi')
  const file = 'node_modules/fdmon/native/fdmon.wasi.cjs'
  t.is(start(installed(t, ['fdmon-wasm32-wasi', file]), { arch: 'riscv64' }).loaded, file)
})

test('NAPI_RS_FORCE_WASI: true and 1 prefer the WebAssembly build, error insists on it, all else changes nothing', (t) => {
  const both = installed(t, ['fdmon-linux-x64-gnu', 'fdmon-wasm32-wasi'])
  const native = installed(t, ['fdmon-linux-x64-gnu'])
  const table: [string, string, string | undefined][] = [
    ['', 'fdmon-linux-x64-gnu', 'fdmon-linux-x64-gnu'],
    ['0', 'fdmon-linux-x64-gnu', 'fdmon-linux-x64-gnu'],
    ['false', 'fdmon-linux-x64-gnu', 'fdmon-linux-x64-gnu'],
    ['true', 'fdmon-wasm32-wasi', 'fdmon-linux-x64-gnu'],
    ['1', 'fdmon-wasm32-wasi', 'fdmon-linux-x64-gnu'],
    ['error', 'fdmon-wasm32-wasi', undefined],
  ]
  for (const [value, withBoth, withNative] of table) {
    const env = { NAPI_RS_FORCE_WASI: value }
    t.is(start(both, { env }).loaded, withBoth, value)
    t.is(start(native, { env }).loaded, withNative, value)
  }
  const refused = start(native, { env: { NAPI_RS_FORCE_WASI: 'error' } })
  t.is(refused.code, 'ERR_FDMON_BINDING')
  const tried = places(refused)
  t.is(tried.length, 2)
  t.regex(tried[0]!, /\/native\/fdmon\.wasi\.cjs: Cannot find module/)
  t.regex(tried[1]!, /^fdmon-wasm32-wasi: Cannot find module/)
  t.regex(refused.message!, /\nunset NAPI_RS_FORCE_WASI, or install fdmon again/)
})

test('NAPI_RS_NATIVE_LIBRARY_PATH names the file to load, seen from the working directory', (t) => {
  const folder = installed(t, ['fdmon-linux-x64-gnu', 'node_modules/fdmon/native/fdmon.linux-x64-gnu.node', 'mine/own.node', 'mine/own.cjs'])
  for (const path of ['mine/own.node', './mine/own.cjs', join(folder, 'mine', 'own.node')]) {
    const { loaded } = start(folder, { env: { NAPI_RS_NATIVE_LIBRARY_PATH: path } })
    t.is(loaded, path.endsWith('.cjs') ? 'mine/own.cjs' : 'mine/own.node')
  }
})

test('a file named by NAPI_RS_NATIVE_LIBRARY_PATH that cannot be loaded is an error, whatever else is there', (t) => {
  const folder = installed(t, ['fdmon-linux-x64-gnu', 'fdmon-wasm32-wasi'])
  const said = start(folder, { env: { NAPI_RS_NATIVE_LIBRARY_PATH: 'gone.node' } })
  t.is(said.code, 'ERR_FDMON_BINDING')
  const [only, ...others] = places(said)
  t.true(only?.startsWith(`${join(folder, 'gone.node')}: Cannot find module`), only)
  t.deepEqual(others, [])
  t.regex(said.message!, /\nunset NAPI_RS_NATIVE_LIBRARY_PATH, or install fdmon again/)
  const forced = start(folder, { env: { NAPI_RS_NATIVE_LIBRARY_PATH: 'gone.node', NAPI_RS_FORCE_WASI: 'true' } })
  t.is(forced.loaded, 'fdmon-wasm32-wasi')
})

test('the addon of another version, or of another package, is refused in words', (t) => {
  const other = installed(t, ['fdmon-linux-x64-gnu'], (name) => addon(name, '0.0.1'))
  t.true(places(start(other)).includes(`fdmon-linux-x64-gnu: it is the addon of fdmon 0.0.1, and this is fdmon ${version}`))
  const strange = installed(t, ['strange.node'], () => 'exports.transform = () => {}')
  const said = start(strange, { env: { NAPI_RS_NATIVE_LIBRARY_PATH: 'strange.node' } })
  t.deepEqual(places(said), [`${join(strange, 'strange.node')}: it is no addon of fdmon, or an old one, and this is fdmon ${version}`])
  t.is(start(installed(t, ['fdmon-linux-x64-gnu', 'fdmon-wasm32-wasi'], (name) => addon(name, name.endsWith('wasi') ? version : '9.9.9'))).loaded, 'fdmon-wasm32-wasi')
})

test('when nothing can be loaded, the error names every place and what was wrong there, and only when it is used', (t) => {
  const folder = installed(t, ['node_modules/fdmon/native/fdmon.linux-x64-gnu.node', 'fdmon-linux-x64-gnu'], () => 'no library')
  const manifest = { name: 'fdmon-linux-x64-gnu', version, main: 'fdmon.linux-x64-gnu.node' }
  put(folder, 'node_modules/fdmon-linux-x64-gnu/package.json', JSON.stringify(manifest))
  put(folder, 'node_modules/fdmon-linux-x64-gnu/fdmon.linux-x64-gnu.node', `\x7fELF${'x'.repeat(4096)}`)
  put(folder, 'node_modules/fdmon-wasm32-wasi/package.json', JSON.stringify({ name: 'fdmon-wasm32-wasi', version, main: 'gone.cjs' }))
  const said = start(folder, { libraries: true })
  const tried = places(said)
  t.is(said.code, 'ERR_FDMON_BINDING')
  t.is(tried.length, 4)
  t.regex(tried[0]!, /^\/.*\/node_modules\/fdmon\/native\/fdmon\.linux-x64-gnu\.node: .*file too short/)
  t.regex(tried[1]!, /^fdmon-linux-x64-gnu: .*\/fdmon-linux-x64-gnu\/fdmon\.linux-x64-gnu\.node: .*(invalid|ELF)/)
  t.regex(tried[2]!, /^\/.*\/node_modules\/fdmon\/native\/fdmon\.wasi\.cjs: Cannot find module/)
  t.regex(tried[3]!, /^fdmon-wasm32-wasi: Cannot find module '.*\/fdmon-wasm32-wasi\/gone\.cjs'/)
  t.is(said.causes?.length, 4)
  t.regex(said.message!, /^the native part of fdmon for linux-x64-gnu could not be loaded:\n/)
  t.regex(said.message!, /\ninstall fdmon again with its optional dependencies .*npm run build/)
  t.regex(start(folder, { platform: 'darwin' }).message!, /^the native part of fdmon for darwin x64, for which there is no package, could not/)
})

test('an addon that throws while it starts is an error with its reason', (t) => {
  const folder = installed(t, ['fdmon-linux-x64-gnu'], (name) => `${addon(name)}; exports.init = () => { throw new Error('no room') }`)
  const child = spawnSync(process.execPath, ['--eval', 'try { require("fdmon").capabilities() } catch (error) { console.log(error.code, error.message) }'], {
    cwd: folder,
    encoding: 'utf8',
    env: { ...process.env, NAPI_RS_NATIVE_LIBRARY_PATH: 'node_modules/fdmon-linux-x64-gnu/index.cjs' },
  })
  t.is(child.stdout.trim(), 'ERR_FDMON_BINDING the native part of fdmon was loaded and could not start: Error: no room; report this')
})

for (const format of ['cjs', 'esm'] as const) {
  test(`a bundle of ${format} modules has the addon of the package that is there, and runs elsewhere`, async (t) => {
    const name = `fdmon-linux-${process.arch}-gnu`
    const folder = installed(t, [])
    const addonFile = join(root, 'native', `fdmon.linux-${process.arch}-gnu.node`)
    put(folder, `node_modules/${name}/package.json`, JSON.stringify({ name, version, main: 'addon.node' }))
    symlinkSync(addonFile, join(folder, 'node_modules', name, 'addon.node'))
    put(folder, 'main.mjs', "import { AioContext, IoThread } from 'fdmon'\nconst ctx = new AioContext()\nctx.timer(() => ctx.stop()).arm(1)\nctx.run()\nconsole.log('rang')\ntry { new IoThread('./x.mjs') } catch ({ code, message }) { console.log(code, message) }\n")
    const banner = { js: "import { createRequire } from 'node:module'\nconst require = createRequire(import.meta.url)" }
    const out = join(folder, 'elsewhere')
    const { metafile } = await build({
      absWorkingDir: folder,
      entryPoints: ['main.mjs'],
      bundle: true,
      platform: 'node',
      format,
      outdir: out,
      outExtension: { '.js': format === 'cjs' ? '.cjs' : '.mjs' },
      loader: { '.node': 'copy' },
      metafile: true,
      logLevel: 'silent',
      ...(format === 'esm' ? { banner } : {}),
    })
    t.true(Object.keys(metafile.inputs).some((path) => path.endsWith('.node')), Object.keys(metafile.inputs).join('\n'))
    rmSync(join(folder, 'node_modules'), { recursive: true })
    const child = spawnSync(process.execPath, [join(out, format === 'cjs' ? 'main.cjs' : 'main.mjs')], { cwd: '/', encoding: 'utf8' })
    t.regex(child.stdout, /^rang\nERR_FDMON_UNSUPPORTED an IoThread .*external/, child.stderr)
  })
}
