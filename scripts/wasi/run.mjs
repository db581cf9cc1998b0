// Runs a program for WASI in this Node: `node run.mjs FOLDER PROGRAM ARGUMENTS…`; FOLDER is its /tmp.
import { readFileSync } from 'node:fs'
import { WASI } from 'node:wasi'

const [folder, program, ...args] = process.argv.slice(2)
const env = { RUST_BACKTRACE: '0' }
const wasi = new WASI({ version: 'preview1', args: ['program', ...args], env, preopens: { '/tmp': folder } })
const { wasi_snapshot_preview1: calls } = wasi.getImportObject()
// Called by JavaScript: with direct calls, Node 20 and 22 crashed at times while the memory of a program grew.
const wrapped = Object.entries(calls).map(([name, call]) => [name, (...values) => call(...values)])
const module = new WebAssembly.Module(readFileSync(program))
const instance = new WebAssembly.Instance(module, { wasi_snapshot_preview1: Object.fromEntries(wrapped) })
try {
  process.exitCode = wasi.start(instance)
} catch (error) {
  process.stderr.write(`${error.stack}\n`)
  process.exitCode = 101
}
