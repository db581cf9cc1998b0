// docs/BENCHMARKS.md, made of what was measured.
import { count, machineLine, table } from '../../measure.mjs'
import { KERNEL } from './in-full.mjs'
import { goals } from './judge.mjs'
import { NODE_NAMES } from './node-rows.mjs'
import { NOTES } from './reasons.mjs'
import { versions } from './programs.mjs'
import { ROUNDS } from './times.mjs'

const NAMES = {
  'fdmon:epoll': 'fdmon, epoll',
  'fdmon:io_uring': 'fdmon, io_uring',
  'fdmon:poll': 'fdmon, poll',
  'fdmon:epoll+spin': 'fdmon, epoll, spinning',
  'fdmon:io_uring+spin': 'fdmon, io_uring, spinning',
  'fdmon:poll+spin': 'fdmon, poll, spinning',
  ...NODE_NAMES,
}
const WORDS = { full: 'instructions', instructions: 'instructions in user space', calls: 'system calls', wakeUps: 'wake-ups', time: 'time' }

const HEADS = { ...WORDS, instructions: 'in user space' }

const number = (value, digits) => (value === undefined ? '' : Math.max(0, value).toFixed(value >= 100 || value === 0 ? 0 : digits))
const us = (ns) => (ns === undefined ? '' : number(ns / 1000, 2))
const ratio = ({ ratio: r, reference }) => (reference ? '1' : r ? `${number(r.median, 2)} (${number(r.least, 2)}–${number(r.most, 2)})` : '')

const whole = (what) => ({ [what]: value }) => (value === undefined ? '' : count(Math.round(value)))

/** What is shown of a workload: of each column, a head and a cell. */
function columns({ counts }) {
  return [
    ['full', whole('full')],
    ['instructions', whole('instructions')],
    ['calls', ({ calls }) => number(calls, 2)],
    ['switches', ({ switches }) => number(switches, 2)],
    ['wakeUps', ({ wakeUps }) => number(wakeUps, 0)],
  ].filter(([what]) => counts.includes(what)).map(([what, cell]) => [HEADS[what] ?? what, cell])
}

/** The rows of a workload, each that is lost marked. */
function tableOf({ workload, rows }) {
  const times = rows.some(({ ns }) => ns !== undefined)
    ? [['µs', ({ ns }) => us(ns)], ['CPU µs', ({ cpuNs }) => us(cpuNs)], ['time, of fdmon’s (least–most)', ratio]]
    : []
  const all = [...columns(workload), ...times]
  const name = ({ peer, reference, lost }) => `${reference ? '**' : ''}${NAMES[peer] ?? peer}${reference ? '**' : ''}${lost.length > 0 ? ' ◂' : ''}`
  const cells = rows.filter((row) => !row.failed).map((row) => [name(row), ...all.map(([, cell]) => cell(row))])
  return table(['', ...all.map(([head]) => head)], cells)
}

/** The reasons of a workload, each once, with whom it is about. */
function reasonsOf({ rows }) {
  const by = new Map()
  for (const { peer, lost, reasons } of rows) {
    reasons.forEach((reason, at) => {
      const who = by.get(reason) ?? new Map()
      by.set(reason, who.set(NAMES[peer] ?? peer, [...(who.get(NAMES[peer] ?? peer) ?? []), WORDS[lost[at]]]))
    })
  }
  const about = (who) => [...who].map(([peer, what]) => `${peer} (${what.join(', ')})`).join('; ')
  const absent = rows.filter(({ failed }) => failed).map(({ peer, failed }) => `- ${NAMES[peer] ?? peer}: not measured: ${failed}.\n`)
  return [...[...by].map(([reason, who]) => `- ◂ ${about(who)}: ${reason}.\n`), ...absent].join('')
}

const section = (result) => `### ${result.workload.title}\n\n\`${result.workload.args.join(' ')}\`\n\n${tableOf(result)}\n${reasonsOf(result)}${NOTES[result.workload.id] ? `- ${NOTES[result.workload.id]}.\n` : ''}`

/** Rows that are lost, all in one place. */
function summary(results) {
  const rows = results.flatMap(({ workload, rows: all }) => all.filter(({ lost }) => lost.length > 0).map((row) => [workload.id, NAMES[row.peer] ?? row.peer, row.lost.map((what) => WORDS[what]).join(', ')]))
  return rows.length === 0 ? 'None.\n' : table(['workload', 'against', 'in'], rows)
}

/** `where` is what `machine()` said then, with what counted, and libuv's version; `left`, the workloads that the run has no rows of. */
export function report(results, where, left) {
  const core = results.filter(({ workload }) => !workload.node)
  const node = results.filter(({ workload }) => workload.node)
  return `# fdmon beside its peers

Written by \`npm run bench:peers\`; do not edit.

Each table says what one operation of a workload costs. First what does not depend on how fast the machine is today: instructions (in all, the
kernel's with them, and in user space alone), system calls, context switches. Then time, and the CPU time of all threads. **Bold** is the row of
fdmon that the others are compared with: the monitor with the fewest system calls, then instructions. ◂ marks a peer that needs less than it in
some column; the reason is below the table.

## Goals

${table(['goal', 'measured', ''], goals(results).map(({ goal, value, kept }) => [goal, value, kept ? 'kept' : '**missed**']))}
## Rows that we lose

${summary(results)}
## The core

${core.map(section).join('\n')}
${node.length > 0 ? `## Node\n\n${node.map(section).join('\n')}\n` : ''}${left.length > 0 ? `Not measured in this run: ${left.join(', ')}.\n\n` : ''}## Method

- Peers: ${versions(where.libuv)}. Each is used as its documentation intends; \`crates/peers\` has a file a peer, with a function a workload. libuv is the one of
  the distribution, used from C. The tasks of tokio, compio and monoio run on one thread, their cheapest way. mio is edge-triggered,
  polling level-triggered, which saves it a call an event.
- The workloads named async, async_pummel, ping_pongs and million_timers are those of libuv's benchmarks, poll-bench is liburing's; there the byte is
  read after the readers were called, as level-triggered loops need it. An event of the dispatch rows includes the write and the read of its
  eventfd, by the same thread. All that the program does for an operation is counted, the part of the peer's user as well.
- Instructions: counted in an emulated machine (QEMU, \`-icount\`) with one CPU and Debian's kernel of the series ${KERNEL}, whose clock goes by
  instructions: the CPU time of the program is the number of them, the kernel's with them, and of its ticks, which are some thousandth. The
  kernel has no mitigation of a CPU's flaws on, which would add to each system call. In user space: callgrind. System calls: ${where.counter === 'perf' ? 'perf, raw_syscalls:sys_enter' : 'strace -c -f'}, all threads. Each is the difference of two lengths. Context switches: getrusage, both kinds.
  Where threads tell each other, how often they sleep depends on when they run: three differences, the middle one.
- Times: ${ROUNDS} rounds in which all take turns, a process each, pinned to one CPU, or to two where there are threads; medians; ratios round by round.
- Spinning: window 200 µs, default policy. In the row of polled hits the window is fixed and longer than the run.
- ${machineLine(where)}
`
}
