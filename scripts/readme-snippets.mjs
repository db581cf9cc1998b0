// Runs the code that the documentation shows, as a user would: in a folder of its own, with the package linked.
//
//   node scripts/readme-snippets.mjs [FILE | FOLDER ...]      without a name: README.md and the examples in ts/
//   node scripts/readme-snippets.mjs --installed PROJECT ...  with the package that is installed there, and without the Rust blocks
//
// TypeScript is type-checked against the package's declarations first (which checks these too), then everything is run:
// js and ts by Node, rust as a program with the crate as dependency, sh by bash. A block whose fence says "no-run" is
// type-checked at most.
import { spawn, spawnSync } from 'node:child_process'
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { fail, root, say, seconds } from './step.mjs'
import { snippetsOf } from './snippets.mjs'

const LIMIT_MS = 30_000
const AT_ONCE = 2
/** Crates that a page compares fdmon with, for the Rust blocks that use them. */
const COMPARED = {
  event_manager: 'event-manager = "=0.4.2"',
  mio: 'mio = { version = "=1.2.5", features = ["os-ext", "os-poll"] }',
}
const since = performance.now()
const { values, positionals } = parseArgs({ options: { installed: { type: 'string' } }, allowPositionals: true })
const sources = positionals.length > 0 ? positionals : ['README.md', 'ts']
const modules = values.installed && join(values.installed, 'node_modules')
for (const source of sources) if (!existsSync(join(root, source))) fail(`snippets: ${source} is missing; write it first`)
const wanted = ({ language }) => !modules || language !== 'rust'
const snippets = sources.flatMap(snippetsOf).filter(wanted).map((snippet, index) => ({ ...snippet, name: `s${index + 1}` }))
if (snippets.length === 0) fail(`snippets: no js, ts, rust or sh block in ${sources.join(', ')}`)

const folder = mkdtempSync(join(tmpdir(), 'fdmon-snippets-'))
process.on('exit', () => rmSync(folder, { recursive: true, force: true }))
const failures = []

layOut()
typeCheck()
const rust = snippets.filter((snippet) => snippet.language === 'rust')
if (rust.length > 0) buildRust(rust)
const queue = snippets.filter((snippet) => !snippet.info.includes('no-run') && !snippet.broken)
const runs = queue.length
await Promise.all(Array.from({ length: AT_ONCE }, worker))

const kinds = new Map()
for (const { language } of snippets) kinds.set(language, (kinds.get(language) ?? 0) + 1)
for (const text of failures) process.stderr.write(`${text}\n`)
const counts = [...kinds].map(([language, count]) => `${count} ${language}`).join(', ')
const summary = `snippets of ${sources.join(', ')}: ${counts}; ${runs} run, ${failures.length} failed, ${seconds(since)}`
if (failures.length > 0) fail(summary)
say(summary)

function layOut() {
  mkdirSync(join(folder, 'node_modules', '.bin'), { recursive: true })
  mkdirSync(join(folder, 'node_modules', '@types'))
  symlinkSync(modules ? join(modules, 'fdmon') : root, join(folder, 'node_modules', 'fdmon'))
  symlinkSync(join(root, 'node_modules', '@types', 'node'), join(folder, 'node_modules', '@types', 'node'))
  const command = join(modules ? join(modules, 'fdmon') : root, 'dist', 'cjs', 'cli', 'main.js')
  symlinkSync(command, join(folder, 'node_modules', '.bin', 'fdmon'))
  writeFileSync(join(folder, 'package.json'), '{ "name": "snippets", "private": true, "type": "module" }\n')
  for (const { language, name, code } of snippets) {
    if (language === 'ts') writeFileSync(join(folder, `${name}.ts`), `${code}\nexport {}\n`)
    if (language === 'js') writeFileSync(join(folder, `${name}.${isCommonJs(code) ? 'cjs' : 'mjs'}`), code)
    if (language === 'cjs') writeFileSync(join(folder, `${name}.cjs`), code)
  }
}

/** A module may contain the text of a worker that calls require(). */
function isCommonJs(code) {
  return /\brequire\(/.test(code) && !/^import /m.test(code)
}

function typeCheck() {
  const files = snippets.filter(({ language }) => language === 'ts').map(({ name }) => `${name}.ts`)
  if (files.length === 0) return
  const compilerOptions = {
    target: 'es2022',
    lib: ['es2023', 'esnext.disposable'],
    module: 'nodenext',
    moduleResolution: 'nodenext',
    strict: true,
    noEmit: true,
    skipLibCheck: false,
    types: ['node'],
  }
  writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions, files }))
  const tsc = spawnSync(join(root, 'node_modules', '.bin', 'tsc'), ['--project', folder, '--pretty', 'false'], {
    cwd: folder,
    encoding: 'utf8',
  })
  if (tsc.status === 0) return
  for (const line of tsc.stdout.split('\n').filter(Boolean)) {
    const place = /^(s\d+)\.ts\((\d+),\d+\): (.*)$/.exec(line)
    const snippet = place && snippets.find(({ name }) => name === place[1])
    if (snippet) snippet.broken = true
    failures.push(snippet ? `${snippet.file}:${snippet.line + Number(place[2]) - 1}: ${place[3]}` : line)
  }
}

function buildRust(list) {
  const crate = join(folder, 'rust')
  mkdirSync(join(crate, 'src', 'bin'), { recursive: true })
  const compared = Object.entries(COMPARED).filter(([name]) => list.some(({ code }) => code.includes(`use ${name}::`)))
  writeFileSync(
    join(crate, 'Cargo.toml'),
    `[package]\nname = "snippets"\nversion = "0.0.0"\nedition = "2024"\n\n[dependencies]\n` +
      `fdmon = { path = ${JSON.stringify(join(root, 'crates', 'fdmon'))} }\nrustix = { version = "1", features = ["event", "fs", "net", "pipe", "process", "time"] }\n${compared.map(([, text]) => `${text}\n`).join('')}\n[workspace]\n`,
  )
  copyFileSync(join(root, 'Cargo.lock'), join(crate, 'Cargo.lock'))
  for (const { name, code } of list) {
    const shown = code.replace(/^# /gm, '')
    const program = /\bfn main\b/.test(shown)
      ? shown
      : `fn main() -> Result<(), Box<dyn std::error::Error>> {\n${shown}\nOk(())\n}`
    writeFileSync(join(crate, 'src', 'bin', `${name}.rs`), program)
  }
  const env = { ...process.env, CARGO_TARGET_DIR: join(root, 'target', 'snippets') }
  const cargo = spawnSync('cargo', ['build', '--quiet', '--bins', '--keep-going'], { cwd: crate, encoding: 'utf8', env })
  for (const snippet of list) {
    snippet.program = join(env.CARGO_TARGET_DIR, 'debug', snippet.name)
    if (cargo.status !== 0) snippet.broken = true
  }
  if (cargo.status !== 0) failures.push(`${list[0].file}: a Rust block does not compile:\n${cargo.stderr}`)
}

async function worker() {
  for (let snippet = queue.shift(); snippet; snippet = queue.shift()) await runOne(snippet)
}

function runOne(snippet) {
  const { language, name, code, file, line } = snippet
  const [command, args] = {
    js: [process.execPath, [existsSync(join(folder, `${name}.cjs`)) ? `${name}.cjs` : `${name}.mjs`]],
    cjs: [process.execPath, [`${name}.cjs`]],
    ts: [process.execPath, ['--import', import.meta.resolve('tsx'), `${name}.ts`]],
    rust: [snippet.program, []],
    sh: ['bash', ['-euo', 'pipefail', '-c', code]],
  }[language]
  const env = { ...process.env, PATH: `${join(folder, 'node_modules', '.bin')}:${process.env.PATH}` }
  return new Promise((resolve) => {
    const child = spawn(command, args, { cwd: folder, env, stdio: ['ignore', 'pipe', 'pipe'] })
    let text = ''
    child.stdout.on('data', (chunk) => (text += chunk))
    child.stderr.on('data', (chunk) => (text += chunk))
    const timer = setTimeout(() => child.kill('SIGKILL'), LIMIT_MS)
    child.on('error', (error) => (text += error.message))
    child.on('close', (status, signal) => {
      clearTimeout(timer)
      const how = signal === 'SIGKILL' ? `not finished after ${LIMIT_MS / 1000} s` : `exit code ${status ?? signal}`
      if (status !== 0) failures.push(`${file}:${line}: ${how}\n${text.trimEnd()}`)
      resolve()
    })
  })
}
