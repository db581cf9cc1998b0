// What every script shares: run a step, say what it was and how long it took, stop at the first failure.
import { spawn, spawnSync } from 'node:child_process'
import { existsSync, statSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** The root of the repository; every script runs from there. */
export const root = fileURLToPath(new URL('..', import.meta.url))

let out = process.stdout

/** From here on, what the steps say and print goes to standard error: standard output belongs to somebody else. */
export function sayOnStderr() {
  out = process.stderr
}

/** Seconds since `since` (a `performance.now()`), for a line of output. */
export function seconds(since) {
  return `${((performance.now() - since) / 1000).toFixed(1)} s`
}

/** Prints one line about this script: what it did. */
export function say(text) {
  out.write(`fdmon: ${text}\n`)
}

/** Ends the script with one line on standard error. */
export function fail(text, code = 1) {
  process.stderr.write(`fdmon: ${text}\n`)
  process.exit(code)
}

/** Runs a command from the root with its output shown; ends the script when it fails. */
export function run(title, command, args, options = {}) {
  const since = performance.now()
  const { env, ...rest } = options
  const stdio = ['inherit', out === process.stderr ? 2 : 'inherit', 'inherit']
  const result = spawnSync(command, args, { cwd: root, stdio, env: { ...process.env, ...env }, ...rest })
  if (result.error) fail(`${title}: cannot run ${command}: ${result.error.message}`)
  if (result.status !== 0) {
    const how = result.signal ? `ended by ${result.signal}` : `exit code ${result.status}`
    fail(`${title}: ${how} after ${seconds(since)}`, result.status ?? 1)
  }
  say(`${title}: ${seconds(since)}`)
}

/** Runs a command with its output kept, and shown unless it is `quiet`: resolves to its exit code and all it printed. */
export function watch(command, args, { quiet = false, ...options } = {}) {
  return new Promise((resolve) => {
    const child = spawn(command, args, { cwd: root, stdio: ['ignore', 'pipe', 'pipe'], ...options })
    let text = ''
    for (const [from, to] of [[child.stdout, out], [child.stderr, process.stderr]]) {
      from.setEncoding('utf8')
      from.on('data', (chunk) => {
        text += chunk
        if (!quiet) to.write(chunk)
      })
    }
    child.on('error', (error) => resolve({ code: 127, text: `cannot run ${command}: ${error.message}` }))
    child.on('close', (code) => resolve({ code: code ?? 1, text }))
  })
}

/** Runs a step written in JavaScript. */
export async function step(title, body) {
  const since = performance.now()
  const note = await body()
  say(`${title}: ${note ? `${note}, ` : ''}${seconds(since)}`)
}

/** Whether a command can be started at all. */
export function has(command, args = ['--version']) {
  return spawnSync(command, args, { stdio: 'ignore' }).status === 0
}

/** Ends the script with the package that has a command when it is missing. */
export function need(command, packageName, args = ['--version']) {
  if (!has(command, args)) fail(`${command} is missing; run: apt-get install ${packageName}`)
}

/** Ends the script with the command that installs Rust when there is no cargo. */
export function needCargo() {
  if (has('cargo')) return
  // Installed in this very shell session: rustup changes the PATH of later ones only.
  const folder = join(process.env.CARGO_HOME ?? join(homedir(), '.cargo'), 'bin')
  if (has(join(folder, 'cargo'))) {
    process.env.PATH = `${folder}:${process.env.PATH}`
    return
  }
  fail(
    'the native part needs Rust 1.88 or newer, and there is no cargo on the PATH: install it with ' +
      "\"curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh\" and open a new shell",
  )
}

/** Builds one program with `cargo ARGS --no-run`; returns where it is. `name` is what cargo calls its target. */
export function buildProgram(name, args, env = {}) {
  const stdio = ['ignore', 'pipe', 'inherit']
  const all = [...args, ...(args[0] === 'build' ? [] : ['--no-run']), '--package', 'fdmon', '--message-format', 'json']
  const { status, stdout } = spawnSync('cargo', all, { cwd: root, env: { ...process.env, ...env }, encoding: 'utf8', stdio, maxBuffer: 1 << 26 })
  if (status !== 0) fail(`cannot build ${name}; look above for the reason`)
  const made = stdout.split('\n').filter(Boolean).map((text) => JSON.parse(text))
  return made.findLast((message) => message.target?.name === name && message.executable).executable
}

/** The host of the nightly toolchain; ends the script with the command that installs one. */
export function nightlyHost(what) {
  if (!has('cargo', ['+nightly', '--version'])) {
    fail(`${what} needs a nightly toolchain; install it with: rustup toolchain install nightly --profile minimal`)
  }
  const { stdout } = spawnSync('rustc', ['+nightly', '--version', '--verbose'], { encoding: 'utf8' })
  const host = /^host: (.*)$/m.exec(stdout)?.[1]
  return host ?? fail(`rustc +nightly says no host: ${stdout}`)
}

/** Installs the development dependencies when they are missing or older than the lock file. */
export function install() {
  const installed = join(root, 'node_modules', '.package-lock.json')
  const wanted = ['package.json', 'package-lock.json'].map((name) => join(root, name)).filter((path) => existsSync(path))
  if (existsSync(installed) && wanted.every((path) => statSync(path).mtimeMs <= statSync(installed).mtimeMs)) return
  run('dependencies', 'npm', ['install', '--no-audit', '--no-fund', '--loglevel=error', '--fetch-timeout=60000', '--fetch-retries=4'])
}

/** Installs and builds what is missing or stale; cargo and tsc know by themselves what to do again. */
export function ready() {
  needCargo()
  install()
  run('build', process.execPath, [join('scripts', 'build.mjs')])
}
