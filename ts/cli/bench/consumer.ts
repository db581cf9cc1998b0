// The loop that is measured, in a worker of the child process: one context a task, until it has taken every event.
import { parentPort, workerData } from 'node:worker_threads'
import { AioContext } from '../../context.js'
import { EventNotifier } from '../../notifier.js'
import { pin } from './pin.js'
import { DUE, READY, SENT, SUPPRESS, TAKEN, TAKEN_AT, type Answer, type Shared, type Task } from './protocol.js'

const { words, times, handle, cpu, shared } = workerData as Shared
const bell = EventNotifier.from(handle)
pin(cpu)

parentPort?.on('message', (task: Task) => {
  let answer: Answer
  try {
    answer = measure(task)
  } catch (error) {
    answer = { failed: error instanceof Error ? error.message : String(error) }
    open(2)
  }
  parentPort?.postMessage(answer)
})
parentPort?.postMessage('ready')

/** Lets the producer begin, or tells it not to. */
function open(how: 1 | 2): void {
  Atomics.store(words, READY, how)
  Atomics.notify(words, READY)
}

function measure({ monitor, policy, windowNs, guards, poll: whole, warmUp, events }: Task): Answer {
  const poll = whole ?? (policy === 'blocking' ? { maxNs: 0 } : { maxNs: windowNs, policy, guards })
  const ctx = new AioContext({ name: 'bench', monitor, poll } as ConstructorParameters<typeof AioContext>[0])
  const total = warmUp + events
  const latencies = new Float64Array(total) // made before: nothing is allocated while it measures
  let taken = 0
  let lost = 0
  let before = look(ctx)
  let after = before
  const take = (): void => {
    const sent = Atomics.load(words, SENT)
    if (sent === taken) return
    const now = process.hrtime.bigint()
    if (sent !== taken + 1) lost++
    latencies[taken++] = Number(now - (times[DUE] ?? 0n))
    if (taken === warmUp) before = look(ctx)
    if (taken === total) {
      after = look(ctx)
      ctx.stop()
    }
    times[TAKEN_AT] = process.hrtime.bigint()
    Atomics.store(words, TAKEN, sent)
    if (shared) Atomics.notify(words, TAKEN)
  }
  Atomics.store(words, SENT, 0)
  Atomics.store(words, TAKEN, 0)
  Atomics.store(words, SUPPRESS, 0)
  bell.testAndClear()
  try {
    ctx.setEventNotifier(bell, {
      poll: { memory: words, index: SENT, notEqual: { index: TAKEN }, suppress: { index: SUPPRESS } },
      pollReady: take,
      read() {
        bell.testAndClear()
        take()
      },
    })
    times[TAKEN_AT] = process.hrtime.bigint()
    open(1)
    ctx.run()
    return {
      latenciesNs: [...latencies.subarray(warmUp)],
      elapsedNs: Number(after.now - before.now),
      loopCpuNs: after.stats.cpuNs - before.stats.cpuNs,
      processCpuNs: after.processCpuNs - before.processCpuNs,
      switches: after.switches - before.switches,
      sleeps: after.stats.sleeps - before.stats.sleeps,
      spinHits: after.stats.spinHits - before.stats.spinHits,
      guard: after.stats.guard,
      lost,
    }
  } finally {
    ctx.close()
  }
}

function look(ctx: AioContext): { now: bigint; stats: ReturnType<AioContext['stats']>; processCpuNs: number; switches: number } {
  const usage = process.resourceUsage()
  return {
    now: process.hrtime.bigint(),
    stats: ctx.stats(),
    processCpuNs: (usage.userCPUTime + usage.systemCPUTime) * 1000,
    switches: usage.voluntaryContextSwitches + usage.involuntaryContextSwitches,
  }
}
