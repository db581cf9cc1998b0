// npm run stress:channel: a hundred million messages of 64 bytes from worker to worker, and ten million between Node and Rust, each word of each
// looked at; fails when one is lost, out of order or torn.
//
//   node scripts/stress-channel.mjs [--millions N]      of the hundred; the others in proportion
import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { usableCpus } from '../examples/main-job/rows.mjs'
import { count } from './measure.mjs'
import { buildProgram, fail, ready, root, say, seconds } from './step.mjs'

const { values } = parseArgs({ options: { millions: { type: 'string', default: '100' } } })
const millions = Number(values.millions)
if (!(millions > 0)) fail(`--millions = '${values.millions}' is not valid; pass a number above 0`, 2)
const since = performance.now()
ready()

const pin = usableCpus().length > 1 ? ['--pin', usableCpus().slice(0, 2).join(',')] : []
/** Shares of all messages. */
const FLOWS = [
  [0.4, '--spin'],
  [0.2],
  [0.2, '--spin', '--memory', 'memfd'],
  [0.1, '--spin', '--capacity', '1000'],
  [0.01, '--memory', 'memfd', '--capacity', '64'],
  [0.09, '--spin', '--capacity', '1000000'],
]
let all = 0
for (const [share, ...how] of FLOWS) {
  const messages = Math.round(share * millions * 1e6)
  const args = [join(root, 'scripts', 'channel', 'flow.mjs'), '--whole', '--count', `${messages}`, ...how, ...(how.includes('--spin') ? pin : [])]
  const { messages: got, wrong, perSecond } = JSON.parse(run('node', process.execPath, args))
  if (got !== messages || wrong !== 0) fail(`${how.join(' ')}: ${got} of ${messages} came, ${wrong} words were wrong`)
  say(`${count(got)} messages (${how.join(' ') || 'blocking'}): all right, ${(perSecond / 1e6).toFixed(2)} million a second`)
  all += got
}
const peer = buildProgram('channel_peer', ['build', '--release', '--example', 'channel_peer', '--features', 'channel'])
for (const spin of ['0', '100']) {
  const each = Math.round(millions * 25_000)
  const text = run('the Rust peer', process.execPath, [
    join(root, 'examples', 'rust-peer', 'main.mjs'), '--peer', peer, '--spin', spin, '--rounds', '1000', '--count', `${each}`,
  ])
  say(`Node and Rust, ${spin === '0' ? 'blocking' : `spinning ${spin} µs`}: ${text.trim().split('\n').at(-1)}`)
  all += 2 * each
}
say(`${count(all)} messages, none lost, out of order or torn: ${seconds(since)}`)

function run(what, command, args) {
  try {
    return execFileSync(command, args, { cwd: root, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'], timeout: 600_000 })
  } catch (error) {
    return fail(`${what}: ${error.message}\n${error.stdout ?? ''}`)
  }
}
