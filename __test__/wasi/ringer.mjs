// Sets a notifier of another thread, and sleeps in a context of its own until it is answered, round after round.
import { parentPort, workerData } from 'node:worker_threads'
import { AioContext, EventNotifier } from 'fdmon'

const [bell, answer] = [EventNotifier.from(workerData.bell), EventNotifier.from(workerData.answer)]
const ctx = new AioContext()
let answers = 0
ctx.setFdHandler(answer, { read: () => (answers += Number(answer.testAndClear())) })
parentPort.postMessage('ready')
for (let round = 1; round <= workerData.rounds; round++) {
  bell.set()
  ctx.pollUntil(() => answers === round)
}
ctx.close()
