// What the steps of the suite share: how they are run and told, and what this runtime is.
import { AioContext } from 'fdmon'

/** `node`, or a runtime whose event loop is not libuv. */
export const runtime = process.versions.bun !== undefined ? 'bun' : process.versions.deno !== undefined ? 'deno' : 'node'
/** A window that any event here falls into, whatever the machine does meanwhile. */
export const SPIN = { maxNs: 50_000_000, guards: false, policy: 'classic' }

/** Where the runtime lets a program ask for it: what finalizers do wrong shows in the step that they belong to. */
const collect = globalThis.Bun === undefined ? (globalThis.gc ?? (() => {})) : () => globalThis.Bun.gc(true)

/** Runs each step, in order, and tells of each in a line of JSON; an exception ends that step only. */
export async function steps(list) {
  for (const [name, body] of Object.entries(list)) {
    try {
      await body()
      for (let round = 0; round < 3; round++) {
        collect()
        await new Promise((resolve) => setTimeout(resolve, 1))
      }
      report({ name, ok: true })
    } catch (error) {
      report({ name, ok: false, error: String(error?.stack ?? error) })
    }
  }
}

export function report(line) {
  console.log(JSON.stringify(line))
}

/** A step with a context of its own. */
export function withContext(body, options) {
  return async () => {
    const ctx = new AioContext(options)
    try {
      await body(ctx)
    } finally {
      ctx.close()
    }
  }
}

export function equal(is, expected) {
  if (JSON.stringify(is) !== JSON.stringify(expected)) {
    throw new Error(`is ${JSON.stringify(is)}, expected ${JSON.stringify(expected)}`)
  }
}

/** The error that the call throws. */
export function thrown(call) {
  try {
    call()
  } catch (error) {
    return error
  }
  throw new Error('it threw nothing')
}

/** The error that the call throws is an FdmonError with this code, whose message says each of the texts. */
export function refuses(call, FdmonError, code, ...texts) {
  const error = thrown(call)
  equal([error instanceof FdmonError, error.code], [true, code])
  for (const text of texts) if (!error.message.includes(text)) throw new Error(`'${error.message}' does not say '${text}'`)
}
