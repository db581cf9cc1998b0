// npm run faults: each system call that fdmon makes fails with each errno that it may, and the table of what happens then.
//
//   node scripts/faults.mjs [--n N]          fails the n-th call of each place, n up to N (20), and writes docs/FAULTS.md
//   node scripts/faults.mjs --check          docs/FAULTS.md has just the rows of the sources; fails nothing and writes nothing
//   node scripts/faults.mjs --only TEXT      the rows whose call, purpose and errno contain TEXT; writes nothing
//   node scripts/faults.mjs --quick          the tests of the crate as they are, n up to 3, with what they print; writes nothing
//
// The tables are crates/fdmon/tests/faults/sites and __test__/faults/places.ts. The tests that they belong to run each in a
// process of its own, as many at once as there are CPUs. A row whose fault was never met, or whose result is another one, fails.
import { spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { count, line, machine } from './measure.mjs'
import { seal } from './seal.mjs'
import { buildProgram, fail, needCargo, root, say, seconds } from './step.mjs'

const { values: options } = parseArgs({
  options: { check: { type: 'boolean' }, n: { type: 'string' }, only: { type: 'string' }, quick: { type: 'boolean' } },
})
const most = Number(options.n ?? (options.quick ? 3 : 20))
if (!Number.isInteger(most) || most < 1) fail(`--n '${options.n}' is no number of calls; pass 1 or more`, 2)
const since = performance.now()
const table = join(root, 'docs', 'FAULTS.md')
/** Lists the rows, and checks that none is missing. */
const COMPLETE = 'every_errno_of_a_call_is_injected_or_impossible_for_a_reason'
/** The tests that take longest. */
const FIRST = ['every_failure_of_eventfds_timers_and_files_has_its_expected_result', 'every_refusal_of_a_ring_has_its_expected_result', 'every_failing_completion_has_its_expected_result']
const folder = mkdtempSync(join(tmpdir(), 'fdmon-faults-'))
process.on('exit', () => rmSync(folder, { recursive: true, force: true }))

needCargo()
const program = buildProgram('faults', ['test', '--quiet', '--features', 'faults', '--test', 'faults'])
const rows = options.quick ? [] : listed()
const possible = rows.filter(({ impossible }) => !impossible)
const impossible = rows.filter((row) => row.impossible)
const wrong = []
if (options.check) check()
else if (options.quick) await runTests({ ...process.env, FDMON_FAULTS_N: String(most) }, false).then(() => say(`faults: ${seconds(since)}`))
else await inject()
for (const text of wrong) say(`wrong: ${text}`)
if (wrong.length > 0) process.exitCode = 1

// --- Rows ------------------------------------------------------------------------------------------------------------------

/** What the sources say, in their order. */
function listed() {
  const file = join(folder, 'rows')
  const { status, stdout } = spawnSync(program, ['--exact', COMPLETE], { encoding: 'utf8', env: { ...process.env, FDMON_FAULTS_ROWS: file } })
  if (status !== 0) fail(`the tables of the crate are not complete\n${stdout}`)
  const addon = spawnSync(process.execPath, ['--import=tsx', join('__test__', 'faults', 'rows.ts')], { cwd: root, encoding: 'utf8' })
  if (addon.status !== 0) fail(`the table of the addon cannot be read; run: npm install\n${addon.stderr}`)
  return linesOf(`${readFileSync(file, 'utf8')}${addon.stdout}`)
}

function linesOf(text) {
  return text.split('\n').filter(Boolean).map((text) => JSON.parse(text))
}

function key({ group, at }) {
  return `${group} ${at.join(' ')}`
}

function name({ call, what, errno }) {
  return `${call} (${what}) ${errno}`
}

// --- Running ---------------------------------------------------------------------------------------------------------------

async function inject() {
  const file = join(folder, 'results')
  writeFileSync(file, '')
  const env = { ...process.env, FDMON_FAULTS_REPORT: file, FDMON_FAULTS_N: String(most), FDMON_FAULTS_ONLY: options.only ?? '' }
  await runTests(env, options.only === undefined)
  const results = new Map(linesOf(readFileSync(file, 'utf8')).map((row) => [key(row), row]))
  const met = possible.flatMap((row) => {
    const result = results.get(key(row))
    if (result === undefined && options.only === undefined) wrong.push(`${name(row)} was not run`)
    if (result && casesOf(result) === 0) wrong.push(`${name(row)} was never met`)
    return result ? [{ ...row, ...result }] : []
  })
  const cases = met.reduce((sum, row) => sum + casesOf(row), 0)
  say(`${met.length} rows, ${count(cases)} cases, ${impossible.length} rows of impossible errnos, ${seconds(since)}`)
  if (options.only !== undefined || wrong.length > 0) return
  writeFileSync(table, seal(document(met, cases)))
  say('docs/FAULTS.md written')
}

/** Each in a process of its own, as many at once as there are CPUs. */
async function runTests(env, withAddon) {
  const { stdout } = spawnSync(program, ['--list'], { encoding: 'utf8' })
  const names = [...stdout.matchAll(/^(\w+): test$/gm)].map(([, test]) => test)
  const tests = [...FIRST, ...names.filter((test) => !FIRST.includes(test))].map((test) => [test, program, ['--exact', test]])
  if (withAddon) tests.unshift(['the addon', join(root, 'node_modules', '.bin', 'ava'), [join('__test__', 'faults.test.ts')]])
  let next = 0
  const worker = async () => {
    while (next < tests.length) await runTest(tests[next++], env)
  }
  await Promise.all(Array.from({ length: availableParallelism() }, worker))
}

function runTest([title, command, args], env) {
  const begin = performance.now()
  return new Promise((resolve) => {
    const child = spawn(command, args, { cwd: root, env, stdio: ['ignore', 'pipe', 'pipe'] })
    let text = ''
    for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (chunk) => (text += chunk))
    child.on('error', (error) => fail(`cannot run ${command}: ${error.message}`))
    child.on('close', (code) => {
      if (options.quick) process.stdout.write(text)
      say(`${title.replaceAll('_', ' ')}: ${code === 0 ? 'passed' : 'FAILED'}, ${seconds(begin)}`)
      if (code !== 0) {
        wrong.push(`${title} failed`)
        if (!options.quick) process.stderr.write(text)
      }
      resolve()
    })
  })
}

function casesOf({ hits }) {
  return hits.reduce((sum, times) => sum + times, 0)
}

// --- Writing ---------------------------------------------------------------------------------------------------------------

function escaped(text) {
  return text.replaceAll('|', '\\|')
}

function place({ call, what, file }) {
  return `\`${call}\`: ${escaped(what)} (${file})`
}

/** The cells of a row that the sources alone decide. */
function begin(row) {
  return line([place(row), row.errno, escaped(row.on.join('; ')), escaped(row.expect)]).replace(/ \|\n$/, '')
}

function beginImpossible(row) {
  return line([place(row), row.impossible, escaped(row.why)])
}

/** "1–3: 14, 4: 2": so many cases for each n. */
function byN(hits) {
  const runs = []
  for (const [at, times] of hits.entries()) {
    const last = runs.at(-1)
    if (last?.times === times) last.to = at + 1
    else runs.push({ from: at + 1, to: at + 1, times })
  }
  return runs.map(({ from, to, times }) => `${from === to ? from : `${from}–${to}`}: ${times}`).join(', ')
}

function document(met, cases) {
  const { commit, cpu, cpuCount, kernel, tools } = machine()
  const groups = [...new Set(met.map(({ group }) => group))]
  const part = (group) => {
    const rows = met.filter((row) => row.group === group).map((row) => {
      const all = casesOf(row)
      const told = row.toldBy.length > 0 ? row.toldBy.map((op) => `\`${op}\``).join(', ') : ''
      return begin(row) + ` | ${told} | ${byN(row.hits)} | ${count(all - row.wrong)} of ${count(all)} |\n`
    })
    const head = ['call, its purpose and where it is made', 'errno', 'on', 'expected', 'told by', 'cases met, by n', 'as expected']
    return `## ${group}\n\n${line(head)}${line(head.map(() => '---'))}${rows.join('')}\n`
  }
  const head = ['call, its purpose and where it is made', 'errno', 'why it never comes']
  const pairs = impossible.reduce((sum, row) => sum + row.impossible.split(' ').length, 0)
  return `# Faults

Written by \`npm run faults\`; do not edit. What happens when the kernel refuses fdmon a system call, or a request on a ring fails: for
each place where the call is made, each errno that its man page allows.

A case is the whole life of a context, of which the n-th call at the place fails, n up to ${most}: it is built, watches eventfds, sockets and
files, spins, sleeps, is woken by another thread, nests, grows to 80 fds, is embedded in an outer loop and is closed. A supervisor answers
its calls (seccomp user notification); completions are changed as they are taken from the ring. After the fault the result must be the
expected one, each event that was or becomes pending must come, once, \`poll_end\` must follow each \`poll_begin\`, and no file may stay open.
"On" are the monitors on which it is met; "told by" the call of the user that returned the error, which succeeds when made again.

${count(met.length)} rows, ${count(cases)} cases, all as expected; ${count(pairs)} pairs of a place and an errno are impossible, and say why.

${groups.map(part).join('')}## Impossible

${line(head)}${line(head.map(() => '---'))}${impossible.map(beginImpossible).join('')}
- Commit ${commit}; ${cpuCount} × ${cpu}, Linux ${kernel}; ${tools}. In ${seconds(since)}.
- Man pages: Linux man-pages 6.03, and those of liburing for rings.
- Not failed: what the allocator, the standard library and Node call for themselves.
`
}

// --- Checking --------------------------------------------------------------------------------------------------------------

/** Each row is there, in the order of the sources, and no other. */
function check() {
  const text = readFileSync(table, 'utf8')
  const lines = text.split('\n').filter((line) => line.startsWith('| `')).map((line) => `${line}\n`)
  const wanted = [...possible.map(begin), ...impossible.map(beginImpossible)]
  const isOf = (line, row) => line === row || line.startsWith(`${row} | `)
  const missing = wanted.filter((row) => !lines.some((line) => isOf(line, row)))
  const strange = lines.filter((line) => !wanted.some((row) => isOf(line, row)))
  for (const row of missing) wrong.push(`docs/FAULTS.md lacks: ${row.trim()}`)
  for (const row of strange) wrong.push(`docs/FAULTS.md has, and the sources lack: ${row.trim()}`)
  if (lines.length !== wanted.length) wrong.push(`docs/FAULTS.md has ${lines.length} rows, the sources ${wanted.length}`)
  if (wrong.length > 0) wrong.push('write the table anew with: npm run faults')
  else say(`docs/FAULTS.md has the ${lines.length} rows of the sources: ${seconds(since)}`)
}
