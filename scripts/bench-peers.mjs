// npm run bench:peers: fdmon beside its peers, in the shapes of the peers' own benchmarks.
//
//   node scripts/bench-peers.mjs             counts and times everything, writes docs/BENCHMARKS.md and docs/runs/peers.json; 20 minutes
//   node scripts/bench-peers.mjs --quick     that every workload of every peer does its work, and that it can be counted; writes nothing
//     --only WORKLOAD    those whose name contains it; writes nothing
//     --counts           no times; writes nothing
//   node scripts/bench-peers.mjs --report    makes docs/BENCHMARKS.md of docs/runs/peers.json again, after a reason was added
//     --json             what was measured, on standard output
//
// Instructions are counted in an emulated machine, the kernel's with them, and those in user space alone by callgrind; system calls by perf or
// strace, each as the difference of two lengths; context switches the program counts itself. Times are taken round by round in turn, pinned.
// A row that is lost needs a reason in bench/peers/reasons.mjs, or the script fails.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { command, counts, idleCounts, run } from './bench/peers/count.mjs'
import { judge, goals, reference } from './bench/peers/judge.mjs'
import { inFull } from './bench/peers/in-full.mjs'
import { NODE_WORKLOADS } from './bench/peers/node-rows.mjs'
import { build, epoll } from './bench/peers/programs.mjs'
import { report } from './bench/peers/report.mjs'
import { WORKLOADS } from './bench/peers/rows.mjs'
import { times } from './bench/peers/times.mjs'
import { count, machine, needCounters } from './measure.mjs'
import { keepRuns, readRuns } from './runs.mjs'
import { seal } from './seal.mjs'
import { fail, need, ready, root, say, sayOnStderr, seconds } from './step.mjs'

const { values: options } = parseArgs({
  options: { quick: { type: 'boolean' }, counts: { type: 'boolean' }, report: { type: 'boolean' }, json: { type: 'boolean' }, only: { type: 'string' } },
})
if (options.json) sayOnStderr()
process.setMaxListeners(100) // each counter of the idle rows has a folder that it takes away at the end
const since = performance.now()
const ALL = [...WORKLOADS, ...NODE_WORKLOADS]
const chosen = ALL.filter(({ id }) => !options.only || id.includes(options.only))
if (chosen.length === 0) fail(`--only ${options.only}: one of ${ALL.map(({ id }) => id).join(', ')}`, 2)
const whole = !options.quick && !options.only && !options.counts

if (options.report) finish(readRuns('peers'))
else finish(await measure())

/** A row for each workload and peer; before them one that says where and how it was measured. */
async function measure() {
  const counter = needCounters()
  need('taskset', 'util-linux')
  const programs = build()
  const { version } = run(command(programs, { args: ['call-awake'] }, 'libuv', 1))
  return measureRows(programs, counter, [{ ...machine(), counter: counter.name, libuv: version }])
}

async function measureRows(programs, counter, all) {
  const full = await inFull(programs, chosen, options)
  // What cannot be had here is a row that says so.
  const absent = new Map()
  let node = false
  for (const workload of chosen) {
    const begun = performance.now()
    if (workload.node && !node) {
      node = true
      ready()
      const { requires, why } = epoll()
      if (requires) process.env.PEERS_EPOLL = requires
      else absent.set('epoll', why)
    }
    const peers = [...workload.fdmon, ...workload.others].filter((peer) => !absent.has(peer))
    const counted = workload.counts.includes('wakeUps')
      ? await idleCounts(programs, workload, peers, options)
      : peers.map((peer) => attempt(() => counts(programs, workload, peer, { ...options, counter })))
    const rows = peers.map((peer, at) => ({ workload: workload.id, peer, ...full(workload, peer), ...counted[at] }))
    const running = rows.filter(({ broken }) => !broken)
    if (!options.quick && !options.counts && workload.timed) {
      const took = times(programs, workload, running.map(({ peer }) => peer), reference(running).peer)
      for (const row of running) Object.assign(row, took.get(row.peer))
    }
    const round = (number) => number && count(Math.round(number))
    const shown = rows.map(({ peer, instructions, full, calls }) => `${peer} ${[round(instructions), round(full), calls?.toFixed(2)].filter(Boolean).join('/')}`)
    say(`${workload.id}: ${shown.join(', ')}: ${seconds(begun)}`)
    const failed = workload.others.filter((peer) => absent.has(peer)).map((peer) => ({ workload: workload.id, peer, failed: absent.get(peer) }))
    all.push(...rows, ...failed)
    if (whole) keepRuns('peers', all)
  }
  return all
}

/** One that breaks must not take the others with it; the script fails at its end. */
function attempt(count) {
  try {
    return count()
  } catch (error) {
    say(error.message)
    return { broken: true, failed: `broken: ${error.message.split('\n')[0]}` }
  }
}

function finish([where, ...rows]) {
  const results = chosen.map((workload) => ({ workload, rows: rows.filter((row) => row.workload === workload.id) })).filter(({ rows }) => rows.length > 0)
  const without = judge(results)
  if (options.json) process.stdout.write(`${JSON.stringify([where, ...rows], undefined, 2)}\n`)
  const broken = rows.filter((row) => row.broken)
  const end = () => {
    if (broken.length > 0) fail(`${broken.length} rows are broken: ${broken.map(({ workload, peer }) => `${workload} / ${peer}`).join(', ')}`)
  }
  if (options.quick) {
    end()
    return say(`peers, quickly: ${rows.length} rows, ${seconds(since)}`)
  }
  for (const { goal, value, kept } of goals(results)) say(`${kept ? 'kept' : 'MISSED'}: ${goal}: ${value}`)
  for (const row of without) say(`lost without a reason: ${row}`)
  if (without.length > 0) fail(`${without.length} rows are lost and have no reason in scripts/bench/peers/reasons.mjs; add it and run: npm run bench:peers -- --report`)
  if (!whole) return end()
  const left = chosen.filter(({ id }) => !rows.some(({ workload }) => workload === id)).map(({ id }) => id)
  writeFileSync(join(root, 'docs', 'BENCHMARKS.md'), seal(report(results, where, left)))
  say(`docs/BENCHMARKS.md written: ${seconds(since)}`)
  end()
}
