// Times all peers at one workload, round by round in turn, so that what else the machine does meets all of them.
import { median } from '../../measure.mjs'
import { command, run } from './count.mjs'

export const ROUNDS = 9

/** The middle and the ends of some numbers. */
export function spread(values) {
  return { median: median(values), least: Math.min(...values), most: Math.max(...values) }
}

/** ns and CPU ns an operation of each peer, and how many times longer than the reference it took, round by round. */
export function times(programs, workload, peers, reference) {
  const pin = ['taskset', '-c', workload.cpus === 1 ? '1' : '0,1']
  const ops = workload.timed * (workload.times ?? 1)
  const rounds = Array.from({ length: ROUNDS }, () =>
    new Map(peers.map((peer) => {
      const { ns, cpuNs } = run(command(programs, workload, peer, workload.timed), pin)
      return [peer, { ns: ns / ops, cpuNs: cpuNs / ops }]
    })))
  return new Map(peers.map((peer) => {
    const of = (what) => rounds.map((round) => what(round.get(peer), round.get(reference)))
    return [peer, { ns: median(of(({ ns }) => ns)), cpuNs: median(of(({ cpuNs }) => cpuNs)), ratio: spread(of((own, other) => own.ns / other.ns)) }]
  }))
}
