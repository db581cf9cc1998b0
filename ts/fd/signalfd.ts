// Signals as a descriptor.
import { constants } from 'node:os'
import { invalidArg, unsupported } from '../errors.js'
import { fdHot, native } from '../native.js'
import { failed, Fd, NOT_NOW, openFd, OWN } from './fd.js'

/**
 * What {@link SignalFd.readSignals} tells of one signal: the fields of `struct signalfd_siginfo` (signalfd(2)) without
 * their prefix. Those that the kind of signal does not have are 0.
 *
 * @example
 * ```ts
 * import type { SignalRecord } from 'fdmon/fd'
 *
 * const isFromUser = (record: SignalRecord): boolean => record.code <= 0 // kill(2), sigqueue(3), timers
 * console.log(isFromUser.length) // 1
 * ```
 */
export interface SignalRecord {
  /** Its name, as it was passed to {@link signalfd}. */
  signal: NodeJS.Signals
  /** Its number. */
  signo: number
  /** An error number; Linux leaves it 0. */
  errno: number
  /** Why it was sent: 0 = by kill(2), -1 = by sigqueue(3), 128 = by the kernel; see sigaction(2). */
  code: number
  /** The process that sent it, 0 = the kernel; with `SIGCHLD`, the child. */
  pid: number
  /** The user of that process. */
  uid: number
  /** The descriptor, of `SIGIO`. */
  fd: number
  /** The timer, of timer_create(2). */
  tid: number
  /** Events of poll(2), of `SIGIO`. */
  band: number
  /** Expirations that were missed, of timer_create(2). */
  overrun: number
  /** The exit code or the signal that ended the child, of `SIGCHLD`. */
  status: number
  /** The number that sigqueue(3) sent along. */
  int: number
  /** The same as a pointer. */
  ptr: bigint
  /** User CPU time of the child in clock ticks, of `SIGCHLD`. */
  utime: bigint
  /** System CPU time of the child in clock ticks, of `SIGCHLD`. */
  stime: bigint
}

const RECORD = 128
// 64 KiB: 512 records, which is what a pipe holds.
const SCRATCH = 65_536
let scratch: { bytes: Uint8Array; signed: Int32Array; unsigned: Uint32Array; wide: BigUint64Array } | undefined

function newScratch(): NonNullable<typeof scratch> {
  const memory = new ArrayBuffer(SCRATCH)
  return {
    bytes: new Uint8Array(memory),
    signed: new Int32Array(memory),
    unsigned: new Uint32Array(memory),
    wide: new BigUint64Array(memory),
  }
}

/**
 * Signals of this process: readable when one arrived. Made by {@link signalfd}. While it is open, its signals do not do
 * what they do otherwise: `SIGTERM` ends nothing. Closing it, and the end of a worker that has not closed it, puts the old
 * actions back.
 *
 * @example
 * ```ts
 * import { signalfd, type SignalFd } from 'fdmon/fd'
 *
 * const signals: SignalFd = signalfd(['SIGUSR2'])
 * console.log(signals.readSignals()) // []
 * signals.close()
 * ```
 */
export class SignalFd extends Fd {
  /** What it was made for, each signal once. */
  readonly signals: readonly NodeJS.Signals[]
  readonly #names: ReadonlyMap<number, NodeJS.Signals>

  /** @internal */
  constructor(own: symbol, fd: number, names: ReadonlyMap<number, NodeJS.Signals>) {
    super(own, fd)
    this.#names = names
    this.signals = Object.freeze([...names.values()])
  }

  /**
   * The signals that arrived since the last call, oldest first; empty = none. At most 512 at once, which is what the pipe
   * behind it holds on most systems.
   */
  readSignals(): SignalRecord[] {
    const { bytes, signed, unsigned, wide } = (scratch ??= newScratch())
    const length = fdHot.read(openFd(this), bytes)
    if (length === NOT_NOW) return []
    if (length < 0) throw failed('read', length, 'fd', this.fd)
    const records: SignalRecord[] = []
    for (let at = 0; at + RECORD <= length; at += RECORD) {
      const word = at >> 2
      const long = at >> 3
      const signo = unsigned[word] ?? 0
      const signal = this.#names.get(signo)
      if (signal === undefined) continue
      records.push({
        signal,
        signo,
        errno: signed[word + 1] ?? 0,
        code: signed[word + 2] ?? 0,
        pid: unsigned[word + 3] ?? 0,
        uid: unsigned[word + 4] ?? 0,
        fd: signed[word + 5] ?? 0,
        tid: unsigned[word + 6] ?? 0,
        band: unsigned[word + 7] ?? 0,
        overrun: unsigned[word + 8] ?? 0,
        status: signed[word + 10] ?? 0,
        int: signed[word + 11] ?? 0,
        ptr: wide[long + 6] ?? 0n,
        utime: wide[long + 7] ?? 0n,
        stime: wide[long + 8] ?? 0n,
      })
    }
    return records
  }

  /**
   * How many signals found 512 unread ones (what a pipe holds) and were dropped. The kernel drops others uncounted, as
   * it does with every signal: one that is sent while the same one is pending arrives once.
   */
  get overruns(): number {
    return native.signalOverruns(openFd(this))
  }

  /**
   * The signals that do not arrive here any more, because somebody has set another action since: a listener of
   * `process.on()`, or Node for `SIGCHLD` when it started a child. Empty = all is well.
   */
  get lost(): NodeJS.Signals[] {
    return native.signalLost(openFd(this)).flatMap((signo) => this.#names.get(signo) ?? [])
  }
}

const numbers = new Map<string, number>(Object.entries(constants.signals))

const refusals: Partial<Record<NodeJS.Signals, string>> = {
  SIGPROF: "belongs to the profiler of Node's engine",
  SIGSEGV: 'tells of a fault of the very code that it interrupts, which cannot go on',
  SIGBUS: 'tells of a fault of the very code that it interrupts, which cannot go on',
  SIGILL: 'tells of a fault of the very code that it interrupts, which cannot go on',
  SIGFPE: 'tells of a fault of the very code that it interrupts, which cannot go on',
  SIGTRAP: 'tells of a fault of the very code that it interrupts, which cannot go on',
  SIGSYS: 'tells of a fault of the very code that it interrupts, which cannot go on',
  SIGABRT: 'ends a process that has found itself broken, which cannot go on',
}
const refused = new Map(Object.entries(refusals).map(([name, reason]) => [numbers.get(name), reason]))

function checkSignals(signals: unknown): Map<number, NodeJS.Signals> {
  if (!Array.isArray(signals) || signals.length === 0) {
    throw invalidArg('signals', signals, "pass at least one name in an array, for example ['SIGTERM']")
  }
  const names = new Map<number, NodeJS.Signals>()
  for (const [index, name] of (signals as unknown[]).entries()) {
    const at = `signals[${index}]`
    const signo = typeof name === 'string' ? numbers.get(name) : undefined
    if (signo === undefined) throw invalidArg(at, name, "pass the name of a signal, for example 'SIGTERM'")
    const signal = name as NodeJS.Signals
    if (signo === constants.signals.SIGKILL || signo === constants.signals.SIGSTOP) {
      throw invalidArg(at, signal, 'the kernel lets no process handle it: leave it out')
    }
    const reason = refused.get(signo)
    if (reason !== undefined) throw unsupported(`${at} = '${signal}' ${reason}; leave it out`)
    for (const [alias, number] of numbers) {
      if (number !== signo || process.listenerCount(alias) === 0) continue
      const advice = 'remove the listener, or use it and not signalfd()'
      throw unsupported(`${at} = '${signal}' is a signal that Node listens to, by process.on('${alias}'); ${advice}`)
    }
    if (!names.has(signo)) names.set(signo, signal)
  }
  return names
}

/**
 * Signals as a descriptor. A signalfd(2) proper never fires inside Node, whose threads do not block signals; this one is
 * a pipe that a signal handler writes to, with the same records. So it sees what any thread of the process gets, in
 * whichever thread it was made.
 *
 * A signal has one reader in a process. One that Node listens to is refused (`ERR_FDMON_UNSUPPORTED`): a listener of
 * `process.on()`, `SIGCHLD` while Node has children ({@link pidfd} tells of these), `SIGUSR1`, which starts the inspector, and
 * `SIGWINCH` when the output is a terminal. A listener or a child that is added later takes the signal over:
 * see {@link SignalFd.lost}.
 *
 * @throws FdmonError `ERR_FDMON_IN_USE` for a signal that another SignalFd of the process reads
 * @example
 * ```ts
 * import { AioContext } from 'fdmon'
 * import { signalfd } from 'fdmon/fd'
 *
 * using ctx = new AioContext()
 * using signals = signalfd(['SIGTERM', 'SIGHUP'])
 * ctx.setFdHandler(signals, {
 *   read() {
 *     for (const { signal, pid } of signals.readSignals()) console.log(signal, 'from process', pid)
 *     ctx.stop()
 *   },
 * })
 * process.kill(process.pid, 'SIGHUP')
 * ctx.run()
 * ctx.setFdHandler(signals, null)
 * ```
 */
export function signalfd(signals: readonly NodeJS.Signals[]): SignalFd {
  const names = checkSignals(signals)
  return new SignalFd(OWN, native.signalCreate([...names.keys()], [...names.values()]), names)
}
