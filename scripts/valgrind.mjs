// npm run valgrind: memcheck over the core of the Rust suite, and over Node with the addon in workers that are ended at random.
//
//   node scripts/valgrind.mjs [rust|node]      one half; both by default
//
// Left out, because valgrind 3.19 cannot do it and not because anything fails:
// - seccomp(2) and the ioctl of kernel busy polling, which it does not know (the tests of kernel busy polling);
// - on io_uring whatever needs another thread to end a sleep: while one thread is in io_uring_enter no other runs;
// - a million timers, which take two minutes there and touch nothing that a thousand do not.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { buildProgram, fail, has, needCargo, ready, root, run, step } from './step.mjs'

const half = process.argv[2]
if (half !== undefined && half !== 'rust' && half !== 'node') fail(`'${half}' is not known; pass 'rust' or 'node', or nothing for both`, 2)
if (!has('valgrind')) fail('valgrind is missing; run: apt-get install valgrind')
const memcheck = ['--quiet', '--error-exitcode=99']
/** What nobody points at any more is an error too; what statics hold until the end is none. */
const leaks = ['--leak-check=full', '--show-leak-kinds=definite', '--errors-for-leak-kinds=definite']

/** What runs on a ring in one thread. */
const ON_A_RING = ['bad_input', 'bottom_half', 'close', 'external', 'failures', 'hooks', 'interest', 'turn', 'kernel::closed_fds',
  'kernel::fork', 'kernel::kernel_polling', 'kernel::monitors', 'kernel::ring_traps', 'kernel::rings']
/** Workers that are ended at a random moment, for each monitor. */
const WORKERS = 20

if (half !== 'node') rust()
if (half !== 'rust') await node()

function rust() {
  needCargo()
  const program = buildProgram('conformance', ['test', '--test', 'conformance'])
  // Tests run one by one: valgrind runs one thread at a time anyway.
  const filters = { epoll: ['epoll::'], poll: ['poll::'], io_uring: ON_A_RING.map((name) => `io_uring::${name}::`) }
  for (const [monitor, names] of Object.entries(filters)) {
    const args = ['--quiet', '--test-threads=1', '--skip', 'a_million', '--skip', 'busy_poll', ...names]
    const cwd = join(root, 'crates', 'fdmon')
    run(`memcheck, ${monitor}`, 'valgrind', [...memcheck, ...leaks, program, ...args], { cwd, env: { FDMON_SLOW: '1' } })
  }
}

async function node() {
  ready()
  for (const monitor of ['epoll', 'poll']) await step(`memcheck, Node, ${monitor}`, () => workers(monitor))
}

/** V8 has errors of its own in there; an error counts when a frame of it is the addon's. What napi-rs keeps of each class as the addon is
 * loaded (40 bytes an environment) is not ours to give back. */
function workers(monitor) {
  const folder = mkdtempSync(join(tmpdir(), 'fdmon-valgrind-'))
  process.on('exit', () => rmSync(folder, { recursive: true, force: true })) // also when it fails
  const xml = join(folder, 'errors.xml')
  const cell = { monitor, thread: 'worker', ending: 'terminate', rounds: WORKERS }
  const entries = { entry: join(root, 'dist', 'cjs', 'index.js'), fd: join(root, 'dist', 'cjs', 'fd.js') }
  const program = [process.execPath, join(root, '__test__', 'teardown-program.cjs'), JSON.stringify({ ...cell, ...entries })]
  // V8 makes code while it runs, which valgrind must notice.
  const tool = ['--smc-check=all-non-file', ...leaks, '--xml=yes', `--xml-file=${xml}`]
  const result = spawnSync('valgrind', [...tool, ...program], { cwd: root, encoding: 'utf8', timeout: 20 * 60_000 })
  const { stdout, stderr } = result
  if (result.error || result.status !== 0) fail(`Node under valgrind: ${result.error?.message ?? `exit code ${result.status}`}\n${stderr}`)
  const said = /^\{.*\}$/m.exec(stdout)?.[0]
  if (said === undefined) fail(`Node under valgrind said nothing of its workers\n${stdout}${stderr}`)
  const { leaked } = JSON.parse(said)
  if (leaked !== 0) fail(`${leaked} descriptors of ended workers are open`)
  const errors = readFileSync(xml, 'utf8').match(/<error>[^]*?<\/error>/g) ?? []
  const ours = errors.filter((error) => /<obj>[^<]*fdmon[^<]*\.node<\/obj>/.test(error) && !error.includes('<fn>napi_register_module_v1</fn>'))
  if (ours.length > 0) fail(`${ours.length} errors in the addon, the first:\n${ours[0]}`)
  return `${WORKERS} workers ended at random, no error in the addon (${errors.length} of Node's own)`
}
