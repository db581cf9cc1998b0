// What this kernel, container and build allow.
import type { MonitorName } from './options.js'
import { native } from './native.js'

/**
 * What `capabilities()` found.
 *
 * @example
 * ```ts
 * import { capabilities, type Capabilities } from 'fdmon'
 *
 * const found: Capabilities = capabilities()
 * for (const [name, { available, reason }] of Object.entries(found.monitors)) console.log(name, available, reason)
 * if (!found.features.ioUringDeferTaskrun) console.log('rings of the cheapest kind are not to be had here')
 * ```
 */
export interface Capabilities {
  /** Whether this is the native addon, not its WebAssembly build. */
  native: boolean
  /** Each monitor: whether it can be used here, and if not, why, and what to do about it where something can be done. */
  monitors: Record<MonitorName, { available: boolean; reason: string; advice?: string }>
  /**
   * What fdmon uses where the kernel has it and lets this process have it: `eventfd`, `timerfd`, `inotify`, `pidfd`,
   * `memfd`, and of io_uring (all false where it is refused):
   *
   * - `ioUringExtArg`: waits have a timeout of their own (Linux 5.11); without it there is no io_uring monitor
   * - `ioUringDeferTaskrun`: completions wait until the loop asks for them (6.1), the cheapest kind of ring
   * - `ioUringCooperative`: completions wait for the thread's next system call (5.19), for embedded contexts
   * - `ioUringMultishotPoll`: one request reports readiness again and again (5.13)
   * - `ioUringRegisteredRing`: calls find the ring without looking up its fd (5.18)
   * - `ioUringRestrictions`: a ring can be limited to the operations that it needs (5.10)
   * - `ioUringNoSqarray`: the submission queue has no index array (6.6)
   * - `ioUringNoIowait`: a sleeping loop is not shown as waiting for a disk (6.15)
   * - `ioUringMinTimeout`: one wait collects several completions within a time (6.12)
   * - `ioUringNapi`: waits can poll network queues (6.9)
   * - `epollBusyPoll`: waits on epoll can poll network queues (6.9)
   * - `ioUringSkipSuccess`: a request may stay silent about its success (5.17)
   */
  features: Record<string, boolean>
  /** CPUs that this process may run on, by its affinity mask. */
  cpus: number
  /** CPUs that its cgroup allows it in time, or null without a limit. */
  cpuQuota: number | null
}

/**
 * Says what this machine allows: which monitors can be used, and why the others cannot. Everything is probed, nothing
 * assumed from a version.
 *
 * @example
 * ```ts
 * import { capabilities } from 'fdmon'
 *
 * console.log(capabilities().monitors.epoll.available) // true
 * ```
 */
export function capabilities(): Capabilities {
  return native.capabilities() as unknown as Capabilities
}
