// npm run test:kernels: boots kernels under QEMU and runs there what depends on the kernel: the tests with the tag `kernel`, in Rust and ava.
//
//   node scripts/test-kernels.mjs [KERNEL ...]    such as 5.10 or 6.12-arm64; without a name all. Writes docs/KERNELS.md and docs/runs/kernels.json
//   node scripts/test-kernels.mjs --monitors      of the tests those of the monitors alone, which the table says; a minute a kernel, emulated
//   node scripts/test-kernels.mjs --quick         the same on the oldest and the newest; writes nothing
//   node scripts/test-kernels.mjs --profile none  under this seccomp profile alone (may be given several times)
//   node scripts/test-kernels.mjs --list          the kernels, and the tests with the tag
//
// What fdmon's capabilities() say in a guest must be what scripts/kernels/probe.c finds there. Where a kernel lacks io_uring, the others are
// tested, and that it is refused. The same under seccomp profiles such as Docker's. Kernels are Debian's, and stay in target/kernels.
import { existsSync, readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { boot, fetchKernels, MACHINES, needQemu } from './kernels/boot.mjs'
import { build, staticBusybox, taggedTests } from './kernels/initramfs.mjs'
import { judge } from './kernels/judge.mjs'
import { jobsOf, PROFILES } from './kernels/plan.mjs'
import { write } from './kernels/table.mjs'
import { getNodeArm64 } from './packages/node-arm64.mjs'
import { toolchain } from './packages/toolchain.mjs'
import { commit } from './runs.mjs'
import { buildProgram, fail, install, needCargo, root, run, say, seconds } from './step.mjs'

/** By name: the machine, the series of Debian's kernel, and the plans that are run there. */
const KERNELS = {
  '5.10': { arch: 'x64', plans: ['none', 'docker', 'enosys'] },
  '6.1': { arch: 'x64', plans: ['none'] },
  '6.12': { arch: 'x64', plans: ['none'] },
  '6.18': { arch: 'x64', plans: ['none'] },
  '7.3': { arch: 'x64', plans: ['none', 'docker', 'enosys', 'old'] },
  '6.12-arm64': { arch: 'arm64', plans: ['none', 'docker'] },
}
const QUICK = ['5.10', '7.3']
/** As the addon is built: it needs what Node needs. */
const ZIG_TARGET = 'aarch64-unknown-linux-gnu.2.17'
/** A guest that takes longer hangs: emulated ones are ten times slower than this machine. */
const LIMIT_MS = 30 * 60_000
const QUICK_LIMIT_MS = 5 * 60_000

const since = performance.now()
const flag = { type: 'boolean' }
const { values: options, positionals } = parseArgs({ allowPositionals: true, options: { quick: flag, monitors: flag, list: flag, profile: { type: 'string', multiple: true } } })
const unknown = positionals.find((name) => !Object.hasOwn(KERNELS, name))
if (unknown !== undefined) fail(`kernels: '${unknown}' is no kernel; pass one of ${Object.keys(KERNELS).join(', ')}`, 2)
const strange = options.profile?.find((name) => !Object.hasOwn(PROFILES, name))
if (strange !== undefined) fail(`kernels: --profile '${strange}' is none; pass one of ${Object.keys(PROFILES).join(', ')}`, 2)
const names = positionals.length > 0 ? positionals : options.quick ? QUICK : Object.keys(KERNELS)
const files = taggedTests()
if (options.list) list()
else await main()

function list() {
  for (const [name, { arch, plans }] of Object.entries(KERNELS)) process.stdout.write(`${name.padEnd(12)}${arch}, profiles: ${plans.join(', ')}\n`)
  process.stdout.write(`Rust: the modules kernel:: of the conformance suite, and tests/refused.rs\nava: ${files.join(', ')}\n`)
}

async function main() {
  const archs = [...new Set(names.map((name) => KERNELS[name].arch))]
  needQemu(archs)
  needCargo()
  install()
  const folder = join(root, 'target', 'kernels')
  for (const arch of archs) prepare(folder, arch)
  const waiting = [...names]
  const results = []
  const worker = async () => {
    while (waiting.length > 0) {
      const result = await one(folder, waiting.shift())
      results.push(result)
      // At once: a run of all takes long, and may be ended.
      if (!options.quick && result.problems.length === 0) write([{ ...result, commit: commitOf(result.arch), selection: options.monitors ? 'monitors' : 'all' }], Object.keys(KERNELS))
    }
  }
  // A guest has two CPUs, and what is tested for long shall not wait for another one's.
  await Promise.all(Array.from({ length: options.quick || options.monitors ? Math.min(2, availableParallelism()) : 1 }, worker))
  const bad = results.filter(({ problems }) => problems.length > 0)
  if (!options.quick && bad.length < results.length) say('docs/KERNELS.md and docs/runs/kernels.json written')
  if (bad.length > 0) fail(`kernels: ${bad.map(({ name }) => name).join(', ')} failed; look above for the reason`)
  say(`kernels: ${results.length} passed, ${seconds(since)}`)
}

/** Fetches the kernels of a machine, builds what runs there, and makes the archive. */
function prepare(folder, arch) {
  const series = names.filter((name) => KERNELS[name].arch === arch).map(seriesOf)
  fetchKernels(folder, arch, series, () => arch === process.arch || existsSync(join(folder, MACHINES[arch].debian, 'lib')))
  const machine = arch === process.arch ? native(folder) : foreign(folder)
  const began = performance.now()
  build(join(folder, `root.${arch}`), archiveOf(folder, arch), machine, { jobs: jobsOf(files) })
  say(`initramfs for ${arch}: ${seconds(began)}`)
}

/** Of a foreign addon, the one that it was built from. */
function commitOf(arch) {
  const file = join(root, 'target', 'packages', 'artifacts', `fdmon.linux-${arch}-gnu.node.commit`)
  return arch !== process.arch && existsSync(file) ? readFileSync(file, 'utf8').trim() : commit()
}

function seriesOf(name) {
  return name.replace(/-.*/, '')
}

function archiveOf(folder, arch) {
  return join(folder, `initramfs.${arch}.cpio`)
}

function native(folder) {
  const busybox = staticBusybox()
  const addon = join(root, 'native', `fdmon.linux-${process.arch}-gnu.node`)
  if (!existsSync(addon) || !existsSync(join(root, 'dist', 'cjs', 'index.js'))) run('build', process.execPath, [join('scripts', 'build.mjs')])
  const programs = programsOf((name, args) => buildProgram(name, args))
  const probe = join(folder, 'probe.x64')
  run('probe', 'cc', ['-O1', '-static', '-o', probe, join('scripts', 'kernels', 'probe.c')])
  return { busybox, node: process.execPath, addon, probe, programs }
}

/** The crate's, with the features and the packages that `npm test` builds with, so that those of this machine are built once. */
function programsOf(build) {
  const cargo = ['test', '--quiet', '--workspace', '--features', 'fdmon/executor,fdmon/channel']
  return {
    conformance: build('conformance', [...cargo, '--test', 'conformance']),
    refused: build('refused', [...cargo, '--test', 'refused']),
    refuse: build('refuse', ['build', '--quiet', '--example', 'refuse']),
  }
}

/** For arm64, on a machine of another kind: the addon as it is packed, and the crate's programs made by the same compiler. */
function foreign(folder) {
  const here = join(folder, 'arm64')
  const node = join(here, 'node')
  getNodeArm64(node)
  const addon = join(root, 'target', 'packages', 'artifacts', 'fdmon.linux-arm64-gnu.node')
  if (!existsSync(addon)) fail('kernels: there is no addon for arm64; run: npm run packages:build -- linux-arm64-gnu')
  const probe = join(folder, 'probe.arm64')
  const env = { ...toolchain('zig'), CARGO_TARGET_DIR: join(folder, 'build'), CARGO_PROFILE_DEV_DEBUG: '0', CARGO_PROFILE_DEV_STRIP: 'symbols' }
  // Panics of a test are caught, as in every build.
  const programs = programsOf((name, [command, ...args]) => buildProgram(name, [command === 'build' ? 'zigbuild' : command, '--target', ZIG_TARGET, ...args], env, 'cargo-zigbuild'))
  const zig = ['cc', '-target', 'aarch64-linux-musl', '-static', '-O1', '-o', probe, join('scripts', 'kernels', 'probe.c')]
  run('probe for arm64', 'python-zig', zig, { env })
  return { busybox: join(here, 'busybox'), node: join(node, 'bin', 'node'), libraries: join(here, 'lib'), addon, probe, programs }
}

async function one(folder, name) {
  const { arch, plans } = KERNELS[name]
  const began = performance.now()
  const kernel = join(folder, MACHINES[arch].debian, seriesOf(name))
  const plan = (options.quick ? ['quick'] : options.monitors ? ['quick', 'more'] : (options.profile ?? plans)).join(',')
  const limitMs = options.quick ? QUICK_LIMIT_MS : LIMIT_MS
  const said = await boot({ arch, kernel: join(kernel, 'vmlinuz'), archive: archiveOf(folder, arch), plan, limitMs, file: join(folder, `console.${name}`) })
  const result = judge({ name, arch, package: readFileSync(join(kernel, 'package'), 'utf8').trim(), jobs: jobsOf(files).filter((job) => plan.split(',').includes(job.plan)), ...said })
  const took = seconds(began)
  for (const line of result.lines) say(`${name}: ${line}`)
  for (const problem of result.problems) say(`${name}: FAILED: ${problem}`)
  say(`kernel ${name} (${result.release ?? 'not booted'}, ${arch}, ${said.accel}): ${result.passed} passed, ${result.failed} failed, ${took}`)
  return result
}
