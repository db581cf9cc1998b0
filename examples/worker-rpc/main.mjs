// node examples/worker-rpc/main.mjs [--calls N] [--in-flight N] [--bytes N] [--max-ns N]
import { createHash, randomBytes } from 'node:crypto'
import { parseArgs } from 'node:util'
import { Worker } from 'node:worker_threads'
import { AioContext, Channel } from 'fdmon'
import { Rpc } from './rpc.mjs'

const { values } = parseArgs({
  options: {
    calls: { type: 'string', default: '50000' },
    'in-flight': { type: 'string', default: '16' },
    bytes: { type: 'string', default: '256' },
    'max-ns': { type: 'string', default: '100000' },
  },
})
const [calls, inFlight, size, maxNs] = ['calls', 'in-flight', 'bytes', 'max-ns'].map((name) => Number(values[name]))
const payload = randomBytes(size)
const expected = createHash('sha256').update(payload).digest('hex')

const context = new AioContext({ poll: { maxNs } }).attach()
const { port1, port2 } = new Channel({ capacity: Math.max(65_536, size + 8) })
const worker = new Worker(new URL('worker.mjs', import.meta.url), { workerData: { handle: port2.handle, maxNs } })
const rpc = new Rpc(port1, { context })
const waiting = new Map()
worker.on('message', ({ id, bytes }) => (waiting.get(id)(bytes), waiting.delete(id)))
let next = 0
const byPostMessage = (bytes) => new Promise((resolve) => (waiting.set(++next, resolve), worker.postMessage({ id: next, bytes })))

await rpc.request(payload) // the worker is up
port2.close() // our copies of its descriptors
let wrong = 0
for (const [name, request] of [['postMessage', byPostMessage], ['channel', (bytes) => rpc.request(bytes)]]) {
  const [since, before] = [performance.now(), process.cpuUsage()]
  let left = calls
  const caller = async () => {
    while (left-- > 0) if (Buffer.from(await request(payload)).toString('hex') !== expected) wrong++
  }
  await Promise.all(Array.from({ length: inFlight }, caller))
  const { user, system } = process.cpuUsage(before)
  const ms = performance.now() - since
  console.log(`${name}: ${Math.round(calls / ms)} calls a ms, ${((user + system) / calls).toFixed(1)} µs of CPU each`)
}
const refused = await rpc.request(new Uint8Array(0)).then(() => 'answered', (error) => error.message)
console.log(`${wrong} wrong answers; an empty request: ${refused}`)
rpc.close()
context.close()
process.exitCode = wrong === 0 && refused === 'nothing to hash' ? 0 : 1
