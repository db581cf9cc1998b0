import { EventNotifier } from 'fdmon'
import { ways } from './ways.mjs'
const names = process.argv.slice(3)
const res = {}
for (let round = 0; round < 7; round++) for (const name of names) {
  const notifier = new EventNotifier()
  const words = new Int32Array(new SharedArrayBuffer(64))
  let n = 0
  const N = 30000
  await new Promise((resolve) => {
    let t0
    const stop = ways[name].start({ words, notifier, uvPollAddon: process.argv[2] }, () => {
      if (n++ === 1000) t0 = process.hrtime.bigint()
      if (n > N) { (res[name] ??= []).push(Number(process.hrtime.bigint() - t0) / (N - 1000)); stop(); resolve() } else { words[0]++; words[1]=words[0]; notifier.set() }
    })
    notifier.set()
  })
}
for (const [k, v] of Object.entries(res)) console.log(k.padEnd(40), v.map(x => x.toFixed(0)).join(' '))
