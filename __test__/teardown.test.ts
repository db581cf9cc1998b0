// The ways in which a thread or the process ends while a context is attached: always as plain Node would end.
import { spawn } from 'node:child_process'
import { cpSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import test, { type ExecutionContext } from 'ava'
import { monitors } from './on-each.js'

const require = createRequire(import.meta.url)
const entry = require.resolve('fdmon')
const root = dirname(require.resolve('fdmon/package.json'))
const program = fileURLToPath(new URL('teardown-program.cjs', import.meta.url))

// A copy of the package has an addon of its own, as when two versions are installed. Its dependencies are shared.
const copy = mkdtempSync(join(tmpdir(), 'fdmon-copy-'))
for (const name of ['dist', 'native', 'package.json']) cpSync(join(root, name), join(copy, name), { recursive: true })
symlinkSync(join(root, 'node_modules'), join(copy, 'node_modules'))
test.after.always(() => rmSync(copy, { recursive: true, force: true }))

/** Each way to end, what is done from outside once the program is ready, and on which threads it makes sense. */
const endings: Record<string, { signal?: NodeJS.Signals; rounds?: number[] }> = {
  natural: {},
  unreferenced: {},
  exit: {},
  throw: {},
  rejection: {},
  'exit in a hook': {},
  'throw in a hook': {},
  'exit in a nested turn': {},
  endless: { signal: 'SIGTERM' },
  terminate: { signal: 'SIGTERM', rounds: [0, 1, 2] },
  blocking: { signal: 'SIGTERM' },
  stopped: {},
  dropped: {},
  copies: {},
  sigint: { signal: 'SIGINT' },
}

interface Cell {
  monitor: string
  thread: 'main' | 'worker'
  ending: string
  round?: number
  /** Workers that are terminated at a random moment each. */
  rounds?: number
}

interface End {
  code: number | null
  signal: NodeJS.Signals | null
  stdout: string
  stderr: string
  late: boolean
}

/** Two programs at a time: the machine may have no more CPUs, and other files are tested beside this one. */
let running = 0
const waiting: (() => void)[] = []

async function run(cell: Cell, environment: Record<string, string> = {}): Promise<End> {
  if (running === 2) await new Promise<void>((resolve) => waiting.push(resolve))
  else running++
  try {
    return await start(cell, environment)
  } finally {
    const next = waiting.shift()
    if (next === undefined) running--
    else next()
  }
}

function start(cell: Cell, environment: Record<string, string>): Promise<End> {
  const data = JSON.stringify({ ...cell, entry, fd: require.resolve('fdmon/fd'), copy: join(copy, 'dist', 'cjs', 'index.js') })
  const env: NodeJS.ProcessEnv = { ...process.env, NODE_OPTIONS: '', ...environment }
  if (environment['FDMON_MONITOR'] === undefined) delete env['FDMON_MONITOR']
  const child = spawn(process.execPath, [program, data], { env, stdio: ['ignore', 'pipe', 'pipe'] })
  const end: End = { code: null, signal: null, stdout: '', stderr: '', late: false }
  const limit = setTimeout(() => {
    end.late = true
    child.kill('SIGKILL')
  }, 30_000)
  const { signal } = endings[cell.ending]!
  child.stderr.setEncoding('utf8').on('data', (text: string) => void (end.stderr += text))
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    const before = end.stdout.includes('ready')
    end.stdout += text
    if (before || !end.stdout.includes('ready') || signal === undefined) return
    setTimeout(() => child.kill(signal), Math.random() * 5)
  })
  return new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code, by) => {
      clearTimeout(limit)
      resolve({ ...end, code, signal: by })
    })
  })
}

/** How plain Node ends, asked once for each way. */
const controls = new Map<string, Promise<End>>()
function control(cell: Cell): Promise<End> {
  const key = `${cell.thread} ${cell.ending}`
  const asked = controls.get(key) ?? run({ ...cell, monitor: 'control' })
  controls.set(key, asked)
  return asked
}

/** What the host of the workers says of them. */
function report({ stdout }: End): { ends: { code: number; error?: string }[]; leaked: number } | undefined {
  const line = /^\{.*\}$/m.exec(stdout)?.[0]
  return line === undefined ? undefined : JSON.parse(line)
}

/** The matrix, for the report of a run: FDMON_TEARDOWN_TABLE=FILE writes it there. */
const table = new Map<string, Map<string, string>>()
test.after.always(() => {
  const file = process.env['FDMON_TEARDOWN_TABLE']
  if (file === undefined) return
  const columns = [...new Set([...table.values()].flatMap((row) => [...row.keys()]))].sort()
  const line = (cells: string[]): string => `| ${cells.join(' | ')} |\n`
  const rows = Object.keys(endings).flatMap((ending) => (table.has(ending) ? [line([ending, ...columns.map((column) => table.get(ending)!.get(column) ?? '')])] : []))
  writeFileSync(file, [line(['ending', ...columns]), line(['---', ...columns.map(() => '---')]), ...rows].join(''))
})

function note(cell: Cell, monitor: string, text: string): void {
  const row = table.get(cell.ending) ?? new Map<string, string>()
  table.set(cell.ending, row.set(`${cell.thread}, ${monitor}`, text))
}

/** The exit code or signal; of workers theirs, and what they reported. */
function shortly(end: End, cell: Cell): string {
  const own = end.signal ?? `${end.code}`
  if (cell.thread === 'main') return own
  return report(end)?.ends.map(({ code, error }) => `${code}${error === undefined ? '' : ` ${error.split(':')[0]}`}`).join(', ') ?? own
}

async function same(t: ExecutionContext, cell: Cell, environment?: Record<string, string>): Promise<void> {
  const name = environment?.['FDMON_MONITOR'] ?? cell.monitor
  if (environment === undefined) note(cell, name, 'failed')
  const plain = await control(cell)
  let text = ''
  t.false(plain.late, `plain Node hangs\n${plain.stderr}`)
  for (const round of endings[cell.ending]!.rounds ?? [0]) {
    const end = await run({ ...cell, round }, environment)
    text = `${JSON.stringify(end, null, 1)}\nplain Node: ${JSON.stringify(plain, null, 1)}`
    t.false(end.late, `it hangs: ${text}`)
    t.deepEqual({ code: end.code, signal: end.signal }, { code: plain.code, signal: plain.signal }, text)
    t.notRegex(end.stderr, /Assertion|panicked|FATAL|Segmentation|Check failed|a defect of fdmon/, text)
    // What is reported of an error is the same too, but for where it was thrown.
    const errors = (stderr: string): string[] => stderr.match(/^\w*Error.*$/gm) ?? []
    t.deepEqual(errors(end.stderr), errors(plain.stderr), text)
    if (environment === undefined) note(cell, name, `ok ${shortly(end, cell)}`)
    if (cell.thread === 'main') continue
    t.deepEqual(report(end)?.ends, report(plain)?.ends, text)
    t.is(report(end)?.leaked, 0, text)
    if (cell.ending === 'terminate') break // the rounds are workers of one process
  }
}

for (const monitor of monitors) {
  for (const thread of ['main', 'worker'] as const) {
    for (const ending of Object.keys(endings)) {
      test(`${monitor}, ${thread}: a thread with an attached context ends as plain Node does: ${ending} [SPEC 51]`, async (t) => {
        await same(t, { monitor, thread, ending })
      })
    }
    test(`${monitor}, ${thread}: …and so where FDMON_MONITOR asks for the monitor [SPEC 45]`, async (t) => {
      for (const ending of ['natural', 'exit', 'terminate']) {
        await same(t, { monitor: '', thread, ending, rounds: 4 }, { FDMON_MONITOR: monitor })
      }
    })
  }
}
