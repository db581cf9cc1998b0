// The smoke suite of the API, __test__/runtimes/suite.mjs, run by some program and counted.
import { join } from 'node:path'
import { root, say, watch } from './step.mjs'

export const MONITORS = ['poll', 'epoll', 'io_uring']
/** The suite has at least as many steps wherever its monitor is available; fewer have gone missing. */
const STEPS = 50
const LIMIT_MS = 300_000

/**
 * Runs it on one monitor: `command` is the program with its arguments up to the name of the file. Resolves to what a row of docs/runs says
 * of it, `{ runtime, kernel, monitor, tests, passed, failed, refused }`; `refused` is the kernel's reason where it has not that monitor.
 */
export async function runSuite(title, command, monitor, { cwd = join(root, '__test__', 'runtimes'), env = {} } = {}) {
  const plain = { ...process.env, NODE_OPTIONS: '', NO_COLOR: '1', DENO_NO_UPDATE_CHECK: '1', FDMON_MONITOR: monitor, ...env }
  const [program, ...args] = command
  const { code, text } = await watch(program, [...args, 'suite.mjs'], { cwd, env: plain, quiet: true, timeout: LIMIT_MS, killSignal: 'SIGKILL' })
  const lines = text.split('\n').filter((line) => /^["{]/.test(line)).flatMap(parsed)
  const { about = {} } = lines.find((line) => line?.about) ?? {}
  const { refused } = lines.find((line) => line?.refused) ?? {}
  const steps = lines.filter(({ name }) => name !== undefined)
  const problems = steps.filter(({ ok }) => !ok).map(({ name, error }) => `${name}: ${error}`)
  const passed = steps.length - problems.length
  if (lines.at(-1) !== 'end' || code !== 0) problems.push(`it ended with exit code ${code} after '${steps.at(-1)?.name ?? 'nothing'}'\n${tail(text)}`)
  else if (refused === undefined && steps.length < STEPS) problems.push(`only ${steps.length} steps ran`)
  for (const problem of problems) say(`${title}, ${monitor}: ${problem}`)
  const failed = problems.length
  return { runtime: about.runtime ?? 'none', kernel: about.kernel ?? '', monitor, tests: passed + failed, passed, failed, ...(refused === undefined ? {} : { refused }) }
}

function parsed(line) {
  try {
    return [JSON.parse(line)]
  } catch {
    return []
  }
}

/** What it said last that is no line of the suite. */
function tail(text) {
  return text.split('\n').filter((line) => !line.startsWith('{"name"')).slice(-20).join('\n')
}
