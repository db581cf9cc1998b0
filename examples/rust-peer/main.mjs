// A Node process and a Rust process on one memory: messages there and back, then two flows at once, each message looked at.
//
//   cargo build --release -p fdmon --features channel --example channel_peer
//   node examples/rust-peer/main.mjs [--maker node|rust] [--peer PROGRAM] [--rounds N] [--count N] [--spin MICROSECONDS]
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { AioContext } from 'fdmon'
import { startMaker, startPeer } from './peer.mjs'

const { values } = parseArgs({
  options: {
    maker: { type: 'string', default: 'node' },
    peer: { type: 'string', default: fileURLToPath(new URL('../../target/release/examples/channel_peer', import.meta.url)) },
    rounds: { type: 'string', default: '20000' },
    count: { type: 'string', default: '500000' },
    spin: { type: 'string', default: '100' },
  },
})
const [rounds, count, spin] = ['rounds', 'count', 'spin'].map((name) => Number(values[name]))
if (!existsSync(values.peer)) {
  process.stderr.write(`${values.peer} is missing; run: cargo build --release -p fdmon --features channel --example channel_peer\n`)
  process.exit(1)
}
const start = (args) => (values.maker === 'rust' ? startMaker(values.peer, args, 65_536) : startPeer(values.peer, args))
const context = new AioContext({ poll: { maxNs: spin * 1000 } })
let wrong = 0

// Echo: the next message when the last one is back.
{
  const { port, exited } = await start(['--spin', `${spin}`])
  const words = new Int32Array(16)
  const bytes = new Uint8Array(words.buffer)
  const took = new Float64Array(rounds)
  let [round, sent] = [0, 0]
  const send = () => {
    words.fill(round)
    sent = performance.now()
    port.send(bytes)
  }
  const listening = port.listen(context, (back) => {
    took[round] = performance.now() - sent
    if (back.length !== 64 || new Int32Array(back.buffer, 0, 16).some((word) => word !== round)) wrong++
    if (++round < rounds) send()
    else context.stop()
  })
  send()
  context.run()
  listening[Symbol.dispose]()
  port.close()
  if ((await exited) !== 0) wrong++
  took.sort()
  console.log(`${rounds} round trips to Rust and back: ${(took[rounds >> 1] * 1000).toFixed(2)} µs each (median), ${wrong} wrong`)
}

// Numbered messages both ways, as fast as they go; the peer looks at ours as we look at its.
{
  const { port, exited } = await start(['--spin', `${spin}`, '--count', `${count}`])
  const bytes = new Uint8Array(64)
  const number = new DataView(bytes.buffer)
  let [sent, got, torn, died] = [0, 0, 0, '']
  /** Message `n`: itself, and bytes that follow from it. */
  const fill = (n) => {
    for (let at = 4; at < 64; at++) bytes[at] = n + at
    number.setUint32(0, n, true)
  }
  const produce = () => {
    for (; sent < count; sent++) {
      fill(sent)
      if (!port.send(bytes)) return
    }
    finish()
  }
  const finish = () => {
    if ((sent === count && got === count) || died) context.stop()
  }
  const take = (message) => {
    let right = message.length === 64 && message[0] + message[1] * 256 + message[2] * 65_536 + message[3] * 16_777_216 === got
    for (let at = 4; at < 64; at++) right &&= message[at] === ((got + at) & 0xff)
    if (!right) torn++
    got++
    finish()
  }
  const since = performance.now()
  port.listen(context, take, {
    drain: produce,
    closed(end) {
      if (got < count || sent < count) died = end
      finish()
    },
  })
  produce()
  if (!(sent === count && got === count)) context.run()
  const seconds = (performance.now() - since) / 1000
  port.close()
  const code = await exited
  if (torn > 0 || got !== count || code !== 0 || died) wrong++
  console.log(`${count} messages each way: ${((2 * count) / seconds / 1e6).toFixed(2)} million a second, ${torn} not right here, the peer says ${code}`)
}
context.close()
process.exitCode = wrong === 0 ? 0 : 1
