// What a guest has: busybox, Node with its libraries, the addon, dist/, the tests, and the programs of the crate, as one cpio archive.
import { execFileSync, spawnSync } from 'node:child_process'
import { chmodSync, cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { transformSync } from 'esbuild'
import { fail, has, root } from '../step.mjs'

/** What PID 1 does, and what of it the tests need. The console has the results and nothing else. */
const init = (body) => `#!/bin/busybox sh
export PATH=/bin:/usr/bin HOME=/tmp TMPDIR=/tmp TERM=dumb NO_COLOR=1
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t devtmpfs dev /dev
busybox mkdir -p /dev/shm
busybox mount -t tmpfs tmp /dev/shm
busybox mount -t tmpfs tmp /tmp
busybox ip link set lo up
cd /app
${body}
echo "@@ {\\"end\\":$?}"
busybox sync
busybox poweroff -f
`
const TESTS = '/usr/bin/node scripts/kernels/guest.mjs'
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
  const { put, write } = begin(folder, machine, TESTS)
  put(machine.node, 'usr/bin/node')
  if (!machine.libraries) putLibraries(put, [machine.node])
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
  pack(folder, archive)
}

/** The same of nothing but programs, which the lines of a shell script start. */
export function buildOfPrograms(folder, archive, programs, script) {
  begin(folder, { busybox: staticBusybox(), programs }, script)
  pack(folder, archive)
}

/** A busybox of this machine that needs no library. */
export function staticBusybox() {
  const busybox = spawnSync('sh', ['-c', 'command -v busybox'], { encoding: 'utf8' }).stdout.trim()
  if (busybox === '' || has('ldd', [busybox])) fail('kernels: a static busybox is missing; run: apt-get install busybox-static')
  return busybox
}

function begin(folder, { busybox, libraries, programs }, body) {
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
  put(busybox, 'bin/busybox')
  for (const name of APPLETS) symlinkSync('busybox', join(folder, 'bin', name))
  symlinkSync('/bin/busybox', join(folder, 'usr/bin/env'))
  write('etc/passwd', 'root:x:0:0:root:/tmp:/bin/sh\n')
  write('etc/hosts', '127.0.0.1 localhost\n')
  write('init', init(body))
  chmodSync(join(folder, 'init'), 0o755)
  if (libraries) {
    put(libraries, 'usr/lib')
    symlinkSync('usr/lib', join(folder, 'lib'))
  } else putLibraries(put, Object.values(programs))
  for (const [name, path] of Object.entries(programs)) {
    put(path, `app/programs/${name}`)
    spawnSync('strip', [join(folder, 'app', 'programs', name)]) // of this machine's alone; a foreign one comes without symbols
  }
  return { put, write }
}

/** What programs of this machine are linked with. */
function putLibraries(put, programs) {
  for (const program of programs) {
    for (const [library] of spawnSync('ldd', [program], { encoding: 'utf8' }).stdout.matchAll(/\/[^ )]+/g)) put(library, library)
  }
}

function pack(folder, archive) {
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
