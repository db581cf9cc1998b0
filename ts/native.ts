// The addon as every other file uses it, and the place where it learns how to make an FdmonError.
import { FdmonError, type FdmonErrorCode } from './errors.js'
import { loadBinding, type Binding } from './loader.js'
import { isWasi, Wasi, withHostFds } from './wasi/binding.js'

const { binding, error, wasi: adapter } = load()

/** Why the addon could not be loaded; null when it was. */
export const loadError: FdmonError | null = error

/** The addon. When it could not be loaded, every use of it throws the reason. */
export const native: Binding = binding ?? refusing(error)

/** What a WebAssembly build needs besides; null of a native one. */
export const wasi: Wasi | null = adapter

/** Zeroes that this side and native use. */
export function integers(length: number): Int32Array {
  return wasi === null ? new Int32Array(new ArrayBuffer(length * 4)) : wasi.integers(length)
}

/** The calls on descriptors that are made once an event, as plain functions: a generated one costs five times as much. */
export const fdHot: ReturnType<Binding['fdHot']> = binding === null ? refusing(error) : binding.fdHot()

function load(): { binding: Binding; error: null; wasi: Wasi | null } | { binding: null; error: FdmonError; wasi: null } {
  try {
    const loaded = loadBinding()
    loaded.init(
      (code, message, errno, syscall) =>
        new FdmonError(code as FdmonErrorCode, isWasi(loaded) ? withHostFds(message) : message, { errno: errno ?? undefined, syscall: syscall ?? undefined }),
    )
    const wasi = isWasi(loaded) ? new Wasi(loaded) : null
    return { binding: wasi?.binding ?? loaded, error: null, wasi }
  } catch (cause) {
    if (cause instanceof FdmonError) return { binding: null, error: cause, wasi: null }
    const text = `the native part of fdmon was loaded and could not start: ${String(cause)}; report this`
    return { binding: null, error: new FdmonError('ERR_FDMON_BINDING', text, { cause }), wasi: null }
  }
}

function refusing<T extends object>(why: FdmonError | null): T {
  return new Proxy({} as T, {
    get() {
      throw why ?? new FdmonError('ERR_FDMON_INTERNAL', 'the native part is missing; report this')
    },
  })
}
