// The rows of the two ping-pongs: what is run where, and how each is measured in a process of its own.
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

/** Where the two sides run; a place that this machine does not have says what is `missing`. */
function places({ taskset }) {
  const [a, b] = usableCpus()
  const pinning = taskset ? undefined : 'taskset is missing'
  const two = b === undefined ? 'only one CPU is usable' : undefined
  return {
    pinned: { placement: 'two CPUs, a worker pinned to each', pin: `${a},${b}`, guards: false, missing: two ?? pinning },
    free: { placement: 'two CPUs, not pinned', guards: true, missing: two },
    one: { placement: 'one CPU', cpu: a, guards: true, missing: pinning },
  }
}

/** All rows of ring-pingpong; those that this machine cannot run have a `missing`. */
export function ringRows(tools) {
  const { pinned, free, one } = places(tools)
  const rows = [pinned, free, one].flatMap((place) => ['message', 'block', 'spin'].map((variant) => ({ ...place, variant })))
  return [...rows, { ...one, variant: 'spin', guards: false }].map((row) => ({ over: 'ring', ...row }))
}

/** Microseconds without a message before each one, in the rows that measure one way. */
const PAUSE_US = 50

/** What is spun on, in those rows. */
const KINDS = { socket: 'a socketpair', eventfd: 'an eventfd, the message in memory' }

/** All rows of socket-pingpong: each of the monitors, blocking and spinning. `quick` leaves out what needs no proof again. */
export function socketRows(tools, monitors, quick) {
  const { pinned, free, one } = places(tools)
  const at = (place, of = monitors) => [
    { ...place, variant: 'net' },
    ...of.flatMap((monitor) => ['block', 'spin'].map((variant) => ({ ...place, variant, monitor }))),
  ]
  const paused = at(pinned, quick ? monitors.slice(0, 1) : monitors).map((row) => ({ ...row, over: 'socket' }))
  const bells = quick ? [] : at(pinned).filter(({ variant }) => variant !== 'net').map((row) => ({ ...row, over: 'eventfd' }))
  const oneWay = [...paused, ...bells].map((row) => ({ ...row, placement: `${row.placement}; ${KINDS[row.over]}`, pauseUs: PAUSE_US }))
  const worst = { ...one, variant: 'spin', monitor: monitors[0], guards: false }
  const rows = quick ? at(pinned).slice(1) : [...at(pinned), ...at(free), ...at(one), worst]
  return [...rows, ...oneWay].map((row) => ({ over: 'socket', ...row }))
}

/** The row's name in the table. */
export function rowName({ variant, monitor, guards }) {
  if (variant === 'message') return 'Node postMessage'
  if (variant === 'net') return 'Node net.Socket'
  const on = monitor === undefined ? '' : ` on ${monitor}`
  if (variant === 'block') return `fdmon blocking${on}`
  return `fdmon spinning${on}, guards ${guards ? 'on' : 'off'}`
}

/**
 * Measures a row. `counter` counts system calls: `perf` counts while the row is measured (`quick`) or in a run of its
 * own, less those of a run with almost no rounds; `strace` in runs of their own, and with `quick` only of the first
 * placement, because it takes long. What strace says of a spinning row is an upper bound: it stretches the time between
 * two messages, in which the loop looks at the kernel.
 */
export async function measureRow(row, { ms, warmUpMs, idleMs, quick, counter }) {
  if (row.missing) return { ...row, name: rowName(row) }
  const timed = ['--ms', `${ms}`, '--warm-up-ms', `${warmUpMs}`, '--idle-ms', `${row.pauseUs ? 0 : idleMs}`]
  const counted = counter?.name === 'perf' && (quick || row.over !== 'ring')
  const main = await child(row, timed, counted ? counter : undefined)
  let systemCalls
  if (counter && (counter.name === 'perf' || !quick || row.pin !== undefined)) {
    const base = await startUp(row, counter)
    const more = counted ? main : await child(row, ['--rounds', `${lengthFor(row, main, counter)}`], counter)
    systemCalls = Math.max(0, (more.calls - base.calls) / (more.allRounds - base.allRounds))
  }
  const { calls: _, ...measured } = main
  return { ...row, name: rowName(row), ...measured, systemCalls, atMost: counter?.name === 'strace' && row.variant === 'spin' }
}

const startUps = new Map()

/** A run with almost no rounds; the same for all rows that start the same threads in the same way. */
function startUp(row, counter) {
  const key = `${row.over} ${['message', 'net'].includes(row.variant)} ${row.pin}`
  if (!startUps.has(key)) startUps.set(key, child(row, ['--rounds', '100'], counter))
  return startUps.get(key)
}

/** Rounds that take about half a second, if counting did not slow them; strace does, by some 50 µs a call. */
function lengthFor({ pauseUs = 0 }, { p50 }, { name }) {
  return Math.ceil(name === 'perf' ? 500_000 / p50 : 1_000_000 / (p50 + pauseUs + 300))
}

async function child({ over, variant, monitor, pauseUs, guards, pin, cpu }, args, counter) {
  const command = [process.execPath, program, '--over', over, '--variant', variant, ...args]
  if (monitor !== undefined) command.push('--monitor', monitor)
  if (pauseUs !== undefined) command.push('--pause-us', `${pauseUs}`)
  if (!guards) command.push('--no-guards')
  if (pin !== undefined) command.push('--pin', pin)
  if (cpu !== undefined) command.unshift('taskset', '-c', `${cpu}`)
  if (counter) command.unshift(...counter.command)
  const { stdout } = await run(command[0], command.slice(1), { timeout: 60_000 })
  return { ...JSON.parse(stdout), calls: counter?.counted() }
}

const times = (a, b) => `${(a / b).toPrecision(2).replace(/\.0$/, '')} times`
const sentences = (parts) => parts.map((part) => `${part[0].toUpperCase()}${part.slice(1)}.`).join(' ')

/** What to conclude from ring-pingpong, in words made from the measured numbers. */
export function ringConclusion(rows) {
  const find = (placement, variant, guards) =>
    rows.find((row) => row.placement.startsWith(placement) && row.variant === variant && (guards ?? row.guards) === row.guards && row.p50)
  const [spin, block, message] = ['spin', 'block', 'message'].map((variant) => find('two CPUs, a worker', variant))
  const parts = []
  if (spin && block && message) {
    const best = rows.filter(({ variant, p50 }) => variant !== 'spin' && p50).sort((x, y) => x.p50 - y.p50)[0]
    parts.push(
      `With a CPU for each side, spinning answers ${times(best.p50, spin.p50)} as fast as the best row that does not spin ` +
        `(${best.p50.toFixed(1)} µs: ${best.name}, ${best.placement}); where the others have two CPUs too, ${times(block.p50, spin.p50)} as fast as blocking ` +
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
  return parts.length === 0 ? undefined : sentences([parts.join('; ')])
}

/** What to conclude from socket-pingpong. */
export function socketConclusion(rows) {
  const monitors = [...new Set(rows.map(({ monitor }) => monitor))].filter(Boolean)
  const find = (query) => rows.find((row) => row.p50 && Object.entries(query).every(([key, value]) => row[key] === value))
  const micros = (value) => `${value.toFixed(1)} µs`
  /** How many times less the one takes than the other, on each monitor. */
  const compare = (text, less, more) => {
    const found = monitors.map((monitor) => ({ monitor, less: find({ monitor, ...less }), more: find({ monitor, ...more }) }))
    const pairs = found
      .filter(({ less, more }) => less && more)
      .map(({ monitor, less, more }) => `${times(more.p50, less.p50)} on ${monitor} (${micros(less.p50)} against ${micros(more.p50)})`)
    return pairs.length === 0 ? [] : [`${text} ${pairs.join(', ')}`]
  }
  const paused = { pauseUs: PAUSE_US, over: 'socket' }
  const bells = { pauseUs: PAUSE_US, over: 'eventfd' }
  const pinned = { placement: rows.find(({ pin }) => pin !== undefined)?.placement, pauseUs: undefined }
  const one = { placement: rows.find(({ cpu }) => cpu !== undefined)?.placement, pauseUs: undefined }
  const [net, spin] = [find({ ...paused, variant: 'net' }), find({ ...paused, variant: 'spin' })]
  return sentences([
    ...compare(
      `after ${PAUSE_US} µs of idle, with a CPU for each side, a loop that spins has a message sooner than one that blocks,`,
      { ...paused, variant: 'spin' },
      { ...paused, variant: 'block' },
    ),
    ...(net && spin ? [`Node's net.Socket has it after ${micros(net.p50)}`] : []),
    ...compare('over an eventfd it is', { ...bells, variant: 'spin' }, { ...bells, variant: 'block' }),
    ...compare('without a pause round trips are shorter,', { ...pinned, variant: 'spin' }, { ...pinned, variant: 'block' }),
    ...compare(
      'on one CPU it is blocking that is faster than spinning without guards,',
      { ...one, variant: 'block' },
      { ...one, variant: 'spin', guards: false },
    ),
  ])
}
