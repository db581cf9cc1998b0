// The terminal while `fdmon top` runs live: another screen and keys one by one, and all as it was at the end, however that comes.
import { writeSync } from 'node:fs'

const ESC = '\u001b['
const ENTER = `${ESC}?1049h${ESC}?25l` // the other screen, no cursor
const LEAVE = `${ESC}?25h${ESC}?1049l`
const BEGIN = `${ESC}?2026h${ESC}H` // terminals that know it show the frame at once
const END = `${ESC}J${ESC}?2026l`

/** Frames, and keys. */
export interface Screen {
  /** Draws from the top left over the last frame, so that nothing flickers; lines that do not fit are counted instead. */
  draw(text: string): void
  close(): void
}

export function openScreen({ onKey, onResize }: { onKey: (key: string) => void; onResize: () => void }): Screen {
  const { stdin, stdout } = process
  let open = true
  const keys = (text: string): void => {
    for (const key of text) onKey(key)
  }
  const restore = (): void => {
    if (!open) return
    open = false
    try {
      if (stdin.isTTY) stdin.setRawMode(false)
      writeSync(1, LEAVE)
    } catch {
      // The terminal is gone, and nothing of it can be restored.
    }
  }
  process.on('exit', restore)
  stdout.write(ENTER)
  stdout.on('resize', onResize)
  if (stdin.isTTY) stdin.setRawMode(true).setEncoding('utf8').on('data', keys).resume()
  return {
    draw(text) {
      const lines = text.trimEnd().split('\n')
      const fitting = lines.length <= stdout.rows ? lines : [...lines.slice(0, stdout.rows - 1), `… ${lines.length - stdout.rows + 1} more lines`]
      if (open) stdout.write(`${BEGIN}${fitting.map((line) => `${line}${ESC}K`).join('\r\n')}${END}`)
    },
    close() {
      restore()
      process.off('exit', restore)
      stdout.off('resize', onResize)
      if (stdin.isTTY) stdin.off('data', keys).pause()
    },
  }
}
