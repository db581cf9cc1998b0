// 64 of 256 sockets become ready together, and callbacks read them: an operation is one event.
import { writeSync } from 'node:fs'
import { pairs, watchers } from './sockets.mjs'

const byte = Buffer.alloc(1)
const [READY, ALL] = [64, 256]

const way = (watch) => ({ ops }) => {
  const all = pairs(ALL)
  let left = ops
  let due = 0
  let done
  const round = () => {
    due = READY
    for (const { from } of all.slice(0, READY)) writeSync(from.fd, byte)
  }
  const end = watch(all, () => {
    left--
    if (--due === 0) {
      if (left <= 0) done()
      else round()
    }
  })
  const work = () => new Promise((resolve) => {
    done = resolve
    round()
  })
  return { work, end }
}

export const ways = Object.fromEntries(Object.entries(watchers).map(([name, watch]) => [name, way(watch)]))
