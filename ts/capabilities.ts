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
 * ```
 */
export interface Capabilities {
  /** Whether this is the native addon, not its WebAssembly build. */
  native: boolean
  /** Each monitor: whether it can be used here, and if not, why. */
  monitors: Record<MonitorName, { available: boolean; reason: string }>
  /** Features of the kernel that fdmon uses where they are. */
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
