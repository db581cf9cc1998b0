// The addon as every other file uses it, and the place where it learns how to make an FdmonError.
import { FdmonError, type FdmonErrorCode } from './errors.js'
import { loadBinding, type Binding } from './loader.js'

const { binding, error } = load()

/** Why the addon could not be loaded; null when it was. */
export const loadError: FdmonError | null = error

/** The addon. When it could not be loaded, every use of it throws the reason. */
export const native: Binding = binding ?? refusing(error)

/** The calls on descriptors that are made once an event, as plain functions: a generated one costs five times as much. */
export const fdHot: ReturnType<Binding['fdHot']> = binding === null ? refusing(error) : binding.fdHot()

function load(): { binding: Binding; error: null } | { binding: null; error: FdmonError } {
  try {
    const loaded = loadBinding()
    loaded.init(
      (code, message, errno, syscall) =>
        new FdmonError(code as FdmonErrorCode, message, { errno: errno ?? undefined, syscall: syscall ?? undefined }),
    )
    return { binding: loaded, error: null }
  } catch (cause) {
    if (cause instanceof FdmonError) return { binding: null, error: cause }
    const text = `the native part of fdmon was loaded and could not start: ${String(cause)}; report this`
    return { binding: null, error: new FdmonError('ERR_FDMON_BINDING', text, { cause }) }
  }
}

function refusing<T extends object>(why: FdmonError | null): T {
  return new Proxy({} as T, {
    get() {
      throw why ?? new FdmonError('ERR_FDMON_INTERNAL', 'the native part is missing; report this')
    },
  })
}
