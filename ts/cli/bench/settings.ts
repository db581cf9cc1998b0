// The options of `fdmon bench`, checked: which cells, how often, and what is written where.
import { accessSync, constants, statSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { InvalidArgumentError, Option, type Command } from 'commander'
import { capabilities } from '../../capabilities.js'
import type { MonitorName } from '../../options.js'

export const MONITORS = ['io_uring', 'epoll', 'poll'] as const satisfies readonly MonitorName[]
export const POLICIES = ['blocking', 'fixed', 'classic', 'handler', 'cost'] as const
export const PLACEMENTS = ['two', 'free', 'one', 'unguarded'] as const
export type PolicyName = (typeof POLICIES)[number]
export type PlacementName = (typeof PLACEMENTS)[number]

/** What is to be measured. */
export interface Settings {
  quick: boolean
  rounds: number
  /** Events of a round; undefined: by the gap. */
  events: number | undefined
  gapsUs: number[]
  monitors: MonitorName[]
  policies: PolicyName[]
  placements: PlacementName[]
  windowUs: number
  systemCalls: boolean
}

/** And how it is shown. */
export interface Output {
  json: boolean
  html: string | undefined
}

const TITLES: Record<PlacementName, string> = {
  two: 'two CPUs, a thread pinned to each, guards off',
  free: 'two CPUs or more, not pinned, guards on',
  one: 'one CPU, guards on',
  unguarded: 'one CPU, guards off',
}

/** How a placement is called where people read. */
export function placementNamed(name: PlacementName): string {
  return TITLES[name]
}

/** How often each row has its turn, in words. */
export function roundsOf({ rounds }: Pick<Settings, 'rounds'>): string {
  return rounds === 1 ? 'one round, so there is no spread' : `${rounds} rounds, in which all rows take turns`
}

/** `value` as a whole number between two. */
export function integer(least: number, most: number, unit: string) {
  return (value: string): number => {
    const number = Number(value)
    if (/^\d+$/.test(value) && number >= least && number <= most) return number
    throw new InvalidArgumentError(`Pass a whole number of ${unit} from ${least} to ${most}.`)
  }
}

/** `value` as a list; an option that is given again adds to it. */
export function list<T>(one: (word: string) => T) {
  return (value: string, before: T[] | undefined): T[] => [...new Set([...(before ?? []), ...value.split(',').map((word) => one(word.trim()))])]
}

export function word<T extends string>(words: readonly T[]) {
  return (value: string): T => {
    if ((words as readonly string[]).includes(value)) return value as T
    throw new InvalidArgumentError(`'${value}' is none of ${words.join(', ')}.`)
  }
}

export function microseconds(value: string): number {
  const number = Number(value)
  if (/^\d+(\.\d+)?$/.test(value) && number <= 100_000) return number
  throw new InvalidArgumentError(`'${value}' is no number of microseconds from 0 to 100000.`)
}

function writableFile(file: string): string {
  const refuse = (why: string): never => {
    throw new InvalidArgumentError(`Pass a file that can be written: ${why}.`)
  }
  if (file === '') refuse('this is no name')
  const there = statSync(file, { throwIfNoEntry: false })
  if (there?.isDirectory()) refuse('this is a folder')
  try {
    accessSync(there === undefined ? dirname(resolve(file)) : file, constants.W_OK)
  } catch (error) {
    refuse((error as NodeJS.ErrnoException).code ?? 'it is refused')
  }
  return file
}

interface Given extends Omit<Partial<Settings>, 'gapsUs'> {
  gap?: number[]
  monitor?: MonitorName[]
  policy?: PolicyName[]
  placement?: PlacementName[]
  window?: number
  json?: boolean
  html?: string
}

/** Adds the options to a command. */
export function withBenchOptions(command: Command): Command {
  return command
    .option('-q, --quick', 'one monitor, three policies, two gaps, three rounds: some seconds')
    .option('--rounds <n>', 'rounds; in each, every row has its turn (default: 5, quick 3)', integer(1, 1000, 'rounds'))
    .option('--events <n>', 'events that a round measures (default: 1000, fewer at long gaps)', integer(10, 100_000, 'events'))
    .option('--gap <µs,…>', 'time from an event that was handled to the next (default: 5,20,50,200,1000)', list(microseconds))
    .option('--monitor <name,…>', `of ${MONITORS.join(', ')} (default: all that are to be had)`, list(word(MONITORS)))
    .option('--policy <name,…>', `of ${POLICIES.join(', ')} (default: all)`, list(word(POLICIES)))
    .option('--placement <name,…>', `of ${PLACEMENTS.join(', ')} (default: two,one,unguarded)`, list(word(PLACEMENTS)))
    .option('--window <µs>', 'the longest spin of a turn (default: 100)', microseconds)
    .option('--no-system-calls', 'do not count system calls, which takes runs of their own')
    .option('--json', 'print JSON for machines')
    .addOption(new Option('--html <file>', 'also write one page with plots, which needs nothing else').argParser(writableFile))
}

/** The one that 'auto' would like best. */
export function firstMonitor(): MonitorName {
  const { monitors } = capabilities()
  return MONITORS.find((name) => monitors[name].available) ?? 'poll'
}

/** What was given, and the defaults of the rest. */
export function settingsOf(given: Given): Settings & Output {
  const quick = given.quick === true
  return {
    quick,
    rounds: given.rounds ?? (quick ? 3 : 5),
    events: given.events,
    gapsUs: (given.gap ?? (quick ? [20, 200] : [5, 20, 50, 200, 1000])).toSorted((a, b) => a - b),
    monitors: given.monitor ?? (quick ? [firstMonitor()] : [...MONITORS]),
    policies: given.policy ?? (quick ? ['blocking', 'fixed', 'cost'] : [...POLICIES]),
    placements: given.placement ?? ['two', 'one', 'unguarded'],
    windowUs: given.window ?? 100,
    systemCalls: given.systemCalls !== false,
    json: given.json === true,
    html: given.html,
  }
}
