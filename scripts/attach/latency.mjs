// One process of `npm run bench:attach`: rounds of each way, one after the other, so that all meet the same machine.
//
//   node scripts/attach/latency.mjs '{"uvPollAddon": "…", "ways": […], "rounds": 9, "events": 1000, "pauseNs": 50000}'
//
// Prints a line of JSON: by way, a row a round.
import { readFileSync } from 'node:fs'
import { MessageChannel, Worker } from 'node:worker_threads'
import { EventNotifier } from 'fdmon'
import { SENT, TAKEN, ways } from './ways.mjs'

const GO = 4
const WANTED = 5
const HOW = { fd: 1, word: 2, message: 3 }
const { uvPollAddon, ways: names, rounds, events, pauseNs } = JSON.parse(process.argv[2])
const words = new Int32Array(new SharedArrayBuffer(64))
const times = new BigInt64Array(new SharedArrayBuffer(8))
const notifier = new EventNotifier()
const { port1, port2 } = new MessageChannel()
const worker = new Worker(new URL('producer.mjs', import.meta.url), {
  workerData: { words, times, handle: notifier.handle, port: port2, pauseNs },
  transferList: [port2],
})
await new Promise((resolve) => worker.once('online', resolve))
port1.unref()

const thread = `/proc/self/task/${process.pid}`
const cpuNs = () => Number(readFileSync(`${thread}/schedstat`, 'utf8').split(' ')[0])
const switches = () => Number(/^voluntary_ctxt_switches:\s*(\d+)/m.exec(readFileSync(`${thread}/status`, 'utf8'))[1])
const rows = Object.fromEntries(names.map((name) => [name, []]))
for (let round = 0; round <= rounds; round++) {
  for (const name of names) {
    const row = await measure(ways[name], round === 0 ? Math.ceil(events / 2) : events)
    if (round > 0) rows[name].push(row) // the first one warms up
  }
}
Atomics.store(words, GO, 4)
Atomics.notify(words, GO)
process.stdout.write(`${JSON.stringify(rows)}\n`)
port1.close()

/** One round of one way. */
function measure(way, count) {
  return new Promise((resolve) => {
    const latencies = new Float64Array(count)
    let taken = 0
    let before
    const stop = way.start({ words, notifier, port: port1, uvPollAddon }, () => {
      const sent = Atomics.load(words, SENT)
      if (sent === Atomics.load(words, TAKEN)) return
      latencies[taken++] = Number(process.hrtime.bigint() - times[0])
      if (taken === count) {
        const after = { cpu: cpuNs(), switches: switches() }
        Atomics.store(words, TAKEN, sent)
        const stats = stop()
        latencies.sort()
        const at = (share) => latencies[Math.floor((count - 1) * share)]
        resolve({
          p50: at(0.5), p90: at(0.9), p99: at(0.99),
          cpu: (after.cpu - before.cpu) / count,
          switches: (after.switches - before.switches) / count,
          stats: stats && { spinHits: stats.spinHits, spinMisses: stats.spinMisses, guard: stats.guard, turns: stats.turns },
        })
        return
      }
      Atomics.store(words, TAKEN, sent)
    })
    // Not before the producer has put down its flag and sleeps.
    const begin = () => {
      if (Atomics.load(words, GO) !== 0) return void setTimeout(begin, 20)
      before = { cpu: cpuNs(), switches: switches() }
      Atomics.store(words, WANTED, count)
      Atomics.store(words, GO, HOW[way.signal])
      Atomics.notify(words, GO)
    }
    setTimeout(begin, 20)
  })
}
