// The drawn pictures of the documentation, docs/pictures/*.svg, from committed data.
//
//   npm run docs:pictures                 draws them anew
//   npm run docs:pictures -- --record     first records how the window follows traffic, into docs/pictures/window.json; 2 s
//                                         ("nice -n -19" before it on a machine that has other work)
//   npm run docs:pictures -- --check      they are as their data give them; writes nothing
//
// The cost curves are of docs/POLICY.md, which "npm run bench:policy" measures. As files the pictures follow the colours that the
// reader's system has, on the site those of its theme (docs/.vitepress/theme/site.css).
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { getPriority } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { machineLine } from './measure.mjs'
import { handshake, way } from './pictures/diagrams.mjs'
import { costCurves, windowOverTime } from './pictures/plots.mjs'
import { fail, root, say, seconds } from './step.mjs'

const since = performance.now()
const { values } = parseArgs({ options: { record: { type: 'boolean' }, check: { type: 'boolean' } } })
const folder = join(root, 'docs', 'pictures')
const data = join(folder, 'window.json')
mkdirSync(folder, { recursive: true })

if (values.record) {
  const { record } = await import('./pictures/record.mjs')
  const traces = await record()
  writeFileSync(data, compact({ written: 'by npm run docs:pictures -- --record', machine: machineLine(), niceness: getPriority(), ...traces }))
  say(`docs/pictures/window.json: ${traces.traces.map(({ params, points }) => `${points.length} changes by ${params.policy}`).join(', ')}`)
}

/** JSON with a line for each array of numbers. */
function compact(value) {
  const text = JSON.stringify(value, null, 1)
  return `${text.replace(/\[[^[\]{}]*\]/g, (list) => list.replace(/\s+/g, '')).replace(/\],\n\s+\[/g, '],[')}\n`
}

const policy = readFileSync(join(root, 'docs', 'POLICY.md'), 'utf8')
const drawn = {
  'way.svg': way(),
  'handshake.svg': handshake(),
  'window.svg': windowOverTime(JSON.parse(readFileSync(data, 'utf8'))),
  'cost-two-cpus.svg': costCurves(policy, 'two CPUs', 'exponential', 'one source', 'A CPU for each side'),
  'cost-one-cpu.svg': costCurves(policy, 'one CPU without guards', 'exponential', 'one source', 'One CPU for both sides, guards off: where spinning loses'),
}
for (const [name, text] of Object.entries(drawn)) {
  const path = join(folder, name)
  if (!values.check) writeFileSync(path, text)
  else if (readFileSync(path, 'utf8') !== text) fail(`docs/pictures/${name} is not what its data give; draw it with: npm run docs:pictures`)
}
say(`pictures: ${Object.keys(drawn).length} ${values.check ? 'are as their data give them' : 'drawn'}, ${seconds(since)}`)
