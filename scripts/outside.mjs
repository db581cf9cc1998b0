// npm run test:outside: the crate in examples/outside, which uses fdmon from outside the workspace, as a user's crate does.
//
//   node scripts/outside.mjs [ARGUMENTS of cargo test]      for example: -- --test vdev
//
// Its builds lie in target/outside, apart from all others. Builds, checks format and lints, and runs its tests.
import { join } from 'node:path'
import { needCargo, root, run, say, seconds } from './step.mjs'

const since = performance.now()
const folder = join(root, 'examples', 'outside')
const options = { cwd: folder, env: { CARGO_TARGET_DIR: join(root, 'target', 'outside') } }
const given = process.argv.slice(2)

needCargo()
run('outside: format', 'cargo', ['fmt', '--check'], options)
run('outside: lints', 'cargo', ['clippy', '--quiet', '--locked', '--all-targets', '--', '-D', 'warnings'], options)
run('outside: build', 'cargo', ['build', '--quiet', '--locked', '--all-targets'], options)
run('outside: tests', 'cargo', ['test', '--quiet', '--locked', ...given], options)
say(`outside: ${seconds(since)}`)
