// One cell of the teardown matrix, as a program: it ends in the way that it was told, and says what it saw of a worker's end.
//
//   node teardown-program.cjs '{ "monitor": "epoll" | "control", "thread": "main" | "worker", "ending": … }'
//
// The monitor "control" is plain Node: a timer that repeats instead of a context. What it gives is what a context must give.
const { readdirSync, writeSync } = require('node:fs')
const { Worker, isMainThread, parentPort, workerData } = require('node:worker_threads')

const cell = isMainThread ? JSON.parse(process.argv[2]) : workerData
const control = cell.monitor === 'control'
const fdmon = control ? undefined : require(cell.entry)
const { read, write } = control ? {} : require(cell.fd)

/** Descriptors are their maker's: those of a worker that is ended are made, and kept, by its parent. */
const bells = control ? [] : (cell.bells ?? Array.from({ length: 22 }).map(() => new fdmon.EventNotifier().fd))
const set = (bell) => write(bell, new Uint8Array(new BigUint64Array([1n]).buffer))
const clear = (bell) => read(bell, new Uint8Array(8))

/** Handlers, a predicate and hooks of JavaScript, a word, a timer, a bottom half; or a timer of Node. */
function busy(onTick, options = {}) {
  let ticks = 0
  const tick = () => onTick(++ticks)
  if (control) {
    const timer = setInterval(tick, 1)
    return { end: () => clearInterval(timer), timers: [timer] }
  }
  const poll = { maxNs: options.spins === false ? 0 : 300_000, policy: 'classic', guards: false }
  const ctx = new fdmon.AioContext({ poll, ...(cell.monitor === '' ? {} : { monitor: cell.monitor }) }).attach()
  const words = new Int32Array(new SharedArrayBuffer(64))
  const [bell, doorbell] = bells
  let due = true
  ctx.setFdHandler(doorbell, {
    poll: { memory: words, index: 0, notEqual: 0, suppress: { index: 1 } },
    pollReady: () => Atomics.store(words, 0, 0),
    read: () => void clear(doorbell),
  })
  ctx.setFdHandler(bell, {
    poll: () => (options.inHook !== undefined && ticks >= 5 && options.inHook(), due),
    pollReady() {
      due = false
      tick()
    },
    read() {
      clear(bell)
      tick()
    },
    pollBegin() {},
    pollEnd() {},
  })
  const half = ctx.bottomHalf(() => {
    if (options.always) half.schedule()
  })
  const timer = ctx.timer(() => {
    timer.arm(options.everyNs ?? 500_000)
    Atomics.store(words, 0, 1)
    half.schedule()
    if (Math.random() < 0.5) due = true
    else set(bell)
  })
  timer.arm(0)
  return { end: () => ctx.close(), ctx }
}

const endings = {
  /** The work is over and nothing is left to wait for. */
  natural() {
    const work = busy((ticks) => ticks === 5 && work.end())
  },
  /** Nobody closes anything, but nothing has to be waited for. */
  unreferenced() {
    const work = busy(() => {})
    if (control) work.timers[0].unref()
    else work.ctx.unref()
    setTimeout(() => {}, 20)
  },
  exit() {
    busy((ticks) => ticks === 5 && process.exit(7))
  },
  throw() {
    busy((ticks) => {
      if (ticks === 5) throw new RangeError('of a callback')
    })
  },
  rejection() {
    busy((ticks) => ticks === 5 && void Promise.reject(new RangeError('of a callback')))
  },
  /** In a predicate, which runs between libuv's own phases. */
  'exit in a hook'() {
    const exit = () => process.exit(7)
    busy((ticks) => control && ticks === 5 && exit(), { inHook: exit })
  },
  'throw in a hook'() {
    const fail = () => {
      throw new RangeError('of a hook')
    }
    busy((ticks) => control && ticks === 5 && fail(), { inHook: fail })
  },
  /** In a turn within a turn. */
  'exit in a nested turn'() {
    const work = busy((ticks) => {
      if (ticks !== 5) return
      if (control) process.exit(7)
      work.ctx.schedule(() => process.exit(7))
      for (;;) work.ctx.poll(true)
    })
  },
  /** A callback that never returns. */
  endless() {
    busy((ticks) => {
      if (ticks !== 5) return
      ready()
      for (;;);
    })
  },
  /** Until it is ended from outside: the states take turns. */
  terminate() {
    const states = [{ spins: true }, { spins: false, everyNs: 20_000_000 }, { always: true }, { everyNs: 50_000 }]
    busy((ticks) => ticks === 5 && ready(), states[cell.round % states.length])
    setTimeout(ready, 30)
  },
  /** A turn that blocks the thread, until `remote.stop()` ends it. */
  blocking() {
    if (control) {
      ready()
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)
      return
    }
    const ctx = new fdmon.AioContext({ monitor: cell.monitor === '' ? 'auto' : cell.monitor }).attach()
    ctx.setFdHandler(bells[0], { read() {} })
    ready({ id: ctx.id })
    ctx.run()
    ctx.detach()
    setTimeout(() => ctx.close(), 1000)
  },
  /** The same, and it is ended by `remote.stop()` alone. */
  stopped() {
    if (control) return
    const ctx = new fdmon.AioContext({ monitor: cell.monitor === '' ? 'auto' : cell.monitor }).attach()
    ctx.setFdHandler(bells[0], { read() {} })
    if (!isMainThread) ready({ id: ctx.id })
    else new Worker(stopper, { eval: true, workerData: { entry: cell.entry, id: ctx.id } })
    ctx.run()
    ctx.close()
  },
  /** 1,000 contexts that nobody closes, with handlers, timers and bottom halves. */
  dropped() {
    if (control) return
    // The kernel lets one file be watched through 100 sets of this depth.
    for (let count = 0; count < 1000; count++) {
      const ctx = new fdmon.AioContext({ monitor: cell.monitor === '' ? 'auto' : cell.monitor })
      if (count % 2 === 0) ctx.attach().unref()
      ctx.setFdHandler(bells[count % bells.length], { read() {}, pollEnd: () => ctx })
      ctx.timer(() => ctx).arm(1e12)
      ctx.bottomHalf(() => ctx)
      if (count % 4 < 2) ctx.poll(false)
    }
    setTimeout(() => {}, 5)
  },
  /** Two copies of the package, each with an addon of its own, in one loop. */
  copies() {
    const pieces = control ? [undefined, undefined] : [fdmon, require(cell.copy)]
    if (!control && pieces[0].AioContext === pieces[1].AioContext) throw new Error('it is one copy')
    let left = pieces.length
    for (const [index, piece] of pieces.entries()) {
      if (piece === undefined) {
        setTimeout(() => left--, 1)
        continue
      }
      const ctx = new piece.AioContext({ monitor: cell.monitor === '' ? 'auto' : cell.monitor }).attach()
      const bell = bells[index]
      ctx.setFdHandler(bell, {
        read() {
          clear(bell)
          if (--left === 0) ctx.schedule(() => ctx.close())
          else setImmediate(() => ctx.close())
        },
      })
      setTimeout(() => set(bell), 1)
    }
    process.on('exit', () => void (process.exitCode = left))
  },
  sigint() {
    const work = busy((ticks) => ticks === 5 && ready())
    // A worker has no signals: its parent passes them on.
    if (isMainThread) process.once('SIGINT', () => work.end())
    else parentPort.once('message', () => work.end())
  },
}

/** Ends the loop of its parent, which blocks meanwhile. */
const stopper = `const { entry, id } = require('node:worker_threads').workerData
  setTimeout(() => require(entry).AioContext.remote(id).stop(), 20)`

/** Once: from here on it may be ended. */
let said = false
function ready(what = {}) {
  if (said) return
  said = true
  if (isMainThread) writeSync(1, 'ready\n')
  else parentPort.postMessage(what)
}

if (!isMainThread) {
  endings[cell.ending]()
} else if (cell.thread === 'main') {
  endings[cell.ending]()
} else {
  void host()
}

/** Runs the cell in workers, and tells how they ended and how many descriptors they left. */
async function host() {
  const rounds = cell.ending === 'terminate' ? (cell.rounds ?? 12) : 1
  await one({ ...cell, monitor: 'control', ending: 'natural' }, 0) // what a first worker costs is not counted
  const before = descriptors()
  const ends = []
  for (let round = 0; round < rounds; round++) ends.push(await one(cell, round))
  const until = Date.now() + 3000
  while (descriptors() > before && Date.now() < until) await new Promise((resolve) => setTimeout(resolve, 5))
  const distinct = [...new Set(ends.map((end) => JSON.stringify(end)))].map((end) => JSON.parse(end))
  writeSync(1, `${JSON.stringify({ ends: distinct, leaked: Math.max(0, descriptors() - before) })}\n`)
}

function descriptors() {
  return readdirSync('/proc/self/fd').length
}

function one(what, round) {
  const worker = new Worker(__filename, { workerData: { ...what, round, bells } })
  const end = {}
  worker.once('error', (error) => (end.error = `${error.name}: ${error.message}`))
  const terminate = () => void worker.terminate()
  worker.once('message', ({ id }) => {
    if (what.ending === 'terminate' || what.ending === 'endless') {
      const delay = Math.random() * 4
      const until = performance.now() + delay
      // Also at moments that no timer would choose.
      setTimeout(() => {
        while (performance.now() < until) continue
        terminate()
      }, Math.floor(delay))
    } else if (what.ending === 'blocking') {
      setTimeout(() => {
        if (id !== undefined) fdmon.AioContext.remote(id).stop()
        terminate()
      }, 20)
    } else if (what.ending === 'stopped') {
      setTimeout(() => fdmon.AioContext.remote(id).stop(), 20)
    } else if (what.ending === 'sigint') {
      process.once('SIGINT', () => worker.postMessage('SIGINT'))
      writeSync(1, 'ready\n')
    }
  })
  return new Promise((resolve) => worker.once('exit', (code) => resolve({ ...end, code })))
}
