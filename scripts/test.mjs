// npm test: installs and builds what is missing, then runs the Rust tests and the TypeScript tests.
//
// FDMON_WITHOUT_IO_URING=1 leaves out what needs io_uring, for machines and containers that refuse it.
// The last line is "N passed, N failed"; with FDMON_TEST_COUNTS=FILE the numbers are also written there.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { ready, root, run, say, seconds, watch } from './step.mjs'

ready()
run('runtimes', process.execPath, [join('scripts', 'runtimes.mjs')])
const total = { passed: 0, failed: 0, skipped: 0 }
const failures = []

const suites = ['io_uring::', 'io_uring_cooperative::', 'io_uring_plain::']
const leftOut = process.env.FDMON_WITHOUT_IO_URING === '1' ? ['--', ...suites.flatMap((suite) => ['--skip', suite])] : []
const countRust = (text) => {
  for (const [, passed, failed, ignored] of text.matchAll(/^test result: .*? (\d+) passed; (\d+) failed; (\d+) ignored/gm)) {
    add(passed, failed, ignored)
  }
}
run('Rust program that a TypeScript test starts', 'cargo', ['build', '--quiet', '--package', 'fdmon', '--features', 'executor,channel', '--example', 'channel_peer'])
// Side by side, because a compiler that reads and a test that waits leave CPUs idle.
await Promise.all([rust(), typeScript()])

if (process.env.FDMON_TEST_COUNTS) {
  writeFileSync(process.env.FDMON_TEST_COUNTS, `${total.passed} ${total.failed} ${total.skipped}\n`)
}
for (const failure of failures) say(failure)
process.stdout.write(`${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped\n`)
process.exitCode = failures.length === 0 ? 0 : 1

async function rust() {
  // With the features that add to the crate and change nothing of it, so that it is compiled once; AddressSanitizer runs the same without them.
  await half('Rust tests', 'cargo', ['test', '--workspace', '--no-fail-fast', '--features', 'fdmon/executor,fdmon/channel', ...leftOut], countRust)
  await half('Rust tests of the feature tracing', 'cargo', ['test', '--package', 'fdmon', '--features', 'tracing', '--test', 'tracing'], countRust)
  await half('Rust tests of faults', process.execPath, [join('scripts', 'faults.mjs'), '--quick'], countRust)
}

function typeScript() {
  return half('TypeScript tests', join(root, 'node_modules', '.bin', 'ava'), process.argv.slice(2), (text) => {
    const number = (pattern) => pattern.exec(text)?.[1] ?? 0
    const failed = Number(number(/^\s*(\d+) tests? failed/m)) + Number(number(/^\s*(\d+) uncaught exceptions?/m))
    add(number(/^\s*(\d+) tests? passed/m), failed, number(/^\s*(\d+) tests? skipped/m))
  }, { quiet: true })
}

/** One suite, whose tests are added to the total. What a `quiet` one prints comes in one piece when it ends. */
async function half(title, command, args, count, { quiet = false } = {}) {
  const since = performance.now()
  const { code, text } = await watch(command, args, { quiet })
  const before = { ...total }
  if (quiet) process.stdout.write(text)
  count(text)
  say(`${title}: ${seconds(since)}`)
  if (total.passed === before.passed) failures.push(`${title}: no test passed; look above for the reason`)
  if (code === 0) return
  // A run that broke before it counted anything is a failure too.
  if (total.failed === before.failed) total.failed += 1
  failures.push(`${title}: exit code ${code}`)
}

function add(passed, failed, skipped) {
  total.passed += Number(passed)
  total.failed += Number(failed)
  total.skipped += Number(skipped)
}
