// The terminal: another screen for as long as it runs, keys one by one, and all as it was at the end, however that comes.
//
// A frame is drawn from the top left over the last one, each line cleared to its end and the rest of the screen after the
// last: nothing flickers, as nothing is blank in between. Without a terminal the lines are printed as they are.
import { writeSync } from 'node:fs'

const ESC = '\x1b['
const ENTER = `${ESC}?1049h${ESC}?25l` // the other screen, no cursor
const LEAVE = `${ESC}?25h${ESC}?1049l`
const BEGIN = `${ESC}?2026h${ESC}H` // terminals that know it show the frame at once
const END = `${ESC}J${ESC}?2026l`
const PLAIN_COLUMNS = 200

export function openScreen({ plain, onKey, onResize, onGone }) {
  const { stdin, stdout } = process
  const full = stdout.isTTY && !plain
  const keyboard = full && stdin.isTTY
  let open = true

  // The reader of a pipe may leave, and a terminal may be closed: then there is nobody to show anything to.
  stdout.on('error', onGone)
  stdin.on('error', onGone)
  if (full) {
    stdout.write(ENTER)
    stdout.on('resize', onResize)
    // Also before an error is printed, which would be lost on the other screen.
    process.on('exit', restore).on('uncaughtExceptionMonitor', restore)
  }
  if (keyboard) {
    stdin.setRawMode(true).setEncoding('utf8').resume()
    stdin.on('data', keys)
  }

  function keys(text) {
    for (const key of text) onKey(key)
  }

  function restore() {
    if (!open) return
    open = false
    try {
      if (keyboard) stdin.setRawMode(false)
      if (full) writeSync(1, LEAVE)
    } catch {
      // The terminal is gone, and nothing of it can be restored.
    }
  }

  return {
    get columns() {
      return full ? stdout.columns : PLAIN_COLUMNS
    },
    show(lines) {
      if (!open) return
      if (!full) return stdout.write(`${lines.slice(0, -2).join('\n')}\n\n`)
      const rows = lines.slice(0, stdout.rows)
      stdout.write(`${BEGIN}${rows.map((line) => `${line}${ESC}K`).join('\r\n')}${END}`)
    },
    close() {
      restore()
      stdout.off('resize', onResize)
      if (keyboard) stdin.off('data', keys).pause()
    },
  }
}
