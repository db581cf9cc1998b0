// examples/kvlog under SIGKILL: a process writes and prints what was acknowledged, is killed at random, and all of that must be
// there. FDMON_LONG=1 kills 200 times instead of 20.
import { spawn } from 'node:child_process'
import { statSync, truncateSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { dice } from './dice.js'
import { readLog } from '../examples/kvlog/log.js'
import { engines, onEachEngine } from './kvlog/kit.js'
import { valueOf } from './kvlog/value.js'

const KILLS = (process.env['FDMON_LONG'] === '1' ? 200 : 20) / engines.length
/** One in so many is killed at any time after its start: also while it opens the log, which the kill before has left. */
const EARLY = 5
const BIG_BYTES = 40 << 20
const LIMIT_MS = 30_000
const writer = fileURLToPath(new URL('kvlog/writer.ts', import.meta.url))

interface Killed {
  set: Set<string>
  acknowledged: string[]
}

/** Runs the writer and kills it: so many ms after it has acknowledged so many records, or after its start. */
function kill(args: string[], records: number, ms: number): Promise<Killed> {
  const child = spawn(process.execPath, ['--import=tsx', writer, ...args], { env: { ...process.env, NODE_OPTIONS: '' }, stdio: ['ignore', 'pipe', 'pipe'] })
  let stdout = ''
  let stderr = ''
  let acknowledged = 0
  let armed = false
  const look = (): void => {
    if (armed || acknowledged < records) return
    armed = true
    setTimeout(() => child.kill('SIGKILL'), ms)
  }
  child.stdout.setEncoding('latin1').on('data', (text: string) => {
    stdout += text
    for (const character of text) if (character === '=') acknowledged++
    look()
  })
  child.stderr.setEncoding('utf8').on('data', (text: string) => void (stderr += text))
  look()
  return new Promise((resolve, reject) => {
    const late = setTimeout(() => child.kill('SIGTERM'), LIMIT_MS)
    child.once('error', reject)
    child.once('close', (code, signal) => {
      clearTimeout(late)
      // The last line may be cut short like everything else.
      const lines = stdout.slice(0, stdout.lastIndexOf('\n') + 1).split('\n')
      const of = (mark: string): string[] => lines.filter((line) => line.startsWith(mark)).map((line) => line.slice(1))
      if (signal === 'SIGKILL') resolve({ set: new Set(of('+')), acknowledged: of('=') })
      else reject(new Error(`the writer ended by ${signal ?? `exit code ${code}`} after ${acknowledged} records\n${stderr}`))
    })
  })
}

onEachEngine(`keeps what it acknowledged when its process is killed, ${KILLS} times`, async (t, { folder, context, engine }) => {
  t.timeout(KILLS * LIMIT_MS)
  const roll = dice(Number(process.env['FDMON_SEED'] ?? process.pid))
  const path = join(folder, 'log')
  const total = { acknowledged: 0, unacknowledged: 0, inFlight: 0, torn: 0, late: 0 }
  let known = new Set<string>()
  let all = new Set<string>()
  for (let run = 0; run < KILLS; run++) {
    const early = run % EARLY === EARLY - 1
    const { set, acknowledged } = await (early ? kill([path, engine, `${run}`], 0, roll(800)) : kill([path, engine, `${run}`], 1 + roll(400), roll(4)))
    for (const key of set) all.add(key)
    for (const key of acknowledged) known.add(key)
    if (!early) {
      total.late++
      if (set.size > acknowledged.length) total.inFlight++
    }
    total.acknowledged += acknowledged.length
    const { entries, torn } = await readLog(path, { context })
    if (torn > 0) total.torn++
    total.unacknowledged += [...entries.keys()].filter((key) => !known.has(key)).length
    const lost = [...known].filter((key) => entries.get(key) !== valueOf(key))
    t.deepEqual(lost, [], `lost in run ${run} of ${engine}`)
    const strange = [...entries].filter(([key, value]) => !all.has(key) || value !== valueOf(key)).map(([key]) => key)
    t.deepEqual(strange, [], `not what was set, in run ${run} of ${engine}`)
    // What was whole is durable from the next open() on, as if it had been acknowledged.
    known = new Set(entries.keys())
    if (statSync(path).size > BIG_BYTES) {
      truncateSync(path)
      known = new Set()
      all = new Set()
    }
  }
  t.log(
    `${engine}: ${total.acknowledged} records acknowledged in all, ${KILLS} kills, ${total.inFlight} of ${total.late} with records in flight, ` +
      `${total.unacknowledged} records there that nobody was told of, ${total.torn} torn tails`,
  )
  t.true(total.inFlight >= (total.late * 3) / 4, `only ${total.inFlight} of ${total.late} kills hit records in flight`)
  t.true(total.acknowledged >= KILLS * 50, `only ${total.acknowledged} records acknowledged`)
})
