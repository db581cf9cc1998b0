// The ways of hearing of an event that `npm run bench:attach` compares. Each is started with what runs at an event, and
// returns what stops it; `ring` says how the producer signals.
import { createRequire } from 'node:module'
import { AioContext } from 'fdmon'
import { read } from 'fdmon/fd'

/** Words of the shared memory: what the producer has published, what the consumer has taken. */
export const SENT = 0
export const TAKEN = 1
export const SUPPRESS = 2

const eight = new Uint8Array(8)

const addonWay = (start) => ({ notifier, uvPollAddon }, onEvent) => {
  const addon = createRequire(import.meta.url)(uvPollAddon)
  addon[start](notifier.fd, (fd) => {
    read(fd, eight)
    onEvent()
  })
  return () => addon.stop()
}

function onContext(options, handlersOf) {
  return (shared, onEvent) => {
    const ctx = new AioContext(options).attach()
    const handlers = handlersOf(shared, onEvent)
    ctx.setFdHandler(shared.notifier, handlers)
    return () => {
      const stats = ctx.stats()
      ctx.close()
      return stats
    }
  }
}

const plain = (_, onEvent) => ({
  read(fd) {
    read(fd, eight)
    onEvent()
  },
})
const kernel = (shared, onEvent) => ({ poll: 'kernel', ...plain(shared, onEvent) })
const word = ({ words, notifier }, onEvent) => ({
  poll: { memory: words, index: SENT, notEqual: { index: TAKEN }, suppress: { index: SUPPRESS } },
  pollReady: onEvent,
  read() {
    notifier.testAndClear()
    if (Atomics.load(words, SENT) !== Atomics.load(words, TAKEN)) onEvent()
  },
})
const blocking = (monitor) => onContext({ monitor }, plain)
const spinning = (monitor, handlers) =>
  onContext({ monitor, poll: { maxNs: 500_000, policy: 'classic', guards: true } }, handlers)

function messagePort({ port }, onEvent) {
  port.on('message', onEvent)
  return () => port.off('message', onEvent)
}

/** By name: what starts it, and the producer's signal: `fd`, `word` (and the fd where that is owed) or `message`. */
export const ways = {
  'MessagePort': { start: messagePort, signal: 'message' },
  'uv_poll': { start: addonWay('watch'), signal: 'fd' },
  'a bare spin in prepare, in C': { start: addonWay('spin'), signal: 'fd' },
  'fdmon attached on epoll': { start: blocking('epoll'), signal: 'fd' },
  'fdmon attached on io_uring': { start: blocking('io_uring'), signal: 'fd' },
  'fdmon attached on poll': { start: blocking('poll'), signal: 'fd' },
  "spinning, poll: 'kernel', epoll": { start: spinning('epoll', kernel), signal: 'fd' },
  "spinning, poll: 'kernel', io_uring": { start: spinning('io_uring', kernel), signal: 'fd' },
  'spinning on a word': { start: spinning('epoll', word), signal: 'word' },
}
