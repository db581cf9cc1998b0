// What is run in a guest: by seccomp profile the probe, what capabilities() say, and the tests with the tag, one job a program and monitor.

/** What a profile answers, as tests/sandbox/refuse.rs is told. */
export const PROFILES = {
  none: { refused: [], what: 'no profile' },
  docker: { refused: ringCalls('EPERM'), what: "io_uring_* are EPERM, as in Docker's since 2023" },
  enosys: { refused: ringCalls('ENOSYS'), what: 'io_uring_* are ENOSYS, as if the kernel had none' },
  old: { refused: ['epoll_pwait2=EPERM'], what: 'epoll_pwait2 is EPERM, as in profiles older than the call' },
}
/** The feature of `capabilities()` without which a suite is refused as a whole. */
const NEEDS = { io_uring: 'ioUringExtArg', io_uring_cooperative: 'ioUringCooperative', io_uring_plain: 'ioUringExtArg' }
/** The suite of the crate, once a monitor and kind of ring. */
export const SUITES = { poll: 'poll', epoll: 'epoll', io_uring: 'io_uring', io_uring_cooperative: 'io_uring', io_uring_plain: 'io_uring' }

const MONITORS = ['monitors.test.ts']
/** They start the crate's program that refuses system calls. */
const WITH_PROGRAMS = ['busy-poll.test.ts', 'ring.test.ts']

function ringCalls(errno) {
  return ['io_uring_setup', 'io_uring_enter', 'io_uring_register'].map((call) => `${call}=${errno}`)
}

/** All jobs; `plan` is a profile or another name below, and says when a job is run. `files` are the ava tests. */
export function jobsOf(files) {
  return [
    // ava takes as long to start, emulated, as all else together, and these differ only in which errno it is that refuses.
    ...Object.keys(PROFILES).flatMap((profile) => jobs(profile, profile, 'kernel', profile === 'none' || profile === 'docker' ? files : MONITORS)),
    ...jobs('quick', 'none', 'kernel::monitors', MONITORS),
    ...jobs('quick', 'docker', 'kernel::monitors', []),
    ...['enosys', 'old'].flatMap((profile) => jobs('more', profile, 'kernel::monitors', [])),
    // Without the programs of the crate.
    ...jobs('addon', 'none', undefined, files.filter((file) => !WITH_PROGRAMS.includes(file))),
    ...jobs('addon-monitors', 'none', undefined, MONITORS),
  ]
}

/** Those of a plan; without `modules` of the suite, the addon's alone. */
function jobs(plan, profile, modules, files) {
  const base = { plan, profile, refused: PROFILES[profile].refused, cwd: '/app' }
  const name = (what) => `${plan}/${profile}/${what}`
  const rust = Object.entries(SUITES).map(([suite, monitor]) => {
    // "poll::" is a part of "epoll::".
    const others = suite === 'poll' ? ['--skip', 'epoll::'] : []
    return {
      ...base,
      name: name(`rust ${suite}`), kind: 'rust', monitor, suite, needs: NEEDS[suite],
      command: ['/app/programs/conformance', `${suite}::${modules}::`, ...others], cwd: '/app/crates/fdmon',
    }
  })
  return [
    { ...base, name: name('probe'), kind: 'probe', command: ['/app/programs/probe'] },
    { ...base, name: name('capabilities'), kind: 'capabilities', command: ['/usr/bin/node', 'dist/cjs/cli/main.js', 'probe', '--json'] },
    ...(modules ? [...rust, { ...base, name: name('rust refused'), kind: 'rust', monitor: 'any', suite: 'refused', command: ['/app/programs/refused'], cwd: '/app/crates/fdmon' }] : []),
    ...(files.length > 0 ? [{ ...base, name: name('ava'), kind: 'ava', monitor: 'any', suite: 'ava', command: ava(files) }] : []),
  ]
}

function ava(files) {
  return ['/usr/bin/node', 'node_modules/ava/entrypoints/cli.mjs', '--tap', ...files.map((file) => `__test__/${file.replace(/\.ts$/, '.js')}`)]
}
