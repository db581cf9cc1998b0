// A process that writes a log until it is killed: node --import=tsx writer.ts FILE ENGINE RUN
//
// Prints "+KEY" before it sets a key and "=KEY" when that is acknowledged, each by a write(2) of its own. What a value is
// follows from its key.
import { writeSync } from 'node:fs'
import { AioContext } from 'fdmon'
import { KvLog } from '../../examples/kvlog/log.js'
import type { Engine } from './kit.js'
import { valueOf } from './value.js'

const [path, engine, run] = process.argv.slice(2) as [string, Engine, string]
const CLIENTS = 8
const log = await KvLog.open(path, { context: new AioContext({ name: 'writer', aio: { engine } }) })

const pause = new Int32Array(new SharedArrayBuffer(4))

/** The pipe may be full, and is non-blocking where something has touched process.stdout. */
function print(line: string): void {
  for (;;) {
    try {
      writeSync(1, line)
      return
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error
      Atomics.wait(pause, 0, 0, 1)
    }
  }
}

async function client(name: number): Promise<never> {
  for (let count = 0; ; count++) {
    const key = `${run}.${name}.${count}`
    print(`+${key}\n`)
    await log.set(key, valueOf(key))
    print(`=${key}\n`)
  }
}

await Promise.all(Array.from({ length: CLIENTS }, (_, name) => client(name)))
