// Other runtimes than the Node that runs the tests, from their npm packages: `npm run runtimes` installs them.
import { spawn } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import test, { type ExecutionContext } from 'ava'

interface Line {
  name: string
  ok?: boolean
  error?: string
}

const list = fileURLToPath(new URL('../target/runtimes/programs.json', import.meta.url))

/** The program of a runtime. One that is missing is a failure: the tests are there to run. */
function programOf(name: string): string {
  const here = existsSync(list) ? (JSON.parse(readFileSync(list, 'utf8')) as { name: string; program: string }[]) : []
  const program = here.find((one) => one.name === name)?.program
  if (program === undefined || !existsSync(program)) throw new Error(`${name} is missing; run: npm run runtimes`)
  return program
}

/** What a program of the folder runtimes/ says; it must end by itself, with exit code 0. */
async function run(t: ExecutionContext, runtime: string, name: string): Promise<Line[]> {
  const path = fileURLToPath(new URL(`runtimes/${name}.mjs`, import.meta.url))
  const args = runtime === 'deno' ? ['run', '--allow-all', '--no-lock', path] : [path]
  const env = { ...process.env, NODE_OPTIONS: '', NO_COLOR: '1', DENO_NO_UPDATE_CHECK: '1' }
  const child = spawn(programOf(runtime), args, { env, stdio: ['ignore', 'pipe', 'pipe'] })
  let out = ''
  let errors = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text))
  child.stderr.setEncoding('utf8').on('data', (text: string) => (errors += text))
  const limit = setTimeout(() => child.kill('SIGKILL'), 50_000)
  const how = await new Promise((resolve) => child.on('close', (code, signal) => resolve(code ?? signal)))
  clearTimeout(limit)
  t.is(how, 0, `${runtime} ${name}.mjs\n${out}${errors}`)
  return out.split('\n').filter((line) => line.startsWith('{') || line.startsWith('"')).map((line) => JSON.parse(line) as Line)
}

/** Every step of a program went well, and it came to its end. */
function allWell(t: ExecutionContext, lines: Line[], atLeast: number): void {
  const steps = lines.filter((line) => typeof line === 'object')
  for (const { name, ok, error } of steps) t.true(ok, `${name}: ${error ?? ''}`)
  t.true(steps.length >= atLeast, `only ${steps.length} steps ran`)
  t.is(lines.at(-1) as unknown, 'end')
}

for (const runtime of ['bun', 'deno']) {
  test(`${runtime}: what needs libuv is refused in words, and the process goes on`, async (t) => {
    const lines = (await run(t, runtime, 'refused')) as (Line & { typed: boolean; code: string; message: string; ran: number })[]
    const last = lines.pop()
    t.is(lines.length, 7)
    for (const { name, typed, code, message } of lines) {
      t.true(typed, name)
      t.is(code, 'ERR_FDMON_UNSUPPORTED', name)
      t.regex(message, /; run the context with poll\(\) or run\(\), or use Node$/, name)
    }
    t.is(last?.ran, 1)
  })
}

for (const runtime of ['bun', 'deno', 'node22', 'node24', 'node26']) {
  test(`${runtime}: a program over poll() and run() works`, async (t) => {
    allWell(t, await run(t, runtime, 'loop'), 21)
  })
}

for (const runtime of ['node22', 'node24', 'node26']) {
  test(`${runtime}: an attached program works, and ends by itself`, async (t) => {
    allWell(t, await run(t, runtime, 'attached'), 8)
  })
}
