// What the context says of itself (`ctx.stats()`), as lines of text with colours:
//
//   green    has grown since the last drawing        yellow   something to know
//   cyan     is being spun on                        red      most spinning was in vain
import Table from 'cli-table3'
import colors from 'picocolors'
import { count, duration, percent, rate } from './units.mjs'

/** Colours are for a terminal, and nobody reads a pipe in colour. */
const pc = colors.createColors(process.stdout.isTTY === true && !process.env.NO_COLOR)

const KEYS = [
  ['+ -', 'longest spin'],
  ['s', 'spin'],
  ['g', 'guards'],
  ['b', 'budget'],
  ['u', 'SIGUSR2'],
  ['p', 'pause'],
  ['q', 'quit'],
]
const COUNTERS = ['reads', 'writes', 'pollHits']
const NONE = { reads: 0, writes: 0, pollHits: 0 }
const BAR = 24
const COLUMNS = [
  { name: 'source', width: 14, align: 'left' },
  { name: 'fd', width: 5, align: 'right' },
  { name: 'reads', width: 11, align: 'right' },
  { name: 'writes', width: 10, align: 'right' },
  { name: 'poll hits', width: 11, align: 'right' },
  { name: 'per s', width: 8, align: 'right' },
  { name: 'polling', width: 9, align: 'left' },
  { name: 'estimate', width: 10, align: 'right' },
  { name: 'what it says', width: 40, align: 'left' },
]
const BORDERS = ['top', 'bottom', 'left', 'right', 'mid'].flatMap((side) => [side, `${side}-left`, `${side}-mid`, `${side}-right`])
const WITHOUT_BORDERS = Object.fromEntries([...BORDERS, 'middle'].map((name) => [name, '']))

/** Keeps the counters of a source whose handler goes: those of its next one begin at 0. */
export function keepCounters(ctx, source) {
  source.kept = counters(ctx.stats(), source)
}

function counters(stats, source) {
  const { kept = NONE } = source
  const live = stats.handlers.find(({ fd }) => fd === source.fd) ?? NONE
  return Object.fromEntries(COUNTERS.map((name) => [name, kept[name] + live[name]]))
}

export class Report {
  #before
  #now

  constructor(ctx, sources, settings) {
    this.ctx = ctx
    this.sources = sources.list
    this.settings = settings
    this.#now = this.#before = this.#take()
  }

  /** Looks at everything; rates are between this look and the one before. */
  sample() {
    this.#before = this.#now
    this.#now = this.#take()
  }

  #take() {
    const stats = this.ctx.stats()
    const { user, system } = process.cpuUsage()
    return { at: performance.now(), cpuUs: user + system, stats, rows: this.sources.map((source) => counters(stats, source)) }
  }

  lines(columns) {
    const { settings } = this
    const stats = this.ctx.stats()
    const cpu = this.#perSecond((look) => look.cpuUs) / 1e6
    const per = (of) => pc.dim(rate(this.#perSecond((look) => of(look.stats))).padStart(12))
    const on = (value) => (value ? pc.green('on') : pc.yellow('off'))
    const inVain = stats.spinNs === 0 ? 0 : stats.spinWastedNs / stats.spinNs
    const vain = `${duration(stats.spinWastedNs).padStart(8)} in vain, ${percent(inVain)}`
    const longest = settings.spin ? settings.maxNs : 0
    const upTo = settings.spin ? `up to ${pc.bold(duration(longest))}` : pc.yellow('off')
    return [
      ` ${pc.bold('fdtop')}    process ${process.pid}   up ${Math.floor(process.uptime())} s   CPU ${pc.bold(percent(cpu))}` +
        (settings.paused ? `   ${pc.yellow('paused')}` : ''),
      '',
      field('monitor', `${pc.bold(stats.monitor)}   ${pc.dim(stats.monitorReason)}`),
      field('turns', `${number(stats.turns)} ${per((one) => one.turns)}     ${sleeps(stats)}`),
      field('spin', `${upTo}   guards ${on(settings.guards)}   CPU budget ${percent(settings.cpuBudget)}`),
      field('window', `${bar(longest === 0 ? 0 : stats.windowNs / longest)} ${pc.bold(duration(stats.windowNs))}`),
      field('hits', `${number(stats.spinHits)} ${per((one) => one.spinHits)}     ${duration(stats.spinNs).padStart(8)} spun`),
      field('misses', `${number(stats.spinMisses)} ${per((one) => one.spinMisses)}     ${inVain > 0.5 ? pc.red(vain) : vain}`),
      field('guard', stats.guard === null ? pc.dim('nothing keeps it from spinning') : pc.yellow(stats.guard)),
      '',
      ...this.#table(stats),
      '',
      ` ${KEYS.map(([key, what]) => `${pc.inverse(` ${key} `)} ${what}`).join('  ')}`,
    ].map((line) => cut(line, columns))
  }

  /** How much of something a second there was between the last two looks. */
  #perSecond(of) {
    const seconds = (this.#now.at - this.#before.at) / 1e3
    return seconds > 0 ? (of(this.#now) - of(this.#before)) / seconds : 0
  }

  #table(stats) {
    const table = new Table({
      head: COLUMNS.map(({ name }) => pc.dim(name)),
      colAligns: COLUMNS.map(({ align }) => align),
      colWidths: COLUMNS.map(({ width }) => width),
      chars: WITHOUT_BORDERS,
      style: { head: [], border: [], 'padding-left': 0, 'padding-right': 2 },
    })
    for (const [index, source] of this.sources.entries()) {
      const live = stats.handlers.find(({ fd }) => fd === source.fd)
      const now = counters(stats, source)
      const before = this.#before.rows[index]
      const events = this.#perSecond(({ rows }) => COUNTERS.reduce((sum, name) => sum + rows[index][name], 0))
      table.push([
        source.name,
        live === undefined ? pc.dim('–') : String(source.fd),
        ...COUNTERS.map((name) => (now[name] > before[name] ? pc.green(count(now[name])) : pc.dim(count(now[name])))),
        events > 0 ? count(Math.round(events)) : pc.dim('0'),
        live?.polling ? pc.cyan('yes') : pc.dim('no'),
        live?.estimateNs ? duration(live.estimateNs) : pc.dim('–'),
        source.note(),
      ])
    }
    return table.toString().split('\n').map((line) => ` ${line}`)
  }
}

function field(name, text) {
  return ` ${pc.dim(name.padEnd(8))} ${text}`
}

function number(value) {
  return count(value).padStart(12)
}

/** Attached, the loop sleeps in libuv: what the context counts are sleeps of its own. */
function sleeps({ sleeps }) {
  return sleeps === 0 ? pc.dim("Node's loop sleeps for it") : `${count(sleeps)} sleeps`
}

function bar(share) {
  const full = Math.round(Math.min(share, 1) * BAR)
  return pc.cyan('█'.repeat(full)) + pc.dim('░'.repeat(BAR - full))
}

/** A line that fits: escape sequences take no room and are all kept, so that no colour stays on. */
function cut(line, columns) {
  let room = columns
  return line.replace(/(\x1b\[[\d;]*m)|./gu, (character, escape) => (escape !== undefined || room-- > 0 ? character : '')).trimEnd()
}
