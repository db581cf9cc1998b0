// A hundred sockets, none of which becomes ready, for some seconds.
import { setTimeout as sleep } from 'node:timers/promises'
import { pairs, watchers } from './sockets.mjs'

const way = (watch) => ({ seconds }) => {
  const end = watch(pairs(100), () => {
    throw new Error('nothing was written')
  })
  return { work: () => sleep(seconds * 1000), end }
}

export const ways = Object.fromEntries(Object.entries(watchers).map(([name, watch]) => [name, way(watch)]))
