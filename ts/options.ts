// ① What a context is made of: its options, their limits, FDMON_MONITOR and FDMON_POLL.
import { checkBoolean, checkInteger, checkKeys, checkNumber, checkObject, checkOneOf, DAY_NS } from './check.js'
import { invalidArg } from './errors.js'

/**
 * The facility that asks the kernel which file descriptors are ready.
 *
 * @example
 * ```ts
 * import { AioContext, type MonitorName } from 'fdmon'
 *
 * const wanted: MonitorName = 'epoll'
 * using ctx = new AioContext({ monitor: wanted })
 * console.log(ctx.monitor) // epoll
 * ```
 */
export type MonitorName = 'io_uring' | 'epoll' | 'poll' | 'wasi'

/**
 * How long and by which rule a turn spins (asks in user space) before it sleeps. Any subset; the rest keep their value.
 *
 * Spinning is off until `maxNs` is set. It costs CPU time; `cpuBudget` and `guards` limit how much.
 *
 * @example
 * ```ts
 * import { AioContext, type PollParams } from 'fdmon'
 *
 * const spin: PollParams = { maxNs: 32_768, latencyWeight: 4 }
 * using ctx = new AioContext({ poll: spin })
 * ctx.setPollParams({ maxNs: 0 }) // off again
 * ```
 */
export interface PollParams {
  /**
   * The longest spin of one turn, in nanoseconds, up to a day; 0 = never. Events that come further apart are not caught by
   * spinning. While a turn spins, one CPU is busy. @default 0
   */
  maxNs?: number
  /** Of `classic` and `handler`: factor by which the window grows; 0 = 2. @default 0 */
  grow?: number
  /** Divisor by which the window shrinks; 0 = reset it (`classic`), 2 (`handler`). @default 0 */
  shrink?: number
  /**
   * The rule that sets the window.
   *
   * - `cost`: the window that makes the next event cheapest, in CPU time and latency, by what is known of the times between
   *   events; after a short gap and after a long one it may be another. Takes the time of a wake-up off what a sleep took.
   * - `handler`: one estimate a source; the window serves the slowest source that is worth spinning for.
   * - `classic`: one window, doubled while events come soon after it, reset when they come late. What a wake-up takes counts
   *   as part of the gap, so it may never begin where wake-ups are slow.
   * - `fixed`: always `maxNs`, for a CPU that has nothing else to do.
   *
   * @default 'cost'
   */
  policy?: 'classic' | 'handler' | 'cost' | 'fixed'
  /** Of `cost`: how many nanoseconds of CPU one nanosecond of latency is worth. @default 1 */
  latencyWeight?: number
  /** Of `handler`: the shift by which history weighs, 0 to 32. @default 3 */
  weight?: number
  /** The share of time that fruitless spins may take, above 0 and at most 1. @default 1 */
  cpuBudget?: number
  /** A source without a hit for this long leaves the spin list, in nanoseconds. @default 7e9 */
  idleNs?: number
  /**
   * No spin on one usable CPU (affinity mask, cgroup quota), or for a second when for 200 ms events came only after the CPU
   * was yielded, since the producer then shares it; yield while spinning. `stats().guard` says which. @default true
   */
  guards?: boolean
  /**
   * Kernel busy polling of network queues; null = off. A context with monitor 'auto' does it on its ring, and moves to
   * epoll where it has none that can. @default null
   */
  kernelBusyPoll?: BusyPoll | null
}

/**
 * Kernel busy polling of network queues: while the loop sleeps, the kernel asks the queue of the network card instead of
 * waiting for its interrupt. That shortens the way of a packet and costs the CPU time of the asking.
 *
 * It helps sockets of a card with NAPI queues, and nothing else. It needs epoll or io_uring, on Linux 6.9 or newer; where
 * it cannot be had, setting it throws `ERR_FDMON_UNSUPPORTED`, which says why. While an outer loop sleeps for the
 * context, and for the last fraction of a millisecond before a deadline, it is not at work.
 *
 * @example
 * ```ts
 * import { AioContext, capabilities, type BusyPoll } from 'fdmon'
 *
 * const busy: BusyPoll = { usecs: 50, budget: 8, prefer: true }
 * const kernelBusyPoll = capabilities().features.epollBusyPoll ? busy : null
 * using ctx = new AioContext({ monitor: 'epoll', poll: { kernelBusyPoll } })
 * ctx.setPollParams({ kernelBusyPoll: null }) // off again
 * ```
 */
export interface BusyPoll {
  /** How long one sleep asks the queue, in microseconds: 1 to 2147483647. */
  usecs: number
  /**
   * On epoll, packets taken each time the queue is asked; 0 = 8; above 64 needs CAP_NET_ADMIN; at most 65535. A ring has
   * no budget of its own: it is ignored there. @default 0
   */
  budget?: number
  /** Keep the card's interrupts off as long as the queue is asked often enough. @default false */
  prefer?: boolean
}

/**
 * Parameters of a context's async I/O.
 *
 * @example
 * ```ts
 * import { AioContext, type AioParams } from 'fdmon'
 *
 * const aio: AioParams = { maxBatch: 8, threadPoolMax: 4 }
 * using ctx = new AioContext({ aio })
 * ctx.setAioParams({ maxBatch: 0 }) // the default again
 * ```
 */
export interface AioParams {
  /** Requests that are collected before one submission; 0 = 32; at most 4096. @default 0 */
  maxBatch?: number
  /**
   * Completions that a sleep collects once there is one, for `minWaitNs` at most: fewer wake-ups, and later ones. Only on a
   * ring; at most 4096. @default 0
   */
  minBatch?: number
  /** How long, in nanoseconds, a sleep goes on for `minBatch`; every other event waits as long. @default 0 */
  minWaitNs?: number
  /** Threads that the pool keeps when there is nothing to do. @default 0 */
  threadPoolMin?: number
  /** Threads that the pool has at most, 1 to 4096; one that is idle for 10 s ends. @default 64 */
  threadPoolMax?: number
  /**
   * What does the work: `io_uring`, a ring of the context's own, whatever its monitor is; `threads`, a bounded pool; or
   * `auto`: a ring where the kernel allows one, else threads. `stats().aio` says which, and why. @default 'auto'
   */
  engine?: 'auto' | 'io_uring' | 'threads'
}

/**
 * What kind of io_uring ring a context makes. The other monitors make none, and take no notice of it.
 *
 * A ring keeps the credentials of the thread that made it: one made before a process drops its privileges keeps them
 * (CVE-2024-22017 is about that). Make contexts afterwards. No kernel thread polls a ring for you (SQPOLL): a context
 * that sleeps costs no CPU time.
 *
 * @example
 * ```ts
 * import { AioContext, type RingParams } from 'fdmon'
 *
 * const none: RingParams = { mode: 'off' }
 * using ctx = new AioContext({ ring: none })
 * console.log(ctx.monitor) // poll
 * console.log(ctx.monitorReason) // auto: io_uring is turned off by ring.mode; poll below 64 fds
 * ```
 */
export interface RingParams {
  /**
   * How completions reach the loop.
   *
   * - `auto`: the cheapest way that this kernel has and that fits the use
   * - `deferred`: they wait until the loop asks for them (Linux 6.1); an outer loop gets a cooperative ring in its place
   * - `cooperative`: they wait for the thread's next system call (Linux 5.19)
   * - `plain`: they interrupt the thread (Linux 5.11)
   * - `off`: no ring; monitor 'auto' does without, and asking for io_uring is refused
   *
   * @default 'auto'
   */
  mode?: 'auto' | 'deferred' | 'cooperative' | 'plain' | 'off'
  /**
   * Limits the ring, for good, to what a context does with it: to poll, read, write and sync. Whoever gets hold of its
   * descriptor can do nothing else with it. Right for services; costs nothing while it runs. @default false
   */
  restricted?: boolean
}

/**
 * Options of `new AioContext()`.
 *
 * @example
 * ```ts
 * import { AioContext, type AioContextOptions } from 'fdmon'
 *
 * const options: AioContextOptions = { name: 'sensors', monitor: 'poll', poll: { maxNs: 20_000 } }
 * using ctx = new AioContext(options)
 * console.log(ctx.name, ctx.monitor) // sensors poll
 * ```
 */
export interface AioContextOptions {
  /** Which monitor; any but 'auto' beats the environment variable FDMON_MONITOR. @default 'auto' */
  monitor?: 'auto' | MonitorName
  /**
   * How to spin. Where it is not given, the environment variable FDMON_POLL is asked, once, when the context is made: a JSON
   * object such as `{"maxNs":32768,"policy":"cost"}`, which `fdmon tune` sets for the programs that it runs. @default never
   */
  poll?: PollParams
  /** How to do async I/O. */
  aio?: AioParams
  /** What kind of io_uring ring to make, or none. */
  ring?: RingParams
  /** Shown by `console.log(ctx)` and in warnings. @default `context-<id>` */
  name?: string
}

/** `PollParams` after the checks: what the binding gets. */
export interface NativePollParams {
  maxNs?: number
  grow?: number
  shrink?: number
  policy?: string
  latencyWeight?: number
  weight?: number
  cpuBudget?: number
  idleNs?: number
  guards?: boolean
  /** `usecs: 0` turns it off. */
  kernelBusyPoll?: Required<BusyPoll>
}

/** `AioParams` after the checks. */
export type NativeAioParams = AioParams

/** `RingParams` after the checks. */
export type NativeRingParams = RingParams

/** `AioContextOptions` after the checks. */
export interface NativeOptions {
  monitor: string
  /** FDMON_MONITOR named it. */
  byEnvironment: boolean
  /** Of an IoThread's context: the id that it was promised, with name and parameters. */
  reserved?: number
  /** The file that FDMON_TRACE names. */
  trace?: string
  name: string
  poll: NativePollParams
  aio: NativeAioParams
  ring: NativeRingParams
}

const U32 = 0xffff_ffff
const I32 = 0x7fff_ffff
const MONITORS = ['auto', 'io_uring', 'epoll', 'poll', 'wasi'] as const
const RING_MODES = ['auto', 'deferred', 'cooperative', 'plain', 'off'] as const
const POLL_KEYS = [
  'maxNs',
  'grow',
  'shrink',
  'policy',
  'latencyWeight',
  'weight',
  'cpuBudget',
  'idleNs',
  'guards',
  'kernelBusyPoll',
] as const
const AIO_KEYS = ['maxBatch', 'minBatch', 'minWaitNs', 'threadPoolMin', 'threadPoolMax', 'engine'] as const

/** Checks `PollParams`; `name` is how messages call them. A key whose value is undefined is as good as absent. */
export function checkPollParams(name: string, params: unknown): NativePollParams {
  if (params === undefined) return {}
  const given = checkObject(name, params, 'an object, for example { maxNs: 32768 }')
  checkKeys(`${name}.`, given, POLL_KEYS)
  const out: NativePollParams = {}
  if (given['maxNs'] !== undefined) out.maxNs = checkInteger(`${name}.maxNs`, given['maxNs'], 0, DAY_NS, 'ns')
  if (given['grow'] !== undefined) out.grow = checkInteger(`${name}.grow`, given['grow'], 0, U32)
  if (given['shrink'] !== undefined) out.shrink = checkInteger(`${name}.shrink`, given['shrink'], 0, U32)
  if (given['policy'] !== undefined) {
    out.policy = checkOneOf(`${name}.policy`, given['policy'], ['classic', 'handler', 'cost', 'fixed'])
  }
  if (given['latencyWeight'] !== undefined) {
    out.latencyWeight = checkNumber(`${name}.latencyWeight`, given['latencyWeight'], 0, 1e9)
  }
  if (given['weight'] !== undefined) out.weight = checkInteger(`${name}.weight`, given['weight'], 0, 32)
  if (given['cpuBudget'] !== undefined) {
    const budget = given['cpuBudget']
    if (typeof budget !== 'number' || !(budget > 0 && budget <= 1)) {
      throw invalidArg(`${name}.cpuBudget`, budget, 'pass a share above 0 and at most 1')
    }
    out.cpuBudget = budget
  }
  if (given['idleNs'] !== undefined) out.idleNs = checkInteger(`${name}.idleNs`, given['idleNs'], 0, DAY_NS, 'ns')
  if (given['guards'] !== undefined) out.guards = checkBoolean(`${name}.guards`, given['guards'])
  if (given['kernelBusyPoll'] !== undefined) {
    out.kernelBusyPoll = checkBusyPoll(`${name}.kernelBusyPoll`, given['kernelBusyPoll'])
  }
  return out
}

function checkBusyPoll(name: string, value: unknown): Required<BusyPoll> {
  if (value === null) return { usecs: 0, budget: 0, prefer: false }
  const given = checkObject(name, value, 'null or an object, for example { usecs: 50 }')
  checkKeys(`${name}.`, given, ['usecs', 'budget', 'prefer'])
  return {
    usecs: checkInteger(`${name}.usecs`, given['usecs'], 1, I32, 'µs'),
    budget: given['budget'] === undefined ? 0 : checkInteger(`${name}.budget`, given['budget'], 0, 0xffff),
    prefer: given['prefer'] === undefined ? false : checkBoolean(`${name}.prefer`, given['prefer']),
  }
}

/** Checks `AioParams`; `name` is how messages call them. */
export function checkAioParams(name: string, params: unknown): NativeAioParams {
  if (params === undefined) return {}
  const given = checkObject(name, params, 'an object, for example { maxBatch: 32 }')
  checkKeys(`${name}.`, given, AIO_KEYS)
  const out: NativeAioParams = {}
  const take = (key: 'maxBatch' | 'minBatch' | 'minWaitNs' | 'threadPoolMin' | 'threadPoolMax', max: number): void => {
    if (given[key] !== undefined) out[key] = checkInteger(`${name}.${key}`, given[key], 0, max)
  }
  take('maxBatch', 4096)
  take('minBatch', 4096)
  take('minWaitNs', DAY_NS)
  take('threadPoolMin', 4096)
  take('threadPoolMax', 4096)
  if (out.threadPoolMax === 0) {
    throw invalidArg(`${name}.threadPoolMax`, 0, 'pass at least 1, so that requests can be served')
  }
  if (out.threadPoolMin !== undefined && out.threadPoolMax !== undefined && out.threadPoolMin > out.threadPoolMax) {
    throw invalidArg(`${name}.threadPoolMin`, out.threadPoolMin, `pass at most threadPoolMax (${out.threadPoolMax})`)
  }
  if (given['engine'] !== undefined) {
    out.engine = checkOneOf(`${name}.engine`, given['engine'], ['auto', 'io_uring', 'threads'])
  }
  return out
}

function checkRingParams(name: string, params: unknown): NativeRingParams {
  if (params === undefined) return {}
  const given = checkObject(name, params, "an object, for example { mode: 'off' }")
  checkKeys(`${name}.`, given, ['mode', 'restricted'])
  const out: NativeRingParams = {}
  if (given['mode'] !== undefined) out.mode = checkOneOf(`${name}.mode`, given['mode'], RING_MODES)
  if (given['restricted'] !== undefined) out.restricted = checkBoolean(`${name}.restricted`, given['restricted'])
  return out
}

/** The options that say what context it is to be. */
export const CONTEXT_KEYS = ['monitor', 'poll', 'aio', 'ring', 'name'] as const

/** Checks the options of a context and settles which monitor is meant. */
export function checkContextOptions(options: unknown): NativeOptions {
  const given =
    options === undefined ? {} : checkObject('options', options, "an object, for example { monitor: 'epoll' }")
  checkKeys('options.', given, CONTEXT_KEYS)
  const checked = checkContext(given)
  if (checked.monitor !== 'auto') return checked
  const monitor = monitorOfEnvironment()
  return { ...checked, monitor, byEnvironment: monitor !== 'auto' }
}

/** Checks the options of a context that another thread makes: which monitor its environment wants is asked there. */
export function checkContext(given: Record<string, unknown>): NativeOptions {
  const monitor = given['monitor'] === undefined ? 'auto' : checkOneOf('options.monitor', given['monitor'], MONITORS)
  const name = given['name'] ?? ''
  if (typeof name !== 'string' || name.length > 255 || name.includes('\0')) {
    throw invalidArg('options.name', name, 'pass a string of at most 255 characters without NUL')
  }
  return {
    monitor,
    byEnvironment: false,
    name,
    poll: given['poll'] === undefined ? pollOfEnvironment() : checkPollParams('options.poll', given['poll']),
    aio: checkAioParams('options.aio', given['aio']),
    ring: checkRingParams('options.ring', given['ring']),
  }
}

/** FDMON_MONITOR stands in for 'auto' and counts as asked for. Unset and empty are the same. */
function monitorOfEnvironment(): string {
  const value = process.env['FDMON_MONITOR']
  if (value === undefined || value === '') return 'auto'
  if ((MONITORS as readonly string[]).includes(value)) return value
  throw invalidArg(
    'FDMON_MONITOR',
    value,
    'set this environment variable to poll, epoll, io_uring or auto, or unset it',
  )
}

/** FDMON_POLL stands in for `poll` where that is not given. Unset and empty are the same. */
function pollOfEnvironment(): NativePollParams {
  const value = process.env['FDMON_POLL']
  if (value === undefined || value === '') return {}
  let params: unknown
  try {
    params = JSON.parse(value)
  } catch {
    throw invalidArg('FDMON_POLL', value, 'set this environment variable to a JSON object, for example {"maxNs":32768}, or unset it')
  }
  return checkPollParams('FDMON_POLL', params)
}

/** The file that FDMON_TRACE names. Unset and empty are the same. */
export function traceOfEnvironment(): string | undefined {
  const value = process.env['FDMON_TRACE']
  return value === undefined || value === '' ? undefined : value
}
