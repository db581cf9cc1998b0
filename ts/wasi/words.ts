// Conditions on words where native cannot see the memory: a predicate in JavaScript, and hooks for the suppress word.
//
// The order is native's: the word is 1 before `pollBegin` of the user, and 0 before `pollEnd`, which the last look follows;
// `Atomics` are full barriers.
import { FdmonError } from '../errors.js'
import type { NativeWord } from '../native-context.js'
import type { Callbacks } from '../slot.js'

/** The suppress words in use: by memory, the offset. */
const suppressed = new WeakMap<ArrayBufferLike, Set<number>>()

/** The callbacks with the condition as predicate, and what gives the suppress word back. */
export function asked(handlers: Callbacks, word: NativeWord): { handlers: Callbacks; release: () => void } {
  const { index, notEqual, otherIndex, suppressIndex } = word
  const memory = word.memory as Int32Array
  const other = otherIndex === undefined ? () => notEqual as number : () => Atomics.load(memory, otherIndex)
  const suppress = (value: 0 | 1): void => {
    if (suppressIndex === undefined) return
    if (memory instanceof BigInt64Array || memory instanceof BigUint64Array) Atomics.store(memory, suppressIndex, BigInt(value))
    else Atomics.store(memory, suppressIndex, value)
  }
  const wrapped: Callbacks = {
    read: (fd, events) => handlers.read(fd, events),
    write: (fd, events) => handlers.write(fd, events),
    priority: (fd, events) => handlers.priority(fd, events),
    pollReady: (fd) => handlers.pollReady(fd),
    poll: () => Atomics.load(memory, index) !== other(),
    pollBegin(fd) {
      suppress(1)
      ;(handlers as Partial<Callbacks>).pollBegin?.(fd)
    },
    pollEnd(fd) {
      suppress(0)
      ;(handlers as Partial<Callbacks>).pollEnd?.(fd)
    },
  }
  return { handlers: wrapped, release: claim(word) }
}

/** A suppress word belongs to one handler. */
function claim({ memory, suppressIndex }: NativeWord): () => void {
  if (suppressIndex === undefined) return () => {}
  const offset = memory.byteOffset + suppressIndex * memory.BYTES_PER_ELEMENT
  const taken = suppressed.get(memory.buffer) ?? new Set()
  if (taken.has(offset)) {
    const what = 'pass a word of its own for each handler'
    throw new FdmonError('ERR_FDMON_IN_USE', `handlers.poll.suppress.index = ${suppressIndex} is the suppress word of another handler; ${what}`)
  }
  suppressed.set(memory.buffer, taken.add(offset))
  return () => void taken.delete(offset)
}
