// One writer a file. Node has no flock(2), so flock(1) takes the lock: it belongs to the open file that both share, and so
// outlives the command, and ends with the last descriptor, also by SIGKILL.
import { spawnSync } from 'node:child_process'
import { KvLogError } from './errors.js'

/** What flock(1) ends with when somebody else has the lock. */
const TAKEN = 1

export function lock(path: string, fd: number): void {
  const { status, error, stderr } = spawnSync('flock', ['-n', '3'], { stdio: ['ignore', 'ignore', 'pipe', fd], encoding: 'utf8' })
  if (status === 0) return
  if (status === TAKEN) throw new KvLogError('ERR_KVLOG_LOCKED', `${path} is open for writing elsewhere; close it there first`)
  throw new Error(`flock cannot lock ${path}: ${error?.message ?? stderr.trim()}; install util-linux, or use a file system that has locks`)
}
