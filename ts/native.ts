// The only import of the native addon, and the place where it learns how to make an FdmonError.
import { FdmonError, type FdmonErrorCode } from './errors.js'

type Binding = typeof import('../native/binding.cjs')

const { binding, error } = load()

/** Why the addon could not be loaded; null when it was. */
export const loadError: FdmonError | null = error

/** The addon. When it could not be loaded, every use of it throws the reason. */
export const native: Binding = binding ?? refusing(error)

/** The calls on descriptors that are made once an event, as plain functions: a generated one costs five times as much. */
export const fdHot: ReturnType<Binding['fdHot']> = binding === null ? refusing(error) : binding.fdHot()

function load(): { binding: Binding; error: null } | { binding: null; error: FdmonError } {
  try {
    // A plain require, so that bundlers and file tracers see it; the path is that of the built file in dist/cjs.
    // eslint-disable-next-line @typescript-eslint/no-require-imports
    const loaded = require('../../native/binding.cjs') as Binding
    loaded.init(
      (code, message, errno, syscall) =>
        new FdmonError(code as FdmonErrorCode, message, { errno: errno ?? undefined, syscall: syscall ?? undefined }),
    )
    return { binding: loaded, error: null }
  } catch (cause) {
    const text =
      `the native part of fdmon for ${process.platform} ${process.arch} could not be loaded: ${reason(cause)}; ` +
      'install fdmon again with its optional dependencies (no --omit=optional, no copied node_modules of another ' +
      'platform), or build it with "npm run build" in a checkout'
    return { binding: null, error: new FdmonError('ERR_FDMON_BINDING', text, { cause }) }
  }
}

/**
 * What really went wrong: the loader tries several files and wraps the failures in a general complaint. A file that was
 * there and could not be linked says more than one that was not there.
 */
function reason(cause: unknown): string {
  const causes: Error[] = []
  for (let at: unknown = cause; at instanceof Error && causes.length < 20; at = at.cause) causes.push(at)
  const code = (error: Error): string | undefined => (error as NodeJS.ErrnoException).code
  const linked = causes.find((error) => code(error) === 'ERR_DLOPEN_FAILED')
  const missing = causes.findLast((error) => code(error) === 'MODULE_NOT_FOUND')
  return (linked ?? missing ?? causes.at(-1))?.message.split('\n')[0] ?? String(cause)
}

function refusing<T extends object>(why: FdmonError | null): T {
  return new Proxy({} as T, {
    get() {
      throw why ?? new FdmonError('ERR_FDMON_INTERNAL', 'the native part is missing; report this')
    },
  })
}
