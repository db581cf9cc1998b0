// examples/kvlog after a crash: torn tails, damage, and what a power failure may leave of the file at any moment of a run.
import { readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { KvLog, KvLogError, readLog, type LogContext } from '../examples/kvlog/log.js'
import { encode, type Change } from '../examples/kvlog/record.js'
import { replay, type Replay } from '../examples/kvlog/replay.js'
import { dice } from './dice.js'
import { onEachEngine, Watched } from './kvlog/kit.js'
import { crashStates, Recorder } from './kvlog/recorder.js'

/** For each moment of a run: how many random parts of what is not synced are kept. */
const SAMPLES = 12
const LONG_SAMPLES = 200

const CHANGES: readonly Change[] = [
  { key: 'a', value: 'one' }, { key: 'b', value: 'two' }, { key: 'a', value: null },
  { key: 'ä', value: 'three' }, { key: 'b', value: 'four' }, { key: 'ä', value: null },
]

/** The records one after the other; each was durable when the next was written, or (`together`) the last three are one commit. */
function logOf(changes: readonly Change[], together = false): { file: Buffer; ends: number[] } {
  const before = changes.length - 3
  const records = changes.map((change, at) => encode(change, at + 1, together && at > before ? before : at))
  const ends = records.map((_, at) => Buffer.concat(records.slice(0, at + 1)).length)
  return { file: Buffer.concat(records), ends }
}

/** The keys after the first so many changes. */
function after(changes: readonly Change[], count: number): [string, string][] {
  const entries = new Map<string, string>()
  for (const { key, value } of changes.slice(0, count)) {
    if (value === null) entries.delete(key)
    else entries.set(key, value)
  }
  return [...entries]
}

function replayOf(image: Buffer): Promise<Replay> {
  return replay({ size: image.length, read: (buffer, position) => Promise.resolve(image.copy(buffer, 0, position)) })
}

onEachEngine('cut at any byte of its last three records opens with the whole ones before it, and goes on', async (t, { folder, context }) => {
  const { file, ends } = logOf(CHANGES)
  const path = join(folder, 'log')
  for (let cut = ends[2]!; cut <= file.length; cut++) {
    writeFileSync(path, file.subarray(0, cut))
    const whole = ends.filter((end) => end <= cut).length
    const log = await KvLog.open(path, { context })
    t.deepEqual([...log.entries()], after(CHANGES, whole), `cut at ${cut}`)
    t.is(log.torn, cut - ends[whole - 1]!)
    t.is(statSync(path).size, ends[whole - 1]!)
    await log.set('after', 'the crash')
    await log.close()
    const again = await readLog(path, { context })
    t.is(again.entries.get('after'), 'the crash')
    t.is(again.sequence, whole + 1)
    t.is(again.torn, 0)
  }
})

onEachEngine('syncs the cut of a torn tail before anything is written', async (t, { folder, context }) => {
  const path = join(folder, 'log')
  const { file, ends } = logOf(CHANGES)
  writeFileSync(path, file.subarray(0, file.length - 1))
  const order: (string | number)[] = []
  const watched = new Watched(context)
  watched.instead.fsync = (fd) => (order.push('fsync', statSync(path).size), context.fsync(fd))
  watched.instead.writev = (fd, buffers, position) => (order.push('writev', statSync(path).size), context.writev(fd, buffers, position))
  await using log = await KvLog.open(path, { context: watched })
  await log.set('key', 'value')
  t.deepEqual(order, ['fsync', ends[4], 'writev', ends[4]])
})

test('kvlog: any bit that flips in the last three records is noticed, and is damage where a later record was written', async (t) => {
  const { file, ends } = logOf(CHANGES)
  const noticed = { damage: 0, torn: 0 }
  for (let at = ends[2]!; at < file.length; at++) {
    for (let bit = 0; bit < 8; bit++) {
      const image = Buffer.from(file)
      image[at]! ^= 1 << bit
      const record = ends.filter((end) => end <= at).length
      if (record === CHANGES.length - 1) {
        // Nothing shows that the last commit was ever acknowledged: it is like one that a crash has torn.
        const found = await replayOf(image)
        t.deepEqual([found.records, found.end, found.torn], [record, ends[record - 1]!, file.length - ends[record - 1]!])
        t.deepEqual([...found.entries], after(CHANGES, record))
        noticed.torn++
      } else {
        const error = await t.throwsAsync(replayOf(image), { instanceOf: KvLogError })
        t.is(error?.code, 'ERR_KVLOG_CORRUPT')
        t.true(error?.message.startsWith(`record ${record + 1} at byte ${ends[record - 1]} is damaged`), error?.message)
        noticed.damage++
      }
    }
  }
  t.deepEqual(noticed, { damage: (ends[4]! - ends[2]!) * 8, torn: (ends[5]! - ends[4]!) * 8 })
})

test('kvlog: any bit that flips in the last commit ends the log before its record', async (t) => {
  const { file, ends } = logOf(CHANGES, true)
  for (let at = ends[2]!; at < file.length; at++) {
    for (let bit = 0; bit < 8; bit++) {
      const image = Buffer.from(file)
      image[at]! ^= 1 << bit
      const whole = ends.filter((end) => end <= at).length
      const found = await replayOf(image)
      t.is(found.end, ends[whole - 1]!)
      t.deepEqual([...found.entries], after(CHANGES, whole))
    }
  }
})

onEachEngine('with damage to what was acknowledged is not opened, and not changed', async (t, { folder, context }) => {
  const path = join(folder, 'log')
  const { file, ends } = logOf(CHANGES)
  const damaged = Buffer.from(file)
  damaged[ends[1]! - 1]! ^= 1
  writeFileSync(path, damaged)
  for (let attempt = 0; attempt < 2; attempt++) {
    const message = new RegExp(`^record 2 at byte ${ends[0]} is damaged, and record 3 at byte ${ends[1]} was written after it`)
    await t.throwsAsync(KvLog.open(path, { context }), { instanceOf: KvLogError, message })
  }
  t.deepEqual(readFileSync(path), damaged)
  // Longer than any commit: no crash leaves that.
  writeFileSync(path, Buffer.concat([file, Buffer.alloc((16 << 20) + 1)]))
  await t.throwsAsync(KvLog.open(path, { context }), { instanceOf: KvLogError, message: /more than one commit has/ })
})

test('kvlog: records across the chunks of reading are found', async (t) => {
  const changes = Array.from({ length: 40 }, (_, n): Change => ({ key: `key ${n}`, value: 'x'.repeat(n * 9_973) }))
  const { file } = logOf(changes)
  t.true(file.length > 5 << 20)
  const found = await replayOf(file)
  t.deepEqual([...found.entries], after(changes, 40))
  t.is(found.torn, 0)
})

/** A run of the log by several clients, and what its crash states are: how many, and which break a promise. */
async function powerFailures(path: string, context: LogContext, recorder: Recorder, samples: number, seed = 7) {
  const roll = dice(seed)
  const log = await KvLog.open(path, { context })
  const changes: Change[] = []
  const client = async (): Promise<void> => {
    for (let count = 0; count < 25; count++) {
      const key = `key ${roll(20)}`
      // Shorter and longer than a sector, so that both several records and parts of one are lost.
      const change = { key, value: roll(5) === 0 ? null : `${changes.length} `.repeat(roll(4) === 0 ? 400 : 1 + roll(30)) }
      changes.push(change)
      await (change.value === null ? log.delete(key) : log.set(key, change.value))
      recorder.acknowledged()
    }
  }
  await Promise.all(Array.from({ length: 6 }, client))
  await log.close()

  const seen = { states: 0, torn: 0, unacknowledged: 0, commits: log.commits, broken: [] as string[] }
  for (const { at, image, acknowledged, kept } of crashStates(recorder.events, samples, roll)) {
    seen.states++
    const complain = (what: string) => seen.broken.push(`after event ${at}, ${kept} kept: ${what}`)
    try {
      const found = await replayOf(image)
      if (found.torn > 0) seen.torn++
      if (found.records > acknowledged) seen.unacknowledged++
      if (found.records < acknowledged) complain(`${found.records} of ${acknowledged} acknowledged records`)
      const expected = after(changes, found.records)
      if (JSON.stringify([...found.entries]) !== JSON.stringify(expected)) complain('a record is not what was set')
    } catch (error) {
      complain(String(error))
    }
  }
  return { ...seen, changes: changes.length }
}

onEachEngine('keeps what it acknowledged through a power failure at any moment; the rest is whole or absent', async (t, { folder, context, engine }) => {
  t.timeout(300_000)
  const recorder = new Recorder(context)
  const samples = process.env['FDMON_LONG'] === '1' ? LONG_SAMPLES : SAMPLES
  const found = await powerFailures(join(folder, 'log'), recorder, recorder, samples)
  const { states, torn, unacknowledged, changes, commits, broken } = found
  t.log(`${engine}: ${changes} records in ${commits} commits, ${states} crash states, ${torn} torn, ${unacknowledged} with records that nobody was told of`)
  t.deepEqual(broken, [])
  t.is(changes, 150)
  t.true(commits >= 25 && commits < changes, `${commits} commits`)
  t.true(torn > states / 4 && unacknowledged > states / 20, 'the states are not those of a crash')
})

const faults: Record<string, (recorder: Recorder) => Watched['instead']> = {
  'acknowledges before it has synced': () => ({ fdatasync: () => Promise.resolve() }),
  'syncs before it has written': (recorder) => ({
    writev: (fd, buffers, position) => {
      void recorder.writev(fd, buffers, position)
      return Promise.resolve(buffers.reduce((sum, { length }) => sum + length, 0))
    },
  }),
}
for (const [fault, of] of Object.entries(faults)) {
  onEachEngine(`would be found out if it ${fault}`, async (t, { folder, context }) => {
    const recorder = new Recorder(context)
    const watched = new Watched(recorder)
    watched.instead = of(recorder)
    const { broken } = await powerFailures(join(folder, 'log'), watched, recorder, SAMPLES)
    t.true(broken.some((what) => what.includes('acknowledged records')), broken.join('\n'))
  })
}
