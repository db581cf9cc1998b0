// ⑦ File I/O: requests go to native one by one and come back in the batch of a turn.
//
// A request has a slot as everything else that can be due, and a slot is used again and again: a request allocates the
// promise or the callback that its user asked for, and nothing in native. What it came to lies in memory shared with native.
import { constants } from 'node:os'
import { getSystemErrorMap } from 'node:util'
import type { Loop } from './batch.js'
import { checkFunction, checkInteger, checkKeys, checkObject, checkSignal } from './check.js'
import { closed, FdmonError, invalidArg } from './errors.js'
import { fdOf, type FdLike } from './fd-like.js'
import { native } from './native.js'
import { asyncContext, nothing, Slot } from './slot.js'

/**
 * Options of one request of file I/O.
 *
 * @example
 * ```ts
 * import { defaultContext, type IoOptions } from 'fdmon'
 * import { openSync } from 'node:fs'
 *
 * const options: IoOptions = { signal: AbortSignal.timeout(1_000) }
 * const bytes = await defaultContext().read(openSync('package.json', 'r'), Buffer.alloc(64), 0, options)
 * console.log(bytes) // 64
 * ```
 */
export interface IoOptions {
  /**
   * Asks for the end of the request when it aborts. The promise rejects with the signal's reason, once the kernel is done
   * with the buffer.
   */
  signal?: AbortSignal
}

/**
 * What `submit…` calls when a request has ended.
 *
 * @example
 * ```ts
 * import { AioContext, type IoCallback } from 'fdmon'
 * import { openSync } from 'node:fs'
 *
 * using ctx = new AioContext()
 * const done: IoCallback = (error, bytes) => {
 *   console.log(error ?? `${bytes} bytes`) // 16 bytes
 *   ctx.stop()
 * }
 * ctx.submitRead(openSync('package.json', 'r'), Buffer.alloc(16), 0, done)
 * ctx.run()
 * ```
 */
export type IoCallback = (error: FdmonError | null, bytes: number) => void

const READ = 0
const WRITE = 1
const FSYNC = 2
const FDATASYNC = 3

const MAX_POSITION = 0x7fff_ffff_ffff_ffffn
const NOTHING = new Uint8Array(0)

/** What a request of a closed context came to of which the kernel never said that it is done with the memory. */
const UNKNOWN = -constants.errno.EINPROGRESS
/** …and that memory. */
const lost: unknown[] = []

/** Loops with requests: native works on the memory of their buffers, so neither is collected. */
const busy = new Set<Loop>()

/** One request, and the slot that it has. Used again. */
class Request {
  readonly slot = new Slot()
  op = READ
  fd = -1
  /** Kept alive: the kernel works on it. */
  memory: unknown = undefined
  /** Of `submit…`. */
  done: IoCallback | undefined = undefined
  resolve: (value: number) => void = nothing
  reject: (reason: unknown) => void = nothing
  signal: AbortSignal | undefined = undefined
  /** Asked for, and its end not heard of. */
  waits = false
}

/** The file I/O of a loop. */
export class FileIo {
  readonly #loop: Loop
  readonly #free: Request[] = []
  readonly #all: Request[] = []
  #results = new Int32Array(0)
  #waiting = 0
  /** One listener a signal, whatever it aborts: Node warns of a leak when there are many. */
  readonly #signals = new Map<AbortSignal, { requests: Set<Request>; abort: () => void }>()
  /** Plugged sections, and completions, which run within one. */
  #plugs = 0

  constructor(loop: Loop) {
    this.#loop = loop
  }

  // --- As users ask for it ------------------------------------------------------------------------------------------

  /** A transfer as a promise. Bad arguments reject it too: what throws in there does that. */
  transfer(
    write: boolean,
    fd: FdLike,
    buffer: unknown,
    position: unknown,
    options: IoOptions | undefined,
  ): Promise<number> {
    return new Promise((resolve, reject) => {
      const number = fdOf('fd', fd)
      const view = bytesOf('buffer', buffer)
      const at = checkPosition(position)
      this.#ask(this.#promised(resolve, reject, options), write ? WRITE : READ, number, view, at)
    })
  }

  /** …of several buffers. */
  transferAll(
    write: boolean,
    fd: FdLike,
    buffers: unknown,
    position: unknown,
    options: IoOptions | undefined,
  ): Promise<number> {
    return new Promise((resolve, reject) => {
      const number = fdOf('fd', fd)
      const views = viewsOf(buffers)
      const at = checkPosition(position)
      this.#askAll(this.#promised(resolve, reject, options), write ? WRITE : READ, number, views, at)
    })
  }

  /** A sync as a promise. */
  sync(dataOnly: boolean, fd: FdLike, options: IoOptions | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const number = fdOf('fd', fd)
      const done = (): void => {
        resolve()
      }
      this.#ask(this.#promised(done, reject, options), dataOnly ? FDATASYNC : FSYNC, number, NOTHING, 0)
    })
  }

  /** A transfer with a callback. */
  submit(write: boolean, fd: FdLike, buffer: unknown, position: unknown, done: unknown): void {
    const number = fdOf('fd', fd)
    const view = bytesOf('buffer', buffer)
    const at = checkPosition(position)
    this.#ask(this.#called(done), write ? WRITE : READ, number, view, at)
  }

  /** …of several buffers. */
  submitAll(write: boolean, fd: FdLike, buffers: unknown, position: unknown, done: unknown): void {
    const number = fdOf('fd', fd)
    const views = viewsOf(buffers)
    const at = checkPosition(position)
    this.#askAll(this.#called(done), write ? WRITE : READ, number, views, at)
  }

  /** A sync with a callback. */
  submitSync(dataOnly: boolean, fd: FdLike, done: unknown): void {
    const number = fdOf('fd', fd)
    this.#ask(this.#called(done), dataOnly ? FDATASYNC : FSYNC, number, NOTHING, 0)
  }

  /** Submits what the section asks for in one go. */
  plug<T>(section: () => T): T {
    const loop = this.#loop
    loop.open()
    checkFunction('section', section, '() => {}')
    this.#plugs++
    try {
      return section()
    } finally {
      this.#plugs--
      if (this.#plugs === 0 && this.#waiting !== 0 && !loop.closed) loop.native.ioSubmit()
    }
  }

  // --- Requests -----------------------------------------------------------------------------------------------------

  #promised(
    resolve: (value: number) => void,
    reject: (reason: unknown) => void,
    options: IoOptions | undefined,
  ): Request {
    const signal = options === undefined ? undefined : signalOf(options)
    const request = this.#request()
    request.resolve = resolve
    request.reject = reject
    if (signal !== undefined) this.#listen(request, signal)
    return request
  }

  #listen(request: Request, signal: AbortSignal): void {
    request.signal = signal
    const known = this.#signals.get(signal)
    if (known !== undefined) {
      known.requests.add(request)
      return
    }
    const requests = new Set([request])
    const abort = (): void => {
      for (const { slot } of requests) this.#loop.native.ioCancel(slot.slot)
    }
    this.#signals.set(signal, { requests, abort })
    signal.addEventListener('abort', abort, { once: true })
  }

  #unlisten(request: Request, signal: AbortSignal): void {
    request.signal = undefined
    const known = this.#signals.get(signal)
    known?.requests.delete(request)
    if (known?.requests.size === 0) {
      signal.removeEventListener('abort', known.abort)
      this.#signals.delete(signal)
    }
  }

  #called(done: unknown): Request {
    checkFunction('done', done, '(error, bytes) => {}')
    const request = this.#request()
    request.done = done as IoCallback
    request.slot.resource = this.#loop.attached ? asyncContext() : undefined
    return request
  }

  /** A free one, or a new one. */
  #request(): Request {
    const loop = this.#loop
    loop.open()
    const free = this.#free.pop()
    if (free !== undefined) return free
    const request = new Request()
    const slot = request.slot
    slot.slot = this.#allocate()
    slot.callback = () => {
      this.#end(request)
    }
    loop.table[slot.slot] = slot
    this.#all.push(request)
    return request
  }

  /** A slot that the words and the results reach. */
  #allocate(): number {
    const loop = this.#loop
    return loop.allocate(() => {
      if (this.#results.length < 2 * loop.words.length) {
        const results = new Int32Array(new ArrayBuffer(loop.words.length * 8))
        results.set(this.#results)
        loop.native.setResults(results)
        this.#results = results
      }
      return loop.native.ioSlot()
    })
  }

  #ask(request: Request, op: number, fd: number, view: Uint8Array, position: number | bigint): void {
    if (typeof position === 'bigint') {
      this.#askAll(request, op, fd, [view], position)
      return
    }
    this.#begin(request, op, fd, view)
    try {
      this.#loop.hot.transfer(request.slot.slot, op, fd, view, position)
    } catch (error) {
      this.#refused(request, error)
    }
  }

  #askAll(request: Request, op: number, fd: number, views: Uint8Array[], position: number | bigint): void {
    this.#begin(request, op, fd, views)
    try {
      this.#loop.native.transfer(request.slot.slot, op, fd, views, BigInt(position))
    } catch (error) {
      this.#refused(request, error)
    }
  }

  #begin(request: Request, op: number, fd: number, memory: unknown): void {
    request.op = op
    request.fd = fd
    request.memory = memory
    request.waits = true
    if (this.#waiting++ === 0) busy.add(this.#loop)
  }

  /** Native did not take it. */
  #refused(request: Request, error: unknown): void {
    const { done, reject } = request
    this.#free.push(this.#over(request))
    if (done !== undefined) throw error
    reject(error)
  }

  /** Its memory is free, and so is its slot. */
  #over(request: Request): Request {
    if (request.signal !== undefined) this.#unlisten(request, request.signal)
    request.memory = undefined
    request.done = undefined
    request.resolve = nothing
    request.reject = nothing
    request.waits = false
    request.slot.resource = undefined
    if (--this.#waiting === 0) busy.delete(this.#loop)
    return request
  }

  /** A completion. */
  #end(request: Request): void {
    if (!request.waits) return
    const at = 2 * request.slot.slot
    const result = this.#results[at + 1]! * 0x1_0000_0000 + (this.#results[at]! >>> 0)
    const { done, resolve, reject, signal, op, fd } = request
    const many = Array.isArray(request.memory)
    if (result === UNKNOWN) lost.push(request.memory)
    this.#free.push(this.#over(request))
    if (done === undefined) {
      if (signal?.aborted === true) reject(signal.reason)
      else if (result >= 0) resolve(result)
      else reject(this.#failure(-result, op, many, fd))
      return
    }
    this.#plugs++
    try {
      if (result >= 0) done(null, result)
      else done(this.#failure(-result, op, many, fd), 0)
    } finally {
      this.#plugs--
    }
  }

  #failure(errno: number, op: number, many: boolean, fd: number): FdmonError {
    if (this.#loop.closed && (errno === constants.errno.ECANCELED || -errno === UNKNOWN)) {
      return closed(`AioContext '${this.#loop.life.name}'`, 'wait for the request before you close it')
    }
    return failure(errno, op, many, fd)
  }

  /** The context is closed: everything has ended, and who waits hears of it here. */
  end(): void {
    for (const request of this.#all) {
      if (!request.waits) continue
      try {
        this.#end(request)
      } catch (error) {
        this.#loop.errors.push(error)
      }
    }
  }
}

// --- Checks and words -------------------------------------------------------------------------------------------------

function signalOf(options: unknown): AbortSignal | undefined {
  const given = checkObject('options', options, 'an object, for example { signal }')
  checkKeys('options.', given, ['signal'])
  const signal = checkSignal('options.signal', given['signal'])
  signal?.throwIfAborted()
  return signal
}

/** The bytes of a view. */
function bytesOf(name: string, view: unknown): Uint8Array {
  if (view instanceof Uint8Array) return view
  if (ArrayBuffer.isView(view)) return new Uint8Array(view.buffer, view.byteOffset, view.byteLength)
  throw invalidArg(name, view, 'pass a Buffer, a typed array or a DataView')
}

function viewsOf(buffers: unknown): Uint8Array[] {
  if (!Array.isArray(buffers)) throw invalidArg('buffers', buffers, 'pass an array of Buffers or typed arrays')
  return Array.from(buffers, (view, at) => bytesOf(`buffers[${at}]`, view)) // holes too
}

function checkPosition(position: unknown): number | bigint {
  if (typeof position === 'number' && position >= 0 && Number.isSafeInteger(position)) return position
  if (typeof position === 'bigint' && position >= 0n && position <= MAX_POSITION) {
    return position <= Number.MAX_SAFE_INTEGER ? Number(position) : position
  }
  throw invalidArg(
    'position',
    position,
    `pass an integer from 0 to ${Number.MAX_SAFE_INTEGER}, or a bigint up to ${MAX_POSITION}`,
  )
}

const CALLS = ['pread', 'pwrite', 'fsync', 'fdatasync'] as const
const ADVICE: Partial<Record<string, string>> = {
  EBADF: 'keep the descriptor open until the request has ended, and open it for this',
  ECANCELED: 'ask again if it is still wanted',
  EFAULT: 'keep the buffer, and do not transfer or shrink it, until the request has ended',
  EFBIG: 'the file may not become that large',
  EINVAL: 'pass a file that can do this; with O_DIRECT, use alignedBuffer() and aligned positions',
  ENOSPC: 'make room on the device',
  ESPIPE: 'use handlers for pipes and sockets: they have no positions',
}

/** What the kernel says of a request. */
function failure(errno: number, op: number, many: boolean, fd: number): FdmonError {
  const [name, text] = getSystemErrorMap().get(-errno) ?? [`errno ${errno}`, 'unknown error']
  const syscall = `${CALLS[op] ?? 'io'}${many && op <= WRITE ? 'v' : ''}`
  const code = name === 'EBADF' ? 'ERR_FDMON_BAD_FD' : 'ERR_FDMON_SYSCALL'
  const advice = ADVICE[name] ?? `see ${syscall}(2)`
  return new FdmonError(code, `${syscall} of fd ${fd} failed: ${name}: ${text}; ${advice}`, { errno, syscall })
}

/**
 * A buffer whose memory is aligned, as files opened with O_DIRECT want it; positions and lengths must be multiples there
 * as well, of the block size of the disk.
 *
 * @param size - bytes, all of them 0
 * @param alignment - a power of two
 * @example
 * ```ts
 * import { alignedBuffer } from 'fdmon'
 *
 * const buffer: Uint8Array = alignedBuffer(8192)
 * console.log(buffer.length) // 8192
 * ```
 */
export function alignedBuffer(size: number, alignment = 4096): Uint8Array {
  checkInteger('size', size, 0, 0x7fff_ffff)
  const aligned = checkInteger('alignment', alignment, 1, 0x4000_0000)
  if ((aligned & (aligned - 1)) !== 0) throw invalidArg('alignment', alignment, 'pass a power of two, such as 4096')
  const memory = new ArrayBuffer(size + aligned)
  return new Uint8Array(memory, native.misalignment(new Uint8Array(memory), aligned), size)
}
