// Instructions in full, the kernel's with them: callgrind sees a program's own, which favours who leaves its work to the kernel. The programs run in
// an emulated machine whose clock counts instructions, so that the CPU time a program says it took is the number of those that ran for it.
import { join } from 'node:path'
import { boot, fetchKernels, needQemu } from '../../kernels/boot.mjs'
import { buildOfPrograms } from '../../kernels/initramfs.mjs'
import { root, say, seconds } from '../../step.mjs'
import { command } from './count.mjs'

export const KERNEL = '6.18'
/** Where they lie in the guest. */
const GUEST = { rust: '/app/programs/rust', libuv: '/app/programs/libuv' }
const LIMIT_MS = 15 * 60_000

/** A run is a line of the console: what the program said, or the code that it ended with. */
const SCRIPT = `ulimit -n 65536
measure() {
  at=$1
  shift
  if took=$("$@" 2>&1); then echo "@@ {\\"at\\":$at,\\"took\\":$took}"; else echo "@@ {\\"at\\":$at,\\"code\\":$?}"; fi
}
`

/** Counts those of `workloads` that are counted so: (workload, peer) => { full: instructions an operation }, or why there are none. */
export async function inFull(programs, workloads, { quick }) {
  const since = performance.now()
  const counted = workloads.filter(({ counts }) => counts.includes('full'))
  const rows = counted.flatMap((workload) => [...workload.fdmon, ...workload.others].map((peer) => ({ workload, peer, lengths: lengthsOf(workload, quick) })))
  if (rows.length === 0) return () => ({})
  needQemu([process.arch])
  const folder = join(root, 'target', 'kernels')
  const [kernel] = fetchKernels(folder, process.arch, [KERNEL])
  const archive = join(folder, 'initramfs.peers.cpio')
  const lines = rows.flatMap(({ workload, peer, lengths }, at) => lengths.map((ops, which) => `measure ${2 * at + which} ${command(GUEST, workload, peer, ops).join(' ')}`))
  buildOfPrograms(join(folder, 'root.peers'), archive, programs, `${SCRIPT}${lines.join('\n')}`)
  const { results, console } = await boot({ arch: process.arch, kernel: join(kernel, 'vmlinuz'), archive, limitMs: LIMIT_MS, file: join(folder, 'console.peers'), counts: true })
  if (!results.some(({ end }) => end !== undefined)) throw new Error(`the guest that counts instructions did not come to its end:\n${console.slice(-2000)}`)
  const took = new Map(results.map(({ at, took, code }) => [at, took?.cpuNs ?? `exit code ${code}`]))
  const all = rows.map(({ workload, peer, lengths: [short, long] }, at) => {
    const [less, more] = [2 * at, 2 * at + 1].map((run) => took.get(run) ?? 'nothing was said')
    const bad = [less, more].find((value) => typeof value !== 'number')
    return [`${workload.id} ${peer}`, bad === undefined ? { full: (more - less) / (long - short) } : { broken: true, failed: `broken: instructions in full: ${bad}` }]
  })
  say(`instructions in full: ${all.length} rows, ${seconds(since)}`)
  const byRow = new Map(all)
  return (workload, peer) => byRow.get(`${workload.id} ${peer}`) ?? {}
}

/** The guest's kernel has its own ticks, of which one in a short run would show. */
function lengthsOf({ quick, lengths: [short, long], timed }, isQuick) {
  return isQuick ? quick : [short, Math.max(long, timed)]
}
