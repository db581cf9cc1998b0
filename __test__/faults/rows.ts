// The rows of the addon's tables; run as a program, it prints them as lines of JSON for scripts/faults.mjs.
import { pathToFileURL } from 'node:url'
import { attached } from './attached.js'
import { words } from './place.js'
import { places } from './places.js'

const CALLS = 'Calls of the addon'
const ATTACHED = 'A context that is attached to Node'
const DEEDS = {
  attach: 'attach()',
  register: 'setFdHandler()',
  interest: 'setInterest()',
  deadline: 'a deadline below a millisecond',
  events: 'events',
}

/** What stands in the table, whatever becomes of the case. */
export function row(at: number, number: number): object {
  const { call, what, file, rows } = places[at]!
  const { errno, expected } = rows[number]!
  return { group: CALLS, at: [at, number], call, what, file: `fdmon-napi: ${file}`, errno, on: ['any'], expect: words(expected) }
}

export function attachedRow(at: number): object {
  const { monitor, deed, rules, moves, error, why } = attached[at]!
  const [rule, errno] = rules[0]!.split('=')
  const [call, nth] = rule!.split('@')
  const told = error ? `${error.code}: "${error.says}"; ` : moves ? `\`monitorReason\` says "${moves.says}"; ` : ''
  return { group: ATTACHED, at: [at], call, what: `${DEEDS[deed]}, n = ${nth}`, file: 'attach', errno, on: [monitor], expect: told + why }
}

function all(): object[] {
  return [
    ...places.flatMap(({ rows }, at) => rows.map((_, number) => row(at, number))),
    ...places.flatMap(({ call, what, file, impossible }, at) =>
      Object.entries(impossible).map(([errnos, why]) => ({ group: CALLS, at: [at], call, what, file: `fdmon-napi: ${file}`, impossible: errnos, why }))),
    ...attached.map((_, at) => attachedRow(at)),
  ]
}

if (import.meta.url === pathToFileURL(process.argv[1]!).href) for (const one of all()) process.stdout.write(`${JSON.stringify(one)}\n`)
