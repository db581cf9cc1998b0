// Of attached.mjs: a worker that is ended by terminate() while its context is attached and busy.
import { parentPort, workerData } from 'node:worker_threads'
import { AioContext, watch } from 'fdmon'
import { timerfd } from 'fdmon/fd'

const ctx = new AioContext({ poll: workerData.spins ? { maxNs: 1_000_000, guards: false } : {} })
const clock = timerfd({ intervalNs: 50_000 })
let first = true
watch(clock, {
  poll: 'kernel',
  read() {
    clock.read()
    if (first) parentPort.postMessage('ticks')
    first = false
  },
}, { context: ctx })
