// Of the smoke suite: channels, to another worker and to another port that has only the descriptors.
import { Worker } from 'node:worker_threads'
import { AioContext, Channel, ChannelPort, FdmonError } from 'fdmon'
import { equal, refuses, runtime, SPIN, withContext } from './steps.mjs'

/** `count` numbered messages to an echo in a worker and back, in order; then both ends close. */
async function answered(ctx, memory, count) {
  const { port1, port2 } = new Channel({ memory, capacity: 4096 })
  const other = new Worker(new URL('./worker.mjs', import.meta.url), { workerData: { name: 'echo', handle: port2.handle } })
  const said = () => new Promise((resolve, reject) => (other.once('message', resolve), other.once('error', reject)))
  equal(await said(), 'ready')
  port2.close()
  const message = new Uint32Array(16)
  const bytes = new Uint8Array(message.buffer)
  let sent = 0
  let got = 0
  let wrong = 0
  const more = () => {
    while (sent < count && sent - got < 16) {
      message.fill(sent)
      if (!port1.send(bytes)) return
      sent++
    }
  }
  port1.listen(ctx, (back) => {
    if (!new Uint32Array(back.slice().buffer).every((word) => word === got)) wrong++
    got++
    more()
  })
  more()
  ctx.pollUntil(() => got === count)
  equal([wrong, got], [0, count])
  const end = said()
  port1.close()
  equal(await end, 'closed')
  await other.terminate()
}

export const channel = {
  'a worker answers messages in shared memory, in order, and hears the end': withContext((ctx) => answered(ctx, 'shared', 2000)),
  'the same with both sides spinning': withContext((ctx) => answered(ctx, 'shared', 2000), { poll: SPIN }),
  'the same over a memfd': withContext((ctx) => answered(ctx, 'memfd', 500)),

  'a full channel says so, and tells when there is room': withContext((ctx) => {
    const { port1, port2 } = new Channel({ capacity: 64 })
    let drains = 0
    port1.listen(ctx, () => {}, { drain: () => ++drains })
    let sent = 0
    while (port1.send(new Uint8Array(32))) sent++
    let received = 0
    while (port2.receive() !== undefined) received++
    ctx.pollUntil(() => drains === 1)
    equal([sent > 0, received === sent, port1.send(new Uint8Array(32))], [true, true, true])
    refuses(() => port1.send(new Uint8Array(65)), FdmonError, 'ERR_FDMON_INVALID_ARG', '65', '64')
    port1.close()
    port2.close()
  }),

  'a port has one owner, and a closed one takes no message': () => {
    const { port1, port2 } = new Channel({ memory: 'memfd' })
    const { handle } = port2
    const taken = ChannelPort.from(handle)
    refuses(() => ChannelPort.from(handle), FdmonError, 'ERR_FDMON_IN_USE')
    port1.send(new Uint8Array(3))
    equal(taken.receive().length, 3)
    for (const port of [port1, port2, taken]) port.close()
    refuses(() => port1.send(new Uint8Array(1)), FdmonError, 'ERR_FDMON_CLOSED')
  },

  'what waits for a channel needs a loop of Node, or a context that is given': async () => {
    const { port1, port2 } = new Channel()
    if (runtime === 'node') {
      port2.send(new Uint8Array(3))
      port2.close()
      let bytes = 0
      for await (const message of port1) bytes += message.length
      equal([bytes, await port1.closed], [3, 'closed'])
    } else {
      refuses(() => port1.closed, FdmonError, 'ERR_FDMON_UNSUPPORTED', 'poll() or run()')
      const ctx = new AioContext()
      const ends = []
      port1.listen(ctx, () => {}, { closed: (end) => ends.push(end) })
      port2.close()
      ctx.pollUntil(() => ends.length > 0)
      equal(ends, ['closed'])
      ctx.close()
    }
    port1.close()
  },
}
