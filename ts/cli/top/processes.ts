// Which processes publish statistics, and whose pages are stale.
import { readdirSync, readFileSync, readlinkSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { plain } from '../terminal.js'
import { Page, Refused } from './page.js'

/** A process that publishes. */
export interface Process {
  pid: number
  command: string
  page: Page
}

/** The namespace of process numbers; a page of another one cannot be judged here. */
function namespace(): number {
  try {
    return statSync('/proc/self/ns/pid').ino
  } catch {
    return 0
  }
}

/** Where pages may lie: a service may have another XDG_RUNTIME_DIR than a shell. */
function folders(env: NodeJS.ProcessEnv): string[] {
  const own = env['XDG_RUNTIME_DIR']
  return [...new Set([...(own ? [own] : []), `/run/user/${process.geteuid?.()}`, '/dev/shm'])]
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder)
  } catch {
    return [] // there is none, or it is not ours to read
  }
}

/** All that publish, by number. Pages of dead processes are removed. */
export function publishing(env: NodeJS.ProcessEnv = process.env): Process[] {
  const pattern = new RegExp(`^fdmon-(\\d+)-${namespace()}\\.stats$`)
  const found = folders(env).flatMap((folder) =>
    namesIn(folder).flatMap((name) => {
      const pid = pattern.exec(name)?.[1]
      const page = pid === undefined ? undefined : pageIn(join(folder, name), Number(pid))
      return page instanceof Page ? [page] : []
    }),
  )
  return found.map((page) => ({ pid: page.header.pid, command: commandOf(page.header.pid), page })).sort((a, b) => a.pid - b.pid)
}

/** That process; else the error says why it cannot be watched, and what to do. */
export function publisher(pid: number, env: NodeJS.ProcessEnv = process.env): Process {
  let why = ''
  for (const folder of folders(env)) {
    const path = join(folder, `fdmon-${pid}-${namespace()}.stats`)
    const page = pageIn(path, pid)
    if (page instanceof Page) return { pid, command: commandOf(pid), page }
    if (page !== undefined) why = `; ${path} is not taken for its page: ${page.message}`
  }
  const owner = ownerOf(pid)
  if (owner === undefined) throw new Error(`there is no process ${pid}; fdmon top lists those that publish statistics`)
  if (owner !== process.geteuid?.()) throw new Error(`process ${pid} belongs to another user, who alone can watch it; run fdmon top as that user${why}`)
  throw new Error(`process ${pid} publishes no statistics; start it with FDMON_STATS=1, or call publishStats() in it${why}`)
}

/** The page in this file, or why it is none; undefined = there is none, or there is no more. */
function pageIn(path: string, pid: number): Page | Refused | undefined {
  let page: Page
  try {
    page = new Page(path)
  } catch (error) {
    if (error instanceof Refused) return error
    const { code } = error as NodeJS.ErrnoException
    return code === 'ENOENT' ? undefined : new Refused(code === 'ELOOP' ? 'it is a link' : `${code}`)
  }
  if (page.header.pid === pid && isAlive(page)) return page
  page.close()
  rmSync(path, { force: true })
  return undefined
}

/** Whether the process that began the page still runs. */
export function isAlive({ header: { pid, startTime } }: Page): boolean {
  const line = textOf(`/proc/${pid}/stat`)
  // The second field, a name in parentheses, may contain anything.
  const fields = line?.slice(line.lastIndexOf(')') + 2).split(' ')
  return fields !== undefined && fields[0] !== 'Z' && fields[0] !== 'X' && Number(fields[19]) === startTime
}

function textOf(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return undefined
  }
}

function ownerOf(pid: number): number | undefined {
  return statSync(`/proc/${pid}`, { throwIfNoEntry: false })?.uid
}

/** Its words, without what would do something to a terminal. */
function commandOf(pid: number): string {
  return plain((textOf(`/proc/${pid}/cmdline`) ?? '').split('\0').join(' ')).trim()
}

/** What a descriptor of a process is: a path, or a word such as `eventfd`; empty when that cannot be told. */
export function descriptorOf(pid: number, fd: number): string {
  let target: string
  try {
    target = readlinkSync(`/proc/${pid}/fd/${fd}`)
  } catch {
    return ''
  }
  const kind = /^anon_inode:\[?([^\]]+)\]?$/.exec(target) ?? /^(socket|pipe):\[\d+\]$/.exec(target)
  return plain(kind?.[1] ?? target)
}
