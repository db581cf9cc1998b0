// Runs in the guest: the jobs of plan.json one after the other, and what each of them printed and counted, a line of JSON on the console.
//
// A job that needs a kind of ring is left out where the kernel makes none, and says why; that it is refused then is a test of its own.
import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { release } from 'node:os'

/** So much of what a job that failed has printed is shown. */
const SHOWN = 12_000
const LIMIT_MS = 300_000

const { jobs } = JSON.parse(readFileSync('/app/plan.json', 'utf8'))
const chosen = (process.env.FDMON_PLAN ?? '').split(',')
const say = (result) => process.stdout.write(`\n@@ ${JSON.stringify(result)}\n`)
/** By profile: what the addon says of this kernel. */
const known = new Map()

say({ kernel: release(), arch: process.arch, node: process.version })
for (const job of jobs.filter(({ plan }) => chosen.includes(plan))) await run(job)

async function run({ name, kind, profile, refused, command, cwd, needs }) {
  const capabilities = known.get(profile)
  const ring = capabilities?.monitors.io_uring
  if (needs && capabilities?.features[needs] !== true) return say({ name, left: ring?.available ? `${needs} is false` : (ring?.reason ?? 'no capabilities()') })
  const env = { ...process.env, FDMON_SLOW: '1', FDMON_REFUSE: '/app/programs/refuse', RUST_BACKTRACE: '0', RUST_TEST_THREADS: '2' }
  // What is missing is left out on purpose, as the job above knows.
  if (capabilities && !ring.available) env.FDMON_WITHOUT_IO_URING = '1'
  const [program, ...args] = [...(refused.length > 0 ? ['/app/programs/refuse', ...refused, '--'] : []), ...command]
  const since = performance.now()
  const { code, text } = await output(program, args, { cwd, env })
  const result = { name, code, seconds: Number(((performance.now() - since) / 1000).toFixed(1)) }
  if (kind === 'probe' || kind === 'capabilities') result.text = text
  if (kind === 'capabilities' && code === 0) known.set(profile, JSON.parse(text))
  if (kind === 'rust') result.counts = rust(text)
  if (kind === 'ava') result.counts = ava(text)
  if (code !== 0) result.text = (kind === 'ava' && failures(text)) || text.slice(-SHOWN)
  say(result)
}

function output(program, args, options) {
  return new Promise((resolve) => {
    const child = spawn(program, args, { ...options, stdio: ['ignore', 'pipe', 'pipe'], timeout: LIMIT_MS, killSignal: 'SIGKILL' })
    let text = ''
    for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (chunk) => (text += chunk))
    child.on('error', (error) => resolve({ code: 127, text: String(error) }))
    child.on('close', (code, signal) => resolve({ code: code ?? 128, text: signal ? `${text}\nended by ${signal}` : text }))
  })
}

/** One line a program: "test result: ok. 5 passed; 0 failed; …" */
function rust(text) {
  const [, passed, failed] = /^test result: .*? (\d+) passed; (\d+) failed/m.exec(text) ?? [0, 0, 1]
  return { any: { passed: Number(passed), failed: Number(failed) } }
}

/** Of TAP, what failed and how. */
function failures(text) {
  return [...text.matchAll(/^not ok .*(?:\n {2}---[^]*?\n {2}\.\.\.)?/gm)].join('\n').slice(-SHOWN)
}

/** TAP, by the monitor that a title begins with: "ok 3 - timer › epoll: …". */
function ava(text) {
  const counts = {}
  for (const [, not, title] of text.matchAll(/^(not )?ok \d+ - (.*)$/gm)) {
    const monitor = /(?:^| › )(poll|epoll|io_uring): /.exec(title)?.[1] ?? 'any'
    const count = (counts[monitor] ??= { passed: 0, failed: 0 })
    count[not ? 'failed' : 'passed'] += 1
  }
  return counts
}
