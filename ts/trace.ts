// A trace of a context in a file: native writes it, this side says when it begins and ends.
import { fileURLToPath } from 'node:url'
import type { Loop } from './batch.js'
import { checkInteger, checkKeys, checkObject } from './check.js'
import { invalidArg } from './errors.js'

/**
 * How to trace.
 *
 * @example
 * ```ts
 * import { AioContext, type TraceOptions } from 'fdmon'
 * import { tmpdir } from 'node:os'
 *
 * const options: TraceOptions = { events: 1_000_000 }
 * using ctx = new AioContext()
 * using trace = ctx.trace(`${tmpdir()}/long-%p.json`, options)
 * console.log(trace.file.endsWith(`long-${process.pid}.json`)) // true
 * ```
 */
export interface TraceOptions {
  /**
   * Events that are kept until they are written, which happens 20 times a second and whenever half of the room is taken:
   * from 64 to 16,777,216, rounded up to a power of two. What finds no room is dropped and counted. An event takes 48
   * bytes. @default 65536
   */
  events?: number
}

const EVENTS = 65_536

/**
 * A trace that goes on, made by `ctx.trace()`. It ends with `stop()`, or with its context.
 *
 * @example
 * ```ts
 * import { AioContext, type Trace } from 'fdmon'
 * import { readFileSync } from 'node:fs'
 * import { tmpdir } from 'node:os'
 *
 * using ctx = new AioContext({ name: 'main' })
 * const trace: Trace = ctx.trace(`${tmpdir()}/main-%p.json`)
 * ctx.schedule(() => {})
 * ctx.poll()
 * trace.stop()
 * const { traceEvents } = JSON.parse(readFileSync(trace.file, 'utf8'))
 * console.log(traceEvents.some(({ name }: { name: string }) => name === 'bottom half')) // true
 * ```
 */
export class Trace implements Disposable {
  /** The file, with `%p` replaced. */
  readonly file: string
  readonly #loop: Loop
  #counts: readonly number[] | undefined

  /** @internal */
  constructor(loop: Loop, file: string) {
    this.#loop = loop
    this.file = file
  }

  /** Events that were recorded, the dropped ones not counted. */
  get events(): number {
    return (this.#counts ?? this.#loop.native.traceCounts())[0] ?? 0
  }

  /** Events that are not in the file, for want of room in memory or on the disk. */
  get dropped(): number {
    return (this.#counts ?? this.#loop.native.traceCounts())[1] ?? 0
  }

  /**
   * Ends the trace: all of it is in the file then. With the last trace of a file the file ends too. Does nothing the
   * second time.
   *
   * @throws FdmonError ERR_FDMON_SYSCALL with the first error of writing that the file has met; the loop knows nothing of
   *   it, and what could not be written counts as dropped
   */
  stop(): void {
    if (this.#counts !== undefined) return
    const loop = this.#loop
    loop.recording = false
    try {
      loop.native.endTrace()
    } finally {
      this.#counts = loop.native.traceCounts()
    }
  }

  /** The same as `stop()`. */
  [Symbol.dispose](): void {
    this.stop()
  }
}

/** `ctx.trace()` */
export function startTrace(loop: Loop, file: unknown, options: unknown): Trace {
  loop.open()
  const given = options === undefined ? {} : checkObject('options', options, 'an object, for example { events: 1000000 }')
  checkKeys('options.', given, ['events'])
  const events =
    given['events'] === undefined ? EVENTS : checkInteger('options.events', given['events'], 64, 16_777_216, 'events')
  const trace = new Trace(loop, loop.native.startTrace(checkFile(file), events))
  loop.recording = true
  return trace
}

function checkFile(file: unknown): string {
  if (typeof file === 'string' && file !== '' && !file.includes('\0')) return file
  if (file instanceof URL && file.protocol === 'file:') return fileURLToPath(file)
  throw invalidArg('file', file, "pass a path, for example 'trace.json', or a file: URL")
}
