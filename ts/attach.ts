// Inside Node's own loop: attach and detach, and what decides whether the process lives.
import type { Loop } from './batch.js'
import { checkBoolean, checkKeys, checkObject } from './check.js'
import { FdmonError, unsupported } from './errors.js'
import { wasi } from './native.js'
import { other } from './runtime.js'

/** Refuses where the runtime cannot attach. Asked before the first call into its libuv, which aborts the process in Bun. */
export function needLibuv(what: string): void {
  if (wasi !== null) throw unsupported(`${what} is not possible in a WebAssembly build, which cannot reach libuv; run the context with poll() or run()`)
  const runtime = other()
  if (runtime === undefined) return
  throw unsupported(`${what} is not possible in ${runtime}, whose event loop is not libuv; run the context with poll() or run(), or use Node`)
}

/** `attach()`: of a context that is attached already only the option counts. */
export function attach(loop: Loop, options: unknown): void {
  loop.enter('attach()')
  const given = options === undefined ? {} : checkObject('options', options, 'an object, for example { ref: false }')
  checkKeys('options.', given, ['ref'])
  const ref = given['ref'] === undefined ? undefined : checkBoolean('options.ref', given['ref'])
  if (!loop.attached) {
    needLibuv('attach()')
    loop.attach()
  }
  if (ref !== undefined) setReferenced(loop, ref)
}

/** `detach()`: of a context that is not attached it does nothing. */
export function detach(loop: Loop): void {
  loop.enter('detach()')
  if (loop.attached) loop.detach()
}

/** `ref()` and `unref()`: of a context that is not attached, for when it will be. */
export function setReferenced(loop: Loop, on: boolean): void {
  loop.open()
  loop.referenced = on
  if (loop.attached) loop.native.setReferenced(on)
}

/** `turn()` of an attached context: the next turn of Node's loop that makes progress. */
export function nextTurn(loop: Loop, signal: AbortSignal | undefined): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const abort = (): void => {
      const at = loop.waiting.indexOf(done)
      if (at >= 0) loop.waiting.splice(at, 1)
      reject(signal?.reason as Error)
    }
    const done = (progress: boolean): void => {
      signal?.removeEventListener('abort', abort)
      resolve(progress)
    }
    loop.waiting.push(done)
    signal?.addEventListener('abort', abort, { once: true })
  })
}

/** Refuses what libuv does for an attached context. */
export function refuseAttached(loop: Loop, call: string): void {
  if (!loop.attached) return
  throw new FdmonError(
    'ERR_FDMON_ATTACHED',
    `${call} was called on a context that is attached to Node's loop, which calls it itself; call detach() first`,
  )
}
