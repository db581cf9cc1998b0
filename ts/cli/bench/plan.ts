// What `fdmon bench` measures: which cells there are, where each side runs, and what this machine cannot do of it.
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { capabilities, type Capabilities } from '../../capabilities.js'
import type { MonitorName } from '../../options.js'
import { placementNamed, type PlacementName, type PolicyName, type Settings } from './settings.js'

/** Where the two sides run. */
export interface Place {
  name: PlacementName
  title: string
  /** CPU of the whole process. */
  cpu?: number
  /** CPUs of the loop's thread and of the producer's. */
  pins?: [number, number]
  guards: boolean
  /** Both sides have the same CPU. */
  shared: boolean
}

/** One row: a loop of one kind, in one place, at one gap. */
export interface Cell {
  place: Place
  gapUs: number
  monitor: MonitorName
  policy: PolicyName
  /** Events that one round measures. */
  events: number
}

export interface Plan {
  cells: Cell[]
  /** What was left out or is otherwise than asked for, in words. */
  notes: string[]
}

/** A round of one cell takes about this long, unless the number of events is given. */
const ROUND_US = 200_000
const MOST_EVENTS = 1000
const LEAST_EVENTS = 100

/** Events of one round: fewer where they are far apart, so that no cell takes much longer than the others. */
export function eventsFor({ events, quick }: Pick<Settings, 'events' | 'quick'>, gapUs: number): number {
  const many = Math.min(MOST_EVENTS, Math.max(LEAST_EVENTS, Math.round(ROUND_US / Math.max(gapUs, 1))))
  return events ?? (quick ? Math.min(200, many) : many)
}

/** All cells that this machine can measure. */
export function planOf(settings: Settings, found: Capabilities = capabilities(), taskset = hasTaskset()): Plan {
  const notes: string[] = []
  const monitors = settings.monitors.filter((monitor) => {
    const { available, reason, advice } = found.monitors[monitor]
    if (!available) notes.push(`${monitor} is left out: ${reason}${advice === undefined ? '' : `; ${advice}`}`)
    return available
  })
  const places = placesOf(settings.placements, usableCpus(), taskset, notes)
  const cells = places.flatMap((place) =>
    settings.gapsUs.flatMap((gapUs) =>
      monitors.flatMap((monitor) =>
        settings.policies
          // Without a spin there is nothing to guard: it would be the row of 'one' again.
          .filter((policy) => place.name !== 'unguarded' || policy !== 'blocking')
          .map((policy) => ({ place, gapUs, monitor, policy, events: eventsFor(settings, gapUs) })),
      ),
    ),
  )
  return { cells, notes }
}

function placesOf(names: readonly PlacementName[], cpus: readonly number[], taskset: boolean, notes: string[]): Place[] {
  const places = new Map<PlacementName, Place>()
  const add = (name: PlacementName, rest: Omit<Place, 'name' | 'title'>): void => void places.set(name, { name, title: placementNamed(name), ...rest })
  const [first = 0] = cpus
  if (!taskset && names.some((name) => name !== 'free')) {
    notes.push('taskset is missing, so no thread can be pinned to a CPU; run: apt-get install util-linux')
  }
  for (const name of names) {
    if (name === 'one' || name === 'unguarded') {
      if (!taskset && cpus.length > 1) notes.push(`placement ${name} is left out: it needs taskset`)
      else add(name, { ...(taskset && { cpu: first }), guards: name === 'one', shared: true })
    } else if (cpus.length < 2) {
      notes.push(`placement ${name} is left out: only one CPU is usable`)
    } else if (name === 'two' && taskset) {
      const pins = pairOf(cpus, siblingsOf)
      if (siblingsOf(pins[0]).includes(pins[1])) notes.push('the two CPUs are threads of one core, which slow each other down')
      add('two', { pins, guards: false, shared: false })
    } else {
      if (name === 'two') notes.push('placement two runs as free, unpinned: it needs taskset')
      add('free', { guards: true, shared: false })
    }
  }
  return [...places.values()]
}

/** Two CPUs that do not share a core, where there are such. */
export function pairOf(cpus: readonly number[], siblings: (cpu: number) => readonly number[]): [number, number] {
  const [first = 0, second = 0] = cpus
  const apart = cpus.find((cpu) => cpu !== first && !siblings(first).includes(cpu))
  return [first, apart ?? second]
}

function siblingsOf(cpu: number): number[] {
  try {
    return cpuList(readFileSync(`/sys/devices/system/cpu/cpu${cpu}/topology/thread_siblings_list`, 'utf8').trim())
  } catch {
    return []
  }
}

/** The CPUs that this process may use. */
function usableCpus(): number[] {
  return cpuList(/^Cpus_allowed_list:\s*(\S+)/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '0')
}

/** The numbers in a list such as `0-2,8`. */
export function cpuList(text: string): number[] {
  return text.split(',').flatMap((part) => {
    const [from = 0, to = from] = part.split('-').map(Number)
    return Array.from({ length: to - from + 1 }, (_, at) => from + at)
  })
}

function hasTaskset(): boolean {
  return spawnSync('taskset', ['-p', `${process.pid}`], { stdio: 'ignore' }).status === 0
}
