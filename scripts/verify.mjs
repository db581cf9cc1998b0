// npm run verify: everything there is to check, also what takes too long for CI. Goes on after a failure; exit code 1 if any step failed.
//
//   node scripts/verify.mjs --list           the steps and their commands
//   node scripts/verify.mjs --only STEP      one of them (may be given several times)
//
// Writes docs/VERIFIED.md: which commit, which step, how many minutes, how it ended. What is not run keeps its line.
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { line, machine } from './measure.mjs'
import { seal } from './seal.mjs'
import { fail, install, root, say } from './step.mjs'

const FILE = join(root, 'docs', 'VERIFIED.md')
/** `name: [command, variables]` */
const STEPS = {
  ci: ['bash .ci/run'],
  loom: ['npm run --silent loom'],
  programs: ['cargo test --package fdmon --test programs', { FDMON_PROGRAMS: '5000', FDMON_SEED: '1-4' }],
  fuzz: ['npm run --silent fuzz -- --seconds 300'],
  faults: ['npm run --silent faults'],
  stress: ['cargo test --release --package fdmon --test stress', { FDMON_STRESS_SECONDS: '30' }],
  kvlog: ['node_modules/.bin/ava "__test__/kvlog*.test.ts"', { FDMON_LONG: '1' }],
  channels: ['npm run --silent stress:channel'],
  asan: ['npm run --silent asan'],
  valgrind: ['npm run --silent valgrind'],
  miri: ['npm run --silent miri'],
  features: ['npm run --silent test:features'],
  outside: ['npm run --silent test:outside'],
  deny: ['npm run --silent deny'],
  workflows: ['npm run --silent lint:workflows'],
  runtimes: ['npm run --silent test:runtimes'],
  crate: ['npm run --silent packages:crate'],
  'packages: build': ['npm run --silent packages:build'],
  'packages: look': ['npm run --silent packages:check && npm run --silent packages:pack'],
  'packages: install': ['npm run --silent test:install'],
  'packages: foreign': ['npm run --silent packages:foreign'],
  wasi: ['npm run --silent runtimes && npm run --silent test:wasi'],
  kernels: ['npm run --silent test:kernels'],
  site: ['npm run --silent docs:site -- --check'],
  platforms: ['npm run --silent docs:platforms'],
  'bench:policy': ['npm run --silent bench:policy'],
  'bench:channel': ['npm run --silent bench:channel'],
  'bench:attach': ['npm run --silent bench:attach'],
  'bench:files': ['npm run --silent bench:files'],
  'bench:peers': ['npm run --silent bench:peers'],
  'bench:traces': ['npm run --silent bench:traces'],
  'main job': ['npm start --silent'],
}

const { values } = parseArgs({ options: { list: { type: 'boolean' }, only: { type: 'string', multiple: true } } })
const shown = ([command, variables = {}]) => [...Object.entries(variables).map(([name, value]) => `${name}=${value}`), command].join(' ')
if (values.list) {
  for (const [name, step] of Object.entries(STEPS)) process.stdout.write(`${name.padEnd(19)}${shown(step)}\n`)
  process.exit(0)
}
for (const name of values.only ?? []) {
  if (!Object.hasOwn(STEPS, name)) fail(`--only = '${name}' is no step; pass one of ${Object.keys(STEPS).join(', ')}`, 2)
}

install()
const { default: Table } = await import('cli-table3')
const names = values.only ?? Object.keys(STEPS)
const { commit, cpu, cpuCount, kernel, tools } = machine()
const results = names.map(runStep)
const table = new Table({ head: ['step', 'minutes', 'result'], style: { head: [], border: [] }, colAligns: ['left', 'right', 'left'] })
table.push(...results.map(({ name, minutes, result }) => [name, minutes, result]))
process.stdout.write(`${table.toString()}\n`)
const failed = results.filter(({ ok }) => !ok)
writeFileSync(FILE, seal(document()))
say('docs/VERIFIED.md written')
say(`verify: ${results.length - failed.length} of ${results.length} steps passed${failed.length > 0 ? `; failed: ${failed.map(({ name }) => name).join(', ')}` : ''}`)
process.exitCode = failed.length > 0 ? 1 : 0

function runStep(name) {
  const [command, variables = {}] = STEPS[name]
  say(`--- ${name}: ${shown(STEPS[name])}`)
  const since = performance.now()
  const env = { ...process.env, ...variables }
  const { status, signal, error } = spawnSync('bash', ['-c', command], { cwd: root, env, stdio: ['ignore', 'inherit', 'inherit'] })
  const minutes = ((performance.now() - since) / 60_000).toFixed(1)
  const ok = !error && status === 0
  const how = ok ? 'passed' : `FAILED: ${error?.message ?? (signal ? `ended by ${signal}` : `exit code ${status}`)}`
  const result = variables.FDMON_SEED ? `${how}, seeds ${variables.FDMON_SEED}` : how
  say(`${name}: ${result}, ${minutes} min`)
  return { name, minutes, ok, result }
}

function document() {
  const before = existsSync(FILE) ? readFileSync(FILE, 'utf8').split('\n') : []
  const rows = Object.keys(STEPS).map((name) => {
    const run = results.find((result) => result.name === name)
    const kept = before.find((text) => text.startsWith(`| ${name} |`))
    if (!run) return kept ? `${kept}\n` : line([name, `\`${shown(STEPS[name])}\``, '', '', 'not run yet'])
    return line([name, `\`${shown(STEPS[name])}\``, commit, run.minutes, run.result])
  })
  return [
    '# Verified\n\nWritten by `npm run verify`; do not edit. Everything there is to check, also what takes too long for CI.\n\n',
    line(['step', 'command', 'commit', 'minutes', 'result']),
    line(['---', '---', '---', '---:', '---']),
    ...rows,
    `\n${cpuCount} × ${cpu}, Linux ${kernel}; ${tools}.\n`,
  ].join('')
}
