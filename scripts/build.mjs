// Builds the package: the native addon, then the TypeScript, then the ESM entries and the declarations of both kinds.
//
//   node scripts/build.mjs [native] [ts] [--debug]      without a name: both
import { chmodSync, cpSync, existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
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
  run('TypeScript', bin('tsc'), ['--project', 'tsconfig.build.json'])
  await step('entries', writeEntries)
  await step('scales and shapes of the plots', bundlePlots)
}

/** Puts the libraries of the plots into the one file that imports them, and their licences before them. */
async function bundlePlots() {
  const { build } = await import('esbuild')
  const file = join(root, 'dist', 'cjs', 'cli', 'bench', 'd3.js')
  const options = { entryPoints: [join(root, 'ts', 'cli', 'bench', 'd3.ts')], bundle: true, minify: true, format: 'cjs', platform: 'node', target: 'node20' }
  const { metafile, outputFiles } = await build({ ...options, outfile: file, metafile: true, write: false })
  const packages = [...new Set(Object.keys(metafile.inputs).flatMap((input) => /node_modules\/(@[^/]+\/[^/]+|[^/]+)\//.exec(input)?.[1] ?? []))]
  const licences = packages.map((name) => `${name}\n\n${readFileSync(join(root, 'node_modules', name, 'LICENSE'), 'utf8').trim()}\n`)
  writeFileSync(file, `/*\n${licences.join('\n')}*/\n${outputFiles[0].text}`)
  rmSync(`${file}.map`, { force: true })
  return `${packages.length} packages, ${Math.round(outputFiles[0].text.length / 1024)} KiB`
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
