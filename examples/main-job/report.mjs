// What the main job found, as tables for a terminal and as the tables that are committed.
import { execFileSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { cpus, release } from 'node:os'
import { fileURLToPath } from 'node:url'
import Table from 'cli-table3'
import { createColors } from 'picocolors'
import { seal } from '../../scripts/seal.mjs'
import { ringConclusion, socketConclusion } from './rows.mjs'
import { CHILDREN, FILES } from './strangers-bytes.mjs'

// Only on a terminal, whatever the environment says.
const pc = createColors(process.stdout.isTTY === true && !process.env.NO_COLOR)

/** An idle program may take this share of a CPU; above it, spinning did not end. */
const IDLE_LIMIT = 0.05
const BYTES_TITLE = "A stranger's bytes: cat pushes a file through a FIFO; a timerfd, an inotify watch and two pidfds in the same loop"
const RING_TITLE = 'ring-pingpong: two workers, rings in shared memory, a doorbell for the one that sleeps'
const BYTES_HEAD = ['monitor', 'MiB', 'MiB/s', 'SHA-256', 'ticks', 'files', 'exits', 'events', 'turns', '']
const SOCKET_TITLE = "socket-pingpong: two workers, a plain socketpair, poll: 'kernel' where it spins"
const PAUSED_TITLE = (us) => `After ${us} µs of idle: how soon the other side has a message, one way, poll: 'kernel' where it spins`
const COST_HEAD = ['p50 µs', 'p99 µs', 'CPU µs', 'system calls', 'switches', 'idle CPU']
const ROUND_HEAD = ['64-byte round trips', ...COST_HEAD]
const ONE_WAY_HEAD = ['64 bytes, one way', ...COST_HEAD]

/** The ping-pongs, each a table with what to conclude from it. */
function exchanges({ rings, sockets }) {
  const [paused, others] = [sockets.filter(({ pauseUs }) => pauseUs), sockets.filter(({ pauseUs }) => !pauseUs)]
  return [
    { title: RING_TITLE, head: ROUND_HEAD, rows: rings, text: ringConclusion(rings) },
    { title: SOCKET_TITLE, head: ROUND_HEAD, rows: others },
    { title: PAUSED_TITLE(paused[0].pauseUs), head: ONE_WAY_HEAD, rows: paused, text: socketConclusion(sockets) },
  ]
}

/** Everything that was lost or did not end, in words. */
export function problemsOf({ bytes, rings, sockets }) {
  return [
    ...bytes.flatMap(({ monitor, problems }) => problems.map((problem) => `${monitor}: ${problem}`)),
    ...[...rings, ...sockets].flatMap(({ placement, name, lost, idleCpu, failed }) => [
      ...(failed ? [`${name}, ${placement}: ${failed}`] : []),
      ...(lost > 0 ? [`${name}, ${placement}: ${lost} words of messages were not what was sent`] : []),
      ...(idleCpu > IDLE_LIMIT ? [`${name}, ${placement}: takes ${percent(idleCpu)} of a CPU while idle`] : []),
    ]),
  ]
}

/** The tables for a person at a terminal. */
export function show(results, problems, seconds) {
  const stranger = table(BYTES_HEAD)
  for (const one of results.bytes) {
    const [result, ...rest] = bytesCells(one).reverse()
    stranger.push([...rest.reverse(), one.problems.length === 0 ? pc.green(result) : pc.red(result)])
  }
  const ok = problems.length === 0 ? pc.green('ok, nothing lost') : pc.red(`${problems.length} ${problems.length === 1 ? 'problem' : 'problems'}`)
  const parts = exchanges(results).flatMap((exchange) => ['', pc.bold(exchange.title), exchangeTable(exchange), ...(exchange.text ? [exchange.text] : [])])
  const lines = [pc.bold(BYTES_TITLE), stranger.toString(), ...parts, '']
  return [...lines, ...problems.map((problem) => pc.red(problem)), `${ok}, ${seconds.toFixed(1)} s`, ''].join('\n')
}

function exchangeTable({ head, rows }) {
  const out = table(head)
  let placement
  for (const row of rows) {
    if (row.placement !== placement) {
      placement = row.placement
      out.push([{ colSpan: head.length, content: pc.cyan(placement) }])
    }
    const absent = row.failed ? pc.red('failed') : row.missing && pc.yellow(row.missing)
    if (absent) out.push([`  ${row.name}`, { colSpan: head.length - 1, content: absent }])
    else {
      const [name, ...cells] = exchangeCells(row)
      if (row.idleCpu > IDLE_LIMIT) cells.push(pc.red(cells.pop()))
      out.push([`  ${name}`, ...cells])
    }
  }
  return out.toString()
}

/** Writes the committed tables: docs/MAIN-JOB.md, and in README.md the one of ring-pingpong and the one after a pause. */
export function write(results, sizes) {
  const root = fileURLToPath(new URL('../../', import.meta.url))
  const stranger = markdown(BYTES_HEAD, results.bytes.map(bytesCells))
  const all = exchanges(results)
  const foot =
    `Commit ${git(root, 'rev-parse', '--short', 'HEAD')}; ${cpus().length} × ${cpus()[0]?.model.trim() || 'CPU'}, Linux ${release()}, ` +
    `Node ${process.versions.node}; rings ${lengthOf(sizes.rings)}, sockets ${lengthOf(sizes.sockets)}, in which the scheduler places the workers.`
  const page =
    '# The main job\n\nWritten by `npm start -- --write`; do not edit.\n\n' +
    `## ${BYTES_TITLE}\n\n${stranger}\n${all.map(exchangeMarkdown).join('')}` +
    'CPU, system calls and context switches are those of the whole process, a round trip; idle CPU is the share of one CPU that it\n' +
    'takes when the messages have stopped. A worker pinned to one CPU looks to the guards like a machine with one CPU, so they are\n' +
    'off in those spinning rows. The window is 200 µs, policy classic. Before a message that follows a pause its sender keeps its\n' +
    `CPU busy; that time is part of the CPU of those rows.\n\n${foot}\n`
  writeFileSync(`${root}docs/MAIN-JOB.md`, seal(page))
  const readme = `${root}README.md`
  const marked = /(<!-- written by "npm start -- --write" -->\n)[^]*?(<!-- end -->)/
  const [rings, , paused] = all
  const shown = `${exchangeRows(rings)}\n${rings.text ?? ''}\n\n${paused.title}:\n\n${exchangeRows(paused)}\n${paused.text ?? ''}`
  const old = readFileSync(readme, 'utf8')
  writeFileSync(readme, old.replace(marked, (_, begin, end) => `${begin}\n${shown} ${foot}\n\n${end}`))
}

function lengthOf({ ms, warmUpMs }) {
  return `${ms} ms a row after ${warmUpMs} ms`
}

function exchangeMarkdown(exchange) {
  return `## ${exchange.title}\n\n${exchangeRows(exchange)}\n${exchange.text ? `${exchange.text}\n\n` : ''}`
}

function exchangeRows({ head, rows }) {
  const absent = (row) => [row.name, row.missing ?? 'failed', ...COST_HEAD.slice(1).map(() => '')]
  const cells = rows.map((row) => [row.placement, ...(row.missing || row.failed ? absent(row) : exchangeCells(row))])
  return markdown(['where', ...head], cells, 2)
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

function exchangeCells(row) {
  return [
    `${row.name}${row.guard ? ` (does not: ${row.guard})` : ''}`,
    row.p50.toFixed(2),
    row.p99.toFixed(2),
    row.cpuUs.toFixed(2),
    row.systemCalls === undefined ? '–' : `${row.atMost ? '≤ ' : ''}${row.systemCalls.toFixed(3)}`,
    row.switches.toFixed(3),
    row.idleCpu === undefined ? '–' : percent(row.idleCpu),
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
