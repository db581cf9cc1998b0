// Each runtime, from its npm package: `npm run runtimes` installs them. On the monitor that is chosen there; `npm run test:runtimes` has each.
import { spawn } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import test, { type ExecutionContext } from 'ava'

interface Line {
  name?: string
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
  const args = runtime === 'deno' ? ['run', '--allow-all', '--no-lock', '--v8-flags=--expose-gc', path] : runtime === 'bun' ? [path] : ['--expose-gc', path]
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
  const steps = lines.filter((line) => line.name !== undefined)
  for (const { name, ok, error } of steps) t.true(ok, `${name}: ${error ?? ''}`)
  t.true(steps.length >= atLeast, `only ${steps.length} steps ran`)
  t.is(lines.at(-1) as unknown, 'end')
}

for (const runtime of ['bun', 'deno', 'node20', 'node22', 'node24', 'node26']) {
  test.serial(`${runtime}: the smoke suite passes, and the program ends by itself`, async (t) => {
    allWell(t, await run(t, runtime, 'suite'), 50)
  })
}
