// What foreign addons are built with: cargo-zigbuild, and a compiler that has the sources of its library.
//
// Everything lies in target/toolchains and is kept there. The library is built along, without its symbolizer of backtraces,
// which is an eighth of an addon; so no target has to be installed either.
import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import { homedir } from 'node:os'
import { delimiter, join } from 'node:path'
import { fail, has, root, run, say } from '../step.mjs'

const FOLDER = join(root, 'target', 'toolchains')
/** The versions are pinned: an addon is what they make of it. */
const ZIGBUILD = ['cargo-zigbuild==0.24.1', 'ziglang==0.17.1']
const RUSTUP_MS = 60_000
/** What the targets of WASI need beside the sources of Rust's library. */
const WASI_LIBCS = ['wasm32-wasip1', 'wasm32-wasip1-threads'].map((target) => `sys/usr/lib/rustlib/${target}/lib/self-contained/libc.a`)

const cargoHome = process.env.CARGO_HOME ?? join(homedir(), '.cargo')

/** The variables to run cargo with; `kind` is 'zig' or 'wasi'. */
export function toolchain(kind) {
  const env = { ...process.env, RUSTC_BOOTSTRAP: '1', ...rust(kind) }
  if (kind === 'zig') env.PATH = [zig(), env.PATH].join(delimiter)
  env.CARGO_UNSTABLE_BUILD_STD = kind === 'zig' ? 'std,panic_unwind' : 'std,panic_abort'
  env.CARGO_UNSTABLE_BUILD_STD_FEATURES = ''
  return env
}

function zig() {
  const bin = join(FOLDER, 'zig', 'bin')
  if (has(join(bin, 'cargo-zigbuild')) && has(join(bin, 'python-zig'), ['version'])) return bin
  if (!has('python3', ['-c', 'import venv, ensurepip'])) fail('python3 with venv is missing; run: apt-get install python3-venv')
  run('a folder for zig', 'python3', ['-m', 'venv', join(FOLDER, 'zig')])
  run('cargo-zigbuild and zig', join(bin, 'pip'), ['install', '--quiet', '--disable-pip-version-check', ...ZIGBUILD])
  return bin
}

/** rustup's compiler where it has the sources of the library or can get them, else Debian's. */
function rust(kind) {
  const debian = join(FOLDER, 'debian')
  const made = existsSync(join(debian, 'env.sh')) && (kind === 'zig' || WASI_LIBCS.every((path) => existsSync(join(debian, path))))
  // wasm32-wasip1-threads needs a libc beside the sources.
  if (kind === 'zig' && !made && (hasSource() || addSource())) return {}
  if (made) return exportsOf(debian)
  run("Debian's Rust", 'bash', [join('scripts', 'packages', 'debian-rust.sh'), debian, ...(kind === 'wasi' ? ['wasi'] : [])])
  return exportsOf(debian)
}

const hasSource = () => existsSync(join(sysroot(process.env), 'lib', 'rustlib', 'src', 'rust', 'library', 'std', 'Cargo.toml'))

function addSource() {
  say('rustup component add rust-src')
  // It waits for minutes where there is nothing to be had.
  const { status } = spawnSync('rustup', ['component', 'add', 'rust-src'], { stdio: 'inherit', timeout: RUSTUP_MS })
  return status === 0 && hasSource()
}

function exportsOf(debian) {
  const names = ['PATH', 'RUSTC', 'LD_LIBRARY_PATH']
  const script = `. "$0/env.sh"; printf '%s\\0' ${names.map((name) => `"$${name}"`).join(' ')}`
  const { stdout } = spawnSync('bash', ['-c', script, debian], { encoding: 'utf8' })
  const values = stdout.split('\0')
  return { ...Object.fromEntries(names.map((name, at) => [name, values[at]])), RUSTUP_TOOLCHAIN: undefined }
}

function sysroot(env) {
  const { stdout } = spawnSync(env.RUSTC ?? 'rustc', ['--print', 'sysroot'], { encoding: 'utf8', env, cwd: root })
  return stdout?.trim() ?? ''
}

/** Flags that keep the folders of this machine out of what is built; the crates must be there already. */
export function withoutPaths(env) {
  const sources = join(cargoHome, 'registry', 'src')
  const library = join(sysroot(env), 'lib', 'rustlib', 'src', 'rust')
  const prefixes = [
    [root.replace(/\/$/, ''), '/fdmon'],
    ...(existsSync(sources) ? readdirSync(sources).map((name) => [join(sources, name), '/crates']) : []),
    [library, '/rust'],
    // Sources below the working directory are named relative to it.
    ...(library.startsWith(root) ? [[library.slice(root.length), '/rust']] : []),
  ]
  return prefixes.map(([from, to]) => `--remap-path-prefix=${from}=${to}`)
}
