// The side that answers: SHA-256 of what it is sent, over both ways.
import { createHash } from 'node:crypto'
import { parentPort, workerData } from 'node:worker_threads'
import { AioContext, ChannelPort } from 'fdmon'
import { Rpc } from './rpc.mjs'

const sha256 = (bytes) => createHash('sha256').update(bytes).digest()
const context = new AioContext({ poll: { maxNs: workerData.maxNs } }).attach()
const port = ChannelPort.from(workerData.handle)
new Rpc(port, { context, answer: (bytes) => (bytes.length === 0 ? Promise.reject(new Error('nothing to hash')) : sha256(bytes)) })

// The same by postMessage.
const answer = ({ id, bytes }) => parentPort.postMessage({ id, bytes: sha256(bytes) })
parentPort.on('message', answer)
port.closed.then(() => {
  parentPort.off('message', answer)
  context.close()
})
