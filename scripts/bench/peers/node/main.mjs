// One workload of one peer inside Node: `node main.mjs WORKLOAD PEER [--ops N] [--seconds N]`; one line of JSON, as crates/peers prints it.
import { parseArgs } from 'node:util'

const { values, positionals: [workload, peer] } = parseArgs({
  allowPositionals: true,
  options: { ops: { type: 'string', default: '1000' }, seconds: { type: 'string', default: '1' } },
})
const { ways } = await import(`./${workload}.mjs`)
const way = ways[peer]
if (!way) throw new Error(`${workload} has no ${peer}: ${Object.keys(ways).join(', ')}`)
const amount = { ops: Number(values.ops), seconds: Number(values.seconds) }
// What it sets up first, and what is measured then; what it gives back ends it.
const { work, end } = await way(amount)
const [usage, since] = [process.resourceUsage(), process.hrtime.bigint()]
await work()
const ns = Number(process.hrtime.bigint() - since)
const after = process.resourceUsage()
const spent = (key) => after[key] - usage[key]
await end?.()
process.stdout.write(
  `${JSON.stringify({
    ns, cpuNs: (spent('userCPUTime') + spent('systemCPUTime')) * 1000,
    voluntary: spent('voluntaryContextSwitches'), involuntary: spent('involuntaryContextSwitches'),
  })}\n`,
)
