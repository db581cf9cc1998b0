// Runs a program for WASI in this Node: `node run.mjs FOLDER PROGRAM ARGUMENTS…`; FOLDER is its /tmp. One with threads gets a worker
// for each.
import { readFileSync } from 'node:fs'
import { WASI } from 'node:wasi'
import { isMainThread, Worker, workerData } from 'node:worker_threads'

/** As the linker declares it for programs with threads: 1 GB at most. */
const MAXIMUM_PAGES = 16_384

const wasiOf = (folder, args) => {
  const env = { RUST_BACKTRACE: '0' }
  return new WASI({ version: 'preview1', args: ['program', ...args], env, preopens: { '/tmp': folder } })
}

function importsOf(wasi, { folder, module, memory, ids }) {
  const { wasi_snapshot_preview1: calls } = wasi.getImportObject()
  // Called by JavaScript: what V8 makes of direct calls is not safe in Node 20 and 22 while the memory grows.
  const wrapped = Object.entries(calls).map(([name, call]) => [name, (...args) => call(...args)])
  const imports = { wasi_snapshot_preview1: Object.fromEntries(wrapped) }
  if (memory === undefined) return imports
  const spawn = (argument) => {
    const id = Atomics.add(ids, 0, 1)
    new Worker(new URL(import.meta.url), { workerData: { folder, module, memory, ids, id, argument } }).unref()
    return id
  }
  return { ...imports, env: { memory }, wasi: { 'thread-spawn': spawn } }
}

if (isMainThread) {
  const [folder, program, ...args] = process.argv.slice(2)
  const module = new WebAssembly.Module(readFileSync(program))
  const threads = WebAssembly.Module.imports(module).some(({ kind }) => kind === 'memory')
  const memory = threads ? new WebAssembly.Memory({ initial: 512, maximum: MAXIMUM_PAGES, shared: true }) : undefined
  const ids = new Int32Array(new SharedArrayBuffer(4)).fill(1)
  const wasi = wasiOf(folder, args)
  const instance = new WebAssembly.Instance(module, importsOf(wasi, { folder, module, memory, ids }))
  try {
    process.exitCode = wasi.start(instance)
  } catch (error) {
    process.stderr.write(`${error.stack}\n`)
    process.exitCode = 101
  }
} else {
  const { module, memory, id, argument, folder } = workerData
  const wasi = wasiOf(folder, [])
  const instance = new WebAssembly.Instance(module, importsOf(wasi, workerData))
  wasi.initialize({ exports: { memory } })
  instance.exports.wasi_thread_start(id, argument)
}
