// npm run runtimes: the runtimes beside this Node that the tests run, from their npm packages, into target/runtimes.
//
// The versions are pinned. No install script runs: each program is used as it lies in its package. What is there is
// kept. The tests find the programs in target/runtimes/programs.json; nothing of this is tracked by git.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fail, root, say, seconds } from './step.mjs'

const since = performance.now()
const folder = join(root, 'target', 'runtimes')
const list = join(folder, 'programs.json')
const arch = process.arch
const libc = process.report.getReport().header.glibcVersionRuntime === undefined ? 'musl' : 'gnu'
if (libc === 'musl' || (arch !== 'x64' && arch !== 'arm64')) {
  fail(`runtimes: there are no packages for ${arch} with ${libc}; run the tests on x64 or arm64 with glibc`)
}
const cpu = arch === 'arm64' ? 'aarch64' : arch

const RUNTIMES = [
  { name: 'bun', package: 'bun', version: '1.4.5', program: `@oven/bun-linux-${cpu}/bin/bun` },
  { name: 'deno', package: 'deno', version: '2.9.6', program: `@deno/linux-${arch}-glibc/deno` },
  { name: 'node20', package: `npm:node-linux-${arch}`, version: '20.20.2', program: 'node20/bin/node' },
  { name: 'node22', package: `npm:node-linux-${arch}`, version: '22.23.3', program: 'node22/bin/node' },
  { name: 'node24', package: `npm:node-linux-${arch}`, version: '24.21.0', program: 'node24/bin/node' },
  { name: 'node26', package: `npm:node-linux-${arch}`, version: '26.10.0', program: 'node26/bin/node' },
]

const programs = RUNTIMES.map((one) => ({ ...one, program: join(folder, 'node_modules', one.program) }))
const wanted = `${JSON.stringify(programs, null, 2)}\n`
const same = existsSync(list) && readFileSync(list, 'utf8') === wanted
const here = same && programs.every(({ program }) => existsSync(program))
if (!here) installAll()
for (const { name, version, program } of programs) {
  const { stdout, error } = spawnSync(program, ['--version'], { encoding: 'utf8' })
  if (!error && stdout.includes(version)) continue
  const advice = 'remove target/runtimes and run "npm run runtimes" again'
  fail(`runtimes: ${name} ${version} does not run: ${error?.message ?? `it says ${stdout}`}; ${advice}`)
}
const versions = RUNTIMES.map(({ name, version }) => `${name.replace(/\d+$/, '')} ${version}`).join(', ')
say(`runtimes: ${versions} ${here ? 'are there' : 'installed'}, ${seconds(since)}`)

function installAll() {
  mkdirSync(folder, { recursive: true })
  const source = ({ package: from, version }) => (from.startsWith('npm:') ? `${from}@${version}` : version)
  const dependencies = Object.fromEntries(RUNTIMES.map((one) => [one.name, source(one)]))
  writeFileSync(join(folder, 'package.json'), `${JSON.stringify({ private: true, dependencies }, null, 2)}\n`)
  const quiet = ['--no-audit', '--no-fund', '--loglevel=error']
  const patient = ['--fetch-timeout=60000', '--fetch-retries=4']
  const args = ['install', '--ignore-scripts', '--no-package-lock', ...quiet, ...patient]
  const { status, error } = spawnSync('npm', args, { cwd: folder, stdio: ['ignore', 'ignore', 'inherit'] })
  if (error || status !== 0) fail(`runtimes: npm install in target/runtimes failed: ${error?.message ?? `exit code ${status}`}`)
  writeFileSync(list, wanted)
}
