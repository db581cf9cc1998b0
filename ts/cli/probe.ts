// `fdmon probe`: what capabilities() found, beside what it depends on in this kernel and container, and a line of advice for each
// thing that could be better.
import { readFileSync } from 'node:fs'
import { cpus, release } from 'node:os'
import { capabilities, type Capabilities } from '../capabilities.js'
import { featureAdvice, FEATURES } from './features.js'
import { paint, table, wrap, type Terminal } from './terminal.js'

/** What allows and forbids here; null = it cannot be told. */
export interface Surroundings {
  /** The kernel's release. */
  kernel: string
  /** CPUs of the machine that are online. */
  onlineCpus: number
  /** Those of them that this process may run on, as in `0-3,8`. */
  cpuList: string | null
  /** The sysctl kernel.io_uring_disabled: 0 allowed, 1 to some, 2 to nobody; null before Linux 6.6. */
  ioUringDisabled: number | null
  /** Whether a seccomp filter looks at system calls of this process. */
  seccomp: 'none' | 'strict' | 'filter' | null
}

/** A thing, and what could be done about it. */
export interface Advice {
  about: string
  text: string
}

/** What `fdmon probe --json` prints. */
export interface Probe extends Capabilities {
  surroundings: Surroundings
  advice: Advice[]
}

/** Looks at everything. */
export function probe(): Probe {
  const [found, surroundings] = [capabilities(), lookAround()]
  return { ...found, surroundings, advice: adviceFor(found, surroundings) }
}

function lookAround(): Surroundings {
  const status = textOf('/proc/self/status')
  const field = (name: string): string | undefined => new RegExp(`^${name}:\\s*(\\S+)`, 'm').exec(status ?? '')?.[1]
  const disabled = textOf('/proc/sys/kernel/io_uring_disabled')?.trim()
  const mode = field('Seccomp')
  return {
    kernel: release(),
    onlineCpus: cpus().length,
    cpuList: field('Cpus_allowed_list') ?? null,
    ioUringDisabled: disabled === undefined || disabled === '' ? null : Number(disabled),
    seccomp: mode === undefined ? null : ((['none', 'strict', 'filter'] as const)[Number(mode)] ?? null),
  }
}

function textOf(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return undefined
  }
}

/** The tables and the advice, for a person. */
export function describe(found: Probe, terminal: Terminal): string {
  const { green, yellow, dim } = paint(terminal)
  const word = (here: boolean): string => (here ? green('yes') : yellow('no'))
  const monitors = Object.entries(found.monitors).map(([name, { available, reason }]) => [name, word(available), reason])
  const features = Object.entries(found.features).map(([name, here]) => {
    const { since = '', use = '' } = FEATURES[name] ?? {}
    return [name, word(here), since, use]
  })
  const parts = [
    table(terminal, ['monitor', 'available', 'why'], monitors, { prose: true }),
    table(terminal, ['feature', 'here', 'Linux', 'what for'], features, { prose: true }),
    table(terminal, ['this process', 'has', 'which means'], processRows(found), { prose: true }),
  ]
  const advice = found.advice.map(({ about, text }) => wrap(terminal, `Advice: ${about}: ${text}.`))
  if (advice.length === 0) advice.push(dim('Nothing to advise: all of it is here.\n'))
  return [...parts, advice.join('')].join('\n')
}

function processRows({ native, cpus, cpuQuota, surroundings }: Probe): string[][] {
  const { kernel, onlineCpus, cpuList, ioUringDisabled, seccomp } = surroundings
  const list = cpuList === null ? '' : ` (${cpuList})`
  const sysctl = ioUringDisabled === null ? 'not there' : `${ioUringDisabled}`
  const meaning = ['every process may make rings', 'only processes of the group kernel.io_uring_group, or with CAP_SYS_ADMIN, may make rings']
  return [
    ['kernel', kernel, ''],
    ['native addon', native ? 'yes' : 'no', native ? '' : 'this is the WebAssembly build'],
    ['usable CPUs', `${cpus} of ${onlineCpus}${list}`, oneCpu({ cpus, cpuQuota }) ? 'contexts do not spin' : 'contexts may spin when asked to'],
    ['CPU quota', cpuQuota === null ? 'none' : `${cpuQuota} CPUs`, cpuQuota === null ? '' : 'CPU time beyond it is refused by the cgroup'],
    ['kernel.io_uring_disabled', sysctl, ioUringDisabled === null ? '' : (meaning[ioUringDisabled] ?? 'nobody may make rings')],
    ['seccomp', seccomp ?? 'unknown', seccomp === 'filter' ? 'a filter, as of a container, may refuse system calls' : ''],
  ]
}

function oneCpu({ cpus, cpuQuota }: Pick<Capabilities, 'cpus' | 'cpuQuota'>): boolean {
  return Math.min(cpus, Math.ceil(cpuQuota ?? Infinity)) <= 1
}

/** What could be changed here: one line for each refused monitor, for each missing feature, for CPUs and quota. */
export function adviceFor(found: Capabilities, surroundings: Surroundings): Advice[] {
  const { monitors, features } = found
  const lines: Advice[] = []
  for (const [about, { available, advice }] of Object.entries(monitors)) {
    if (!available && advice !== undefined) lines.push({ about, text: advice })
  }
  if (!monitors.io_uring.available) {
    lines.push({ about: 'auto', text: "without io_uring it uses poll and epoll; nothing has to change. All ioUring features come with it" })
  }
  for (const [about, here] of Object.entries(features)) {
    if (here || (!monitors.io_uring.available && about.startsWith('ioUring'))) continue
    lines.push({ about, text: featureAdvice(about, surroundings.kernel) })
  }
  return [...lines, ...cpuAdvice(found, surroundings)]
}

function cpuAdvice({ cpus, cpuQuota }: Capabilities, { onlineCpus }: Surroundings): Advice[] {
  const lines: Advice[] = []
  if (cpus <= 1) {
    const more = onlineCpus > 1 ? `widen its affinity mask (taskset, the cpuset of the container; the machine has ${onlineCpus})` : 'give the machine a second one'
    lines.push({ about: 'usable CPUs', text: `one is usable, so contexts do not spin here; ${more} if latency matters` })
  }
  if (cpuQuota !== null && cpuQuota < cpus) {
    const spins = Math.ceil(cpuQuota) <= 1 ? 'contexts do not spin here' : 'a spinning context uses it up, and is stopped for the rest of the period'
    lines.push({ about: 'CPU quota', text: `${spins}; raise it (cpu.max, docker run --cpus, limits.cpu of Kubernetes)${Math.ceil(cpuQuota) <= 1 ? '' : ' or set cpuBudget'}` })
  }
  return lines
}
