// A plain socket, spun by the kernel's own readiness: no memory is shared, and no signal is left out.
import { Worker } from 'node:worker_threads'
import { AioContext } from 'fdmon'
import { read, socketpair, write } from 'fdmon/fd'

const code = `
  const { read, write } = require('fdmon/fd')
  const { fd } = require('node:worker_threads').workerData
  const byte = new Uint8Array(1)
  for (let sent = 0; sent < 20_000; sent++) {
    write(fd, byte)
    while (read(fd, byte) < 0); // until the answer is there
  }`
const ctx = new AioContext({ poll: { maxNs: 200_000 } })
const [ours, theirs] = socketpair()
const byte = new Uint8Array(1)
let answered = 0
ctx.setFdHandler(ours, {
  poll: 'kernel', // read and write run on a hit, as always
  read(fd) {
    if (read(fd, byte) > 0) answered += write(fd, byte)
  },
})
new Worker(code, { eval: true, workerData: { fd: theirs.fd } })
ctx.pollUntil(() => answered === 20_000)
const { spinHits, sleeps, spinWastedNs, guard } = ctx.stats()
console.log(`${answered} answers: ${spinHits} found by spinning, ${sleeps} sleeps, ${spinWastedNs} ns spun in vain`)
if (guard !== null) console.log(`it does not spin any more: ${guard}`)
ctx.close()
