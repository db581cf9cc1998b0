// One row of ring-pingpong: two workers exchange 64-byte messages, then idle. Prints what it measured as JSON.
//
//   node pingpong.mjs --variant message|block|spin (--rounds N | --ms MS) [--warm-up-ms MS] [--idle-ms MS] [--no-guards] [--pin CPU,CPU]
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { MessageChannel, Worker } from 'node:worker_threads'
import { AioContext, EventNotifier } from 'fdmon'
import { ringMemory } from './ring.mjs'

const { values } = parseArgs({
  options: {
    variant: { type: 'string', default: 'spin' },
    rounds: { type: 'string', default: '0' },
    ms: { type: 'string', default: '0' },
    'warm-up-ms': { type: 'string', default: '0' },
    'idle-ms': { type: 'string', default: '0' },
    'no-guards': { type: 'boolean', default: false },
    pin: { type: 'string' },
  },
})
const idleMs = Number(values['idle-ms'])
const bells = [new EventNotifier(), new EventNotifier()]
const rings = bells.map((bell) => ({ memory: ringMemory(), handle: bell.handle }))
const { port1, port2 } = new MessageChannel()
const common = {
  variant: values.variant,
  rounds: Number(values.rounds),
  ms: Number(values.ms),
  warmUpMs: Number(values['warm-up-ms']),
  guards: !values['no-guards'],
}
const [first, second] = values.pin?.split(',') ?? []
const ping = start('ping', rings[0], rings[1], port1, first)
const pong = start('pong', rings[1], rings[0], port2, second)
await Promise.all([ping.said('ready'), pong.said('ready')])
const result = ping.said('result')
ping.worker.postMessage('go')
const measured = await result

// Both sides now have nothing to do; what they still take is what spinning costs an idle program.
let idleCpu
if (idleMs > 0) {
  await sleep(Math.min(100, idleMs))
  const [before, since] = [process.cpuUsage(), performance.now()]
  await sleep(idleMs)
  const { user, system } = process.cpuUsage(before)
  idleCpu = (user + system) / 1000 / (performance.now() - since)
}
for (const { worker, context } of [ping, pong]) {
  if (context() === undefined) worker.postMessage('end')
  else AioContext.remote(context()).stop()
}
await Promise.all([ping.ended, pong.ended])
process.stdout.write(`${JSON.stringify({ ...measured, idleCpu })}\n`)

function start(role, out, into, port, cpu) {
  const workerData = { ...common, role, out, into, port, cpu }
  const worker = new Worker(new URL('pingpong-worker.mjs', import.meta.url), { workerData, transferList: [port] })
  const waiting = new Map()
  let context
  worker.on('message', ({ what, ...rest }) => {
    if (what === 'ready') context = rest.id
    waiting.get(what)?.(rest)
  })
  worker.on('error', (error) => {
    process.stderr.write(`${role}: ${error.stack}\n`)
    process.exit(1)
  })
  return {
    worker,
    context: () => context,
    said: (what) => new Promise((resolve) => waiting.set(what, resolve)),
    ended: new Promise((resolve) => worker.on('exit', resolve)),
  }
}
