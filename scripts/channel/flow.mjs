// A flow of 64-byte messages from one worker to another: as JSON, how many a second, what they cost, and whether each was right.
//
//   node scripts/channel/flow.mjs --over channel|message [--memory shared|memfd] [--capacity N] [--spin] [--whole] --count N [--pin CPU,CPU]
import { parseArgs } from 'node:util'
import { MessageChannel, Worker } from 'node:worker_threads'
import { Channel } from 'fdmon'

const { values } = parseArgs({
  options: {
    over: { type: 'string', default: 'channel' },
    memory: { type: 'string', default: 'shared' },
    capacity: { type: 'string', default: '65536' },
    spin: { type: 'boolean', default: false },
    whole: { type: 'boolean', default: false },
    count: { type: 'string' },
    pin: { type: 'string' },
  },
})
const count = Number(values.count)
const [first, second] = values.pin?.split(',') ?? []
const channel = new Channel({ memory: values.memory, capacity: Number(values.capacity) })
const messages = new MessageChannel()
const consumer = start('consume', { handle: channel.port2.handle, port: messages.port2, cpu: second })
const producer = start('produce', { handle: channel.port1.handle, port: messages.port1, cpu: first })
await Promise.all([consumer.said('ready'), producer.said('ready')])

const [before, since] = [process.resourceUsage(), process.hrtime.bigint()]
const done = consumer.said('done')
consumer.worker.postMessage('go')
producer.worker.postMessage('go')
const { got, wrong, sleeps, hits } = await done
const ns = Number(process.hrtime.bigint() - since)
const after = process.resourceUsage()
const spent = (key) => (after[key] - before[key]) / count
for (const { worker } of [consumer, producer]) worker.postMessage('end')
await Promise.all([consumer.ended, producer.ended])
channel.port1.close()
channel.port2.close()
process.stdout.write(
  `${JSON.stringify({
    messages: got, wrong, perSecond: (got / ns) * 1e9, cpuNs: (spent('userCPUTime') + spent('systemCPUTime')) * 1000,
    switches: spent('voluntaryContextSwitches') + spent('involuntaryContextSwitches'), sleeps, hits,
  })}\n`,
)
process.exitCode = got === count && wrong === 0 ? 0 : 1

function start(role, side) {
  const workerData = { role, over: values.over, spin: values.spin, whole: values.whole, count, ...side }
  const worker = new Worker(new URL('flow-worker.mjs', import.meta.url), { workerData, transferList: [side.port] })
  const waiting = new Map()
  worker.on('message', (said) => waiting.get(said.what)?.(said))
  worker.on('error', (error) => {
    process.stderr.write(`${role}: ${error.stack}\n`)
    process.exit(1)
  })
  return {
    worker,
    said: (what) => new Promise((resolve) => waiting.set(what, resolve)),
    ended: new Promise((resolve) => worker.on('exit', resolve)),
  }
}
