// npm run docs:platforms: docs/PLATFORMS.md, made of docs/runs/*.json: what was truly run where, and what was not.
//
//   node scripts/platforms.mjs [--check]      only compares
//
// Each file is written by the script that ran what it tells of. A file or a row that is missing is a row that says "not run".
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { line } from './measure.mjs'
import { TARGETS } from './packages/targets.mjs'
import { readRuns } from './runs.mjs'
import { seal } from './seal.mjs'
import { fail, root, say } from './step.mjs'

const FILE = join(root, 'docs', 'PLATFORMS.md')
const NODES = ['20', '22', '24', '26'].map((major) => `Node ${major}`)
/** What is to be run: the file, who writes it, what it is, and the targets and runtimes that it should have. */
const SOURCES = [
  { file: 'runtimes', command: 'npm run test:runtimes', what: 'the smoke suite of the API', wanted: [...NODES, 'Bun', 'Deno'].map((runtime) => ['linux-x64-gnu', runtime]) },
  {
    ...{ file: 'foreign', command: 'npm run packages:foreign', what: 'the smoke suite with the packed packages' },
    wanted: TARGETS.filter(({ name, machine }) => machine && name !== 'linux-x64-gnu').map(({ name }) => [name, 'Node']),
  },
  {
    ...{ file: 'kernels', command: 'npm run test:kernels', what: 'the tests that depend on the kernel, in Rust and ava, under QEMU' },
    wanted: ['linux-x64-gnu', 'linux-arm64-gnu'].flatMap((target) => ['Rust', 'Node'].map((runtime) => [target, runtime])),
  },
  { file: 'wasi', command: 'npm run test:wasi', what: 'the WebAssembly build', wanted: NODES.map((runtime) => ['wasm32-wasi', runtime]) },
]
const MONITORS = ['poll', 'epoll', 'io_uring', 'wasi']

const { values } = parseArgs({ options: { check: { type: 'boolean' } } })
const text = seal(document())
if (values.check) {
  if (!existsSync(FILE) || readFileSync(FILE, 'utf8') !== text) fail('docs/PLATFORMS.md is not what docs/runs says; write it with: npm run docs:platforms')
  say('platforms: docs/PLATFORMS.md is what docs/runs says')
} else {
  writeFileSync(FILE, text)
  say('docs/PLATFORMS.md written')
}

function document() {
  return [
    '# Platforms\n\nWritten by `npm run docs:platforms` from [docs/runs](runs); do not edit. What was truly run, by which script, of which commit; what is ',
    'not here was not run.\n\n',
    '## What runs where\n\n',
    line(['package', 'for', 'needs']),
    line(['---', '---', '---']),
    ...TARGETS.map(({ name, machine }) => line([`\`fdmon-${name}\``, named(name), needs(name, machine)])),
    '\n- **Linux** 5.10 or newer with the monitors `poll` and `epoll`; `io_uring` from 5.11 on, where the kernel and its sandbox allow it. What is there is ',
    'probed: `npx fdmon probe` says what a kernel and container allow, and why not.\n',
    '- **Node** 20.9 or newer: everything. **Bun** and **Deno**: everything but what joins Node\'s own loop (`attach()`, `watch()`, `readable()`, ',
    '`defaultContext()`, `IoThread`, and promises of a `Channel` without a context), which throws `ERR_FDMON_UNSUPPORTED`, as their loops are not ',
    'libuv. The suite asserts that error there.\n',
    '- A monitor that is *refused* below throws `ERR_FDMON_UNSUPPORTED` when it is asked for by name, and `auto` takes another; that is what was ',
    'tested there.\n',
    ...SOURCES.map(section),
  ].join('')
}

function named(name) {
  if (name === 'wasm32-wasi') return 'WebAssembly with WASI threads'
  const [, arch, libc] = name.split('-')
  return `Linux, ${arch === 'x64' ? '64-bit Intel and AMD' : '64-bit Arm'}, ${libc === 'gnu' ? 'glibc' : 'musl'}`
}

function needs(name, machine) {
  if (!machine) return 'a runtime with WASI and shared memory'
  return name.endsWith('-gnu') ? 'glibc 2.17 or newer' : 'musl'
}

function section({ file, command, what, wanted }) {
  const rows = readRuns(file)
  const groups = groupBy(rows, keyOf)
  const shown = [...groups.values()].map(ran)
  const missing = wanted.filter(([target, runtime]) => !rows.some((row) => row.target === target && isA(row.runtime, runtime)))
  const all = [...shown, ...missing.map(([target, runtime]) => [target, runtime, '', ...MONITORS.map(() => ''), 'not run', ''])]
  const head = ['target', 'runtime', 'kernel', ...MONITORS, 'commit', 'date']
  const reasons = [...new Set(rows.flatMap(({ target, how, monitor, refused }) => (refused ? [`- \`${target}\`${how ? `, ${how}` : ''}: ${monitor} is refused: ${refused}\n`] : [])))]
  return [
    `\n## ${what[0].toUpperCase()}${what.slice(1)}\n\nBy \`${command}\`, [docs/runs/${file}.json](runs/${file}.json).`,
    rows.length === 0 ? ' **Not run yet.**\n\n' : ' Tests that passed, of those that ran.\n\n',
    line(head),
    line(head.map((name) => (MONITORS.includes(name) ? '---:' : '---'))),
    ...all.map(line),
    reasons.length > 0 ? `\n${reasons.join('')}` : '',
  ].join('')
}

function keyOf({ target, runtime, kernel, profile, how }) {
  return [target, runtime, kernel, profile, how].join()
}

/** One line for all monitors and suites of a target, runtime and kernel. */
function ran(rows) {
  const [{ target, runtime, kernel, profile, how }] = rows
  const beside = [...(how ? [how] : []), ...(profile && profile !== 'none' ? [`profile ${profile}`] : [])].map((text) => ` (${text})`).join('')
  const others = rows.filter(({ monitor }) => !MONITORS.includes(monitor))
  const rest = others.length > 0 ? `; ${sum(others)} on any` : ''
  const commits = [...new Set(rows.map(commitOf).filter(Boolean))]
  const dates = [...new Set(rows.map(({ date }) => date).filter(Boolean))].sort()
  return [target, spelled(runtime), `${kernel}${beside}${rest}`, ...MONITORS.map((name) => cell(rows.filter(({ monitor }) => monitor === name))), commits.join(', '), dates.at(-1) ?? '']
}

function cell(rows) {
  if (rows.length === 0) return '–'
  const refused = rows.every((row) => row.refused)
  return `${sum(rows)}${refused ? ', refused' : ''}`
}

function sum(rows) {
  const total = (field) => rows.reduce((all, row) => all + row[field], 0)
  return `${total('passed')} of ${total('tests')}${total('failed') > 0 ? ' FAILED' : ''}`
}

/** Kernels have the commit beside what was found on them. */
function commitOf({ commit, name, profile }) {
  if (commit !== undefined || name === undefined) return commit
  const path = join(root, 'docs', 'runs', 'kernels-probed.json')
  return existsSync(path) ? JSON.parse(readFileSync(path, 'utf8'))[name]?.found?.[profile]?.commit : undefined
}

/** `node 20.20.2` is a `Node 20`. */
function isA(runtime, wanted) {
  return new RegExp(`^${wanted}\\b`, 'i').test(runtime)
}

function spelled(runtime) {
  return runtime[0].toUpperCase() + runtime.slice(1)
}

/** Map.groupBy, which Node has from 21 on. */
function groupBy(rows, keyOf) {
  const groups = new Map()
  for (const row of rows) groups.set(keyOf(row), [...(groups.get(keyOf(row)) ?? []), row])
  return groups
}
