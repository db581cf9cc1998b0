// Measured tables are written by the script that measured, never by hand: each carries a sum of its text.
//
//   node scripts/seal.mjs      checks the sums of docs/ and DESIGN.md, and that the table in README.md is the one of docs/MAIN-JOB.md
import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { fail, root, say } from './step.mjs'

const SEAL = /\n<!-- sum ([0-9a-f]{16}) -->\n$/

/** The text of a measured table with its sum below. */
export function seal(text) {
  return `${text}\n<!-- sum ${sum(text)} -->\n`
}

/** A document with the measured part `name`, which lies between two markers, replaced by this text and its sum. */
export function sealPart(document, name, text) {
  const [begin, end] = [`<!-- ${name}:begin -->\n`, `<!-- ${name}:end -->\n`]
  const [from, to] = [document.indexOf(begin), document.indexOf(end)]
  if (from < 0 || to < from) fail(`no place for what was measured; put a line "${begin.trim()}" and a line "${end.trim()}" where it belongs`)
  return `${document.slice(0, from)}${begin}${seal(text)}${document.slice(to)}`
}

function sum(text) {
  return createHash('sha256').update(text).digest('hex').slice(0, 16)
}

function check() {
  const read = (path) => readFileSync(join(root, path), 'utf8')
  const measured = readdirSync(join(root, 'docs'))
    .filter((name) => name.endsWith('.md'))
    .map((name) => [join('docs', name), read(join('docs', name))])
    .filter(([, text]) => /^Written by `npm (run (bench|docs:platforms|faults|loom|test:kernels|verify)|start)/m.test(text))
  for (const [path, text] of measured) {
    const found = SEAL.exec(text)
    if (!found) fail(`${path} has no sum; write it with the script that it names`)
    if (found[1] !== sum(text.slice(0, found.index))) fail(`${path} was edited by hand; write it with the script that it names`)
  }
  const parts = [...read('DESIGN.md').matchAll(/<!-- (\S+):begin -->\n([^]*?)<!-- \1:end -->/g)]
  for (const [, name, part] of parts) {
    const found = SEAL.exec(part)
    if (found?.[1] !== sum(part.slice(0, found?.index))) fail(`DESIGN.md: the part "${name}" was edited by hand; write it with: npm run bench:${name}`)
  }
  const shown = /<!-- written by "npm start -- --write" -->\n([^]*?)<!-- end -->/.exec(read('README.md'))?.[1] ?? ''
  const source = measured.find(([path]) => path.endsWith('MAIN-JOB.md'))?.[1] ?? ''
  const strange = shown.split('\n').filter((line) => line.startsWith('|') && !source.includes(`${line}\n`))
  if (strange.length > 0) fail(`README.md: "${strange[0]}" is not in docs/MAIN-JOB.md; write both with "npm start -- --write"`)
  say(`measured tables: ${measured.length + parts.length} are as they were written`)
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) check()
