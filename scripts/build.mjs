// Builds the package: the native addon, then the TypeScript, then the ESM entries and the declarations of both kinds.
//
//   node scripts/build.mjs [native] [ts] [--debug]      without a name: both
import { chmodSync, cpSync, existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { transformSync } from 'esbuild'
import { needCargo, root, run, step } from './step.mjs'

const words = process.argv.slice(2)
const debug = words.includes('--debug')
const parts = words.filter((word) => !word.startsWith('-'))
const wants = (part) => parts.length === 0 || parts.includes(part)
const bin = (name) => join(root, 'node_modules', '.bin', name)

/** The public entries: each becomes dist/esm/<name>.mjs with .d.mts, and dist/cjs/<name>.d.cts. */
const entries = ['index', 'fd']

if (wants('native')) {
  needCargo()
  run('native addon', bin('napi'), [
    'build',
    '--platform',
    ...(debug ? [] : ['--release']),
    ...['--manifest-path', 'crates/fdmon-napi/Cargo.toml'],
    ...['--output-dir', 'native'],
    ...['--js', 'binding.cjs'],
    ...['--dts', 'binding.d.cts'],
  ])
}

if (wants('ts')) {
  rmSync(join(root, 'dist'), { recursive: true, force: true })
  // Comments are in the declarations, where editors look; once more in the code they would be a tenth of the package.
  run('TypeScript', bin('tsc'), ['--project', 'tsconfig.build.json', '--declaration', 'false', '--removeComments'])
  run('declarations', bin('tsc'), ['--project', 'tsconfig.build.json', '--emitDeclarationOnly'])
  await step('entries', writeEntries)
  await step('command line', shrinkCommands)
}

/** One implementation, CommonJS; the ESM entry lists the names and re-exports the same objects. */
function writeEntries() {
  const cjs = join(root, 'dist', 'cjs')
  const esm = join(root, 'dist', 'esm')
  mkdirSync(esm, { recursive: true })
  cpSync(join(root, 'ts', 'package.json'), join(cjs, 'package.json'))
  // npm does this when it installs the package; a link to the checkout needs it too.
  const command = join(cjs, 'cli', 'main.js')
  if (existsSync(command)) chmodSync(command, 0o755)
  const require = createRequire(import.meta.url)
  const counts = []
  for (const entry of entries) {
    if (!existsSync(join(cjs, `${entry}.js`))) continue
    const names = Object.keys(require(join(cjs, `${entry}.js`))).sort()
    writeFileSync(
      join(esm, `${entry}.mjs`),
      `import cjs from '../cjs/${entry}.js'\n${names.map((name) => `export const ${name} = cjs.${name}\n`).join('')}`,
    )
    writeFileSync(join(esm, `${entry}.d.mts`), `export * from '../cjs/${entry}.js'\n`)
    writeFileSync(join(cjs, `${entry}.d.cts`), `export * from './${entry}.js'\n`)
    counts.push(`${entry} ${names.length} names`)
  }
  return `${counts.join(', ')}, ${readdirSync(esm).length} files`
}

/**
 * The commands are half of the code and nobody's to import, so they are written small; file by file, since their workers and the
 * tests name these files. The maps of tsc no longer fit and go.
 */
function shrinkCommands() {
  const folder = join(root, 'dist', 'cjs', 'cli')
  const files = readdirSync(folder, { recursive: true }).map((name) => join(folder, name))
  const sources = files.filter((name) => name.endsWith('.js'))
  let [before, after] = [0, 0]
  for (const file of sources) {
    const text = readFileSync(file, 'utf8')
    const { code } = transformSync(text, { minify: true, target: 'node20.9', legalComments: 'none' })
    writeFileSync(file, code)
    before += text.length
    after += code.length
  }
  for (const file of files.filter((name) => name.endsWith('.js.map'))) rmSync(file)
  return `${sources.length} files, ${Math.round(before / 1000)} kB written as ${Math.round(after / 1000)} kB`
}
