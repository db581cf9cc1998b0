// What the main job found, as tables for a terminal and as the tables that are committed.
import { execFileSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { cpus, release } from 'node:os'
import { fileURLToPath } from 'node:url'
import Table from 'cli-table3'
import { createColors } from 'picocolors'
import { seal } from '../../scripts/seal.mjs'
import { conclusion } from './rows.mjs'
import { CHILDREN, FILES } from './strangers-bytes.mjs'

// Only on a terminal, whatever the environment says.
const pc = createColors(process.stdout.isTTY === true && !process.env.NO_COLOR)

/** An idle program may take this share of a CPU; above it, spinning did not end. */
const IDLE_LIMIT = 0.05
const BYTES_TITLE = "A stranger's bytes: cat pushes a file through a FIFO; a timerfd, an inotify watch and two pidfds in the same loop"
const RING_TITLE = 'ring-pingpong: two workers, rings in shared memory, a doorbell for the one that sleeps'
const BYTES_HEAD = ['monitor', 'MiB', 'MiB/s', 'SHA-256', 'ticks', 'files', 'exits', 'events', 'turns', '']
const RING_HEAD = ['64-byte round trips', 'p50 µs', 'p99 µs', 'CPU µs', 'system calls', 'switches', 'idle CPU']

/** Everything that was lost or did not end, in words. */
export function problemsOf(bytes, pingpong) {
  return [
    ...bytes.flatMap(({ monitor, problems }) => problems.map((problem) => `${monitor}: ${problem}`)),
    ...pingpong.flatMap(({ placement, name, lost, idleCpu, failed }) => [
      ...(failed ? [`${name}, ${placement}: ${failed}`] : []),
      ...(lost > 0 ? [`${name}, ${placement}: ${lost} words of messages were not what was sent`] : []),
      ...(idleCpu > IDLE_LIMIT ? [`${name}, ${placement}: takes ${percent(idleCpu)} of a CPU while idle`] : []),
    ]),
  ]
}

/** The tables for a person at a terminal. */
export function show(bytes, pingpong, problems, seconds) {
  const stranger = table(BYTES_HEAD)
  for (const one of bytes) {
    const [result, ...rest] = bytesCells(one).reverse()
    stranger.push([...rest.reverse(), one.problems.length === 0 ? pc.green(result) : pc.red(result)])
  }
  const ring = table(RING_HEAD)
  let placement
  for (const row of pingpong) {
    if (row.placement !== placement) {
      placement = row.placement
      ring.push([{ colSpan: RING_HEAD.length, content: pc.cyan(placement) }])
    }
    const absent = row.failed ? pc.red('failed') : row.missing && pc.yellow(row.missing)
    if (absent) ring.push([`  ${row.name}`, { colSpan: RING_HEAD.length - 1, content: absent }])
    else {
      const [name, ...cells] = ringCells(row)
      if (row.idleCpu > IDLE_LIMIT) cells.push(pc.red(cells.pop()))
      ring.push([`  ${name}`, ...cells])
    }
  }
  const ok = problems.length === 0 ? pc.green('ok, nothing lost') : pc.red(`${problems.length} ${problems.length === 1 ? 'problem' : 'problems'}`)
  const lines = [pc.bold(BYTES_TITLE), stranger.toString(), '', pc.bold(RING_TITLE), ring.toString()]
  return [...lines, conclusion(pingpong) ?? '', '', ...problems.map((problem) => pc.red(problem)), `${ok}, ${seconds.toFixed(1)} s`, ''].join('\n')
}

/** Writes the committed tables: docs/MAIN-JOB.md, and the one of ring-pingpong in README.md. */
export function write(bytes, pingpong, size) {
  const root = fileURLToPath(new URL('../../', import.meta.url))
  const stranger = markdown(BYTES_HEAD, bytes.map(bytesCells))
  const cells = pingpong.map((row) => {
    const [name, ...rest] = row.missing || row.failed ? [row.name, row.missing ?? 'failed', '', '', '', '', ''] : ringCells(row)
    return [row.placement, name, ...rest]
  })
  const ring = markdown(['where', ...RING_HEAD], cells, 2)
  const text = conclusion(pingpong) ?? ''
  const foot =
    `Commit ${git(root, 'rev-parse', '--short', 'HEAD')}; ${cpus().length} × ${cpus()[0]?.model.trim() || 'CPU'}, Linux ${release()}, ` +
    `Node ${process.versions.node}; ${size.ms} ms a row, after ${size.warmUpMs} ms in which the scheduler places the workers.`
  const page =
    '# The main job\n\nWritten by `npm start -- --write`; do not edit.\n\n' +
    `## ${BYTES_TITLE}\n\n${stranger}\n## ${RING_TITLE}\n\n${ring}\n${text}\n\n` +
    'CPU, system calls and context switches are those of the whole process, a round trip; idle CPU is the share of one CPU that it\n' +
    'takes when the messages have stopped. A worker pinned to one CPU looks to the guards like a machine with one CPU, so they are\n' +
    `off in that spinning row. The window is 200 µs, policy classic.\n\n${foot}\n`
  writeFileSync(`${root}docs/MAIN-JOB.md`, seal(page))
  const readme = `${root}README.md`
  const marked = /(<!-- written by "npm start -- --write" -->\n)[^]*?(<!-- end -->)/
  const old = readFileSync(readme, 'utf8')
  writeFileSync(readme, old.replace(marked, (_, begin, end) => `${begin}\n${ring}\n${text} ${foot}\n\n${end}`))
}

function bytesCells(one) {
  return [
    one.monitor,
    (one.bytes / 2 ** 20).toFixed(0),
    one.mibPerSecond.toFixed(0),
    one.problems.includes('SHA-256 differs') ? 'differs' : 'same',
    `${one.ticks} of ${one.ticksDue}`,
    `${one.files} of ${FILES}`,
    `${one.exits} of ${CHILDREN}`,
    one.events.toLocaleString('en-US'),
    one.turns.toLocaleString('en-US'),
    one.problems.length === 0 ? 'nothing lost' : one.problems.join(', '),
  ]
}

function ringCells(row) {
  return [
    `${row.name}${row.guard ? ` (does not: ${row.guard})` : ''}`,
    row.p50.toFixed(2),
    row.p99.toFixed(2),
    row.cpuUs.toFixed(2),
    row.systemCalls === undefined ? '–' : `${row.atMost ? '≤ ' : ''}${row.systemCalls.toFixed(3)}`,
    row.switches.toFixed(3),
    percent(row.idleCpu),
  ]
}

function table(head) {
  const align = head.map((_, index) => (index === 0 ? 'left' : 'right'))
  return new Table({ head, colAligns: align, style: { head: [], border: [], compact: true } })
}

function markdown(head, rows, texts = 1) {
  const line = (cells) => `| ${cells.join(' | ')} |\n`
  return line(head) + line(head.map((_, index) => (index < texts ? '---' : '---:'))) + rows.map(line).join('')
}

function percent(share) {
  return `${(share * 100).toFixed(1)} %`
}

function git(cwd, ...args) {
  return execFileSync('git', args, { cwd, encoding: 'utf8' }).trim()
}
