// npm run asan: the Rust tests under AddressSanitizer, leaks included. Needs a nightly toolchain; the standard library itself is
// not instrumented, which finds what fdmon does and spares a build of it.
//
//   node scripts/asan.mjs [--brief] [ARGUMENTS of cargo test]      for example: --test conformance -- epoll::
//
// --brief builds the conformance suite for two monitors, epoll and io_uring, instead of all and each kind of ring.
// Its builds lie in target/asan, apart from all others. Time is not asserted, since everything takes two to three times as long.
import { join } from 'node:path'
import { needCargo, nightlyHost, root, run } from './step.mjs'

needCargo()
const host = nightlyHost('AddressSanitizer')

const brief = process.argv[2] === '--brief'
const given = process.argv.slice(brief ? 3 : 2)
const args = given.length > 0 ? given : ['--lib', '--tests']
run('Rust tests under AddressSanitizer', 'cargo', ['+nightly', 'test', '--quiet', '--package', 'fdmon', '--target', host, ...args], {
  env: {
    // With --target these flags are for the tests alone, not for build scripts and macros.
    RUSTFLAGS: `-Zsanitizer=address${brief ? ' --cfg brief' : ''}`,
    CARGO_TARGET_DIR: join(root, 'target', 'asan'),
    ASAN_OPTIONS: 'detect_leaks=1:detect_stack_use_after_return=1',
    FDMON_SLOW: '1',
  },
})
