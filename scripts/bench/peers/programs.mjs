// Builds the programs of crates/peers, apart from all else: the one in Rust with its own lock file, and the one in C.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fail, has, needCargo, root, run } from '../../step.mjs'

const crate = join(root, 'crates', 'peers')
const target = join(root, 'target', 'peers')

/** Builds both; returns where they are. */
export function build() {
  needCargo()
  run('peers: build', 'cargo', ['build', '--release', '--locked', '--quiet'], { cwd: crate, env: { CARGO_TARGET_DIR: target } })
  if (!has('cc')) fail('a C compiler is missing; run: apt-get install gcc libc6-dev')
  mkdirSync(target, { recursive: true })
  const libuv = join(target, 'peers-libuv')
  const flags = ['-O2', '-Wall', '-Wextra', '-Werror', '-o', libuv, join(crate, 'libuv', 'main.c'), '-luv', '-lpthread']
  const { status, stderr } = spawnSync('cc', flags, { encoding: 'utf8' })
  if (/uv\.h: No such file|cannot find -luv/.test(stderr)) fail('libuv is missing; run: apt-get install libuv1-dev')
  if (status !== 0) fail(`cc: ${stderr}`)
  return { rust: join(target, 'release', 'fdmon-peers'), libuv }
}

/** What the peers are, with their versions: from the lock file, and what libuv says of itself. */
export function versions(libuv) {
  const lock = readFileSync(join(crate, 'Cargo.lock'), 'utf8')
  const of = (name) => {
    const all = [...lock.matchAll(new RegExp(`name = "${name}"\\nversion = "([^"]+)"`, 'g'))].map(([, version]) => version)
    return `${name} ${all.at(-1)}`
  }
  return [`libuv ${libuv}`, ...['mio', 'polling', 'event-manager', 'tokio', 'compio', 'monoio', 'io-uring'].map(of)].join(', ')
}

/** npm's epoll, which is compiled where it is installed, into a folder of its own: a file that can require it, or why there is none. */
export function epoll() {
  const folder = join(target, 'npm')
  mkdirSync(folder, { recursive: true })
  writeFileSync(join(folder, 'package.json'), '{ "private": true, "dependencies": { "epoll": "4.0.2" } }\n')
  const headers = join(dirname(dirname(process.execPath)), 'include', 'node', 'node.h')
  const env = { ...process.env, ...(existsSync(headers) ? { npm_config_nodedir: dirname(dirname(dirname(headers))) } : {}) }
  const install = ['install', '--no-audit', '--no-fund', '--loglevel=error', '--fetch-timeout=60000', '--fetch-retries=4']
  const { status, stderr } = spawnSync('npm', install, { cwd: folder, env, encoding: 'utf8', timeout: 240_000 })
  const requires = join(folder, 'package.json')
  if (status === 0 && spawnSync(process.execPath, ['-e', "require('epoll')"], { cwd: folder }).status === 0) return { requires }
  const why = stderr.split('\n').findLast((line) => /error|ERR!|No such file/i.test(line)) ?? 'it does not load'
  return { why: `does not build here: ${why.replace(/^npm (ERR!|error) */i, '').trim()}` }
}
