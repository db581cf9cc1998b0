// npm run test:wasi: the WebAssembly build, on Node 20, 22, 24 and 26 and on wasmtime.
//
//   node scripts/test-wasi.mjs [--only core|package] [--no-build] [--check]
//
// core: the conformance suite of the crate, as a plain program for wasm32-wasip1 under node:wasi and wasmtime.
// package: __test__/wasi/suite.mjs on the package wasm32-wasi, through the loader, in a project where both packages lie.
//
// --check runs both on this Node alone and writes nothing.
//
// Builds what is tested, and the toolchain at the first time. What ran, and how many tests, goes into docs/runs/wasi.json. A runtime that is
// missing fails, with the command that gets it.
import { spawnSync } from 'node:child_process'
import { copyFileSync, cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { release } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { gzipSync } from 'node:zlib'
import Table from 'cli-table3'
import { writeRuns } from './runs.mjs'
import { fail, install, needCargo, root, run, say } from './step.mjs'
import { targetsOf } from './packages/targets.mjs'
import { toolchain } from './packages/toolchain.mjs'

const NODES = ['20', '22', '24', '26']
const WASMTIME = 'wasmtime==50.0.1'
const TEST_MS = 180_000

const { values } = parseArgs({ options: { only: { type: 'string' }, 'no-build': { type: 'boolean' }, check: { type: 'boolean' } } })
if (values.only !== undefined && !['core', 'package'].includes(values.only)) fail(`--only = '${values.only}' is none of core, package`, 2)
const folder = join(root, 'target', 'wasi')
const artifacts = join(root, 'target', 'packages', 'artifacts')

needCargo()
install()
mkdirSync(folder, { recursive: true })
const own = { version: process.versions.node, program: process.execPath }
const nodes = values.check ? [own] : NODES.map(nodeOf)
const rows = []
if (values.only !== 'package') core()
if (values.only !== 'core') packaged()

const table = new Table({ head: ['what', 'runtime', 'passed', 'left out', 'result'], style: { head: [], border: [] }, colAligns: ['left', 'left', 'right', 'right'] })
table.push(...rows.map(({ what, runtime, passed, ignored, ok }) => [what, runtime, passed, ignored, ok ? 'passed' : 'FAILED']))
process.stdout.write(`${table.toString()}\n`)
if (!values.check) writeRuns('wasi', rows.map(ran))
const failed = rows.filter(({ ok }) => !ok)
if (failed.length > 0) fail(`wasi: ${failed.length} of ${rows.length} rows failed`)
say(`wasi: ${rows.length} rows passed`)

/** The crate's own suite. What cannot be on WASI is marked in the tests, with the reason. */
function core() {
  const temporary = join(folder, 'tmp')
  mkdirSync(temporary, { recursive: true })
  const onNode = nodes.map(({ version, program: node }) => [`Node ${version}`, node, ['--no-warnings', 'scripts/wasi/run.mjs']])
  const runs = { 'wasm32-wasip1': [...onNode, ...(values.check ? [] : [['wasmtime 50', wasmtime(), ['scripts/wasi/run.py']]])] }
  for (const [triple, runtimes] of Object.entries(runs)) {
    const program = buildCore(triple)
    for (const [runtime, command, args] of runtimes) {
      const { status, text } = shown(command, [...args, temporary, program])
      const [, passed, , ignored] = /test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored/.exec(text) ?? []
      // A test that fails ends the program: WebAssembly does not unwind.
      rows.push({ target: triple, ...row(`conformance, ${triple}`, runtime, status === 0, passed, ignored, text) })
    }
  }
}

function buildCore(triple) {
  const args = ['test', '--package', 'fdmon', '--test', 'conformance', '--target', triple, '--no-run', '--locked', '--message-format', 'json']
  // Rust's library is built along for the native programs of WASI too, where nothing unwinds.
  const env = { ...toolchain('wasi'), CARGO_TARGET_DIR: join(root, 'target', 'wasi-build'), CARGO_PROFILE_DEV_OPT_LEVEL: '1' }
  const stdio = ['ignore', 'pipe', 'inherit']
  const { status, stdout } = spawnSync('cargo', args, { cwd: root, env, encoding: 'utf8', stdio, maxBuffer: 1 << 26 })
  if (status !== 0) fail('wasi: the conformance suite does not build; look above')
  const made = stdout.split('\n').filter(Boolean).map((line) => JSON.parse(line))
  return made.findLast((message) => message.target?.name === 'conformance' && message.executable).executable
}

/** The package, through the loader. */
function packaged() {
  if (!values['no-build']) {
    run('package', process.execPath, [join('scripts', 'build-targets.mjs'), 'wasm32-wasi'])
    run('TypeScript', process.execPath, [join('scripts', 'build.mjs'), 'ts'])
  }
  const project = makeProject()
  const wasm = join(artifacts, 'fdmon.wasm32-wasi.wasm')
  say(`package: ${statSync(wasm).size.toLocaleString('en')} bytes, ${gzipSync(readFileSync(wasm), { level: 9 }).length.toLocaleString('en')} packed`)
  for (const force of ['error', 'true']) {
    for (const { version, program } of force === 'error' ? nodes : nodes.slice(0, 1)) {
      const env = { ...process.env, NAPI_RS_FORCE_WASI: force, NODE_OPTIONS: '--no-warnings' }
      const { status, text } = shown(program, ['--test', '--test-reporter=tap', join(project, 'suite.mjs')], { cwd: project, env })
      const passed = /^# pass (\d+)$/m.exec(text)?.[1]
      const skipped = /^# skipped (\d+)$/m.exec(text)?.[1]
      rows.push({ target: 'wasm32-wasi', how: `NAPI_RS_FORCE_WASI=${force}`, ...row(`package, NAPI_RS_FORCE_WASI=${force}`, `Node ${version}`, status === 0, passed, skipped, text) })
    }
  }
}

/** As npm installs it: the copies lie where Node looks for packages; what they depend on is the checkout's. */
function makeProject() {
  const project = join(folder, 'project')
  rmSync(project, { recursive: true, force: true })
  const modules = join(project, 'node_modules')
  for (const name of ['fdmon', 'fdmon-wasm32-wasi']) mkdirSync(join(modules, name), { recursive: true })
  writeFileSync(join(project, 'package.json'), '{ "type": "module", "private": true }\n')
  cpSync(join(root, 'dist'), join(modules, 'fdmon', 'dist'), { recursive: true })
  copyFileSync(join(root, 'package.json'), join(modules, 'fdmon', 'package.json'))
  copyFileSync(join(root, 'npm', 'wasm32-wasi', 'package.json'), join(modules, 'fdmon-wasm32-wasi', 'package.json'))
  for (const file of targetsOf(['wasm32-wasi'], fail)[0].files) {
    // What is written by hand is taken from where it is written.
    const from = file.endsWith('.wasm') ? join(artifacts, file) : join(root, 'npm', 'wasm32-wasi', file)
    if (!existsSync(from)) fail(`wasi: ${from} is missing; run: npm run packages:build -- wasm32-wasi`)
    copyFileSync(from, join(modules, 'fdmon-wasm32-wasi', file))
  }
  for (const file of readdirSync(join(root, '__test__', 'wasi'))) copyFileSync(join(root, '__test__', 'wasi', file), join(project, file))
  return project
}

function row(what, runtime, ok, passed, ignored, text) {
  // A run that tells nothing, or tested nothing, has not passed.
  const told = Number(passed ?? 0) > 0
  if (!ok || !told) process.stderr.write(`${text.slice(-6000)}\n`)
  say(`${what}, ${runtime}: ${ok && told ? `${passed} passed` : 'FAILED'}`)
  return { what, runtime, passed: Number(passed ?? 0), ignored: Number(ignored ?? 0), ok: ok && told }
}

/** As docs/runs has it: a row that is bad says so by one failure, since a program that broke down does not tell how many. */
function ran({ target, how, runtime, passed, ok }) {
  const failed = ok ? 0 : 1
  return { target, ...(how ? { how } : {}), runtime, kernel: release(), monitor: 'wasi', tests: passed + failed, passed, failed }
}

function shown(command, args, options = {}) {
  const { status, signal, stdout, stderr, error } = spawnSync(command, args, { cwd: root, encoding: 'utf8', timeout: TEST_MS, maxBuffer: 1 << 26, ...options })
  return { status, text: `${stdout}${stderr}${error ? `${error.message}\n` : ''}${status === 0 ? '' : `ended with ${signal ?? status}\n`}` }
}

/** This Node, where it has that version; else the one of target/runtimes. */
function nodeOf(major) {
  if (process.versions.node.startsWith(`${major}.`)) return own
  const list = join(root, 'target', 'runtimes', 'programs.json')
  const known = existsSync(list) ? JSON.parse(readFileSync(list, 'utf8')) : []
  const found = known.find(({ name, program }) => name === `node${major}` && existsSync(program))
  return found ?? fail(`wasi: Node ${major} is missing; run: ${major === '20' ? 'this script with Node 20' : 'npm run runtimes'}`)
}

/** A Python that has wasmtime, in target/wasi. */
function wasmtime() {
  const python = join(folder, 'wasmtime', 'bin', 'python3')
  if (spawnSync(python, ['-c', 'import wasmtime']).status !== 0) {
    run('a folder for wasmtime', 'python3', ['-m', 'venv', join(folder, 'wasmtime')])
    run('wasmtime', python, ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', WASMTIME])
  }
  return python
}
