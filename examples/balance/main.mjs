// balance: descriptors of different rates, spread over I/O threads by load and moved between them. README.md has more.
//
//   main.mjs      options, and what happens when
//   sources.mjs   the descriptors, who feeds them, and who counts that nothing is lost
//   pool.mjs      the I/O threads: their load, and how a descriptor moves
//   plan.mjs      which one is to move
//   worker.mjs    the module of an I/O thread
//   report.mjs    tables
import { Command, InvalidArgumentError, Option } from 'commander'
import { plan } from './plan.mjs'
import { Pool } from './pool.mjs'
import { table } from './report.mjs'
import { Sources } from './sources.mjs'

const whole = (least) => (text) => {
  const value = Number(text)
  if (Number.isInteger(value) && value >= least) return value
  throw new InvalidArgumentError(`pass an integer from ${least} on`)
}
const options = new Command('balance')
  .description('Spreads descriptors of different rates over I/O threads by their load, and moves them without losing an event.')
  .option('--threads <count>', 'I/O threads', whole(2), 3)
  .option('--sources <count>', 'descriptors', whole(2), 15)
  .option('--rounds <count>', 'rounds, with one move each at most', whole(1), 12)
  .option('--every <ms>', 'length of a round', whole(10), 500)
  .addOption(new Option('--by <what>', 'what counts as load').choices(['cpu', 'events']).default('cpu'))
  .option('--quick', 'rounds of 100 ms, for tests')
  .option('--json', 'print JSON instead of tables')
  .exitOverride((error) => process.exit(error.exitCode === 0 ? 0 : 2))
  .parse()
  .opts()
const roundMs = options.quick ? 100 : options.every

const sources = new Sources(options.sources)
const pool = await Pool.start(options.threads, sources)

// In blocks, fastest first: about as badly as one can.
const each = Math.ceil(sources.list.length / options.threads)
await Promise.all(sources.list.map((source, at) => pool.add(source, pool.members[Math.floor(at / each)])))

await round() // the threads compile their code
const before = await round()
let after = before
let moves = 0
for (; moves < options.rounds; moves++) {
  const move = plan(after, options.by)
  if (move === undefined) break
  after = await round(move)
}
await pool.stop()

const result = { moves, before, after, ...sources.totals() }
console.log(options.json ? JSON.stringify(result) : table(result))
if (result.lost > 0) process.exitCode = 1

/** All sources go on for a while, also the one that moves meanwhile; then what each thread had to do. */
async function round(move) {
  pool.mark()
  await Promise.all([sources.feed(roundMs), move && pool.move(sources.list[move.number], pool.byName(move.to))])
  await sources.allTaken()
  return pool.measure()
}
