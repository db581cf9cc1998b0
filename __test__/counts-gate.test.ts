// The gate on counts names what grew. That it is right about callgrind's figures shows in docs/runs/counts.json: each row's sum is its count.
import { readFileSync } from 'node:fs'
import test from 'ava'
import { grown, keptFunctions, ofARound } from '../scripts/bench/functions.mjs'

const turn = { 'turn.rs': 100, 'wait.rs': 50 }

test('a round is the difference of two runs, so that start-up cancels', (t) => {
  const short = { main: { 'main.rs': 500 }, turn: { 'turn.rs': 1_000 } }
  const long = { main: { 'main.rs': 500 }, turn: { 'turn.rs': 101_000, 'wait.rs': 50_000 } }
  t.deepEqual(ofARound(long, short, 1_000), { turn })
})

test('functions that grew are named with their files, the most first, and those that shrank are not', (t) => {
  const was = { turn, wake: { 'wake.rs': 10 }, read: { 'fd.rs': 20 } }
  const is = { turn: { 'turn.rs': 104, 'wait.rs': 49 }, wake: { 'wake.rs': 40 }, read: { 'fd.rs': 5 }, probe: { 'ring.rs': 7 } }
  t.deepEqual(grown(was, is), ['wake: 10 → 40 (wake.rs 10 → 40)', 'probe: 0 → 7 (ring.rs 0 → 7)', 'turn: 150 → 153 (turn.rs 100 → 104)'])
  t.deepEqual(grown(was, is, 1), ['wake: 10 → 40 (wake.rs 10 → 40)', 'and 2 more'])
  t.deepEqual(grown(was, was), [])
})

test('the functions written down are those of the counts written down', (t) => {
  const counts = keptFunctions()
  const budgets = readFileSync(new URL('../docs/BUDGETS.md', import.meta.url), 'utf8')
  const rows = [...budgets.matchAll(/^\| ([^|]+) \| ([\d,]+) instructions \|/gm)]
  t.true(rows.length > 20)
  for (const [, name = '', instructions = ''] of rows) {
    const sum = Object.values(counts[name] ?? {}).flatMap((files) => Object.values(files)).reduce((total, of) => total + of, 0)
    const counted = Number(instructions.replaceAll(',', ''))
    t.true(Math.abs(sum - counted) <= Math.max(2, counted / 200), `${name}: ${sum} of ${counted}`)
  }
})
