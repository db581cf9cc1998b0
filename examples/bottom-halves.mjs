// Bottom halves: work for the next turn, also from other threads.
import { Worker } from 'node:worker_threads'
import { AioContext } from 'fdmon'

const ctx = new AioContext()
ctx.schedule(() => console.log('once, in the next turn'))
ctx.poll()

let runs = 0
const again = ctx.bottomHalf(() => {
  if (++runs < 3) again.schedule() // in the turn after this one
})
again.schedule()
ctx.pollUntil(() => runs === 3)
console.log(`ran ${runs} times`)

const asked = ctx.bottomHalf(() => {
  console.log('a worker asked for this')
  ctx.stop()
})
const code = `
  const { context, half } = require('node:worker_threads').workerData
  require('fdmon').AioContext.remote(context).schedule(half)`
new Worker(code, { eval: true, workerData: { context: ctx.id, half: asked.id } })
ctx.run()
ctx.close()
