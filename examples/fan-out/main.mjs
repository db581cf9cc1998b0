// One producer, three workers: each record goes to the next worker that has room, and the producer waits when none has.
//
//   node examples/fan-out/main.mjs [--records N] [--workers N] [--work N] [--max-ns N]
import { parseArgs } from 'node:util'
import { Worker } from 'node:worker_threads'
import { AioContext, Channel } from 'fdmon'

const { values } = parseArgs({
  options: {
    records: { type: 'string', default: '200000' },
    workers: { type: 'string', default: '3' },
    work: { type: 'string', default: '4' },
    'max-ns': { type: 'string', default: '50000' },
  },
})
const [records, workers, work, maxNs] = ['records', 'workers', 'work', 'max-ns'].map((name) => Number(values[name]))
const context = new AioContext({ name: 'producer', poll: { maxNs } })
const lanes = Array.from({ length: workers }, (_, number) => {
  const { port1, port2 } = new Channel({ capacity: 16_384 })
  const worker = new Worker(new URL('worker.mjs', import.meta.url), { workerData: { handle: port2.handle, maxNs, work } })
  return { number, port: port1, copy: port2, worker, sent: 0, full: 0, took: 0, sum: 0, done: false }
})

const record = new Uint8Array(100)
const sumOf = () => record.reduce((sum, byte) => sum + byte, 0) * work
let next = 0 // record
let turn = 0 // lane
let expected = 0
const since = performance.now()

/** Sends until every lane is full. */
function produce() {
  for (let full = 0; next < records && full < workers; turn = (turn + 1) % workers) {
    const lane = lanes[turn]
    record.fill(next & 0xff)
    if (!lane.port.send(record)) {
      lane.full++
      full++
      continue
    }
    full = 0
    lane.sent++
    expected += sumOf()
    next++
  }
  if (next === records) for (const lane of lanes) finish(lane)
}

/** Asks for what the worker has done; it may have to wait for room too. */
function finish(lane) {
  if (!lane.asked) lane.asked = lane.port.send(new Uint8Array(0))
}

for (const lane of lanes) {
  const take = (bytes) => {
    ;[lane.took, lane.sum] = new Float64Array(bytes.slice().buffer)
    lane.done = true
    lane.port.close()
  }
  const closed = (end) => {
    if (!lane.done) throw new Error(`worker ${lane.number}: ${end}`)
  }
  lane.port.listen(context, take, { drain: produce, closed })
}
produce()
context.pollUntil(() => lanes.every(({ done }) => done))
const ms = performance.now() - since
const right = lanes.every(({ sent, took }) => sent === took) && lanes.reduce((sum, lane) => sum + lane.sum, 0) === expected
for (const { number, took, full } of lanes) console.log(`worker ${number}: ${took} records; ${full} times without room`)
console.log(`${records} records in ${ms.toFixed(0)} ms, ${right ? 'none lost' : 'NOT what was sent'}`)
for (const { copy } of lanes) copy.close()
context.close()
process.exitCode = right ? 0 : 1
