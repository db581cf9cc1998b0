// npm run loom: checks the models of the wake-up protocol, and that each of its steps is missed when it is left out.
//
//   node scripts/loom.mjs [--check] [--quick] [--only TEXT] [--mutation NAME]
//
// Builds crates/fdmon once with its types from loom and the mutations compiled in, runs each model (crates/fdmon/src/models) in a
// process of its own, then each mutation (scripts/loom/mutations.mjs) against the models until one fails, and writes docs/MODELS.md.
// --check writes nothing: all models must pass, the table must name just these models and mutations, and each mutation that it says
// is caught must be, by the model that it names first. --quick leaves the mutations out. --only runs the models whose name contains
// TEXT, --mutation one mutation against all models; both write nothing. LOOM_MAX_PREEMPTIONS replaces the bounds of the models.
import { execFileSync, spawn } from 'node:child_process'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { mutations } from './loom/mutations.mjs'
import { seal } from './seal.mjs'
import { buildProgram, fail, needCargo, root, say, seconds } from './step.mjs'

const { values: options } = parseArgs({
  options: { check: { type: 'boolean' }, quick: { type: 'boolean' }, only: { type: 'string' }, mutation: { type: 'string' } },
})
const since = performance.now()
const table = join(root, 'docs', 'MODELS.md')
/** A mutation can make a model endless. */
const LIMIT = 300_000

sameSteps()
if (options.mutation && !mutations.some(({ step }) => step === options.mutation)) {
  fail(`--mutation '${options.mutation}' is none; use one of: ${mutations.map(({ step }) => step).join(', ')}`)
}
needCargo()
const program = build()
const names = modelsOf(program).filter((name) => !options.only || name.includes(options.only))
if (names.length === 0) fail(`--only '${options.only}': no model has this in its name`)
const wrong = []

const models = await all(names, async (name) => {
  const result = await run(name)
  if (!result.passed) {
    wrong.push(`${name} failed`)
    process.stderr.write(result.text)
  }
  say(`${name}: ${result.passed ? `${result.orders} orders, ${result.bound} preemptions` : 'FAILED'}, ${result.seconds.toFixed(1)} s`)
  return { name, ...result }
})
const took = seconds(since)
say(`models: ${models.filter(({ passed }) => passed).length} of ${models.length} pass, ${took}`)

if (wrong.length === 0 && options.mutation) await one(options.mutation)
else if (wrong.length === 0 && options.check) await check()
else if (wrong.length === 0 && !options.quick && !options.only) await write()
for (const line of wrong) say(`wrong: ${line}`)
if (wrong.length > 0) process.exitCode = 1

/** The table of mutations and the source name the same steps. */
function sameSteps() {
  const folder = join(root, 'crates', 'fdmon', 'src')
  const files = readdirSync(folder, { recursive: true }).filter((name) => name.endsWith('.rs'))
  const source = files.map((name) => readFileSync(join(folder, name), 'utf8')).join('\n')
  const found = new Set()
  for (const [, first, second] of source.matchAll(/\b(?:kept|ordered|in_order|lower_early|both)\(\s*"([^"]+)"(?:,\s*"([^"]+)")?/g)) {
    found.add(first)
    if (second) found.add(second)
  }
  const listed = new Set(mutations.map(({ step }) => step))
  for (const step of found) if (!listed.has(step)) fail(`"${step}" is a step of the source and not in scripts/loom/mutations.mjs; add it there`)
  for (const step of listed) if (!found.has(step)) fail(`"${step}" is in scripts/loom/mutations.mjs and no step of the source; remove it there`)
}

/** The tests of the library, with loom's types; returns the program. */
function build() {
  const env = {
    RUSTFLAGS: `${process.env.RUSTFLAGS ?? ''} --cfg loom`.trim(),
    CARGO_TARGET_DIR: join(root, 'target', 'loom'),
    // The models take as long; the build a third of the time.
    CARGO_PROFILE_RELEASE_LTO: 'off',
    CARGO_PROFILE_RELEASE_CODEGEN_UNITS: '16',
  }
  return buildProgram('fdmon', ['test', '--lib', '--release', '--features', 'channel,mutations'], env)
}

function modelsOf(program) {
  const text = execFileSync(program, ['models::', '--list'], { encoding: 'utf8' })
  return [...text.matchAll(/^models::(.*): test$/gm)].map(([, name]) => name)
}

/** One model in a process of its own, since a mutation may end it by a signal. */
function run(name, mutation) {
  const env = { ...process.env, RUST_BACKTRACE: '0', FDMON_MUTATION: mutation ?? '' }
  const begin = performance.now()
  return new Promise((resolve) => {
    const child = spawn(program, ['--exact', `models::${name}`, '--nocapture'], { env, timeout: LIMIT, killSignal: 'SIGKILL' })
    let text = ''
    for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (chunk) => (text += chunk))
    child.on('error', (error) => fail(`cannot run ${program}: ${error.message}`))
    child.on('close', (code, signal) => {
      const [, orders, bound] = /: (\d+) orders, (\w+) preemptions/.exec(text) ?? []
      const passed = code === 0 && orders !== undefined
      const endless = signal === 'SIGKILL'
      resolve({ passed, endless, text, bound, orders: Number(orders), seconds: (performance.now() - begin) / 1000 })
    })
  })
}

/** As many at once as there are CPUs; the results in the order of the items. */
async function all(items, body) {
  const results = []
  let next = 0
  const worker = async () => {
    while (next < items.length) {
      const at = next++
      results[at] = await body(items[at])
    }
  }
  await Promise.all(Array.from({ length: availableParallelism() }, worker))
  return results
}

/** The models that fail with this mutation: the quick ones all, then the slow ones until the first. */
async function caughtBy(step) {
  const QUICK = 0.5
  const sorted = models.toSorted((a, b) => a.seconds - b.seconds)
  const caught = []
  for (const { name, seconds } of sorted) {
    if (caught.length > 0 && seconds > QUICK) break
    const result = await run(name, step)
    // One that only takes too long has shown nothing.
    if (!result.passed && !result.endless) caught.push(name)
  }
  return caught
}

async function one(step) {
  const results = await all(names, async (name) => ({ name, ...(await run(name, step)) }))
  for (const { name, passed, endless } of results) say(`${step}: ${name}: ${passed ? 'passes' : endless ? 'does not end' : 'FAILS'}`)
}

async function write() {
  const rows = await all(mutations, async (mutation) => {
    const caught = await caughtBy(mutation.step)
    say(`${mutation.step}: ${caught.length > 0 ? `caught by ${caught[0]}` : 'NOT CAUGHT'}`)
    if (caught.length === 0 && !mutation.argument) wrong.push(`"${mutation.step}" is caught by no model, and there is no argument why`)
    if (caught.length > 0 && mutation.argument) wrong.push(`"${mutation.step}" is caught by ${caught[0]}: its argument is wrong`)
    return { ...mutation, caught }
  })
  say(`mutations: ${rows.filter(({ caught }) => caught.length > 0).length} of ${rows.length} caught, ${seconds(since)}`)
  if (wrong.length > 0) return
  writeFileSync(table, seal(document(rows)))
  say('docs/MODELS.md written')
}

async function check() {
  const cells = readFileSync(table, 'utf8').split('\n').filter((line) => line.startsWith('| ')).map((line) => line.split(' | ').map((cell) => cell.replaceAll(/^\| | \|$/g, '')))
  const known = new Set(cells.map(([first]) => first))
  for (const name of names) if (!known.has(sentence(name))) wrong.push(`${name} is not in docs/MODELS.md; run: npm run loom`)
  for (const { step } of mutations) if (!known.has(step)) wrong.push(`"${step}" is not in docs/MODELS.md; run: npm run loom`)
  if (options.quick || wrong.length > 0) return
  const bySentence = new Map(names.map((name) => [sentence(name), name]))
  const caught = mutations.filter(({ argument }) => !argument)
  await all(caught, async ({ step }) => {
    const [, , by] = cells.find(([first]) => first === step)
    const name = bySentence.get(by.split('; ')[0])
    const result = name && (await run(name, step))
    if (!result || result.passed || result.endless) wrong.push(`"${step}" is no longer caught by "${by.split('; ')[0]}"; run: npm run loom`)
  })
  say(`mutations: ${caught.length} that the table says are caught, ${seconds(since)}`)
}

/** sleep::a_turn_is_woken: "sleep: a turn is woken" */
function sentence(name) {
  return name.replace('::', ': ').replaceAll('_', ' ')
}

function document(rows) {
  const first = (command, args) => execFileSync(command, args, { cwd: root, encoding: 'utf8' }).split('\n')[0].trim()
  const changed = first('git', ['status', '--porcelain', '--', 'crates', 'Cargo.lock']) === '' ? '' : ' with changes'
  const loom = /name = "loom"\nversion = "([^"]+)"/.exec(readFileSync(join(root, 'Cargo.lock'), 'utf8'))?.[1]
  const by = (caught) => caught.slice(0, 2).map(sentence).join('; ') + (caught.length > 2 ? `; ${caught.length - 2} more` : '')
  const line = (cells) => `| ${cells.join(' | ')} |\n`
  const survivors = rows.filter(({ caught }) => caught.length === 0)
  return (
    '# Models\n\n' +
    'Written by `npm run loom`; do not edit. What loom checks of the wake-up protocol, and which model notices when a step of it is\n' +
    'left out. The models are in `crates/fdmon/src/models`: whole turns of the production source, on a kernel that is a counter a\n' +
    'notifier and one condition variable.\n\n' +
    '## Models\n\n' +
    line(['model', 'orders', 'preemptions']) + line(['---', '---:', '---:']) +
    models.map(({ name, orders, bound }) => line([sentence(name), orders.toLocaleString('en-US'), bound])).join('') +
    `\nAll of them pass, in ${took}. "Any" number of preemptions is every order there is; elsewhere a thread is interrupted at most so often.\n` +
    '\n## Mutations\n\n' +
    line(['step', 'what the mutation does', 'caught by']) + line(['---', '---', '---']) +
    rows.filter(({ caught }) => caught.length > 0).map(({ step, what, caught }) => line([step, what, by(caught)])).join('') +
    '\nThe models that take long are tried only until the first catches it.\n' +
    '\n## Caught by none\n\n' +
    (survivors.length === 0 ? 'Each is caught.\n' : line(['step', 'what the mutation does', 'why it stays']) + line(['---', '---', '---'])) +
    survivors.map(({ step, what, argument }) => line([step, what, argument])).join('') +
    `\n- Commit ${first('git', ['rev-parse', '--short', 'HEAD'])}${changed}; loom ${loom}, ${first('rustc', ['--version']).replace(/ \(.*/, '')}.\n` +
    '- Not modelled: the pending words, which one thread writes; the memory shared with a ring, whose other side is the kernel; counters.\n'
  )
}
