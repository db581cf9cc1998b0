// Runs every example to its end, each in a process of its own: examples/*.mjs, examples/*.ts and the crate's. Each must
// exit with 0, print something and stay under 30 lines.
import { readdirSync, readFileSync } from 'node:fs'
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { fail, needCargo, root, run, say, seconds } from './step.mjs'

const LIMIT_MS = 20_000
const LINES = 30
const since = performance.now()
const list = (folder, pattern) => readdirSync(join(root, folder)).filter((name) => pattern.test(name)).sort()
const js = list('examples', /\.(mjs|ts)$/).map((name) => join('examples', name))
const rust = list('crates/fdmon/examples', /\.rs$/).map((name) => join('crates/fdmon/examples', name))
if (js.length === 0 || rust.length === 0) fail('examples: none found in examples/ or crates/fdmon/examples/; write one for each kind of descriptor')

needCargo()
run('Rust examples', 'cargo', ['build', '--quiet', '--package', 'fdmon', '--features', 'channel', '--examples'])
const target = join(process.env.CARGO_TARGET_DIR ?? join(root, 'target'), 'debug', 'examples')
const failed = []
for (const path of [...js, ...rust]) {
  const name = path.replace(/^.*\/(.*)\.\w+$/, '$1')
  const [command, ...args] = path.endsWith('.rs')
    ? [join(target, name)]
    : [process.execPath, ...(path.endsWith('.ts') ? ['--import', 'tsx'] : []), path]
  const result = spawnSync(command, args, { cwd: root, encoding: 'utf8', timeout: LIMIT_MS })
  const lines = readFileSync(join(root, path), 'utf8').trimEnd().split('\n').length
  const how = result.error
    ? result.error.code === 'ETIMEDOUT' ? `not finished after ${LIMIT_MS / 1000} s` : result.error.message
    : result.status !== 0 ? `exit code ${result.status ?? result.signal}`
    : result.stdout.trim() === '' ? 'it prints nothing'
    : lines >= LINES ? `${lines} lines; an example stays under ${LINES}`
    : undefined
  if (how === undefined) continue
  failed.push(path)
  process.stderr.write(`${path}: ${how}\n${result.stdout}${result.stderr}`)
}
const summary = `examples: ${js.length + rust.length} run, ${failed.length} failed, ${seconds(since)}`
if (failed.length > 0) fail(`${summary}: ${failed.join(', ')}`)
say(summary)
