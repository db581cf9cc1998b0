// Timers as descriptors.
import { constants } from 'node:os'
import { checkKeys, checkNs, checkObject, checkOneOf } from '../check.js'
import { fdHot, native } from '../native.js'
import { failed, Fd, NOT_NOW, openFd, OWN } from './fd.js'

const SECOND = 1_000_000_000n

/**
 * When a {@link TimerFd} fires.
 *
 * @example
 * ```ts
 * import { timerfd, type TimerFdOptions } from 'fdmon/fd'
 *
 * const options: TimerFdOptions = { delayNs: 0, intervalNs: 500_000_000n, clock: 'monotonic' }
 * using timer = timerfd(options)
 * ```
 */
export interface TimerFdOptions {
  /** Nanoseconds between two expirations; 0 = it fires once. @default 0 */
  intervalNs?: number | bigint
  /** Nanoseconds until the first expiration; 0 = at once. @default `intervalNs`; without either it is not armed */
  delayNs?: number | bigint
  /** `monotonic` does not jump; `realtime` is the time of day. @default 'monotonic' */
  clock?: 'monotonic' | 'realtime'
}

/**
 * A timer as a descriptor: readable once it has expired. Made by {@link timerfd}.
 *
 * @example
 * ```ts
 * import { timerfd, type TimerFd } from 'fdmon/fd'
 *
 * const timer: TimerFd = timerfd()
 * console.log(timer.read()) // 0n
 * timer.close()
 * ```
 */
export class TimerFd extends Fd {
  /** How often it has expired since the last read; `0n` = not at all. */
  read(): bigint {
    const bytes = fdHot.read(openFd(this), counterBytes)
    if (bytes === NOT_NOW) return 0n
    // ECANCELED: the time of day was set; the expirations up to then are lost and the timer goes on.
    if (bytes === -constants.errno.ECANCELED) return 0n
    if (bytes < 0) throw failed('read', bytes, 'fd', this.fd)
    return counter[0] ?? 0n
  }

  /** Arms it anew, which forgets expirations that were not read; `set({})` disarms it. */
  set(options: Omit<TimerFdOptions, 'clock'>): void {
    arm(openFd(this), options, ['intervalNs', 'delayNs'])
  }
}

// Calls are synchronous and copy out what they read, so one scratch buffer serves all timers of this thread.
const counter = new BigUint64Array(1)
const counterBytes = new Uint8Array(counter.buffer)

/**
 * A timer as a descriptor (timerfd_create(2)).
 *
 * @example
 * ```ts
 * import { AioContext } from 'fdmon'
 * import { timerfd } from 'fdmon/fd'
 *
 * using ctx = new AioContext()
 * using timer = timerfd({ intervalNs: 1_000_000 })
 * let ticks = 0n
 * ctx.setFdHandler(timer, { read: () => void (ticks += timer.read()) })
 * ctx.pollUntil(() => ticks >= 4n)
 * ctx.setFdHandler(timer, null)
 * ```
 */
export function timerfd(options: TimerFdOptions = {}): TimerFd {
  checkObject('options', options, 'an object, for example { intervalNs: 1_000_000 }')
  const clock = options.clock === undefined ? 'monotonic' : checkOneOf('clock', options.clock, ['monotonic', 'realtime'])
  checkTimes(options, ['intervalNs', 'delayNs', 'clock'])
  const timer = new TimerFd(OWN, native.timerfdCreate(clock === 'realtime'))
  try {
    arm(timer.fd, options, ['intervalNs', 'delayNs', 'clock'])
  } catch (error) {
    timer.close()
    throw error
  }
  return timer
}

function checkTimes(options: TimerFdOptions, keys: readonly string[]): { first: bigint; interval: bigint } {
  checkObject('options', options, 'an object, for example { intervalNs: 1_000_000 }')
  checkKeys('', options, keys)
  const interval = options.intervalNs === undefined ? 0n : BigInt(checkNs('intervalNs', options.intervalNs))
  const delay = options.delayNs === undefined ? undefined : BigInt(checkNs('delayNs', options.delayNs))
  // The kernel takes a first expiration of 0 for "disarm"; the shortest delay it knows is 1 ns.
  const first = delay === undefined ? interval : delay === 0n ? 1n : delay
  return { first, interval }
}

function arm(fd: number, options: TimerFdOptions, keys: readonly string[]): void {
  const { first, interval } = checkTimes(options, keys)
  native.timerfdSettime(
    fd,
    Number(first / SECOND),
    Number(first % SECOND),
    Number(interval / SECOND),
    Number(interval % SECOND),
  )
}
