// One row of a ping-pong: two workers exchange 64-byte messages, then idle. Prints what it measured as JSON.
//
//   node pingpong.mjs --over ring|socket|eventfd --variant message|net|block|spin (--rounds N | --ms MS)
//     [--monitor NAME] [--pause-us US] [--warm-up-ms MS] [--idle-ms MS] [--no-guards] [--pin CPU,CPU]
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { MessageChannel, Worker } from 'node:worker_threads'
import { AioContext, Channel, EventNotifier } from 'fdmon'
import { socketpair } from 'fdmon/fd'

const { values } = parseArgs({
  options: {
    over: { type: 'string', default: 'ring' },
    variant: { type: 'string', default: 'spin' },
    monitor: { type: 'string', default: 'auto' },
    'pause-us': { type: 'string', default: '0' },
    rounds: { type: 'string', default: '0' },
    ms: { type: 'string', default: '0' },
    'warm-up-ms': { type: 'string', default: '0' },
    'idle-ms': { type: 'string', default: '0' },
    'no-guards': { type: 'boolean', default: false },
    pin: { type: 'string' },
  },
})
const idleMs = Number(values['idle-ms'])
const messages = new MessageChannel()
const channel = values.over === 'ring' ? new Channel() : undefined
const sockets = values.over === 'socket' ? socketpair() : []
/** A message in memory and an eventfd that says so, for each way. */
const notes = [new EventNotifier(), new EventNotifier()].map((bell) => ({ memory: new SharedArrayBuffer(64), handle: bell.handle, bell }))
const common = {
  over: values.over,
  variant: values.variant,
  monitor: values.monitor,
  pauseUs: Number(values['pause-us']),
  arrival: new Float64Array(new SharedArrayBuffer(8)), // of the last message, written before the answer
  rounds: Number(values.rounds),
  ms: Number(values.ms),
  warmUpMs: Number(values['warm-up-ms']),
  guards: !values['no-guards'],
}
const [first, second] = values.pin?.split(',') ?? []
const [there, back] = notes.map(({ memory, handle }) => ({ memory, handle }))
const ping = start('ping', { channel: channel?.port1.handle, out: there, into: back, port: messages.port1, fd: sockets[0]?.fd, cpu: first })
const pong = start('pong', { channel: channel?.port2.handle, out: back, into: there, port: messages.port2, fd: sockets[1]?.fd, cpu: second })
await Promise.all([ping.said('ready'), pong.said('ready')])
const result = ping.said('result')
ping.worker.postMessage('go')
const measured = await result

// Both sides now have nothing to do; what they still take is what spinning costs an idle program.
let idleCpu
if (idleMs > 0) {
  await sleep(Math.min(200, idleMs))
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

function start(role, side) {
  const workerData = { ...common, role, ...side }
  const worker = new Worker(new URL('pingpong-worker.mjs', import.meta.url), { workerData, transferList: [side.port] })
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
