// docs/KERNELS.md, and what it is made from: docs/runs/kernels.json, a row a kernel, profile, suite and monitor, and docs/runs/kernels-probed.json,
// what was found on each kernel. A kernel that is not run keeps what it had.
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { line } from '../measure.mjs'
import { FOLDER, keepRuns, readRuns } from '../runs.mjs'
import { seal } from '../seal.mjs'
import { root } from '../step.mjs'
import { MONITORS } from '../suite.mjs'
import { PROFILES, SUITES } from './plan.mjs'

const PROBED = join(FOLDER, 'kernels-probed.json')

/** Takes these results in, and writes all three. `names` are the kernels in their order. */
export function write(results, names) {
  const probed = existsSync(PROBED) ? JSON.parse(readFileSync(PROBED, 'utf8')) : {}
  let runs = readRuns('kernels')
  for (const { name, arch, package: debian, accel, rows, found, seconds, release, node, selection, commit } of results) {
    const before = probed[name]?.release === release ? probed[name].found : {}
    const now = Object.entries(found).map(([profile, answers]) => [profile, { commit, selection, seconds: seconds[profile], ...kept(answers) }])
    probed[name] = { release, package: debian, arch, accel, node, found: { ...before, ...Object.fromEntries(now) } }
    runs = runs.filter((run) => run.name !== name || (run.kernel === release && !Object.hasOwn(found, run.profile)))
    for (const { profile, runtime, suite, monitor, passed, failed } of rows) {
      runs.push({
        ...{ target: `linux-${arch}-gnu`, runtime: runtime === 'node' ? `Node ${node.slice(1)}` : 'Rust', kernel: release, monitor, how: accel === 'tcg' ? 'emulated' : 'KVM' },
        ...{ tests: passed + failed, passed, failed, commit, date: new Date().toISOString().slice(0, 10), name, profile, suite, selection },
      })
    }
  }
  const profiles = Object.keys(PROFILES)
  runs.sort((a, b) => names.indexOf(a.name) - names.indexOf(b.name) || profiles.indexOf(a.profile) - profiles.indexOf(b.profile))
  keepRuns('kernels', runs)
  writeFileSync(PROBED, `${JSON.stringify(Object.fromEntries(names.filter((name) => probed[name]).map((name) => [name, probed[name]])), null, 2)}\n`)
  writeFileSync(join(root, 'docs', 'KERNELS.md'), seal(document(runs, probed, names)))
}

/** What the probe found, and why a ring is refused; that capabilities() say the same has been looked at. */
function kept({ probe, capabilities }) {
  const { available, reason } = capabilities.monitors.io_uring
  return { probe, ...(available ? {} : { refused: reason }) }
}

function document(runs, probed, names) {
  const run = names.filter((name) => probed[name])
  const missing = names.filter((name) => !probed[name])
  return [
    '# Kernels\n\nWritten by `npm run test:kernels`; do not edit. Debian\'s cloud kernels under QEMU, with what is built here and Node.\n\n',
    '## What they have\n\nTried in each guest by `scripts/kernels/probe.c`, which knows nothing of fdmon; what `capabilities()` says there is the same, or ',
    'the run fails. *unused*: the kernel has it, and fdmon does not use it, since it cannot use the ring.\n\n',
    features(run, probed),
    missing.length > 0 ? `\nNot run yet: ${missing.join(', ')}.\n` : '',
    '\n## The tests with the tag `kernel` that passed\n\nThe modules `kernel::` of the conformance suite on each monitor and kind of ring, ',
    '`tests/refused.rs`, and the ava tests whose heading says `Tag: kernel`, by the monitor in their title. Where it says *monitors*, only their modules ',
    '`monitors` and `monitors.test.ts` were run. No test failed, or its kernel would not ',
    'stand here. *refused*: there is no ring to be had; the error and what is taken instead are tested by `refused` and `monitors.test.ts`. ',
    '*not made*: this kernel has no rings of that kind, which is an error too.\n\n',
    tests(run, probed, runs),
    `\n${Object.entries(PROFILES).map(([name, { what }]) => `- Profile \`${name}\`: ${what}.\n`).join('')}`,
    '\n## How they were run\n\n',
    line(['kernel', 'package', 'machine', 'Node', 'io_uring without a profile']),
    line(['---', '---', '---', '---', '---']),
    ...run.map((name) => {
      const { package: debian, arch, accel, node, found } = probed[name]
      return line([name, debian, `${arch}, ${accel === 'tcg' ? 'emulated' : 'KVM'}`, node.slice(1), found.none?.refused ?? 'works here'])
    }),
    '\nThe seconds are those of the tests in the guest. An emulated machine is about ten times slower than the one it runs on.\n',
  ].join('')
}

function features(names, probed) {
  const probes = names.map((name) => (probed[name].found.none ?? Object.values(probed[name].found)[0]).probe)
  const all = [...new Set(probes.flatMap((probe) => Object.keys(probe)))]
  const shown = (probe, feature) => {
    if (probe[feature] !== true) return probe[feature] === false ? 'no' : '–'
    return feature.startsWith('ioUring') && !probe.io_uring ? 'unused' : 'yes'
  }
  const title = (feature) => {
    if (MONITORS.includes(feature)) return `monitor ${feature}`
    if (feature === 'ring') return 'a ring can be made (probe alone)'
    return feature === 'epollPwait2' ? '`epoll_pwait2` (probe alone; fdmon does without)' : `\`${feature}\``
  }
  const head = ['', ...names.map((name) => `${name}`)]
  return line(head) + line(head.map(() => '---')) + all.map((feature) => line([title(feature), ...probes.map((probe) => shown(probe, feature))])).join('')
}

function tests(names, probed, runs) {
  const suites = Object.keys(SUITES)
  const head = ['kernel', 'profile', 'tests', ...suites.map((suite) => `Rust ${suite}`), 'Rust refused', ...MONITORS.map((monitor) => `ava ${monitor}`), 'ava, others', 'seconds', 'commit']
  const rows = names.flatMap((name) => Object.keys(PROFILES).filter((profile) => probed[name].found[profile]).map((profile) => {
    const { probe, refused, seconds, commit, selection } = probed[name].found[profile]
    const cell = (suite, monitor, ring) => {
      const found = runs.find((run) => run.name === name && run.profile === profile && run.suite === suite && (monitor === undefined || run.monitor === monitor))
      if (found) return `${found.passed}`
      if (ring && refused) return 'refused'
      return suite === 'io_uring_cooperative' && !probe.ioUringCooperative ? 'not made' : '–'
    }
    return line([
      ...[name, profile, selection],
      ...suites.map((suite) => cell(suite, undefined, SUITES[suite] === 'io_uring')),
      cell('refused'),
      ...MONITORS.map((monitor) => cell('ava', monitor, monitor === 'io_uring')),
      ...[cell('ava', 'any'), seconds, commit],
    ])
  }))
  return line(head) + line(head.map((_, at) => (at < 3 ? '---' : '---:'))) + rows.join('')
}
