// Runs a program for WASI in this Node: `node run.mjs FOLDER PROGRAM ARGUMENTS…`; FOLDER is its /tmp.
import { readFileSync } from 'node:fs'
import { WASI } from 'node:wasi'

const [folder, program, ...args] = process.argv.slice(2)
const wasi = new WASI({ version: 'preview1', args: ['program', ...args], env: { RUST_BACKTRACE: '0' }, preopens: { '/tmp': folder } })
const { instance } = await WebAssembly.instantiate(readFileSync(program), wasi.getImportObject())
try {
  process.exitCode = wasi.start(instance)
} catch (error) {
  process.stderr.write(`${error.stack}\n`)
  process.exitCode = 101
}
