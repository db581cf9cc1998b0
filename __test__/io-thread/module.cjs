// A CommonJS module of an I/O thread, with modules of its own: who finds the context?
const { parentPort, Worker, workerData } = require('node:worker_threads')
const { currentContext } = require('fdmon')

const inWorker = `
  const { parentPort, workerData } = require('node:worker_threads')
  try {
    require(workerData).currentContext()
  } catch (error) {
    parentPort.postMessage(error.code)
  }`

async function main() {
  const imported = await import('./imported.mjs')
  const nested = new Worker(inWorker, { eval: true, workerData: require.resolve('fdmon') })
  const code = await new Promise((resolve) => nested.once('message', resolve))
  parentPort.postMessage({
    data: workerData,
    path: process.argv[1],
    ids: [currentContext().id, require('./required.cjs').id, imported.id],
    nested: code,
  })
}
void main()
