// What the commands know of where they print: how wide it is, whether it shows colours, and tables that fit into it.
import { stripVTControlCharacters } from 'node:util'
import Table from 'cli-table3'
import pc from 'picocolors'

/** Where something is printed. */
export interface Terminal {
  /** Columns; Infinity where lines may be as long as they like, as in a file. */
  width: number
  colour: boolean
}

/** Below this a column of prose is no longer readable, and rows become paragraphs. */
const PROSE = 24
const NONE = { left: '', right: '', top: '', bottom: '', mid: '' }
const CHARS = {
  ...NONE,
  middle: '  ',
  ...{ 'top-mid': '', 'top-left': '', 'top-right': '', 'bottom-mid': '', 'bottom-left': '', 'bottom-right': '' },
  ...{ 'left-mid': '', 'mid-mid': '', 'right-mid': '' },
}

/**
 * What a stream is like. `NO_COLOR` and `FORCE_COLOR` are obeyed as everywhere; `COLUMNS` says how wide a stream is that is no
 * terminal.
 */
export function terminalOf(stream: NodeJS.WriteStream, env: NodeJS.ProcessEnv = process.env): Terminal {
  const force = env['FORCE_COLOR']
  const forced = force !== undefined && force !== '0' && force !== 'false'
  const wanted = stream.isTTY ? env['TERM'] !== 'dumb' && stream.hasColors() : forced
  const named = Number(env['COLUMNS'])
  const told = Number.isInteger(named) && named > 0 ? named : Infinity
  return { width: stream.isTTY ? stream.columns || 80 : told, colour: wanted && !env['NO_COLOR'] }
}

/** Colours, or the same functions without effect. */
export function paint({ colour }: Terminal): ReturnType<typeof pc.createColors> {
  return pc.createColors(colour)
}

/** A text of somebody else's, without what would do something to a terminal. */
export function plain(text: string): string {
  return text.replaceAll(/\p{Cc}/gu, '?')
}

/** Columns that a text takes. */
function widthOf(text: string): number {
  return stripVTControlCharacters(text).length
}

/**
 * A table without lines, so that it reads well in a pipe too. Where it is too wide, its last column wraps if that is prose;
 * otherwise, and in narrow terminals, each row becomes a paragraph.
 */
export function table(
  terminal: Terminal,
  head: readonly string[],
  rows: readonly (readonly string[])[],
  { right = [], prose = false }: { right?: readonly number[]; prose?: boolean } = {},
): string {
  const widths = head.map((name, at) => Math.max(...[name, ...rows.map((row) => row[at] ?? '')].map(widthOf)))
  const rest = widths.slice(0, -1).reduce((sum, width) => sum + width + CHARS.middle.length, 0)
  const last = widths.at(-1) ?? 0
  const fits = rest + last <= terminal.width
  if (!fits && !(prose && terminal.width - rest >= PROSE)) return paragraphs(terminal, head, rows)
  const { bold } = paint(terminal)
  const made = new Table({
    head: head.map((name) => bold(name)),
    chars: CHARS,
    style: { head: [], border: [], 'padding-left': 0, 'padding-right': 0 },
    colAligns: head.map((_, at) => (right.includes(at) ? 'right' : 'left')),
    ...(!fits && { colWidths: [...widths.slice(0, -1), terminal.width - rest], wordWrap: true }),
  })
  made.push(...rows.map((row) => [...row]))
  return `${made.toString().replaceAll(/ +$/gm, '')}\n`
}

function paragraphs(terminal: Terminal, head: readonly string[], rows: readonly (readonly string[])[]): string {
  const { bold } = paint(terminal)
  return rows
    .map((row) => {
      const fields = row.slice(1).flatMap((text, at) => (text === '' ? [] : [`  ${head[at + 1]}: ${text}`]))
      return `${bold(row[0] ?? '')}\n${fields.map((field) => wrap(terminal, field, '    ')).join('')}`
    })
    .join('')
}

/** Breaks one line between words; what follows the first is indented. A word that is too long stays whole. */
export function wrap({ width }: Terminal, text: string, indent = '  '): string {
  const [, lead = '', body = ''] = /^( *)(.*)$/s.exec(text) ?? []
  const lines: string[] = []
  let line = lead
  for (const word of body.split(' ')) {
    const empty = line.trim() === ''
    if (!empty && widthOf(line) + 1 + widthOf(word) > width) {
      lines.push(line)
      line = `${indent}${word}`
    } else line = empty ? `${line}${word}` : `${line} ${word}`
  }
  return [...lines, line, ''].join('\n')
}
