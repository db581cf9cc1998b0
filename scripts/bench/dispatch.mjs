// What an event costs in JavaScript: turns that find a whole batch ready, beside a plain loop of the same calls.
import { AioContext, EventNotifier } from 'fdmon'

const ROUNDS = 9
const SLICE_MS = 100

/** ns an event: of the plain loop, of the turn, and of the turn over the plain loop; sorted, one value a round each. */
export function dispatch(batch) {
  const ctx = new AioContext({ poll: { maxNs: 100_000 } })
  // Words that are always ready: all that is left of a turn is to find them and to call.
  const memory = new Int32Array(new SharedArrayBuffer(64)).fill(1)
  const notifiers = Array.from({ length: batch }, () => new EventNotifier())
  let calls = 0
  const handlers = notifiers.map(() => ({
    poll: { memory, index: 0, notEqual: 0 },
    pollReady() {
      calls++
    },
  }))
  notifiers.forEach((notifier, index) => ctx.setEventNotifier(notifier, handlers[index]))
  const fds = notifiers.map(({ fd }) => fd)

  const plain = () => {
    for (let i = 0; i < batch; i++) handlers[i].pollReady(fds[i])
  }
  const turn = () => ctx.poll(false)
  const before = calls
  turn()
  if (calls - before !== batch) throw new Error(`a turn ran ${calls - before} of ${batch} handlers`)

  slice(plain)
  slice(turn)
  const values = { plain: [], turn: [], over: [] }
  for (let round = 0; round < ROUNDS; round++) {
    const bare = slice(plain)
    const dispatched = slice(turn)
    values.plain.push(bare)
    values.turn.push(dispatched)
    values.over.push(dispatched - bare)
  }
  ctx.close()
  for (const notifier of notifiers) notifier.close()
  for (const list of Object.values(values)) list.sort((a, b) => a - b)
  return values

  function slice(run) {
    const calls = Math.ceil(10_000 / batch)
    const start = performance.now()
    let events = 0
    let now
    do {
      for (let i = 0; i < calls; i++) run()
      events += calls * batch
      now = performance.now()
    } while (now - start < SLICE_MS)
    return ((now - start) * 1e6) / events
  }
}
