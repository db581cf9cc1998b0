// Refused calls in the addon: each errno that the call allows arrives as an FdmonError, or does not matter; and an attached
// context that is refused one goes on.
import test from 'ava'
import { constants } from 'node:os'
import { attached, type Attached } from './faults/attached.js'
import type { Place, Row } from './faults/place.js'
import { places } from './faults/places.js'
import { attachedRow, row as rowOf } from './faults/rows.js'
import { faulted, report } from './faults/run.js'
import { monitors } from './on-each.js'

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

/** Node has no name for the first. */
const numbers: Readonly<Record<string, number>> = { ETOOMANYREFS: 109, ...constants.errno }

function complaint(place: Place, { errno, expected }: Row, { value, thrown }: Outcome): string | undefined {
  if ('throws' in expected) {
    if (thrown === undefined) return `${errno}: nothing was thrown`
    const right =
      thrown.name === 'FdmonError' && thrown.code === expected.throws && thrown.errno === numbers[errno] && thrown.syscall === place.call
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
    for (const [row] of place.rows.entries()) report({ ...rowOf(at, row), hits: [hits[row]], wrong: 0, toldBy: [] })
  })
}

/** Bells that are rung in each of ten rounds; whatever becomes of the context, each must be heard each time. */
const attachedProgram = `
  const ctx = context()
  const heard = []
  const errors = []
  const note = ({ name, code, errno, syscall, message }) => errors.push({ name, code, errno, syscall, message })
  const bell = () => {
    const notifier = new fdmon.EventNotifier()
    const at = heard.push(0) - 1
    let wrote = 0
    const registration = ctx.setFdHandler(notifier, {
      read() { if (notifier.testAndClear()) heard[at]++ },
      write() { wrote++; registration.setInterest({ write: false }) },
    })
    registration.setInterest({ write: false })
    return { notifier, registration, wrote: () => wrote }
  }
  const bells = [bell(), bell()]
  let fired = 0
  let due
  const timer = ctx.timer(() => { fired++; due() })
  const attach = () => { try { ctx.attach() } catch (error) { note(error); ctx.attach() } }
  process.on('uncaughtException', (error) => { note(error); attach() })
  const until = async (done) => { while (!done()) await new Promise((resolve) => setImmediate(resolve)) }
  const deeds = {
    attach,
    register() { bells.push(bell()) },
    interest() { bells[0].registration.setInterest({ write: true }) },
    // Nothing else is to be done, so libuv sleeps.
    deadline: () => new Promise((resolve) => { due = resolve; timer.arm(900_000) }),
    events() {},
  }
  const main = async () => {
    if (data.deed !== 'attach') {
      attach()
      for (const { notifier } of bells) notifier.set()
      await until(() => heard.every((times) => times === 1))
      heard.fill(0)
    }
    mark()
    await deeds[data.deed]()
    for (let round = 1; round <= 10; round++) {
      for (const { notifier } of bells) notifier.set()
      await until(() => heard.every((times) => times === round))
    }
    if (data.deed === 'interest') await until(() => bells[0].wrote() > 0)
    mark()
    await pause(1)
    say(JSON.stringify({ heard, fired, errors, monitor: ctx.monitor, reason: ctx.monitorReason }))
    ctx.close()
  }
  main()`

interface Left {
  heard: number[]
  fired: number
  errors: NonNullable<Outcome['thrown']>[]
  monitor: string
  reason: string
}

function complaints({ monitor, deed, rules, moves, error }: Attached, left: Left): string[] {
  const wrong: string[] = []
  if (left.heard.length !== (deed === 'register' ? 3 : 2) || left.heard.some((times) => times !== 10)) wrong.push(`heard ${left.heard.join(', ')} times`)
  if (left.fired !== (deed === 'deadline' ? 1 : 0)) wrong.push(`the timer ran ${left.fired} times`)
  if (left.monitor !== (moves?.to ?? monitor) || !left.reason.includes(moves?.says ?? '')) wrong.push(`on ${left.monitor}: ${left.reason}`)
  const errno = numbers[rules[0]?.split('=')[1] ?? '']
  const right = (told: Left['errors'][number]): boolean =>
    told.name === 'FdmonError' && told.code === error?.code && told.errno === errno && told.syscall === error.syscall && told.message.includes(error.says)
  if (left.errors.length !== (error ? 1 : 0) || !left.errors.every(right)) wrong.push(JSON.stringify(left.errors))
  return wrong
}

for (const [at, row] of attached.entries()) {
  if (!monitors.includes(row.monitor)) continue
  test(`attached, ${row.monitor}, ${row.deed}: ${row.rules.join(' ')} loses no event [SPEC 51]`, async (t) => {
    const { said, code, stderr, hits } = await faulted(row.rules, attachedProgram, { monitor: row.monitor, deed: row.deed })
    t.is(code, 0, stderr)
    t.is(said.length, 1, said.join('\n'))
    t.true(hits.every((times) => times > 0), `the faults were met ${hits.join(', ')} times`)
    t.deepEqual(complaints(row, JSON.parse(said[0] ?? '{}') as Left), [])
    report({ ...attachedRow(at), hits: [1], wrong: 0, toldBy: [] })
  })
}
