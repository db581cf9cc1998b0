// npm run bench:traces: what writing a trace costs, in instructions, into docs/TRACES.md.
//
//   node scripts/bench-traces.mjs [--print]      --print writes nothing
//
// Counted by callgrind, thread by thread, each as the difference of two runs of different length, so that start-up cancels.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { buildBench, count, machineLine, needCounters, table } from './measure.mjs'
import { seal } from './seal.mjs'
import { needCargo, root, say, seconds } from './step.mjs'

const [SHORT, LONG] = [1000, 5000]
const since = performance.now()
needCargo()
needCounters()
const program = buildBench('counts')
const rows = ['epoll', 'poll', 'io_uring'].map((monitor) => {
  const plain = perRound(['event', '--monitor', monitor])
  const traced = perRound(['event', '--monitor', monitor, '--trace'])
  const row = { monitor, plain: plain.home, traced: traced.home, event: (traced.home - plain.home) / traced.events, writer: traced.writer / traced.events }
  say(`${monitor}: ${JSON.stringify(row)}`)
  return row
})
const whole = (number) => count(Math.round(number))
const text = document(table(
  ['monitor', 'turn without a trace', 'with one', 'more, for each of its 3 events', 'the thread that writes, an event'],
  rows.map(({ monitor, plain, traced, event, writer }) => [monitor, whole(plain), whole(traced), whole(event), whole(writer)]),
))
if (process.argv.includes('--print')) process.stdout.write(text)
else writeFileSync(join(root, 'docs', 'TRACES.md'), seal(text))
say(`traces: ${rows.length} rows, ${seconds(since)}`)

/** Instructions a round in the thread of the context and in all others, and events a round. */
function perRound(args) {
  const [short, long] = [SHORT, LONG].map((rounds) => instructions([...args, '--rounds', `${rounds}`]))
  const each = (of) => (of(long) - of(short)) / (LONG - SHORT)
  return { home: each((run) => run.home), writer: each((run) => run.writer), events: each((run) => run.events) }
}

function instructions(args) {
  const folder = mkdtempSync(join(tmpdir(), 'fdmon-traces-'))
  try {
    const tool = ['--tool=callgrind', '--separate-threads=yes', `--callgrind-out-file=${join(folder, 'out')}`, program, ...args]
    const { status, stdout, stderr } = spawnSync('valgrind', tool, { encoding: 'utf8' })
    if (status !== 0) throw new Error(`${args.join(' ')}: exit code ${status}\n${stdout}${stderr}`)
    if (/dropped=[1-9]/.test(stdout)) throw new Error(`${args.join(' ')}: events were dropped, which cost less: ${stdout}`)
    const ofThread = readdirSync(folder).sort().flatMap((name) => {
      const total = /^(?:totals|summary): (\d+)/m.exec(readFileSync(join(folder, name), 'utf8'))
      return total ? [{ home: /-0*1$/.test(name), total: Number(total[1]) }] : []
    })
    const sum = (home) => ofThread.filter((thread) => thread.home === home).reduce((all, { total }) => all + total, 0)
    return { home: sum(true), writer: sum(false), events: Number(/events=(\d+)/.exec(stdout)?.[1] ?? 0) }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

function document(costs) {
  return `# Traces

Written by \`npm run bench:traces\`; do not edit. What a trace shows, and what it costs.

\`FDMON_TRACE=trace.json node program.mjs\`, or \`ctx.trace('trace.json')\`, writes a file of the Trace Event Format: open it in
<https://ui.perfetto.dev> or chrome://tracing. In Rust it is \`AioContext::trace\`. [trace.schema.json](trace.schema.json) is the part of the format that is
used; the tests check real traces against it.

## What is in it

A context is a track (\`tid\` is its id), a process is a process. Times are those of CLOCK_MONOTONIC, in microseconds with three digits of fraction, so traces
of several processes fit together.

| slice | within | arguments |
| --- | --- | --- |
| \`turn\` | | \`blocking\`, \`progress\` |
| \`prepare\`, \`outer sleep\`, \`check\`, \`dispatch\` | | the steps of a turn around the sleep of an outer loop, as where a context is attached to Node's: \`timeout_ns\`, \`ready\`, \`progress\` |
| \`spin\` | turn, prepare | \`window_ns\`, \`result\` (hit, ready, notified, miss, timeout, interrupted, failed), \`rounds\` |
| \`sleep\` | turn | \`timeout_ns\` (none = no limit), \`ready\`: how many callbacks were due after it |
| \`look\` | turn, check | the kernel is asked without a wait: \`ready\` |
| a handler's name, else \`fd 5\` | turn, dispatch | \`fd\`, \`name\`, \`callbacks\`, \`events\` |
| \`bottom half\`, \`job\`, \`timer\`, \`completion\` | turn, dispatch | |
| \`notify\` | | on the track of the thread that notified: \`context\` |

An arrow leads from each \`notify\` to the turn that took it; of several notifications that one turn took, from the first. Marks: \`woken\`
(\`after_ns\`: since the notification), \`submitted\` and \`completed\` (a batch of file I/O, \`in_flight\`), who joins and leaves the spin list, a change of
the \`monitor\`, \`dropped\`, \`trace ended\` (\`events\`, \`dropped\`). A counter shows the spin window. Slices of a track nest, and no two begin at
once; a step that is open when the trace ends, ends with it.

A handler gets its name from \`name\` of \`FdHandlers\`, in Rust \`Handlers::name\` or \`Source::name\`.

## The file

- Contexts that name the same file share it, those of workers too. \`%p\` in the name stands for the number of the process.
- A file that another process writes is refused. Under \`FDMON_TRACE\`, which child processes inherit, such a process takes \`trace.<pid>.json\` instead.
  Processes that run one after the other replace each other's file, unless its name has \`%p\`.
- While it grows the file is a JSON array, which both viewers take without its closing bracket: a process that is killed leaves what was written until 50 ms
  before. When its last trace ends (\`stop()\`, the end of the context, the end of the process), its head is written anew and it is a JSON object with
  \`displayTimeUnit\`: without that, chrome://tracing rounds times, and short slices overlap. What is no regular file stays an array.
- No event crosses a page of 4096 bytes, so a write that is cut off by a kill or a full disk ends behind a whole event.
- Errors of writing disturb no turn: \`stop()\` throws the first. What was not written counts as dropped, as does what found no room in memory;
  \`trace.dropped\`, the mark \`trace ended\` and \`otherData.dropped\` say how much.
- A WebAssembly build refuses traces with \`ERR_FDMON_UNSUPPORTED\`.

## What it costs

Without a trace nothing: the counts of [BUDGETS.md](BUDGETS.md) are the same to the instruction. With one, no turn takes a short way, and each event is two readings of
the clock and six words in a ring of the context, without lock, allocation or system call; a thread of the process turns them into text, 20 times a second and when
half of the ring is taken. So an event costs, in instructions (the turn: one ready eventfd, its write and its read included, with the events \`turn\`, \`sleep\` and the handler's):

${costs}
The short way that is not taken is in the fourth column. Callgrind hides the vDSO: a reading of the clock counts as the bare system call that replaces it there, without the 20 to 30 ns
that it takes. Callbacks in JavaScript add two calls into native code each, some 60 ns a call, and turns two more. What the thread that writes cannot
keep up with, or has no CPU for, is dropped.

- ${machineLine()}
- Difference of ${count(SHORT)} and ${count(LONG)} turns; release build with symbols.
`
}
