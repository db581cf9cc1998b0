// `fdmon top`: which processes publish statistics, and what the contexts of one of them do, live.
import { setTimeout as sleep } from 'node:timers/promises'
import { InvalidArgumentError, type Command } from 'commander'
import { paint, terminalOf, wrap } from '../terminal.js'
import { descriptorOf, isAlive, publisher, publishing, type Process } from './processes.js'
import { Watch } from './rates.js'
import { openScreen } from './screen.js'
import { LEGEND, show, showProcesses, type View } from './show.js'

const HELP = `
Without a PID it lists the processes of this user that publish statistics: those
started with FDMON_STATS=1, and those that call publishStats(). With one, it
shows the process live, until q or Ctrl-C; where the output is no terminal, it
prints one table of the next interval and ends.

${wrap({ width: 80, colour: false }, LEGEND, '')}
Examples:
  FDMON_STATS=1 node server.js &
  fdmon top
  fdmon top $!
  fdmon top $! --json | jq '.contexts[].windowNs'

Exit codes: 0, also when the process ends meanwhile; 1 when there is no such
process or it publishes nothing; 2 for a wrong option.`

export interface TopOptions {
  interval: number
  once?: boolean
  json?: boolean
}

function milliseconds(value: string): number {
  const number = Number(value)
  if (/^\d+$/.test(value) && number >= 100 && number <= 60_000) return number
  throw new InvalidArgumentError('Pass a whole number of milliseconds from 100 to 60000.')
}

function processNumber(value: string): number {
  const number = Number(value)
  if (/^\d+$/.test(value) && number >= 1 && number <= 0x7fff_ffff) return number
  throw new InvalidArgumentError('Pass the number of a process.')
}

/** Adds the arguments and options to a command. */
export function withTopOptions(command: Command): Command {
  return command
    .argument('[pid]', 'the process', processNumber)
    .option('-i, --interval <ms>', 'time between two tables, which rates are of', milliseconds, 1000)
    .option('--once', 'print one table and end, also in a terminal')
    .option('--json', 'print JSON for machines, once')
    .addHelpText('after', HELP)
}

/** The exit code. */
export async function top(pid: number | undefined, options: TopOptions): Promise<number> {
  if (pid === undefined) return list(options)
  const watched = publisher(pid)
  const live = process.stdout.isTTY && options.once !== true && options.json !== true
  return live ? watchLive(watched, options) : printOnce(watched, options)
}

function list({ json }: TopOptions): number {
  const processes = publishing().map(({ pid, command, page }) => {
    const { contexts, leftOut } = page.read()
    const sum = (value: (context: (typeof contexts)[number]) => number): number => contexts.reduce((total, context) => total + value(context), 0)
    return { pid, command, contexts: contexts.length + leftOut, handlers: sum(({ live }) => live), events: sum(({ events }) => events) }
  })
  if (json === true) process.stdout.write(`${JSON.stringify({ processes }, null, 2)}\n`)
  else if (processes.length > 0) process.stdout.write(showProcesses(processes, terminalOf(process.stdout)))
  else process.stderr.write('fdmon: no process of this user publishes statistics; start one with FDMON_STATS=1, or call publishStats() in it\n')
  return 0
}

function viewOf({ pid, command }: Process, watch: Watch): View {
  return { pid, command, seconds: watch.seconds, contexts: watch.rates(), leftOut: watch.leftOut, what: (fd) => descriptorOf(pid, fd) }
}

async function printOnce(watched: Process, { interval, json }: TopOptions): Promise<number> {
  const { pid, command, page } = watched
  const watch = new Watch(page.read())
  for (const end = performance.now() + interval; performance.now() < end && isAlive(page); ) {
    await sleep(Math.min(page.header.periodMs, interval))
    watch.look(page.read())
  }
  if (json === true) {
    const numbers = new Map(watch.numbers.map((context) => [context.id, context]))
    const contexts = watch.rates().map(({ handlers, turns, events, sleeps, spinHits, spinMisses, cpu, wasted, windows, id, ...rest }) => {
      const totals = numbers.get(id)
      const rows = handlers.map(({ reads, writes, pollHits, ...row }) => {
        const total = totals?.handlers.find(({ fd }) => fd === row.fd)
        return { ...total, ...row, what: descriptorOf(pid, row.fd), perSecond: { reads, writes, pollHits } }
      })
      return { ...totals, ...rest, id, windows, cpu, wasted, perSecond: { turns, events, sleeps, spinHits, spinMisses }, handlers: rows }
    })
    process.stdout.write(`${JSON.stringify({ pid, command, version: page.header.version, seconds: watch.seconds, leftOut: watch.leftOut, contexts }, null, 2)}\n`)
  } else process.stdout.write(show(viewOf(watched, watch), terminalOf(process.stdout)))
  return 0
}

async function watchLive(watched: Process, { interval }: TopOptions): Promise<number> {
  const { pid, page } = watched
  const watch = new Watch(page.read())
  let frame = ''
  const draw = (): void => {
    const terminal = terminalOf(process.stdout)
    frame = show(viewOf(watched, watch), terminal)
    screen.draw(`${paint(terminal).dim('fdmon top   q quit')}\n${frame}`)
  }
  let over: (why: string) => void = () => {}
  const ended = new Promise<string>((resolve) => (over = resolve))
  const screen = openScreen({
    onKey: (key) => {
      if (key === 'q' || key === 'Q' || key === '\u0003') over('')
    },
    onResize: draw,
  })
  // Ctrl-C where the keyboard is not the terminal's: a way to end it like any other.
  process.prependListener('SIGINT', () => {
    screen.close()
    process.exit(0)
  })
  let drawn = -Infinity
  const look = (): void => {
    const now = performance.now()
    watch.look(page.read())
    if (!isAlive(page)) return over(`process ${pid} has ended`)
    if (page.removed) return over(`process ${pid} publishes no statistics any more`)
    if (now - drawn < interval && drawn > 0) return
    drawn = now
    draw()
    if (watch.seconds > 0) watch.next()
  }
  const timer = setInterval(look, Math.min(page.header.periodMs, interval))
  look()
  const why = await ended
  clearInterval(timer)
  screen.close()
  if (why !== '') process.stdout.write(`${frame}\nfdmon: ${why}\n`)
  return 0
}
