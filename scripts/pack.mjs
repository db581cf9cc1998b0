// npm run packages:pack: the tarballs that are published, into target/packages/tarballs, made from a copy of the checkout.
//
//   node scripts/pack.mjs [--local] [TARGET ...]     the root package and these; without a name: every platform whose files are there
//
// The addons are those of "npm run packages:build"; with --local that of "npm run build", for this platform alone, which runs on
// this machine and not on an older one. Looks at sizes, contents, versions and third-party notices, and lets publint and attw judge the root package.
import { existsSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import Table from 'cli-table3'
import { folder, NOTICES, readJson, releasePlatform, releaseRoot, tarball, tarballs, versionsAgree } from './packages/release.mjs'
import { TARGETS, targetsOf } from './packages/targets.mjs'
import { fail, root, run, say } from './step.mjs'

/** Bytes as npm downloads them. A build for this machine has the compiler's own library in it, and is made for speed: a third more. */
const LIMITS = { root: 150_000, platform: 600_000, local: 800_000 }
const SCRIPTS = ['preinstall', 'install', 'postinstall', 'prepare', 'gypfile']

const { values, positionals } = parseArgs({ options: { local: { type: 'boolean' } }, allowPositionals: true })
const addons = values.local ? join(root, 'native') : join(folder, 'artifacts')
const there = ({ files }) => files.every((file) => existsSync(join(addons, file)))
const named = targetsOf(positionals, (text) => fail(`pack: ${text}`, 2))
const targets = positionals.length > 0 ? named : TARGETS.filter(there)
const missing = targets.find((target) => !there(target))
if (missing) fail(`pack: ${missing.files.join(', ')} missing; run: npm run packages:build -- ${missing.name}`)
if (targets.length === 0) fail(`pack: no addon in ${addons}; run: npm run ${values.local ? 'build' : 'packages:build'}`)

const version = versionsAgree()
run('notices', process.execPath, [join('scripts', 'notices.mjs'), '--check'])
rmSync(tarballs, { recursive: true, force: true })
const problems = []
const packed = [releaseRoot(version), ...targets.map((target) => releasePlatform(target, addons))].map(look)
const table = new Table({ head: ['package', 'packed', 'unpacked', 'files'], style: { head: [], border: [] }, colAligns: ['left', 'right', 'right', 'right'] })
table.push(...packed.map(({ name, size, unpackedSize, files }) => [name, size.toLocaleString('en'), unpackedSize.toLocaleString('en'), files.length]))
process.stdout.write(`${table.toString()}\n`)

const [main] = packed
await judge()
for (const problem of problems) process.stderr.write(`pack: ${problem}\n`)
if (problems.length > 0) fail(`pack: ${problems.length} problems`)
say(`pack: ${packed.length} tarballs of ${version} in target/packages/tarballs`)

function look(from) {
  const made = tarball(from)
  const manifest = readJson(join(from, 'package.json'))
  const isRoot = manifest.name === 'fdmon'
  const complain = (text) => problems.push(`${made.name}: ${text}`)
  const limit = isRoot ? LIMITS.root : values.local ? LIMITS.local : LIMITS.platform
  if (made.size > limit) complain(`${made.size} bytes, more than ${limit}`)
  const paths = made.files.map(({ path }) => path)
  for (const wanted of ['LICENSE-APACHE', 'LICENSE-MIT', 'README.md', 'package.json', ...wantedBy(manifest, isRoot)]) {
    if (!paths.includes(wanted)) complain(`${wanted} is not in it`)
  }
  const strange = paths.filter((path) => /\.(node|wasm)$/.test(path) && isRoot)
  if (strange.length > 0) complain(`${strange.join(', ')} must be in the package of a platform`)
  for (const name of SCRIPTS) if (name in manifest || name in (manifest.scripts ?? {})) complain(`it has '${name}', which must not run at anybody's`)
  return made
}

/** The files that a manifest points to. */
function wantedBy(manifest, isRoot) {
  if (!isRoot) return [...manifest.files, NOTICES]
  const values = (node) => (typeof node === 'string' ? [node] : Object.values(node).flatMap(values))
  return [...values(manifest.exports), ...values(manifest.bin), manifest.main, manifest.types].map((path) => path.replace(/^\.\//, ''))
}

async function judge() {
  const { publint } = await import('publint')
  const { formatMessage } = await import('publint/utils')
  const bytes = readFileSync(main.path)
  const { messages, pkg } = await publint({ pack: { tarball: bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length) }, strict: true })
  for (const message of messages) problems.push(`publint: ${formatMessage(message, pkg)}`)
  run('attw', join(root, 'node_modules', '.bin', 'attw'), [main.path, '--no-emoji', '--no-color', '--format', 'table-flipped'])
}
