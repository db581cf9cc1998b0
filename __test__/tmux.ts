// A terminal that a test types into and reads: one of tmux.
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import type { ExecutionContext } from 'ava'

const run = promisify(execFile)
/** How long something may take to come to the screen. */
export const WAIT_MS = 40_000

/** A terminal with 120 columns and 40 rows. Its tmux server is its own, and ends with it. */
export class Terminal {
  static #made = 0
  readonly #server = `fdmon-${process.pid}-${Terminal.#made++}`

  async tmux(...args: string[]): Promise<string> {
    try {
      return (await run('tmux', ['-L', this.#server, '-f', '/dev/null', ...args])).stdout
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
      throw new Error('tmux is missing; run: apt-get install tmux')
    }
  }

  /** Starts a line of shell, with what it prints as the whole screen. */
  async start(line: string, { columns = 120, rows = 40 } = {}): Promise<void> {
    await this.tmux('new-session', '-d', '-x', `${columns}`, '-y', `${rows}`, 'sh', '-c', line)
  }

  async press(key: string): Promise<void> {
    await this.tmux('send-keys', '-l', '--', key)
  }

  async screen(): Promise<string> {
    return this.tmux('capture-pane', '-p')
  }

  /** Looks until the screen is as it should be. */
  async until(t: ExecutionContext, what: string, is: (screen: string) => boolean): Promise<string> {
    const end = Date.now() + WAIT_MS
    for (;;) {
      const screen = await this.screen()
      if (is(screen)) {
        t.pass(what)
        return screen
      }
      if (Date.now() > end) throw new Error(`${what}: not on the screen after ${WAIT_MS / 1000} s:\n${screen}`)
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
  }

  async end(): Promise<void> {
    await this.tmux('kill-server').catch(() => {})
  }
}
