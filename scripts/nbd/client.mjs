// `qemu-img bench` on a CPU of its own: requests a second, and what CPU time they took it and the server.
import { spawnSync } from 'node:child_process'
import { fail } from '../step.mjs'
import { cpuSeconds } from './servers.mjs'

const BLOCK = 4096

/** @returns requests a second, and CPU seconds of the client, of a whole run of the command */
function run(server, { cpu, write, depth, requests }) {
  const args = ['bench', '-f', 'raw', '-c', String(requests), '-d', String(depth), '-s', String(BLOCK), ...(write ? ['-w'] : []), server.uri]
  // Of the shell, since it tells the CPU time of a child in ms.
  const timed = ['-c', 'TIMEFORMAT="cpu %U %S"; time "$@"', 'bash', 'taskset', '-c', String(cpu), 'qemu-img', ...args]
  const { status, stdout, stderr, error } = spawnSync('bash', timed, { encoding: 'utf8', timeout: 60_000, env: { ...process.env, LC_ALL: 'C' } })
  const seconds = /Run completed in ([\d.]+) seconds/.exec(stdout)?.[1]
  const times = /cpu ([\d.]+) ([\d.]+)/.exec(stderr)
  if (status !== 0 || !seconds || !times) fail(`${server.name}: qemu-img ${args.join(' ')}: ${error?.message ?? `exit code ${status}`}\n${stdout}${stderr}`)
  return { perSecond: requests / Number(seconds), cpu: Number(times[1]) + Number(times[2]) }
}

/** One run: `perSecond`, and CPU seconds a million requests of the server and of the client. */
export function measure(server, options) {
  const { depth, requests } = options
  // What it takes to start, to connect and to end is in both.
  const least = run(server, { ...options, requests: depth })
  const before = cpuSeconds(server.pid)
  const { perSecond, cpu } = run(server, options)
  const perMillion = (seconds) => (Math.max(seconds, 0) / requests) * 1e6
  return { perSecond, server: perMillion(cpuSeconds(server.pid) - before), client: perMillion(cpu - least.cpu) }
}
