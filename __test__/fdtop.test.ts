// examples/fdtop as a person has it: in a terminal of tmux, by its keys, read from the screen. And without a terminal.
import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import test from 'ava'
import { Terminal, WAIT_MS } from './tmux.js'

const main = fileURLToPath(new URL('../examples/fdtop/main.mjs', import.meta.url))
/** The rows whose reads grow all the time. */
const FED = ['timerfd', 'inotify', 'unix socket', 'its server', 'its client']

/** The numbers of a row, as they stand: fd, reads, writes, poll hits. A space parts groups of three digits. */
function row(screen: string, name: string): { fd: number; reads: number; writes: number; pollHits: number } {
  const line = screen.split('\n').find((text) => text.trim().startsWith(name))
  const texts = (line ?? '').trim().slice(name.length).trim().split(/ {2,}/)
  const cells = texts.map((cell) => Number(cell.replaceAll(' ', '')))
  const [fd = NaN, reads = NaN, writes = NaN, pollHits = NaN] = cells
  return { fd, reads, writes, pollHits }
}

/** Without a terminal, to its end. */
function fdtop(...args: string[]): { status: number | null; stdout: string; stderr: string } {
  const env = { ...process.env, FDMON_MONITOR: '', NO_COLOR: '', FORCE_COLOR: '' }
  return spawnSync(process.execPath, [main, ...args], { env, encoding: 'utf8', timeout: WAIT_MS })
}

test.serial('fdtop in a terminal: counters grow, keys change parameters, q restores the terminal', async (t) => {
  t.timeout(10 * WAIT_MS)
  const terminal = new Terminal()
  try {
    const quoted = [process.execPath, main].map((word) => `'${word}'`).join(' ')
    await terminal.start(`echo before; ${quoted}; echo "ended with $?"; stty -a; sleep 1000`)

    const first = await terminal.until(t, 'the table', (screen) => row(screen, 'timerfd').reads > 0)
    t.regex(first, /q {2}quit/)
    t.regex(first, /monitor +(epoll|poll|io_uring)/)
    for (const line of first.split('\n')) t.true(line.length <= 120, line)
    const grows = (name: string, counter: 'reads' | 'writes', from: number) =>
      terminal.until(t, `${counter} of ${name}`, (screen) => row(screen, name)[counter] > from)
    for (const name of FED) await grows(name, 'reads', row(first, name).reads)
    await grows('its server', 'writes', row(first, 'its server').writes)
    await grows('pidfd', 'reads', 0)
    await terminal.until(t, 'words are taken', (screen) => /\b[1-9]\d* words/.test(screen))

    t.regex(first, /spin +up to 200 µs +guards on +CPU budget 100 %/)
    await terminal.press('+')
    await terminal.until(t, '+ doubles the longest spin', (screen) => screen.includes('up to 400 µs'))
    await terminal.press('---')
    await terminal.until(t, '- halves it', (screen) => screen.includes('up to 50 µs'))
    await terminal.press('g')
    await terminal.until(t, 'g turns the guards off', (screen) => screen.includes('guards off'))
    await terminal.press('b')
    await terminal.until(t, 'b takes a smaller budget', (screen) => screen.includes('CPU budget 50.0 %'))
    await terminal.press('s')
    await terminal.until(t, 's turns spinning off', (screen) => /spin +off[^]*window +░+ 0 ns/.test(screen))
    await terminal.press('s++++++++')
    const open = /up to 12.8 ms[^]*window +[█░]+ [\d.]+ (µs|ms)/
    await terminal.until(t, 'with a long spin the window opens', (screen) => open.test(screen))

    await terminal.press('u')
    const signal = await terminal.until(t, 'u sends a signal', (screen) => screen.includes('1 SIGUSR2, from '))
    t.is(row(signal, 'signalfd').reads, 1)
    await terminal.press('p')
    await terminal.until(t, 'p pauses', (screen) => screen.includes('paused'))
    await terminal.press('p')
    const paused = row(await terminal.until(t, 'p goes on', (screen) => !screen.includes('paused')), 'inotify').reads
    await grows('inotify', 'reads', paused)

    await terminal.press('q')
    const last = await terminal.until(t, 'the end', (screen) => /ended with[^]*icanon[^]*\becho\b/.test(screen))
    t.regex(last, /^before\nended with 0\n/)
    t.regex(last, /(?<!-)icanon/)
    t.regex(last, /(?<!-)echo\b/)
    t.is((await terminal.tmux('display-message', '-p', '#{alternate_on} #{cursor_flag}')).trim(), '0 1')
  } finally {
    await terminal.end()
  }
})

for (const monitor of ['auto', 'epoll', 'poll']) {
  test.serial(`fdtop --once prints its tables into a pipe and ends, with the monitor ${monitor}`, (t) => {
    const { status, stdout, stderr } = fdtop('--once', '--for', '2', '--monitor', monitor)
    t.is(status, 0, stderr)
    t.is(stderr, '')
    t.false(stdout.includes('\x1b'), 'no escape sequences in a pipe')
    for (const name of FED) t.true(row(stdout, name).reads > 0, stdout)
    for (const name of ['eventfd', 'signalfd', 'pidfd']) t.true(row(stdout, name).reads >= 0, stdout)
  })
}

test.serial('fdtop without a terminal prints a table now and then, and ends by --for', (t) => {
  const { status, stdout, stderr } = fdtop('--for', '2', '--max-ns', '0')
  t.is(status, 0, stderr)
  t.true(stdout.split('fdtop    process').length > 2, stdout)
  t.regex(stdout, /spin +off/)
})

test.serial('fdtop refuses what it does not know', (t) => {
  const { status, stderr } = fdtop('--max-ns', 'much')
  t.is(status, 1)
  t.regex(stderr, /pass a number from 0 on/)
})
