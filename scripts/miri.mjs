// npm run miri: the parts of the crate that share memory between threads without asking the kernel, under Miri: data races, aliasing, orderings.
//
//   node scripts/miri.mjs [ARGUMENTS of the test program]      for example: inbox::
//
// Needs a nightly toolchain with the components miri and rust-src. Whatever makes a system call is left to AddressSanitizer and valgrind, and
// so is what is too long for an interpreter. Weak memory is explored with several seeds.
import { join } from 'node:path'
import { fail, has, needCargo, nightlyHost, root, run } from './step.mjs'

/** Modules whose unit tests make no system call. */
const MODULES = [
  'inbox::', 'words::', 'word_source::', 'interest::', 'timer::', 'aio::queue::', 'aio::request::', 'config::', 'monitor::refusal::', 'spin::budget::', 'spin::classic::',
  'spin::guards::', 'spin::idle::', 'spin::per_handler::', 'spin::policy::',
]
const LONG = ['a_million_timers']
const SEEDS = '0..8'

needCargo()
nightlyHost('Miri')
if (!has('cargo', ['+nightly', 'miri', '--version'])) fail('Miri is missing; install it with: rustup component add miri rust-src --toolchain nightly')
const given = process.argv.slice(2)
const tests = given.length > 0 ? given : [...MODULES, ...LONG.flatMap((name) => ['--skip', name])]
run('unit tests under Miri', 'cargo', ['+nightly', 'miri', 'test', '--package', 'fdmon', '--features', 'channel,executor', '--lib', '--', ...tests], {
  env: { CARGO_TARGET_DIR: join(root, 'target', 'miri'), MIRIFLAGS: `-Zmiri-many-seeds=${SEEDS} -Zmiri-strict-provenance` },
})
