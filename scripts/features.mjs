// npm run test:features: the crate fdmon with each of its features alone, with none and with all, as a user may build it.
//
//   node scripts/features.mjs [--only NAME]      NAME is a feature, "none" or "all"
//
// The features are those that the manifest has. `cargo check` builds the library without the dependencies of its tests, whose
// features would hide what is missing; `cargo clippy -D warnings` looks at the tests, examples and benches too. Last the library on rustix's
// backend for libc, whose types differ, and which any other crate of a user may choose.
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { fail, needCargo, root, run, say, seconds } from './step.mjs'

const { values: options } = parseArgs({ options: { only: { type: 'string' } } })
const since = performance.now()
needCargo()
const sets = [['none', []], ...features().map((name) => [name, ['--features', name]]), ['all', ['--all-features']]]
const chosen = sets.filter(([name]) => options.only === undefined || name === options.only)
if (chosen.length === 0) fail(`--only '${options.only}' is no set of features; use one of: ${sets.map(([name]) => name).join(', ')}`, 2)
for (const [name, args] of chosen) {
  const common = ['--package', 'fdmon', '--no-default-features', ...args, '--quiet']
  run(`check, features: ${name}`, 'cargo', ['check', ...common])
  run(`clippy, features: ${name}`, 'cargo', ['clippy', ...common, '--all-targets', '--', '-D', 'warnings'])
}
if (options.only === undefined) {
  const env = { RUSTFLAGS: '--cfg=rustix_use_libc', CARGO_TARGET_DIR: join(root, 'target', 'libc') }
  run('clippy, rustix on libc', 'cargo', ['clippy', '--package', 'fdmon', '--all-features', '--quiet', '--', '-D', 'warnings'], { env })
}
say(`features: ${chosen.length} sets, ${seconds(since)}`)

/** All but `default`, which adds nothing to them. */
function features() {
  const { status, stdout } = spawnSync('cargo', ['metadata', '--no-deps', '--format-version', '1'], { cwd: root, encoding: 'utf8', maxBuffer: 1 << 26 })
  if (status !== 0) fail('cargo metadata failed; look above for the reason')
  const found = JSON.parse(stdout).packages.find(({ name }) => name === 'fdmon')
  return Object.keys(found.features).filter((name) => name !== 'default')
}
