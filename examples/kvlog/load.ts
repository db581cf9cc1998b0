// Many records from a stream of lines, as fast as they become durable.
import { createInterface } from 'node:readline'
import type { Readable } from 'node:stream'
import type { KvLog } from './log.js'

/** Records that may wait at a time. Two commits' worth: one in flight, one that forms. */
const MOST_WAITING = 2048

/** Sets a key for each line "KEY<tab>VALUE", tells each key that is durable, in the order of the lines, and returns how many. */
export async function load(log: KvLog, input: Readable, onDurable: (key: string) => void): Promise<number> {
  let records = 0
  let number = 0
  let failed: { error: unknown } | undefined
  const waiting = new Set<Promise<void>>()
  const lines = createInterface({ input, crlfDelay: Infinity })
  for await (const line of lines) {
    if (failed) break
    number++
    const tab = line.indexOf('\t')
    if (tab < 0) {
      failed = { error: new Error(`line ${number} has no tab; write "KEY<tab>VALUE"`) }
      break
    }
    const key = line.slice(0, tab)
    const done = log.set(key, line.slice(tab + 1)).then(
      () => {
        records++
        onDurable(key)
      },
      (error: unknown) => {
        failed ??= { error }
        lines.close() // nobody waits for another line
      },
    )
    waiting.add(done)
    void done.then(() => waiting.delete(done))
    if (waiting.size >= MOST_WAITING) await Promise.race(waiting)
  }
  await Promise.all(waiting)
  input.destroy() // an open pipe would keep the process alive
  if (failed) throw failed.error
  return records
}
