// Finds the code that the documentation shows: fenced blocks of Markdown files, and @example blocks in TypeScript.
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join, relative } from 'node:path'
import { root } from './step.mjs'

/** Blocks in these languages are code that a reader may copy; `no-run` after the language says: do not run it. */
const LANGUAGES = new Map([
  ['js', 'js'],
  ['javascript', 'js'],
  ['mjs', 'js'],
  ['cjs', 'cjs'],
  ['ts', 'ts'],
  ['typescript', 'ts'],
  ['rust', 'rust'],
  ['rs', 'rust'],
  ['sh', 'sh'],
  ['bash', 'sh'],
])

/** All snippets of a file or of the files in a folder: `{ file, line, language, info, code }`. */
export function snippetsOf(path) {
  const full = join(root, path)
  if (statSync(full).isDirectory()) {
    return readdirSync(full, { withFileTypes: true })
      .filter((entry) => entry.isDirectory() || /\.(md|ts)$/.test(entry.name))
      .flatMap((entry) => snippetsOf(join(path, entry.name)))
  }
  const lines = readFileSync(full, 'utf8').split('\n')
  return fenced(relative(root, full), path.endsWith('.ts') ? commentsOnly(lines) : lines)
}

/** The text of doc comments at its own line numbers, everything else blank. */
function commentsOnly(lines) {
  let inside = false
  return lines.map((line) => {
    if (/^\s*\/\*\*/.test(line)) inside = !line.includes('*/')
    else if (inside && line.includes('*/')) inside = false
    else if (inside) return line.replace(/^\s*\* ?/, '')
    return ''
  })
}

function fenced(file, lines) {
  const found = []
  let open
  lines.forEach((line, index) => {
    const fence = /^(\s*)(```+|~~~+)\s*(.*)$/.exec(line)
    if (open === undefined) {
      if (fence) open = { fence: fence[2], indent: fence[1].length, info: fence[3].trim(), line: index + 2, code: [] }
      return
    }
    if (fence && fence[2].startsWith(open.fence) && fence[3].trim() === '') {
      const [word = ''] = open.info.split(/[\s,]+/)
      const language = LANGUAGES.get(word)
      if (language) found.push({ file, line: open.line, language, info: open.info, code: open.code.join('\n') })
      open = undefined
      return
    }
    open.code.push(line.slice(Math.min(open.indent, line.length - line.trimStart().length)))
  })
  return found
}
