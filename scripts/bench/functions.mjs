// Where the instructions of a row are: { function: { file: instructions a round } }. Most of a turn is inlined into one function;
// the files tell which part of it. docs/runs/counts.json keeps them of every row, so that a rise can name what grew.
import { execFileSync } from 'node:child_process'
import { keepRuns, readRuns } from '../runs.mjs'

/** What is less than this in a round is start-up that did not cancel. */
const LEAST = 0.05

/** What callgrind wrote to `file`: a function's own instructions, without those of what it called. */
export function functionsOf(file) {
  const args = ['--threshold=100', '--show-percs=no', '--auto=no', file]
  const text = execFileSync('callgrind_annotate', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'], maxBuffer: 2 ** 28 })
  const functions = {}
  for (const [, instructions, path, name] of text.matchAll(/^ *([\d,]+) {2}(\S+?):(\S.*?)(?: \[[^\]]*\])?$/gm)) {
    const files = (functions[name] ??= {})
    files[short(path)] = (files[short(path)] ?? 0) + Number(instructions.replaceAll(',', ''))
  }
  return functions
}

/** The functions of one round: the difference of two runs that are `rounds` apart. */
export function ofARound(long, short, rounds) {
  const functions = {}
  for (const name of names(long, short)) {
    const files = names(long[name], short[name])
      .map((file) => [file, ((long[name]?.[file] ?? 0) - (short[name]?.[file] ?? 0)) / rounds])
      .filter(([, instructions]) => Math.abs(instructions) >= LEAST)
      .map(([file, instructions]) => [file, Number(instructions.toFixed(2))])
    if (files.length > 0) functions[name] = Object.fromEntries(files.toSorted(([, a], [, b]) => b - a))
  }
  return Object.fromEntries(Object.entries(functions).toSorted(([a, left], [b, right]) => sum(right) - sum(left) || (a < b ? -1 : 1)))
}

/** What grew from `was` to `is` in a round, the most first, at most `most` functions: "name: 208 → 214 (dispatch.rs 37 → 43)". */
export function grown(was, is, most = 5) {
  const functions = names(was, is)
    .map((name) => ({ name, was: was[name] ?? {}, is: is[name] ?? {} }))
    .filter(({ was, is }) => sum(is) - sum(was) >= 0.5)
    .toSorted((a, b) => sum(b.is) - sum(b.was) - sum(a.is) + sum(a.was))
  const rest = functions.length > most ? [`and ${functions.length - most} more`] : []
  return [...functions.slice(0, most).map(({ name, was, is }) => `${name}: ${change(sum(was), sum(is))} (${byFile(was, is)})`), ...rest]
}

function byFile(was, is) {
  const files = names(was, is).map((file) => [file, was[file] ?? 0, is[file] ?? 0]).filter(([, was, is]) => is - was >= 0.5)
  return files.toSorted(([, a, b], [, c, d]) => d - c - b + a).slice(0, 3).map(([file, was, is]) => `${file} ${change(was, is)}`).join(', ')
}

/** The functions of every row as they were written down. */
export function keptFunctions() {
  const rows = {}
  for (const { row, name, files } of readRuns('counts')) (rows[row] ??= {})[name] = files
  return rows
}

/** Writes down the functions of every row. */
export function keepFunctions(rows) {
  const functions = ([row, functions]) => Object.entries(functions).map(([name, files]) => ({ row, name, files }))
  keepRuns('counts', Object.entries(rows).flatMap(functions))
}

const change = (was, is) => `${Math.round(was)} → ${Math.round(is)}`
const names = (...objects) => [...new Set(objects.flatMap((object) => Object.keys(object ?? {})))]
const sum = (files) => Object.values(files).reduce((total, instructions) => total + instructions, 0)

/** A path without what differs from machine to machine: the folders before a crate, and a crate's version. */
function short(path) {
  return path
    .replace(/^.*\/rustlib\/src\/rust\/library\//, '')
    .replace(/^\/rustc\/[^/]+\/library\//, '')
    .replace(/^.*\/registry\/src\/[^/]+\/([^/]+?)-\d[^/]*\//, '$1/')
    .replace(/^.*?(crates\/)/, '$1')
    .replace(/^(?:\.\/)+/, '')
}
