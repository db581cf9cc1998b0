// Attached contexts in any order of operations from anywhere, fed by a thread that signals only where it must.
import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import test from 'ava'
import { monitors } from './on-each.js'

const SEEDS = Number(process.env['FDMON_SEEDS'] ?? 32)
const world = fileURLToPath(new URL('attached-world.ts', import.meta.url))

test('what is published is taken, whoever does what meanwhile, and then the loop is quiet [SPEC 25] [SPEC 36] [SPEC 51] [SPEC 53]', async (t) => {
  t.timeout(60_000 + SEEDS * 2000)
  const args = ['--import=tsx', world, '1', String(SEEDS), monitors.join()]
  const child = spawn(process.execPath, args, { env: { ...process.env, NODE_OPTIONS: '' }, stdio: ['ignore', 'pipe', 'pipe'] })
  let said = ''
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text: string) => void (said += text))
  const [code, signal] = await new Promise<[number | null, string | null]>((resolve) => child.once('close', (...end) => resolve(end)))
  t.deepEqual({ code, signal }, { code: 0, signal: null }, said)
  t.true(said.includes(`done ${SEEDS} seeds`), said)
})
