// The WebAssembly build of fdmon: instantiates it with the WASI of Node and the Node-API of emnapi.
//
// It gets no file, no variable and no argument: only the clock, memory of its own, the standard input, output and error of the
// process, and the descriptors that a program registers (host-fds.cjs). It makes no thread, unless Rust asks for one; such a thread is a worker that keeps no process alive.
'use strict'
const { readFileSync } = require('node:fs')
const { join } = require('node:path')
const { WASI } = require('node:wasi')
const { Worker } = require('node:worker_threads')
const { getDefaultContext, instantiateNapiModuleSync } = require('@napi-rs/wasm-runtime')
const { hostFds } = require('./host-fds.cjs')

/** In pages of 64 KiB. Rust's stack alone takes 64 MB of addresses; what is not touched costs nothing. */
const memory = new WebAssembly.Memory({ initial: 2048, maximum: 65_536, shared: true })

const wasi = new WASI({ version: 'preview1' })
const host = hostFds(wasi.wasiImport, memory)

/** Who answers for notifiers, whose counters are JavaScript's. */
let notifierState = () => 0

const { napiModule } = instantiateNapiModuleSync(readFileSync(join(__dirname, 'fdmon.wasm32-wasi.wasm')), {
  context: getDefaultContext(),
  asyncWorkPoolSize: 0,
  wasi,
  onCreateWorker() {
    const worker = new Worker(join(__dirname, 'wasi-worker.mjs'))
    worker.unref()
    return worker
  },
  overwriteImports(imports) {
    imports.env = { ...imports.env, ...imports.napi, ...imports.emnapi, memory }
    imports.wasi_snapshot_preview1 = { ...imports.wasi_snapshot_preview1, ...host.calls }
    imports.fdmon = { notifier_state: (number) => notifierState(number) }
    return imports
  },
  beforeInit({ instance }) {
    for (const [name, register] of Object.entries(instance.exports)) if (name.startsWith('__napi_register__')) register()
  },
})

module.exports = napiModule.exports
/** A view of integers in its memory. */
module.exports.integers = (address, length) => new Int32Array(memory.buffer, address, length)
/** Makes a descriptor of the process known, by the number that is returned; and forgets it. */
module.exports.takeFd = host.take
module.exports.releaseFd = host.release
module.exports.setNotifierState = (state) => void (notifierState = state)
