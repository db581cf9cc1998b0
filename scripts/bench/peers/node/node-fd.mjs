// A byte goes into a socket, a callback reads it from the other end and sends the next: an operation is one of them.
import { writeSync } from 'node:fs'
import { pairs, watchers } from './sockets.mjs'

const byte = Buffer.alloc(1)

const way = (watch) => ({ ops }) => {
  const [pair] = pairs(1)
  let left = ops
  let done
  const end = watch([pair], () => {
    if (--left === 0) done()
    else writeSync(pair.from.fd, byte)
  })
  const work = () => new Promise((resolve) => {
    done = resolve
    writeSync(pair.from.fd, byte)
  })
  return { work, end }
}

export const ways = Object.fromEntries(Object.entries(watchers).map(([name, watch]) => [name, way(watch)]))
