// One process of `npm run bench:files`: rounds of each way, one after the other, so that all meet the same machine.
//
//   node scripts/files/reads.mjs '{"path": "…", "ways": […], "rounds": 9, "inFlight": 32, "cold": false, "ms": 100}'
//
// Prints a line of JSON: by way, a row a round.
import { spawnSync } from 'node:child_process'
import { readFileSync, statSync } from 'node:fs'
import { ways } from './ways.mjs'

const PAGE = 4096
const { path, ways: names, rounds, inFlight, cold, ms } = JSON.parse(process.argv[2])
const pages = Math.floor(statSync(path).size / PAGE)
const COLD_READS = Math.min(4096, pages)
const WARM_UP_READS = Math.min(2048, pages)
const buffers = Array.from({ length: inFlight }, () => Buffer.allocUnsafeSlow(PAGE))
const order = shuffled(pages)

// In full before the first warm round: what is not in the page cache would be read from the disk.
if (!cold) spawnSync('dd', [`if=${path}`, 'of=/dev/null', 'bs=1M'])

const rows = Object.fromEntries(names.map((name) => [name, []]))
const reads = Object.fromEntries(names.map((name) => [name, cold ? COLD_READS : WARM_UP_READS]))
for (let round = 0; round <= rounds; round++) {
  for (const name of names) {
    const row = await measure(ways[name], reads[name], round)
    if (round > 0) rows[name].push(row)
    // The first one warms up, and says how many reads take the time that a round should last.
    else if (!cold) reads[name] = Math.ceil(Math.max(1, ms / row.ms) * WARM_UP_READS)
  }
}
process.stdout.write(`${JSON.stringify(rows)}\n`)

async function measure(open, count, round) {
  const positions = Array.from({ length: count }, (_, at) => order[(at + round * 7919) % pages] * PAGE)
  const way = await open(path)
  if (!cold) await way.run({ positions: positions.slice(0, 500), buffers }) // threads and rings of a new context
  else dropCache()
  const before = { stats: way.stats?.(), cpu: process.cpuUsage(), disk: diskBytes(), at: performance.now() }
  await way.run({ positions, buffers })
  const took = performance.now() - before.at
  const { user, system } = process.cpuUsage(before.cpu)
  const disk = diskBytes() - before.disk
  const stats = way.stats?.()
  await way.close()
  if (cold && disk < (count * PAGE) / 2) {
    throw new Error(`${disk} bytes came from the disk for ${count} cold reads; put the file on a disk by TMPDIR: this folder's file system keeps it in memory`)
  }
  return {
    ms: took, perSecond: (count / took) * 1000, cpuUs: (user + system) / count,
    submissions: stats && (stats.submissions - before.stats.submissions) / count,
    engine: stats?.aio.engine,
  }
}

/** Drops the pages of this file from the page cache (POSIX_FADV_DONTNEED), as dd does it for a file of which it reads nothing. */
function dropCache() {
  const { status, stderr } = spawnSync('dd', [`if=${path}`, 'iflag=nocache', 'count=0'], { encoding: 'utf8' })
  if (status !== 0) throw new Error(`dd cannot drop the cache of ${path}: ${stderr}`)
}

/** What this process, its kernel workers included, has read from disks. */
function diskBytes() {
  return Number(/^read_bytes: (\d+)/m.exec(readFileSync('/proc/self/io', 'utf8'))[1])
}

/** 0 … count − 1 in an order that is the same each time. */
function shuffled(count) {
  const list = Uint32Array.from({ length: count }, (_, at) => at)
  let state = 1
  for (let at = count - 1; at > 0; at--) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    const other = state % (at + 1)
    ;[list[at], list[other]] = [list[other], list[at]]
  }
  return list
}
