// npm run packages:check: what the addons in target/packages/artifacts need, and that they carry nothing of the machine that built them.
//
//   node scripts/check-artifacts.mjs [TARGET ...]      without a name: all that are there, and the four for kernels must be
//
// Read with readelf: the machine, the libraries that are needed, the highest version of glibc's symbols (none for musl), the
// one symbol that Node looks up; and the bytes themselves: no folder of a machine, no registry. Of WebAssembly, which has to be
// named or be there: what it imports and exports, and the bytes.
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync, statSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import Table from 'cli-table3'
import { GLIBC, TARGETS, targetsOf } from './packages/targets.mjs'
import { fail, need, root, say } from './step.mjs'

/** What an addon may take in a package, in bytes as npm downloads it. */
const PACKED = 600_000
/** Folders of machines, and where crates come from. */
const STRANGE = [root.replace(/\/$/, ''), homedir(), '/home/', '/root/', '/Users/', '/build/', '.cargo/', 'rustlib/', 'registry/src', 'crates.io', 'target/']
/** What a WebAssembly build may be given, and what its loader asks for. */
const WASM_IMPORTS = ['emnapi', 'env', 'fdmon', 'napi', 'wasi', 'wasi_snapshot_preview1']
const WASM_EXPORTS = ['_initialize', 'malloc', 'free', 'napi_register_wasm_v1', 'wasi_thread_start']
/** What Node asks a library for. */
const ENTRY = 'napi_register_module_v1'

need('readelf', 'binutils')
const artifacts = join(root, 'target', 'packages', 'artifacts')
const named = targetsOf(process.argv.slice(2), (text) => fail(`artifacts: ${text}`, 2))
const wasm = TARGETS.filter(({ machine, file }) => !machine && process.argv.length === 2 && existsSync(join(artifacts, file)))
const targets = [...named, ...wasm]
const table = new Table({ head: ['addon', 'bytes', 'packed', 'needs', 'glibc'], style: { head: [], border: [] }, colAligns: ['left', 'right', 'right'] })
const problems = targets.flatMap((target) => (target.machine ? problemsOf(target) : problemsOfWasm(target)))
process.stdout.write(`${table.toString()}\n`)
for (const problem of problems) process.stderr.write(`${problem}\n`)
if (problems.length > 0) fail(`artifacts: ${problems.length} problems`)
say(`artifacts: ${targets.length} are right`)

function problemsOf({ name, file, machine, libs }) {
  const path = join(artifacts, file)
  if (!existsSync(path)) return [`${file}: it is missing; build it with: npm run packages:build -- ${name}`]
  const found = []
  const complain = (text) => found.push(`${file}: ${text}`)
  const header = readelf(path, '--file-header')
  const is = /^\s*Machine:\s*(.*)$/m.exec(header)?.[1]
  if (is !== machine) complain(`it is for ${is}, not for ${machine}`)
  if (!/^\s*Type:\s*DYN/m.test(header)) complain('it is no shared library')
  const needed = [...readelf(path, '--dynamic').matchAll(/\(NEEDED\).*\[(.*)\]/g)].map(([, lib]) => lib)
  for (const lib of needed.filter((lib) => !libs.includes(lib))) complain(`it needs ${lib}; it may need ${libs.join(', ')}`)
  if (needed.length === 0) complain('it needs no library, not even that of C')
  const versions = [...new Set(readelf(path, '--version-info').match(/GLIBC_[0-9.]+/g) ?? [])].map((version) => version.slice(6)).sort(byVersion)
  const highest = versions.at(-1)
  if (name.endsWith('-gnu') && highest === undefined) complain('it has no symbol of glibc')
  if (name.endsWith('-gnu') && highest && byVersion(highest, GLIBC) > 0) complain(`it needs glibc ${highest}, which is newer than ${GLIBC}`)
  if (name.endsWith('-musl') && highest) complain(`it is for musl and has symbols of glibc ${highest}`)
  if (!new RegExp(`\\s${ENTRY}$`, 'm').test(readelf(path, '--dyn-syms'))) complain(`it does not export ${ENTRY}`)
  if (/\.debug_info|\.symtab/.test(readelf(path, '--section-headers'))) complain('it is not stripped')
  bytesOf(file, path, complain, needed.join(' '), highest ?? 'none')
  return found
}

function problemsOfWasm({ name, file, files }) {
  const missing = files.find((wanted) => !existsSync(join(artifacts, wanted)))
  if (missing !== undefined) return [`${missing}: it is missing; build it with: npm run packages:build -- ${name}`]
  const found = []
  const complain = (text) => found.push(`${file}: ${text}`)
  const module = new WebAssembly.Module(readFileSync(join(artifacts, file)))
  const modules = [...new Set(WebAssembly.Module.imports(module).map((one) => one.module))]
  for (const strange of modules.filter((one) => !WASM_IMPORTS.includes(one))) complain(`it imports from ${strange}`)
  const exported = new Set(WebAssembly.Module.exports(module).map((one) => one.name))
  for (const wanted of WASM_EXPORTS) if (!exported.has(wanted)) complain(`it does not export ${wanted}`)
  if (WebAssembly.Module.customSections(module, 'name').length > 0) complain('it is not stripped')
  bytesOf(file, join(artifacts, file), complain, modules.join(' '), 'none')
  return found
}

/** What must not be in the bytes, and how many there are. */
function bytesOf(file, path, complain, needs, glibc) {
  const bytes = readFileSync(path)
  for (const text of STRANGE) {
    const at = bytes.indexOf(text)
    if (at >= 0) complain(`it contains '${text}': ...${printable(bytes, at)}...`)
  }
  const packed = gzipSync(bytes, { level: 9 }).length
  if (packed > PACKED) complain(`it is ${packed} bytes packed, more than ${PACKED}`)
  table.push([file, statSync(path).size.toLocaleString('en'), packed.toLocaleString('en'), needs, glibc])
}

function readelf(path, option) {
  const { status, stdout, stderr } = spawnSync('readelf', ['--wide', option, path], { encoding: 'utf8', maxBuffer: 1 << 26, env: { ...process.env, LC_ALL: 'C' } })
  if (status !== 0) fail(`artifacts: readelf ${option} ${path}: ${stderr}`)
  return stdout
}

function byVersion(a, b) {
  const [left, right] = [a, b].map((text) => text.split('.').map(Number))
  for (let at = 0; at < Math.max(left.length, right.length); at++) {
    if ((left[at] ?? 0) !== (right[at] ?? 0)) return (left[at] ?? 0) - (right[at] ?? 0)
  }
  return 0
}

function printable(bytes, at) {
  return bytes.subarray(Math.max(0, at - 40), at + 80).toString('latin1').replace(/[^\x20-\x7e]+/g, ' ')
}
