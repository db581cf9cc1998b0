// Of attached.mjs: the module of an I/O thread.
import { parentPort, workerData } from 'node:worker_threads'
import { currentContext, EventNotifier } from 'fdmon'

if (workerData === 'throw') throw new Error('on purpose')
if (workerData === 'exit') process.exit(3)
if (workerData === 'run') {
  parentPort.postMessage('runs')
  currentContext().run()
} else {
  const { handle, heard } = workerData
  const bell = EventNotifier.from(handle)
  currentContext().setEventNotifier(bell, {
    read() {
      bell.testAndClear()
      Atomics.add(heard, 0, 1)
    },
  })
}
