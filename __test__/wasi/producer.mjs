// Stores 1, 2, … into a word, each once the one before was taken, and signals where that is not suppressed.
import { parentPort, workerData } from 'node:worker_threads'
import { EventNotifier } from 'fdmon'

const { words, count } = workerData
const bell = EventNotifier.from(workerData.bell)
parentPort.postMessage('ready')
for (let value = 1; value <= count; value++) {
  Atomics.store(words, 0, value)
  if (Atomics.load(words, 2) === 0) {
    Atomics.add(words, 3, 1)
    bell.set()
  }
  while (Atomics.load(words, 1) !== value) continue
}
