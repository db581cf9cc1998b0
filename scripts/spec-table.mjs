// Makes docs/SPEC-TESTS.md: each numbered behaviour and the tests that carry its number.
//
//   node scripts/spec-table.mjs            check: fails when a row is empty or the committed table is stale
//   node scripts/spec-table.mjs --write    write it
//
// A Rust test carries a number by a comment "SPEC 18" or "SPEC 18, 20" directly above it, an ava test by the suffix
// "[SPEC 18]" or "[SPEC 18, 20]" of its title.
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { fail, root, say, seconds } from './step.mjs'
import { items } from './spec-items.mjs'

const since = performance.now()
const target = join(root, 'docs', 'SPEC-TESTS.md')
const tests = new Map(items.map(([number]) => [number, []]))
const problems = []

for (const file of filesUnder('crates', /\.rs$/)) readRust(file)
for (const file of filesUnder('__test__', /\.ts$/)) readAva(file)

const text = table()
for (const [number, what, open] of items) {
  if (!open && tests.get(number).length === 0) problems.push(`SPEC ${number} (${what}) has no test; mark one or write one`)
}
const write = process.argv.includes('--write')
const old = existsSync(target) ? readFileSync(target, 'utf8') : ''
if (write) {
  mkdirSync(dirname(target), { recursive: true })
  if (old !== text) writeFileSync(target, text)
} else if (old !== text) {
  problems.push(`${relative(root, target)} is stale; run "npm run docs:spec" and commit it`)
}

for (const problem of problems) process.stderr.write(`${problem}\n`)
const marked = new Set([...tests.values()].flat().map(({ file, name }) => `${file} ${name}`)).size
const open = items.filter(([, , why]) => why).length
const summary = `behaviours: ${items.length}, ${open} of them open, carried by ${marked} tests`
if (problems.length > 0) fail(`${summary}; ${problems.length} problems, ${seconds(since)}`)
say(`${summary}, ${write ? 'written' : 'checked'} in ${seconds(since)}`)

function filesUnder(folder, pattern) {
  const full = join(root, folder)
  if (!existsSync(full)) return []
  return readdirSync(full, { recursive: true })
    .map((name) => join(folder, name))
    .filter((name) => pattern.test(name) && !name.includes('node_modules'))
    .sort()
}

/** "18", "18, 20", "32–35": the numbers. */
function numbersOf(list) {
  return list.split(',').flatMap((part) => {
    const [first, last = first] = part.split(/[-–]/).map(Number)
    return Array.from({ length: last - first + 1 }, (_, index) => first + index)
  })
}

function add(list, file, line, name) {
  for (const number of numbersOf(list)) {
    const row = tests.get(number)
    if (!row) problems.push(`${file}:${line}: there is no SPEC ${number}; the numbers are 1 to ${items.length}`)
    else if (!row.some((test) => test.file === file && test.name === name)) row.push({ file, name })
  }
}

function readRust(file) {
  const lines = readFileSync(join(root, file), 'utf8').split('\n')
  // In src/ a number may also stand above the code that keeps the promise; only #[test] makes it a test.
  const needsAttribute = file.includes('/src/')
  let pending = []
  let attribute = false
  lines.forEach((line, index) => {
    const comment = /^\s*\/\/[/!]?(.*)$/.exec(line)
    if (comment) {
      for (const [, list] of comment[1].matchAll(/\bSPEC (\d+(?:\s*[-–,]\s*\d+)*)/g)) pending.push({ list, line: index + 1 })
      return
    }
    if (/^\s*#!?\[/.test(line)) {
      attribute ||= /#\[(?:\w+::)*test\b/.test(line)
      return
    }
    const counts = attribute || !needsAttribute
    attribute = false
    if (pending.length === 0) return
    // A test function, or one line of a macro that instantiates a case for each monitor.
    const name = /^\s*(?:pub(?:\([a-z]+\))? )?(?:async )?(?:unsafe )?(?:fn )?([a-z_][a-z0-9_]*)/.exec(line)?.[1]
    if (name && counts) for (const { list, line: at } of pending) add(list, file, at, name.replaceAll('_', ' '))
    pending = []
  })
}

function readAva(file) {
  const source = readFileSync(join(root, file), 'utf8')
  const marks = /\[SPEC (\d+(?:\s*[-–,]\s*\d+)*)\]/g
  for (const [, , title, marked] of source.matchAll(/(['"`])((?:(?!\1)[^\\\n]|\\.)*?)((?:\s*\[SPEC [\d\s,–-]+\])+)\1/g)) {
    const line = source.slice(0, source.indexOf(title)).split('\n').length
    const name = title.replaceAll(/\$\{[^}]*\}/g, '…').replaceAll('\\', '')
    for (const [, list] of marked.matchAll(marks)) add(list, file, line, name)
  }
}

function table() {
  const rows = items.map(([number, what, why]) => {
    const byFile = new Map()
    for (const { file, name } of tests.get(number)) byFile.set(file, [...(byFile.get(file) ?? []), name])
    const cells = [...byFile].map(([file, names]) => `\`${file}\`: ${names.map(escape).join('; ')}`)
    if (why) cells.unshift(`*${why}*`)
    return `| ${number} | ${escape(what)} | ${cells.join('<br>')} |`
  })
  return [
    '# Behaviours and their tests',
    '',
    'Made by `npm run docs:spec` from the marks in the tests; do not edit. A row that says *open* is still to be built, as a',
    'whole or in part. Tests of the loop run on every monitor.',
    '',
    '| SPEC | what it says | tests |',
    '| --- | --- | --- |',
    ...rows,
    '',
  ].join('\n')
}

function escape(text) {
  return text.replaceAll('|', '\\|')
}
