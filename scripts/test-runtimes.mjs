// npm run test:runtimes: the smoke suite of the API on each runtime and each monitor, into docs/runs/runtimes.json.
//
//   node scripts/test-runtimes.mjs [--check] [--only RUNTIME]...      RUNTIME is a name of scripts/runtimes.mjs, as node24, bun, deno
//
// --check runs them all and writes nothing. The runtimes are those of "npm run runtimes", the addon is that of "npm run build". What a
// runtime cannot do is a step that asserts the typed error. A monitor that this kernel refuses must be refused in each of them alike.
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import Table from 'cli-table3'
import { writeRuns } from './runs.mjs'
import { fail, root, run, say, seconds } from './step.mjs'
import { MONITORS, runSuite } from './suite.mjs'

const { values } = parseArgs({ options: { check: { type: 'boolean' }, only: { type: 'string', multiple: true } } })
const since = performance.now()
run('runtimes', process.execPath, [join('scripts', 'runtimes.mjs')])
const programs = JSON.parse(readFileSync(join(root, 'target', 'runtimes', 'programs.json'), 'utf8'))
const unknown = values.only?.find((name) => !programs.some((one) => one.name === name))
if (unknown !== undefined) fail(`--only '${unknown}' is no runtime; pass one of ${programs.map(({ name }) => name).join(', ')}`, 2)
if (!existsSync(join(root, 'dist', 'cjs', 'index.js'))) fail('runtimes: dist/ is missing; run: npm run build')

const libc = process.report.getReport().header.glibcVersionRuntime === undefined ? 'musl' : 'gnu'
const target = `linux-${process.arch}-${libc}`
const here = monitorsHere()
const rows = []
for (const { name, program } of programs.filter((one) => values.only?.includes(one.name) ?? true)) {
  for (const monitor of MONITORS) rows.push(await one(name, program, monitor))
}
const table = new Table({ head: ['runtime', ...MONITORS], style: { head: [], border: [] } })
for (const runtime of new Set(rows.map((row) => row.runtime))) table.push([runtime, ...rows.filter((row) => row.runtime === runtime).map(cell)])
process.stdout.write(`${table.toString()}\n`)
if (!values.check) writeRuns('runtimes', rows)
const failed = rows.reduce((sum, row) => sum + row.failed, 0)
const passed = rows.reduce((sum, row) => sum + row.passed, 0)
say(`runtimes: ${seconds(since)}`)
process.stdout.write(`${passed} passed, ${failed} failed\n`)
process.exitCode = failed === 0 ? 0 : 1

async function one(name, program, monitor) {
  const row = await runSuite(name, starter(name, program), monitor)
  // A runtime that says no where this kernel says yes would otherwise pass with one step.
  if ((row.refused === undefined) !== here[monitor]) {
    say(`${name}, ${monitor}: ${row.refused ?? 'it runs'}, and this kernel says ${here[monitor] ? 'yes' : 'no'} to it`)
    row.failed += 1
    row.tests += 1
  }
  return { target, ...row }
}

/** With a way to collect garbage, so that what finalizers do is seen. */
function starter(name, program) {
  if (name === 'bun') return [program]
  if (name === 'deno') return [program, 'run', '--allow-all', '--no-lock', '--v8-flags=--expose-gc']
  return [program, '--expose-gc']
}

function monitorsHere() {
  const program = "const { monitors } = require('fdmon').capabilities(); console.log(JSON.stringify(monitors))"
  const { stdout, stderr, status } = spawnSync(process.execPath, ['--eval', program], { cwd: root, encoding: 'utf8', env: { ...process.env, FDMON_MONITOR: '' } })
  if (status !== 0) fail(`runtimes: the addon does not load in this Node: ${stderr}`)
  return Object.fromEntries(Object.entries(JSON.parse(stdout)).map(([name, { available }]) => [name, available]))
}

function cell({ passed, tests, refused }) {
  return `${passed} of ${tests}${refused === undefined ? '' : ', refused'}`
}
