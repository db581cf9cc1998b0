// What an I/O thread runs: it makes the context that was promised, attaches it, then loads the user's module.
import { syncBuiltinESMExports } from 'node:module'
import { fileURLToPath } from 'node:url'
// eslint-disable-next-line @typescript-eslint/no-require-imports -- not a copy of its names: `workerData` is changed
import threads = require('node:worker_threads')
import { AioContext, loopOf, reservations } from './context.js'
import { FdmonError } from './errors.js'
import { setCurrentContext, type Boot, type Word } from './io-thread.js'
import { setDefaultContext } from './watch.js'

const { id, module: url, context, port, workerData } = threads.workerData as Boot
;(threads as { workerData: unknown }).workerData = workerData
syncBuiltinESMExports()
if (url.startsWith('file:')) process.argv[1] = fileURLToPath(url)

reservations.set(context, id)
const ctx = new AioContext(context).attach()
const loop = loopOf(ctx)
loop.hold()
setCurrentContext(ctx)
setDefaultContext(ctx)

const half = loop.ownHalf(stop)
let stopping = false
let asked = false

/** Closes the context and ends the thread. A loop in the module's code is first asked to return, once. */
function stop(): void {
  if (loop.loops > 0 && !asked) {
    asked = true
    ctx.stop()
    loop.hot.schedule(half.slot)
    return
  }
  if (stopping) return
  stopping = true
  process.on('uncaughtException', ignoreClosed)
  try {
    ctx.close()
  } finally {
    // Promise reactions run before.
    setImmediate(() => process.exit())
  }
}

/** The same, outside a turn: what was asked of the context before, comes first. */
function stopAfterTurn(): void {
  try {
    if (!loop.closed) loop.turn(false)
  } finally {
    stop()
  }
}

/** What is still asked of a context that was closed for the end of its thread, is no failure of it. */
function ignoreClosed(error: unknown): void {
  if (isClosed(error) || process.listenerCount('uncaughtException') > 1) return
  throw error
}

function isClosed(error: unknown): boolean {
  return error instanceof FdmonError && error.code === 'ERR_FDMON_CLOSED'
}

function say(word: Word): void {
  port.postMessage(word)
}

/** As an uncaught exception of this thread. If somebody catches it, the thread ends all the same: it has no module. */
function fail(error: unknown): void {
  if (stopping && isClosed(error)) return
  setImmediate(() => {
    setImmediate(() => process.exit(1))
    throw error
  })
}

say({ half: loop.native.bhId(half.slot) })
// Who asks for a stop puts a message here and then looks for the bottom half, so one of both is found.
if (threads.receiveMessageOnPort(port) === undefined) {
  port.on('message', stopAfterTurn).unref()
  import(url).then(() => say('ready'), fail)
} else {
  stop()
}
