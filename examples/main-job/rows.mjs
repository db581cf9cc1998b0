// The rows of ring-pingpong: what is run where, and how each is measured in a process of its own.
import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

const run = promisify(execFile)
const program = fileURLToPath(new URL('pingpong.mjs', import.meta.url))

/** The CPUs that this process may use. */
export function usableCpus() {
  const list = /^Cpus_allowed_list:\s*(\S+)/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '0'
  return list.split(',').flatMap((part) => {
    const [from, to = from] = part.split('-').map(Number)
    return Array.from({ length: to - from + 1 }, (_, i) => from + i)
  })
}

/** All rows; those that this machine cannot run have a `missing`. */
export function pingpongRows({ taskset }) {
  const [a, b] = usableCpus()
  const pinning = taskset ? undefined : 'taskset is missing'
  const two = b === undefined ? 'only one CPU is usable' : undefined
  const rows = []
  const place = (placement, options, missing) => {
    for (const variant of ['message', 'block', 'spin']) rows.push({ placement, variant, ...options, missing })
  }
  place('two CPUs, a worker pinned to each', { pin: `${a},${b}`, guards: false }, two ?? pinning)
  place('two CPUs, not pinned', { guards: true }, two)
  place('one CPU', { cpu: a, guards: true }, pinning)
  rows.push({ placement: 'one CPU', variant: 'spin', cpu: a, guards: false, missing: pinning })
  return rows
}

/** The row's name in the table. */
export function rowName({ variant, guards }) {
  if (variant === 'message') return 'Node postMessage'
  if (variant === 'block') return 'fdmon blocking'
  return `fdmon spinning, guards ${guards ? 'on' : 'off'}`
}

/**
 * Measures a row. `counter` counts system calls: `perf` counts while the row is measured (`quick`) or in a run of its
 * own, less those of a run with almost no rounds; `strace` in runs of their own, and with `quick` only of the first
 * placement, because it takes long. What strace says of a spinning row is an upper bound: it stretches the time between
 * two messages, in which the loop looks at the kernel.
 */
export async function measureRow(row, { ms, warmUpMs, idleMs, quick, counter }) {
  if (row.missing) return { ...row, name: rowName(row) }
  const timed = ['--ms', `${ms}`, '--warm-up-ms', `${warmUpMs}`, '--idle-ms', `${idleMs}`]
  const counted = quick && counter?.name === 'perf'
  const main = await child(row, timed, counted ? counter : undefined)
  let systemCalls
  if (counter && (counter.name === 'perf' || !quick || row.pin !== undefined)) {
    const base = await startUp(row, counter)
    const more = counted ? main : await child(row, ['--rounds', `${lengthFor(main, counter)}`], counter)
    systemCalls = Math.max(0, (more.calls - base.calls) / (more.allRounds - base.allRounds))
  }
  const { calls: _, ...measured } = main
  return { ...row, name: rowName(row), ...measured, systemCalls, atMost: counter?.name === 'strace' && row.variant === 'spin' }
}

const startUps = new Map()

/** A run with almost no rounds; the same for all rows that start the same threads in the same way. */
function startUp(row, counter) {
  const key = `${row.variant === 'message'} ${row.pin}`
  if (!startUps.has(key)) startUps.set(key, child(row, ['--rounds', '100'], counter))
  return startUps.get(key)
}

/** Rounds that take about half a second, if counting did not slow them; strace does, by some 50 µs a call. */
function lengthFor({ p50 }, { name }) {
  return Math.ceil(name === 'perf' ? 500_000 / p50 : 1_000_000 / (p50 + 300))
}

async function child({ variant, guards, pin, cpu }, args, counter) {
  const command = [process.execPath, program, '--variant', variant, ...args]
  if (!guards) command.push('--no-guards')
  if (pin !== undefined) command.push('--pin', pin)
  if (cpu !== undefined) command.unshift('taskset', '-c', `${cpu}`)
  if (counter) command.unshift(...counter.command)
  const { stdout } = await run(command[0], command.slice(1), { timeout: 60_000 })
  return { ...JSON.parse(stdout), calls: counter?.counted() }
}

/** What to conclude, in words made from the measured numbers. */
export function conclusion(rows) {
  const find = (placement, variant, guards) =>
    rows.find((row) => row.placement.startsWith(placement) && row.variant === variant && (guards ?? row.guards) === row.guards && row.p50)
  const times = (a, b) => `${(a / b).toPrecision(2).replace(/\.0$/, '')} times`
  const [spin, block, message] = ['spin', 'block', 'message'].map((variant) => find('two CPUs, a worker', variant))
  const parts = []
  if (spin && block && message) {
    const best = rows.filter(({ variant, p50 }) => variant !== 'spin' && p50).sort((x, y) => x.p50 - y.p50)[0]
    parts.push(
      `With a CPU for each side, spinning answers ${times(best.p50, spin.p50)} as fast as the best row that does not spin ` +
        `(${best.p50.toFixed(1)} µs: ${rowName(best)}, ${best.placement}); where the others have two CPUs too, ${times(block.p50, spin.p50)} as fast as blocking ` +
        `and ${times(message.p50, spin.p50)} as fast as postMessage, at ${spin.cpuUs.toFixed(1)} µs of CPU a round trip instead of ${block.cpuUs.toFixed(1)} µs`,
    )
  }
  const [freeSpin, freeBlock] = ['spin', 'block'].map((variant) => find('two CPUs, not', variant))
  if (freeSpin && freeBlock && freeSpin.p50 > freeBlock.p50) {
    // Two switches a round trip = always on one CPU.
    parts.push(
      `not pinned, both sides shared a CPU in ${Math.min(100, freeSpin.switches * 50).toFixed(0)} % of the round trips here, ` +
        `where spinning loses (${freeSpin.p50.toFixed(1)} µs against ${freeBlock.p50.toFixed(1)} µs)`,
    )
  }
  const [on, off, one] = [find('one', 'spin', true), find('one', 'spin', false), find('one', 'block')]
  if (on && off && one) {
    parts.push(
      `on one CPU it only loses (${off.p50.toFixed(1)} µs against ${one.p50.toFixed(1)} µs): ` +
        `leave the guards on, which do not spin there (${on.p50.toFixed(1)} µs)`,
    )
  }
  const text = parts.join('; ')
  return text === '' ? undefined : `${text[0].toUpperCase()}${text.slice(1)}.`
}
