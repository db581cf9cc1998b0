// Refused calls in the addon: each errno that the call allows arrives as an FdmonError, or does not matter.
import test from 'ava'
import { constants } from 'node:os'
import { words, type Place, type Row } from './faults/place.js'
import { places } from './faults/places.js'
import { faulted, report } from './faults/run.js'

interface Outcome {
  value?: unknown
  thrown?: { name: string; code: string; errno?: number; syscall?: string; message: string }
}

const program = (place: Place): string => `
  const attempt = () => { ${place.run} }
  ${place.setup ?? ''}
  const outcomes = []
  const round = () => {
    try { outcomes.push({ value: attempt() }) }
    catch ({ name, code, errno, syscall, message }) { outcomes.push({ thrown: { name, code, errno, syscall, message } }) }
  }
  mark()
  for (let at = 0; at <= data.rows; at++) round()
  mark()
  say(JSON.stringify(outcomes))`

/** The rule of each row: the n-th call is the first one that its round makes. */
function rulesOf({ rule, rows }: Place): string[] {
  let calls = 0
  return rows.map((row) => {
    const nth = calls + 1
    calls += row.calls ?? 1
    return `${rule}@${nth}=${row.errno}`
  })
}

function complaint(place: Place, { errno, expected }: Row, { value, thrown }: Outcome): string | undefined {
  if ('throws' in expected) {
    if (thrown === undefined) return `${errno}: nothing was thrown`
    const number = constants.errno[errno as keyof typeof constants.errno]
    const right =
      thrown.name === 'FdmonError' && thrown.code === expected.throws && thrown.errno === number && thrown.syscall === place.call
    if (!right || !thrown.message.includes(expected.says) || !/; [a-z]/.test(thrown.message)) return `${errno}: ${JSON.stringify(thrown)}`
    return undefined
  }
  const wanted = 'again' in expected ? place.usual : expected.answers
  if (thrown !== undefined) return `${errno}: ${JSON.stringify(thrown)}`
  return value === wanted ? undefined : `${errno}: ${String(value)} instead of ${String(wanted)}`
}

for (const [at, place] of places.entries()) {
  test(`${place.call} of ${place.what}: each errno has its expected result`, async (t) => {
    const { said, code, stderr, hits } = await faulted(rulesOf(place), program(place), { rows: place.rows.length })
    t.is(code, 0, stderr)
    t.is(said.length, 1, said.join('\n'))
    const outcomes = JSON.parse(said[0] ?? '[]') as Outcome[]
    t.deepEqual(hits, place.rows.map(() => 1), 'each fault was met once')
    const complaints = place.rows.flatMap((row, at) => complaint(place, row, outcomes[at] ?? {}) ?? [])
    t.deepEqual(complaints, [])
    t.deepEqual(outcomes.at(-1), place.usual === undefined ? {} : { value: place.usual }, 'afterwards it works')
    for (const [row, { errno, expected }] of place.rows.entries()) {
      const { call, what, file, impossible } = place
      report({ group: 'the addon', at: [at, row], call, what, file: `fdmon-napi: ${file}`, errno, on: [], expect: words(expected), hits: hits[row], furthest: 1, impossible })
    }
  })
}
