// Traces for tests: files are read, checked against the schema, and looked through for what no schema says.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Ajv } from 'ajv'
import type { ExecutionContext } from 'ava'
import type { Kit } from './on-each.js'

export interface Event {
  name: string
  ph: 'M' | 'X' | 'i' | 'C' | 's' | 'f'
  cat?: string
  pid: number
  tid: number
  /** Microseconds. */
  ts: number
  dur: number
  id?: string
  args: Record<string, any>
}

export interface TraceFile {
  /** It has ended as it should. */
  whole: boolean
  events: Event[]
  /** Events that are not in it. */
  dropped: number
}

const schema: object = JSON.parse(readFileSync(new URL('../docs/trace.schema.json', import.meta.url), 'utf8'))
const isValid = new Ajv({ allErrors: false, strict: false }).compile(schema)

/** A folder that goes with the test. */
export function folder(kit: Pick<Kit, 'own'>): string {
  return kit.own(mkdtempSync(join(tmpdir(), 'fdmon-traces-')), (path) => rmSync(path, { recursive: true, force: true }))
}

/** As viewers read it: of a file that was cut off, all but its end. */
export function parse(text: string): unknown {
  const trimmed = text.trimEnd()
  return JSON.parse(trimmed.startsWith('[') && !trimmed.endsWith(']') ? `${trimmed}]` : trimmed)
}

/** Reads a trace and checks it. */
export function readTrace(t: ExecutionContext, file: string): TraceFile {
  const read = parse(readFileSync(file, 'utf8'))
  t.true(isValid(read), `${file}: ${JSON.stringify(isValid.errors?.[0])}`)
  const whole = !Array.isArray(read)
  const { traceEvents, otherData } = (whole ? read : { traceEvents: read, otherData: { dropped: '0' } }) as { traceEvents: Event[]; otherData: { dropped: string } }
  checkNames(t, traceEvents)
  checkNesting(t, traceEvents)
  checkFlows(t, traceEvents, whole)
  return { whole, events: traceEvents, dropped: Number(otherData.dropped) }
}

const ns = (us: number): number => Math.round(us * 1000)
export const begin = (event: Event): number => ns(event.ts)
export const end = (event: Event): number => ns(event.ts) + ns(event.dur)

/** The second lies within the first. */
export function within(outer: Event, inner: Event): boolean {
  return outer.pid === inner.pid && outer.tid === inner.tid && begin(outer) < begin(inner) && end(inner) < end(outer)
}

/** The tracks by their names. */
export function tracks({ events }: TraceFile): Map<string, number> {
  return new Map(events.filter((event) => event.name === 'thread_name').map(({ tid, args }) => [args['name'] as string, tid]))
}

/** The events of one name, of one track if that is given. */
export function named({ events }: TraceFile, name: string, tid?: number): Event[] {
  return events.filter((event) => event.name === name && (tid === undefined || event.tid === tid))
}

function checkNames(t: ExecutionContext, events: readonly Event[]): void {
  const known = new Set(events.filter(({ name }) => name === 'thread_name').map(({ tid }) => tid))
  t.deepEqual(events.filter(({ ph, tid }) => ph !== 'M' && !known.has(tid)), [], 'each track has a name')
  t.is(events.filter(({ name }) => name === 'process_name').length, 1)
}

/** Of two slices of a track one lies within the other, or behind it; no two begin or end at once. */
function checkNesting(t: ExecutionContext, events: readonly Event[]): void {
  for (const tid of new Set(events.map((event) => event.tid))) {
    const slices = events.filter((event) => event.ph === 'X' && event.tid === tid).sort((a, b) => begin(a) - begin(b) || end(b) - end(a))
    const open: Event[] = []
    for (const slice of slices) {
      while (open.length > 0 && end(open.at(-1)!) < begin(slice)) open.pop()
      const around = open.at(-1)
      if (around !== undefined && !within(around, slice)) {
        return t.fail(`${JSON.stringify(slice)} is neither within nor behind ${JSON.stringify(around)}`)
      }
      open.push(slice)
    }
  }
  t.pass()
}

/** Each arrow leaves a slice, and arrives later in a slice. */
function checkFlows(t: ExecutionContext, events: readonly Event[], whole: boolean): void {
  const starts = events.filter(({ ph }) => ph === 's')
  const ends = events.filter(({ ph }) => ph === 'f')
  if (whole) t.deepEqual(ends.map(({ id }) => id).sort(), starts.map(({ id }) => id).sort())
  t.is(new Set(starts.map(({ id }) => id)).size, starts.length, 'no two arrows have the same name')
  const inSlice = (at: Event): boolean => events.some((event) => event.ph === 'X' && event.tid === at.tid && begin(event) <= begin(at) && begin(at) <= end(event))
  for (const start of starts) {
    const finish = ends.find(({ id }) => id === start.id)
    if (finish === undefined && !whole) continue
    t.true(begin(start) <= begin(finish!), 'an arrow never goes back in time')
    if (whole) t.true(inSlice(start) && inSlice(finish!), `${start.id} hangs in the air`)
  }
}
