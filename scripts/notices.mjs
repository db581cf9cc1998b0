// npm run packages:notices: npm/THIRD-PARTY-NOTICES.txt, the licences of what is linked into the addons; each package of a platform has it.
//
//   node scripts/notices.mjs [--check]      only compares
//
// Read from `cargo metadata`, for each target: the crates that fdmon-napi is linked with, without those that only build it. Of a crate under
// several licences the MIT text is taken. A crate that carries no text of its licence ends the script: TEXTS says where such have theirs.
import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { parseArgs } from 'node:util'
import { readJson } from './packages/release.mjs'
import { TARGETS } from './packages/targets.mjs'
import { fail, needCargo, root, say } from './step.mjs'

const FILE = join(root, 'npm', 'THIRD-PARTY-NOTICES.txt')
/** The best first. */
const CHOICE = [/^licen[cs]e-mit(\.\w+)?$/i, /^licen[cs]e(\.\w+)?$/i, /^mit-licen[cs]e$/i, /^copying$/i, /^licen[cs]e-apache(-2\.0)?(\.\w+)?$/i]
/** Of crates that carry no text: the folder, or the name here, of another package of the same people, which does. */
const NAPI = join(root, 'node_modules', '@napi-rs', 'cli')
const TEXTS = { napi: NAPI, 'napi-sys': NAPI, wasip1: 'rustix' }
const RULE = '-'.repeat(80)
/** What the WebAssembly build is linked with besides, from npm. */
const WASI = ['emnapi']

const { values } = parseArgs({ options: { check: { type: 'boolean' } } })
needCargo()
const crates = new Map(TARGETS.map(({ triple }) => triple).flatMap(linked).map((one) => [one.id, one]))
for (const one of WASI.flatMap(fromNpm)) crates.set(one.id, one)
const sorted = [...crates.values()].sort((a, b) => (a.id < b.id ? -1 : 1))
const byText = new Map()
for (const one of sorted) {
  const text = textOf(one)
  byText.set(text, [...(byText.get(text) ?? []), one])
}
const whole = [
  'Third-party notices\n\nThe native part of fdmon is linked with the crates below, each under the licence that stands beside it, of which fdmon uses the one\n' +
    'whose text follows. It contains parts of the standard library of Rust (MIT OR Apache-2.0, Copyright (c) The Rust Project Contributors),\n' +
    'whose MIT text is that of libc, and of the run-time libraries of LLVM (Apache-2.0 WITH LLVM-exception); for WebAssembly also wasi-libc\n' +
    '(Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT, with parts of musl, MIT).\n',
  sorted.map(({ name, version, license, repository }) => `${name} ${version}: ${license}${repository ? `, ${repository}` : ''}\n`).join(''),
  ...[...byText].map(([text, users]) => `${users.map(({ name, version }) => `${name} ${version}`).join(', ')}\n\n${text}\n`),
].join(`\n${RULE}\n\n`)
if (values.check) {
  const there = existsSync(FILE) ? readFileSync(FILE, 'utf8') : ''
  if (there !== whole) fail('npm/THIRD-PARTY-NOTICES.txt is not what Cargo.lock links; write it with: npm run packages:notices')
} else {
  writeFileSync(FILE, whole)
}
say(`notices: ${sorted.length} crates, ${byText.size} texts, ${values.check ? 'as committed' : 'npm/THIRD-PARTY-NOTICES.txt written'}`)

/** What is in the library of this target: normal dependencies, without procedural macros and what only these need. */
function linked(triple) {
  const args = ['metadata', '--locked', '--format-version', '1', '--filter-platform', triple]
  const { status, stdout, stderr } = spawnSync('cargo', args, { cwd: root, encoding: 'utf8', maxBuffer: 1 << 28 })
  if (status !== 0) fail(`notices: cargo metadata for ${triple}: ${stderr}`)
  const { packages, resolve } = JSON.parse(stdout)
  const byId = new Map(packages.map((one) => [one.id, one]))
  const nodes = new Map(resolve.nodes.map((node) => [node.id, node]))
  const found = new Map()
  const visit = (id) => {
    const { name, version, license, repository, manifest_path: manifest, targets, source } = byId.get(id)
    if (found.has(id) || targets.some(({ kind }) => kind.includes('proc-macro'))) return
    found.set(id, { id: `${name} ${version}`, name, version, license, repository, folder: dirname(manifest), own: source === null })
    for (const { pkg, dep_kinds: kinds } of nodes.get(id).deps) if (kinds.some(({ kind }) => kind === null)) visit(pkg)
  }
  visit(packages.find(({ name }) => name === 'fdmon-napi').id)
  return [...found.values()].filter(({ own }) => !own)
}

/** Nothing as long as it is no dependency of the checkout: then nothing is linked with it. */
function fromNpm(name) {
  if (!(name in (readJson(join(root, 'package.json')).devDependencies ?? {}))) return []
  const folder = join(root, 'node_modules', name)
  if (!existsSync(folder)) fail(`notices: ${folder} is missing; run: npm install`)
  const { version, license, repository } = readJson(join(folder, 'package.json'))
  return [{ id: `${name} ${version}`, name, version, license, repository: repository?.url?.replace(/^git\+|\.git$/g, ''), folder }]
}

function textOf({ name, version, license, folder }) {
  const from = sorted.find((one) => one.name === TEXTS[name])?.folder ?? TEXTS[name] ?? folder
  const there = readdirSync(from)
  const file = CHOICE.map((pattern) => there.find((one) => pattern.test(one))).find((one) => one !== undefined)
  if (file === undefined) fail(`notices: ${name} ${version} (${license}) carries no text of its licence in ${from}: it has ${there.join(', ')}`)
  return readFileSync(join(from, file), 'utf8').replace(/\r/g, '').trim()
}
