// What the tests of fdmon/fd share.
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { createRequire } from 'node:module'
import { spawnSync, type SpawnSyncReturns } from 'node:child_process'
import type { ExecutionContext } from 'ava'
import { AioContext, FdmonError } from 'fdmon'
import type { Fd } from 'fdmon/fd'

const LIMIT_NS = 20_000_000_000
const require = createRequire(import.meta.url)

export const any = (value: unknown): any => value

/** Asserts an FdmonError with this code whose message has all the words and ends with advice after a semicolon. */
export function refuses(t: ExecutionContext, body: () => unknown, code: string, ...words: string[]): FdmonError {
  const error = t.throws<FdmonError>(body, { instanceOf: FdmonError, code })
  for (const word of words) t.true(error.message.includes(word), `"${error.message}" names ${word}`)
  t.regex(error.message, /; \S.{8,}$/)
  return error
}

/** Flags of an open file, from /proc: [non-blocking, close-on-exec]. */
export function flags(fd: number): [boolean, boolean] {
  const octal = /^flags:\s+(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))?.[1] ?? '0'
  const bits = Number.parseInt(octal, 8)
  return [(bits & 0o4000) !== 0, (bits & 0o2000000) !== 0]
}

/** What is open in this process, as "number target". */
export function openFiles(): string[] {
  return readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      return [`${fd} ${readlinkSync(`/proc/self/fd/${fd}`)}`]
    } catch {
      return [] // the descriptor of the listing itself
    }
  })
}

/** Calls `read` whenever the descriptor is readable, until it says true; an error after 20 s. */
export function readUntil(fd: Fd, read: () => boolean): void {
  using ctx = new AioContext()
  let done = false
  ctx.setFdHandler(fd, { read: () => void (done = read()) })
  let late = false
  ctx.timer(() => void (late = true)).arm(LIMIT_NS)
  ctx.pollUntil(() => done || late)
  ctx.setFdHandler(fd, null)
  if (late) throw new Error('nothing came')
}

/** A piece of CommonJS in a process of its own, with `fdmon` and `fds` (fdmon/fd) at hand. */
export function inProcess(source: string, shell = 'exec "$@"'): SpawnSyncReturns<string> {
  const text = `const fdmon = require(${JSON.stringify(require.resolve('fdmon'))})
    const fds = require(${JSON.stringify(require.resolve('fdmon/fd'))})
    ${source}`
  return spawnSync('sh', ['-c', shell, 'sh', process.execPath, '-e', text], { encoding: 'utf8', timeout: 60_000 })
}
