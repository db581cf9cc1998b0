// fdtop: every kind of descriptor in one attached context, and live what the loop does with them. README.md has the keys.
//
//   main.mjs      options, keys, and what happens when
//   sources.mjs   the descriptors and their handlers
//   report.mjs    numbers of the context, as lines of text
//   screen.mjs    the terminal
import { Command, InvalidArgumentError, Option } from 'commander'
import { AioContext } from 'fdmon'
import { Report } from './report.mjs'
import { openScreen } from './screen.mjs'
import { openSources } from './sources.mjs'

const EVERY_MS = 500
const ONCE_MS = 1_000
const LONGEST_NS = 100_000_000
const BUDGETS = [1, 0.5, 0.1, 0.01]

const number = (least) => (text) => {
  const value = Number(text)
  if (Number.isFinite(value) && value >= least) return value
  throw new InvalidArgumentError(`pass a number from ${least} on`)
}
const options = new Command('fdtop')
  .description('Shows live what an attached fdmon context does with seven kinds of descriptors.')
  .addOption(new Option('--monitor <name>', 'who asks the kernel').choices(['auto', 'epoll', 'poll', 'io_uring']).default('auto'))
  .option('--max-ns <ns>', 'the longest spin of a turn, 0 = none', number(0), 200_000)
  .option('--for <seconds>', 'end by itself after this time', number(0))
  .option('--once', 'print the tables once, after a second or the time of --for, and end')
  .parse()
  .opts()

// What the keys change. The context takes it at any time: the next turn has it.
const settings = { spin: options.maxNs > 0, maxNs: options.maxNs || 200_000, guards: true, cpuBudget: 1, paused: false }
const params = () => ({
  maxNs: settings.spin ? settings.maxNs : 0,
  // Ticks of a millisecond are too far apart for the default, which weighs what a spin costs: here it is to be seen.
  policy: 'classic',
  guards: settings.guards,
  cpuBudget: settings.cpuBudget,
})

const ctx = new AioContext({ name: 'fdtop', monitor: options.monitor, poll: params() }).attach()
const sources = openSources(ctx)
const report = new Report(ctx, sources, settings)
const screen = openScreen({ plain: options.once, onKey: press, onResize: draw, onGone: quit })

const keys = {
  '+': () => longest(settings.maxNs * 2),
  '-': () => longest(settings.maxNs / 2),
  s: () => (settings.spin = !settings.spin),
  g: () => (settings.guards = !settings.guards),
  b: () => (settings.cpuBudget = BUDGETS[(BUDGETS.indexOf(settings.cpuBudget) + 1) % BUDGETS.length]),
  p: () => sources.pause((settings.paused = !settings.paused)),
  u: () => process.kill(process.pid, 'SIGUSR2'),
  q: quit,
  '\x03': quit, // Ctrl-C: in raw mode a key like any other
}

function longest(ns) {
  settings.maxNs = Math.min(Math.max(ns, 1_000), LONGEST_NS)
}

function press(key) {
  const action = keys[key === '=' ? '+' : key]
  if (action === undefined) return
  action()
  if (ended) return
  ctx.setPollParams(params())
  draw()
}

function draw() {
  screen.show(report.lines(screen.columns))
}

// Timers, keys and signals of Node run beside the context: it sleeps in Node's own loop.
const redraw = options.once ? undefined : setInterval(() => (report.sample(), draw()), EVERY_MS)
const seconds = options.for ?? (options.once ? ONCE_MS / 1_000 : undefined)
const end = seconds === undefined ? undefined : setTimeout(finish, seconds * 1_000)
process.once('SIGTERM', quit).once('SIGHUP', quit).once('SIGINT', quit)
let ended = false
if (!options.once) draw()

function finish() {
  report.sample()
  draw()
  quit()
}

// Nothing calls process.exit(): once the last thing is closed, Node has nothing left to wait for.
function quit() {
  if (ended) return
  ended = true
  clearInterval(redraw)
  clearTimeout(end)
  screen.close()
  sources.close()
  ctx.close()
}
