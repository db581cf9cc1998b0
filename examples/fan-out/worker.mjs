// One of the workers: adds up the bytes of what it is sent, and answers an empty message with what it has done.
import { workerData } from 'node:worker_threads'
import { AioContext, ChannelPort } from 'fdmon'

const { handle, maxNs, work } = workerData
const context = new AioContext({ poll: { maxNs } })
const port = ChannelPort.from(handle)
const result = new Float64Array(2) // records, and their sum

const take = (bytes) => {
  if (bytes.length === 0) return port.send(new Uint8Array(result.buffer))
  result[0]++
  for (let round = 0; round < work; round++) for (let i = 0; i < bytes.length; i++) result[1] += bytes[i]
}
port.listen(context, take, { closed: () => context.stop() })
context.run()
port.close()
context.close()
