// Pins the calling thread to a CPU, for good; by taskset, since Node has no call for it.
import { execFileSync } from 'node:child_process'
import { readlinkSync } from 'node:fs'
import { basename } from 'node:path'

export function pin(cpu: number | undefined): void {
  if (cpu === undefined) return
  execFileSync('taskset', ['-p', '-c', `${cpu}`, basename(readlinkSync('/proc/thread-self'))], { stdio: 'ignore' })
}
