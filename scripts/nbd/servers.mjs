// The servers that bench-nbd.mjs compares, each with the same file, on one CPU: how they are started, and what CPU time they took.
import { spawn } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fail, root } from '../step.mjs'

const WAIT_MS = 20_000
/** USER_HZ: the unit of the times in /proc/PID/stat, on every architecture that Linux runs on. */
const TICKS = 100

const main = join(root, 'examples', 'nbd-server', 'main.mjs')

/** Name → command. All serve from the page cache, writes included, with the defaults of each but for what the name says. */
export const SERVERS = {
  fdmon: (file, socket) => [process.execPath, main, file, socket],
  // Pinned it may use one CPU only, where the guards do not let it spin; but the client has another one.
  'fdmon, spinning': (file, socket) => [...SERVERS.fdmon(file, socket), '--spin', '100', '--no-guards'],
  'fdmon on epoll, spinning': (file, socket) => [...SERVERS['fdmon, spinning'](file, socket), '--monitor', 'epoll'],
  nbdkit: (file, socket) => ['nbdkit', '--foreground', '--unix', socket, 'file', file],
  'qemu-nbd': (file, socket) => ['qemu-nbd', '--persistent', '--shared=0', '--format=raw', '--cache=writeback', `--socket=${socket}`, file],
  'qemu-nbd, io_uring': (file, socket) => [...SERVERS['qemu-nbd'](file, socket).slice(0, -1), '--aio=io_uring', file],
}

const running = []
process.on('exit', () => running.forEach((child) => child.kill('SIGKILL')))

/** Starts a server on one CPU; resolves when it listens. */
export async function start(name, { file, folder, cpu }) {
  const socket = join(folder, `${name.replaceAll(/\W+/g, '-')}.sock`)
  const command = SERVERS[name](file, socket)
  const child = spawn('taskset', ['-c', String(cpu), ...command], { cwd: root, stdio: ['ignore', 'ignore', 'pipe'] })
  let stderr = ''
  running.push(child)
  child.stderr.on('data', (text) => (stderr += text))
  child.on('error', (error) => fail(`${name}: ${error.message}`))
  const end = Date.now() + WAIT_MS
  while (!existsSync(socket)) {
    if (child.exitCode !== null || Date.now() > end) fail(`${name} does not start: ${command.join(' ')}\n${stderr}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
  return { name, uri: `nbd+unix:///?socket=${socket}`, pid: child.pid, stop: () => child.kill('SIGKILL') }
}

/** CPU time of a process so far, in seconds, that of all its threads. */
export function cpuSeconds(pid) {
  const exact = sumOfThreads(pid)
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  // Threads that have ended are only in the process's own times, whose unit is coarse.
  return Math.max(exact, (Number(fields[11]) + Number(fields[12])) / TICKS)
}

/** Whether the kernel gave requests of its ring to threads, since it could not do them at once without blocking. */
export function hasKernelWorkers(pid) {
  return readdirSync(`/proc/${pid}/task`).some((thread) => readFileSync(`/proc/${pid}/task/${thread}/comm`, 'utf8').startsWith('iou-wrk-'))
}

function sumOfThreads(pid) {
  let ns = 0
  for (const thread of readdirSync(`/proc/${pid}/task`)) {
    try {
      ns += Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(' ')[0])
    } catch {
      // It has ended meanwhile, or this kernel keeps no such numbers.
    }
  }
  return ns / 1e9
}
