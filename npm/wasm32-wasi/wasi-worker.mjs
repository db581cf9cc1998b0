// A thread that Rust has made: a worker over the same memory. It runs no JavaScript of users.
import { WASI } from 'node:wasi'
import { parentPort, threadId } from 'node:worker_threads'
import { instantiateNapiModuleSync, MessageHandler } from '@napi-rs/wasm-runtime'

Object.assign(globalThis, { self: globalThis, postMessage: (message) => parentPort.postMessage(message) })
const handler = new MessageHandler({
  onLoad({ wasmModule, wasmMemory }) {
    return instantiateNapiModuleSync(wasmModule, {
      childThread: true,
      wasi: new WASI({ version: 'preview1' }),
      overwriteImports(imports) {
        imports.env = { ...imports.env, ...imports.napi, ...imports.emnapi, memory: wasmMemory }
        imports.fdmon = {
          notifier_state() {
            throw new Error(`thread ${threadId} has no notifiers; report this`)
          },
        }
      },
    })
  },
})
parentPort.on('message', (data) => handler.handle({ data }))
