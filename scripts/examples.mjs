// Runs every example to its end: examples/*.mjs and examples/*.ts, each in a process of its own.
import { existsSync, readdirSync } from 'node:fs'
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { fail, root, say, seconds } from './step.mjs'

const LIMIT_MS = 20_000
const folder = join(root, 'examples')
const names = existsSync(folder) ? readdirSync(folder).filter((name) => /\.(mjs|ts)$/.test(name)) : []
if (names.length === 0) fail('examples: none found in examples/; write one for each kind of descriptor')
const since = performance.now()
const failed = []
for (const name of names.sort()) {
  const args = [...(name.endsWith('.ts') ? ['--import', 'tsx'] : []), join('examples', name)]
  const result = spawnSync(process.execPath, args, { cwd: root, encoding: 'utf8', timeout: LIMIT_MS })
  if (result.status === 0) continue
  failed.push(name)
  const how = result.error ? `not finished after ${LIMIT_MS / 1000} s` : `exit code ${result.status ?? result.signal}`
  process.stderr.write(`examples/${name}: ${how}\n${result.stdout}${result.stderr}`)
}
const summary = `examples: ${names.length} run, ${failed.length} failed, ${seconds(since)}`
if (failed.length > 0) fail(`${summary}: ${failed.join(', ')}`)
say(summary)
