// The child process of `fdmon bench`, one a placement: reads tasks, a line of JSON each, and answers each by a line. It ends after
// the line "end", and at once when whoever started it is gone.
import { createInterface } from 'node:readline'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import { EventNotifier } from '../../notifier.js'
import { TIMES, WORDS, type Answer, type Setup, type Shared } from './protocol.js'

const setup = JSON.parse(process.argv[2] ?? '{}') as Setup
const bell = new EventNotifier()
const words = new Int32Array(new SharedArrayBuffer(WORDS * 4))
const times = new BigInt64Array(new SharedArrayBuffer(TIMES * 8))
const consumer = start('consumer', setup.pins?.[0])
const producer = start('producer', setup.pins?.[1])

function start(name: string, cpu: number | undefined): Worker {
  const workerData: Shared = { words, times, handle: bell.handle, cpu, shared: setup.shared }
  return new Worker(join(__dirname, `${name}.js`), { workerData }).on('error', (error) => {
    process.stderr.write(`${name}: ${error instanceof Error ? error.message : String(error)}\n`)
    process.exit(1)
  })
}

/** The next message of a worker. */
function said(worker: Worker): Promise<unknown> {
  return new Promise((resolve) => worker.once('message', resolve))
}

async function main(): Promise<void> {
  await Promise.all([said(consumer), said(producer)])
  for await (const line of createInterface({ input: process.stdin })) {
    if (line === 'end') process.exit()
    const task: unknown = JSON.parse(line)
    const both = Promise.all([said(consumer), said(producer)])
    producer.postMessage(task)
    consumer.postMessage(task)
    const [answer] = (await both) as [Answer, unknown]
    process.stdout.write(`${JSON.stringify(answer)}\n`)
  }
}

// A thread inside a loop keeps process.exit() waiting; this does not wait.
process.stdin.on('end', () => process.kill(process.pid, 'SIGKILL'))
void main()
