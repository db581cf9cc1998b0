// What a guest has: busybox, Node with its libraries, the addon, dist/, the tests, and the programs of the crate, as one cpio archive.
import { execFileSync, spawnSync } from 'node:child_process'
import { chmodSync, cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { transformSync } from 'esbuild'
import { fail, root } from '../step.mjs'

/** What PID 1 does. The console has the results and nothing else. */
const INIT = `#!/bin/busybox sh
export PATH=/bin:/usr/bin HOME=/tmp TMPDIR=/tmp TERM=dumb NO_COLOR=1
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t devtmpfs dev /dev
busybox mkdir -p /dev/shm
busybox mount -t tmpfs tmp /dev/shm
busybox mount -t tmpfs tmp /tmp
busybox ip link set lo up
cd /app
/usr/bin/node scripts/kernels/guest.mjs
echo "@@ {\\"end\\":$?}"
busybox sync
busybox poweroff -f
`
/** The applets that the tests start by name. */
const APPLETS = ['sh', 'cat', 'env', 'ls', 'sleep', 'true', 'false', 'echo', 'kill', 'mkfifo', 'uname']

/** The ava tests that carry the tag, by file: a line of their heading says so. */
export function taggedTests() {
  const folder = join(root, '__test__')
  return readdirSync(folder).filter((name) => name.endsWith('.test.ts') && /^\/\/ Tag: kernel\b/m.test(readFileSync(join(folder, name), 'utf8')))
}

/**
 * Lays everything out in `folder` and writes `archive`. `machine` is { busybox, node, libraries?, addon, probe, programs }: where each of them
 * is; without `libraries` those of this machine are taken.
 */
export function build(folder, archive, machine, plan) {
  rmSync(folder, { recursive: true, force: true })
  for (const name of ['bin', 'usr/bin', 'usr/lib', 'proc', 'sys', 'dev', 'tmp', 'etc', 'app']) mkdirSync(join(folder, name), { recursive: true })
  const put = (from, to) => {
    mkdirSync(dirname(join(folder, to)), { recursive: true })
    cpSync(from, join(folder, to), { recursive: true, dereference: true })
  }
  const write = (to, text) => {
    mkdirSync(dirname(join(folder, to)), { recursive: true })
    writeFileSync(join(folder, to), text)
  }
  put(machine.busybox, 'bin/busybox')
  for (const name of APPLETS) symlinkSync('busybox', join(folder, 'bin', name))
  symlinkSync('/bin/busybox', join(folder, 'usr/bin/env'))
  write('etc/passwd', 'root:x:0:0:root:/tmp:/bin/sh\n')
  write('etc/hosts', '127.0.0.1 localhost\n')
  write('init', INIT)
  chmodSync(join(folder, 'init'), 0o755)

  put(machine.node, 'usr/bin/node')
  if (machine.libraries) {
    put(machine.libraries, 'usr/lib')
    symlinkSync('usr/lib', join(folder, 'lib'))
  } else {
    for (const program of [machine.node, ...Object.values(machine.programs)]) {
      for (const [library] of spawnSync('ldd', [program], { encoding: 'utf8' }).stdout.matchAll(/\/[^ )]+/g)) put(library, library)
    }
  }
  for (const [name, path] of Object.entries(machine.programs)) {
    put(path, `app/programs/${name}`)
    spawnSync('strip', [join(folder, 'app', 'programs', name)]) // of this machine's alone; a foreign one comes without symbols
  }
  put(machine.probe, 'app/programs/probe')
  put(machine.addon, `app/native/${basename(machine.addon)}`)
  for (const name of ['dist', 'crates/fdmon/Cargo.toml', 'scripts/kernels/guest.mjs']) put(join(root, name), `app/${name}`)
  const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
  const ava = { ...manifest.ava, files: ['__test__/*.test.js'], extensions: undefined, nodeArguments: [], timeout: '300s' }
  write('app/package.json', JSON.stringify({ ...manifest, ava }))
  for (const name of packages(['ava', ...Object.keys(manifest.dependencies)])) put(join(root, name), `app/${name}`)
  for (const name of readdirSync(join(root, '__test__')).filter((name) => name.endsWith('.ts'))) {
    const { code } = transformSync(readFileSync(join(root, '__test__', name), 'utf8'), { loader: 'ts', format: 'esm', target: 'node20', sourcefile: name })
    write(`app/__test__/${name.replace(/\.ts$/, '.js')}`, code)
  }
  write('app/plan.json', JSON.stringify(plan))
  execFileSync('bash', ['-c', 'set -o pipefail; cd "$0" && find . -print0 | cpio --null --create --format=newc --quiet >"$1"', folder, archive])
}

/** The folders of these packages and of all that they depend on. */
function packages(names) {
  const found = new Set()
  const visit = (name, from) => {
    let at = from
    while (!existsSync(join(root, at, 'node_modules', name))) {
      if (at === '') return // an optional one that is for other machines
      at = dirname(at) === '.' ? '' : dirname(at)
    }
    const path = join(at, 'node_modules', name)
    if (found.has(path)) return
    found.add(path)
    const { dependencies = {} } = JSON.parse(readFileSync(join(root, path, 'package.json'), 'utf8'))
    for (const one of Object.keys(dependencies)) visit(one, path)
  }
  for (const name of names) visit(name, '')
  if (found.size < names.length) fail('kernels: packages are missing in node_modules; run: npm install')
  // What lies in the folder of another comes with it.
  return [...found].filter((path) => ![...found].some((other) => path.startsWith(`${other}/`)))
}
