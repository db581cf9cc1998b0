// Runs Node in a sandbox that refuses system calls: the crate's program for it, built when it is first needed.
import { spawnSync, type SpawnSyncReturns } from 'node:child_process'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
let program: string | undefined

/** `pairs` such as `io_uring_setup=EPERM`; then what Node gets. */
export function refusing(pairs: readonly string[], ...args: string[]): SpawnSyncReturns<string> {
  const program = refuseProgram()
  const env = { ...process.env, FDMON_MONITOR: '' }
  return spawnSync(program, [...pairs, '--', process.execPath, ...args], { cwd: root, env, encoding: 'utf8' })
}

/** The program that runs a command so: where there is no cargo, FDMON_REFUSE says where it is. */
export function refuseProgram(): string {
  return (program ??= process.env['FDMON_REFUSE'] ?? build())
}

function build(): string {
  const { status, stderr } = spawnSync('cargo', ['build', '--quiet', '--package', 'fdmon', '--example', 'refuse'], { cwd: root, encoding: 'utf8' })
  if (status !== 0) throw new Error(`the sandbox of the tests cannot be built; run: cargo build --package fdmon --example refuse\n${stderr}`)
  return join(process.env['CARGO_TARGET_DIR'] ?? join(root, 'target'), 'debug', 'examples', 'refuse')
}
