// The descriptors that fdtop watches, and who feeds them. Each source is one row: its handlers are all that the loop knows.
//
// Every handler has a `poll`. On epoll and poll a handler without one would keep the whole context from spinning.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import { EventNotifier, watch } from 'fdmon'
import { inotify, InotifyEvents, signalfd, timerfd } from 'fdmon/fd'
import { child } from './child.mjs'
import { sockets } from './sockets.mjs'

const TICK_NS = 1_000_000
const WORD_MS = 2
const FILE_MS = 250

/** Opens everything and feeds it, until `close()`. */
export function openSources(context) {
  const folder = mkdtempSync(join(tmpdir(), 'fdtop-'))
  const list = [clock(), words(), files(folder), signals(), child(), ...sockets(join(folder, 'socket'))]
  for (const source of list) source.start?.(context)
  return {
    list,
    pause: (on) => list.forEach((source) => source.pause?.(on)),
    close() {
      for (const source of list) source.close?.()
      rmSync(folder, { recursive: true })
    },
  }
}

/** A timerfd at 1 kHz. */
function clock() {
  const timer = timerfd({ intervalNs: TICK_NS })
  let ticks = 0n
  return {
    name: 'timerfd',
    fd: timer.fd,
    note: () => `${ticks} ticks of 1 ms`,
    start: (context) => watch(timer, { poll: 'kernel', read: () => (ticks += timer.read()) }, { context }),
    pause: (on) => timer.set(on ? {} : { intervalNs: TICK_NS }),
    close: () => timer.close(),
  }
}

/** An eventfd as the doorbell of a counter in shared memory, which a worker advances. */
function words() {
  const [HEAD, TAIL, SUPPRESS, PAUSED] = [0, 1, 2, 3]
  const memory = new Int32Array(new SharedArrayBuffer(16))
  const bell = new EventNotifier()
  let worker
  const take = () => Atomics.store(memory, TAIL, Atomics.load(memory, HEAD))
  return {
    name: 'eventfd',
    fd: bell.fd,
    note: () => `${memory[TAIL]} words taken`,
    start(context) {
      watch(bell, {
        poll: { memory, index: HEAD, notEqual: { index: TAIL }, suppress: { index: SUPPRESS } },
        pollReady: take,
        read() {
          bell.testAndClear()
          take()
        },
      }, { context })
      const workerData = { words: memory, handle: bell.handle, everyMs: WORD_MS }
      worker = new Worker(new URL('./words.mjs', import.meta.url), { workerData })
    },
    pause: (on) => Atomics.store(memory, PAUSED, Number(on)),
    close: () => (worker.terminate(), bell.close()),
  }
}

/** inotify on a folder in which a file is written now and then. */
function files(folder) {
  const watcher = inotify()
  let last = 'nothing'
  let times = 0
  let writer
  const feed = (on) => {
    clearInterval(writer)
    if (on) writer = setInterval(() => writeFileSync(join(folder, `note-${++times % 10}`), `${times}\n`), FILE_MS)
  }
  return {
    name: 'inotify',
    fd: watcher.fd,
    note: () => `${last} written`,
    start(context) {
      watcher.addWatch(folder, InotifyEvents.CLOSE_WRITE)
      watch(watcher, {
        poll: 'kernel',
        read() {
          for (const { name } of watcher.readEvents()) last = name
        },
      }, { context })
      feed(true)
    },
    pause: (on) => feed(!on),
    close: () => (feed(false), watcher.close()),
  }
}

/** A signal that Node does not use. */
function signals() {
  const signal = signalfd(['SIGUSR2'])
  let count = 0
  let from
  return {
    name: 'signalfd',
    fd: signal.fd,
    note: () => (count === 0 ? 'press u for one' : `${count} SIGUSR2, from ${from}`),
    start(context) {
      watch(signal, {
        poll: 'kernel',
        read() {
          for (const { pid } of signal.readSignals()) (count += 1, (from = pid))
        },
      }, { context })
    },
    close: () => signal.close(),
  }
}
