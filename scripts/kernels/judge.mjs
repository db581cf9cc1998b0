// Whether what a guest said is right: all jobs were run and passed, and capabilities() are what the probe found.
import { MONITORS } from '../suite.mjs'

/** { problems, lines, passed, failed, release, node, found, rows }; `found` has the probe's and the addon's answers by profile. */
export function judge({ name, arch, package: debian, jobs, results, accel, console: shown }) {
  const problems = []
  const lines = []
  const rows = []
  const found = {}
  const seconds = {}
  const about = results.find(({ kernel }) => kernel !== undefined)
  if (!about) problems.push(`the guest said nothing; the end of its console:\n${shown.slice(-4000)}`)
  else if (results.at(-1).end !== 0) problems.push(`the guest did not come to its end; the end of its console:\n${shown.slice(-4000)}`)
  for (const job of about ? jobs : []) {
    const result = results.find((result) => result.name === job.name)
    const answers = (found[job.profile] ??= {})
    seconds[job.profile] = Math.round(((seconds[job.profile] ?? 0) + (result?.seconds ?? 0)) * 10) / 10
    if (!result) problems.push(`${job.name} was not run`)
    else if (result.left !== undefined) left(job, result, answers)
    else if (result.code !== 0) problems.push(`${job.name}: exit code ${result.code} after ${result.seconds} s\n${result.text}`)
    if (result?.counts) count(job, result)
    if (result?.code === 0 && job.kind === 'probe') answers.probe = Object.fromEntries(result.text.trim().split('\n').map((line) => line.split(' ')).map(([name, value]) => [name, value === '1']))
    if (result?.code === 0 && job.kind === 'capabilities') answers.capabilities = JSON.parse(result.text)
  }
  for (const [profile, answers] of Object.entries(found)) problems.push(...differences(answers).map((text) => `${profile}: ${text}`))
  const sum = (key) => rows.reduce((sum, row) => sum + row[key], 0)
  return { name, arch, package: debian, accel, problems, lines, rows, found, seconds, release: about?.kernel, node: about?.node, passed: sum('passed'), failed: sum('failed') }

  function left(job, { left }, { probe }) {
    const here = probe?.io_uring && probe[job.needs]
    if (!job.needs || here !== false) problems.push(`${job.name} was left out: ${left}`)
    else lines.push(`${job.name}: left out, since the kernel makes no such ring: ${left}`)
  }

  function count(job, { counts, seconds: took }) {
    for (const [monitor, { passed, failed }] of Object.entries(counts)) {
      rows.push({ profile: job.profile, runtime: job.kind === 'ava' ? 'node' : 'rust', suite: job.suite, monitor: job.kind === 'ava' ? monitor : job.monitor, passed, failed })
    }
    const passed = Object.values(counts).reduce((sum, count) => sum + count.passed, 0)
    if (passed === 0) problems.push(`${job.name}: no test was run`)
    lines.push(`${job.name}: ${passed} passed, ${took} s`)
  }
}

/** Where the addon says something else than the probe has found. Of a ring it uses nothing where it cannot use rings at all. */
export function differences({ probe, capabilities }) {
  if (!probe || !capabilities) return ['the probe or capabilities() did not answer']
  const wrong = []
  for (const monitor of MONITORS) {
    const { available, reason } = capabilities.monitors[monitor]
    if (available !== probe[monitor]) wrong.push(`capabilities(): ${monitor} available is ${available} (${reason}), and the probe finds ${probe[monitor]}`)
  }
  for (const [feature, here] of Object.entries(capabilities.features)) {
    if (!Object.hasOwn(probe, feature)) wrong.push(`capabilities() name ${feature}, which the probe does not know; add it to scripts/kernels/probe.c`)
    const expected = probe[feature] && (probe.io_uring || !feature.startsWith('ioUring'))
    if (here !== expected) wrong.push(`capabilities(): ${feature} is ${here}, and the probe finds ${expected}`)
  }
  return wrong
}
