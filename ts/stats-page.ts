// The page on which a process says what its contexts do, for `fdmon top`. Native code writes it; this keeps it wanted.
import { inspect } from 'node:util'
import { native, wasi } from './native.js'
import { refused } from './wasi/binding.js'

/**
 * Says that this process publishes its statistics, until it is closed or its thread ends.
 *
 * @example
 * ```ts
 * import { publishStats, type StatsPage } from 'fdmon'
 *
 * const page: StatsPage = publishStats()
 * console.log(page.path) // for example /run/user/1000/fdmon-4711-4026531836.stats
 * page.close()
 * ```
 */
export interface StatsPage extends Disposable {
  /** The file, which only the user of this process may read. */
  readonly path: string
  /** Wants it no more: when nobody does, the file is removed. */
  close(): void
}

/** Those that are open: one that nobody keeps is wanted all the same. */
const open = new Set<StatsPage>()

class Page implements StatsPage {
  readonly path: string
  readonly #native = native.NativeStatsPage.open()

  constructor() {
    this.path = this.#native.path
    open.add(this)
  }

  close(): void {
    this.#native.close()
    open.delete(this)
  }

  [Symbol.dispose](): void {
    this.close()
  }

  [inspect.custom](): string {
    return `StatsPage { path: '${this.path}' }`
  }
}

/**
 * Publishes what all contexts of this process do, so that `npx fdmon top` of the same user can show it live. The environment
 * variable `FDMON_STATS=1` does the same from the first context on, until the process ends.
 *
 * A native thread copies the counters ten times a second into a file of shared memory, of mode 0600: in `$XDG_RUNTIME_DIR`,
 * or in `/dev/shm` where that is not a folder of this user alone. The loops do nothing for it, also those inside `run()`.
 * The file goes with the process; one that a crash left behind is removed by the next `fdmon top`. Its layout is documented,
 * in docs/STATS-PAGE.md.
 *
 * Throws `ERR_FDMON_SYSCALL` when the file or the thread cannot be made, `ERR_FDMON_UNSUPPORTED` in a WebAssembly build.
 *
 * @example
 * ```ts
 * import { AioContext, publishStats } from 'fdmon'
 *
 * using page = publishStats()
 * using ctx = new AioContext({ name: 'sensors' })
 * ctx.run({ forNs: 1_000_000 }) // meanwhile: npx fdmon top
 * ```
 */
export function publishStats(): StatsPage {
  if (wasi !== null) throw refused('publishStats()')
  return new Page()
}
