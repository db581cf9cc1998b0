// What two contexts and a worker did, as a file for https://ui.perfetto.dev or chrome://tracing.
import { readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { Worker } from 'node:worker_threads'
import { AioContext, EventNotifier } from 'fdmon'

const ctx = new AioContext({ name: 'main', poll: { maxNs: 50_000 } })
const trace = ctx.trace(`${tmpdir()}/fdmon-trace-%p.json`) // or FDMON_TRACE=file, for all contexts
const bell = new EventNotifier()
ctx.setEventNotifier(bell, { name: 'bell', read: () => void bell.testAndClear() })
bell.set()
ctx.poll()

const half = ctx.bottomHalf(() => ctx.stop())
const source = `const { AioContext } = require(${JSON.stringify(import.meta.resolve('fdmon'))}.slice(7))
  const { workerData } = require('node:worker_threads')
  AioContext.remote(workerData.context).schedule(workerData.half)`
new Worker(source.replace('esm/index.mjs', 'cjs/index.js'), { eval: true, workerData: { context: ctx.id, half: half.id } })
ctx.run() // until the worker has woken it: an arrow in the picture
ctx.close()
bell.close()

const { traceEvents } = JSON.parse(readFileSync(trace.file, 'utf8'))
for (const { name, ph, dur, args } of traceEvents) if (ph === 'X') console.log(name, `${dur} µs`, args)
console.log(`${traceEvents.length} events, ${trace.dropped} dropped`)
rmSync(trace.file) // keep it, and open it
