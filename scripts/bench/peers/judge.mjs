// Which of fdmon's monitors a workload's row stands for, which rows it loses against a peer, and the goals.
import { reasonOf } from './reasons.mjs'

const isOurs = (peer) => peer.startsWith('fdmon')
/** Closer than this is the same. */
const CLOSE = { instructions: (other) => other * 0.005, full: (other) => other * 0.02, calls: () => 0.02, wakeUps: () => 0.5 }

/** The monitor whose row is compared: the fewest system calls, then the fewest instructions, the kernel's with them; one that spins only where all do. */
export function reference(rows) {
  const ours = rows.filter(({ peer }) => isOurs(peer))
  const plain = ours.filter(({ peer }) => !peer.endsWith('+spin'))
  const cost = ({ wakeUps = 0, calls = 0, full = 0 }) => [wakeUps, Math.round(calls * 20), full]
  const compare = (a, b) => cost(a).reduce((order, value, at) => order || value - cost(b)[at], 0)
  return (plain.length > 0 ? plain : ours).toSorted(compare)[0]
}

/** In which counts a peer needs less than the reference, and in time by every round. */
export function lost(row, reference) {
  if (isOurs(row.peer) || row.failed) return []
  const less = Object.keys(CLOSE).filter((what) => row[what] !== undefined && reference[what] !== undefined && row[what] < reference[what] - CLOSE[what](reference[what]))
  return row.ratio && row.ratio.most < 1 ? [...less, 'time'] : less
}

/** Marks each row that is lost, with its reason; returns those that have none. */
export function judge(results) {
  const without = []
  for (const { workload, rows } of results) {
    const ours = reference(rows)
    ours.reference = true
    for (const row of rows) {
      row.lost = lost(row, ours)
      row.reasons = row.lost.map((what) => reasonOf(workload.id, row.peer, what))
      row.lost.forEach((what, at) => {
        if (row.reasons[at] === undefined) without.push(`${workload.id} / ${row.peer}: ${what}`)
      })
    }
  }
  return without
}

/** The peer that needs the least of `what`. */
function best(rows, what) {
  return rows.filter((row) => !isOurs(row.peer) && row[what] !== undefined).toSorted((a, b) => a[what] - b[what])[0]
}

/** Each goal: what, measured, kept. */
export function goals(results) {
  const all = []
  const of = (id) => results.find(({ workload }) => workload.id === id)?.rows
  for (const [what, name] of [['full', 'instructions'], ['instructions', 'instructions in user space'], ['calls', 'system calls']]) {
    const compared = results.filter(({ rows }) => rows.some((row) => row[what] !== undefined))
    const lostIn = compared.filter(({ rows }) => rows.some((row) => row.lost.includes(what)))
    all.push({
      goal: `the fewest ${name} of all peers in every row`,
      value: `in ${compared.length - lostIn.length} of ${compared.length}${lostIn.length > 0 ? `; not: ${lostIn.map(({ workload }) => workload.id).join(', ')}` : ''}`,
      kept: lostIn.length === 0,
    })
  }
  for (const [id, name] of [['notify-awake', 'a loop that is awake is notified'], ['call-awake', 'the same, and a callback runs'], ['notify-storm', 'one of many notifications of a busy loop'], ['polled-hit', 'a polled hit']]) {
    const rows = of(id)
    if (!rows) continue
    const ours = reference(rows)
    const full = best(rows, 'full')
    const own = best(rows, 'instructions')
    const times = full.full / ours.full
    const cost = full.ratio ? `, which makes ${full.calls.toFixed(2)} system calls and takes ${full.ratio.median.toFixed(1)} times as long` : ''
    const inUserSpace = `in user space alone ${(own.instructions / ours.instructions).toFixed(2)} times (${own.peer})`
    all.push({ goal: `${name} (\`${id}\`): at least 2 times fewer instructions than the best peer`, value: `${times.toFixed(2)} times (${full.peer}${cost}); ${inUserSpace}`, kept: times >= 2 })
  }
  const timers = of('million_timers')
  if (timers?.some(({ cpuNs }) => cpuNs)) {
    const fastest = best(timers, 'cpuNs')
    const ratio = fastest.cpuNs / reference(timers).cpuNs
    all.push({ goal: 'million timers: no slower than the best peer, in CPU time, since the workload says how long they take', value: `${ratio.toFixed(2)} times its speed (${fastest.peer})`, kept: ratio >= 1 })
  }
  const idle = of('idle')?.filter(({ peer }) => isOurs(peer))
  if (idle) {
    const wakeUps = Math.max(...idle.map((row) => row.wakeUps))
    all.push({ goal: 'idle: no wake-up at all, on every monitor, spinning or not', value: `${wakeUps} in 10 s`, kept: wakeUps === 0 })
  }
  return all
}
