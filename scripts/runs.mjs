// What was truly run where: docs/runs/*.json, an array of rows a file, written by the scripts that ran it; docs/PLATFORMS.md is made of them.
//
// A row is { target, runtime, kernel, monitor, tests, passed, failed }; what else is known of it: `how` (emulated by what), `refused` (why this
// kernel has not that monitor: the one test is that this is said), `commit` and `date` of the run.
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { root, say } from './step.mjs'

export const FOLDER = join(root, 'docs', 'runs')
/** What is looked at to say that a checkout has changes. */
const SOURCES = ['crates', 'ts', '__test__', 'Cargo.lock']

const git = (...args) => execFileSync('git', args, { cwd: root, encoding: 'utf8' }).trim()

/** The commit of this checkout, and whether it has changes. */
export function commit() {
  return git('rev-parse', '--short', 'HEAD') + (git('status', '--porcelain', '--', ...SOURCES) === '' ? '' : ' with changes')
}

/** Adds rows to docs/runs/<name>.json, in place of older ones of the same target, runtime, kernel and monitor. */
export function writeRuns(name, rows) {
  const now = commit()
  const date = new Date().toISOString().slice(0, 10)
  const key = ({ target, runtime, kernel, monitor }) => [target, runtime, kernel, monitor].join()
  const fresh = new Map(rows.map((row) => [key(row), { ...row, commit: row.commit ?? now, date }]))
  const kept = readRuns(name).filter((row) => !fresh.has(key(row)))
  const all = [...kept, ...fresh.values()].sort((a, b) => (key(a) < key(b) ? -1 : 1))
  keepRuns(name, all)
  say(`docs/runs/${name}.json: ${rows.length} rows written, ${kept.length} kept`)
}

/** docs/runs/<name>.json has these rows alone, a line each. */
export function keepRuns(name, rows) {
  mkdirSync(FOLDER, { recursive: true })
  writeFileSync(join(FOLDER, `${name}.json`), `[\n${rows.map((row) => `  ${JSON.stringify(row)}`).join(',\n')}\n]\n`)
}

/** The rows of docs/runs/<name>.json; none when it was never run. */
export function readRuns(name) {
  const path = join(FOLDER, `${name}.json`)
  return existsSync(path) ? JSON.parse(readFileSync(path, 'utf8')) : []
}
