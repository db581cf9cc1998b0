// npm run packages:build: the addons that are published, into target/packages/artifacts.
//
//   node scripts/build-targets.mjs [TARGET ...]      one of scripts/packages/targets.mjs; without a name: all
//
// Cross-compiled from any Linux on x64: by zig for glibc 2.17 or for musl, by clang for WASI. What it needs it puts into target/toolchains: 1.4 GB and
// some minutes the first time, then two minutes a target on two cores. Panics unwind, as in every build: they become errors.
import { copyFileSync, existsSync, mkdirSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { targetsOf } from './packages/targets.mjs'
import { toolchain, withoutPaths } from './packages/toolchain.mjs'
import { commit } from './runs.mjs'
import { fail, needCargo, root, run, say } from './step.mjs'

const targets = targetsOf(process.argv.slice(2), (text) => fail(`packages: ${text}`, 2))
const folder = join(root, 'target', 'packages')
const artifacts = join(folder, 'artifacts')
const manifest = ['--manifest-path', join(root, 'crates', 'fdmon-napi', 'Cargo.toml')]

/** The runtime of Node-API for WebAssembly, which is linked. */
const EMNAPI = ['emnapi', '@emnapi/core', '@emnapi/runtime', '@napi-rs/wasm-runtime']

needCargo()
mkdirSync(artifacts, { recursive: true })
for (const target of targets) {
  const env = target.machine ? native(target) : wasi(target)
  for (const file of target.files) {
    copyFileSync(sourceOf(target, file, env), join(artifacts, file))
    // Whoever runs it later says of which commit it is.
    writeFileSync(join(artifacts, `${file}.commit`), `${commit()}\n`)
    say(`${file}: ${statSync(join(artifacts, file)).size.toLocaleString('en')} bytes`)
  }
}

/** What the loader of a WebAssembly build is made of lies in the checkout. */
function sourceOf(target, file, env) {
  if (target.machine) return join(env.CARGO_TARGET_DIR, target.triple, 'dist', 'libfdmon_napi.so')
  return join(file.endsWith('.wasm') ? env.OUT : join(root, 'npm', target.name), file)
}

function native(target) {
  const env = toolchain('zig')
  run('crates', 'cargo', ['fetch', '--locked', ...manifest], { env })
  env.CARGO_TARGET_DIR = join(folder, 'build')
  // A library for musl is loaded by a program that has it already.
  const dynamic = target.triple.endsWith('-musl') ? ['-Ctarget-feature=-crt-static'] : []
  env.CARGO_ENCODED_RUSTFLAGS = [...withoutPaths(env), ...dynamic].join('\x1f')
  const args = ['zigbuild', '--locked', '--profile', 'dist', '--target', target.zig, ...manifest]
  run(`addon for ${target.zig}`, 'cargo', args, { env })
  return env
}

function wasi(target) {
  const missing = EMNAPI.filter((name) => !existsSync(join(root, 'node_modules', name)))
  if (missing.length > 0) fail(`packages: ${target.name} needs ${missing.join(', ')}; run: npm install --no-save ${EMNAPI.join(' ')}`)
  const env = toolchain('wasi')
  run('crates', 'cargo', ['fetch', '--locked', ...manifest], { env })
  env.CARGO_TARGET_DIR = join(folder, 'build')
  env.OUT = join(folder, 'wasi')
  // rustc passes the first no longer by itself since 1.96, and the runtime of Node-API is given when the module is loaded;
  // the second is lost where a package has an opt-level of its own.
  env.CARGO_ENCODED_RUSTFLAGS = [...withoutPaths(env), '-Clink-arg=--allow-undefined', '-Clink-arg=--strip-all'].join('\x1f')
  const napi = join(root, 'node_modules', '.bin', 'napi')
  const args = ['build', '--platform', '--profile', 'dist', '--target', target.triple, ...manifest, '--output-dir', env.OUT, '--js', 'binding.cjs']
  run(`addon for ${target.triple}`, napi, args, { env })
  return env
}
