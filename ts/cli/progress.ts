// How far a command has come, on standard error.
import cliProgress from 'cli-progress'

/** A bar; without a terminal there is none. */
export function progress(total: number): { next: (what: string) => void; end: () => void } {
  if (!process.stderr.isTTY) return { next() {}, end() {} }
  const format = ' {bar} {percentage} %  {what}'
  const options = { format, stream: process.stderr, clearOnComplete: true, hideCursor: true, barsize: 20 }
  const bar = new cliProgress.SingleBar(options, cliProgress.Presets.shades_classic)
  let done = 0
  let shown = true
  const end = (): void => {
    if (shown) bar.stop()
    shown = false
  }
  bar.start(total, 0, { what: '' })
  // Whatever ends the process gives the cursor back.
  process.on('exit', end)
  return { next: (what) => bar.update(done++, { what }), end }
}
