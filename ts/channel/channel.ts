// A channel: its memory, and its two ports.
import { checkInteger, checkKeys, checkObject, checkOneOf } from '../check.js'
import { wasi } from '../native.js'
import { refused } from '../wasi/binding.js'
import { MOST } from './layout.js'
import { makeParts } from './parts.js'
import { ChannelPort, OWN, pair } from './port.js'

const CAPACITY = 65_536

/**
 * What a {@link Channel} is made with.
 *
 * @example
 * ```ts
 * import { Channel, type ChannelOptions } from 'fdmon'
 *
 * const options: ChannelOptions = { capacity: 1024, memory: 'memfd' }
 * const { port1, port2 } = new Channel(options)
 * port1.close()
 * port2.close()
 * ```
 */
export interface ChannelOptions {
  /** Bytes of the largest message, and what fits at least before `send()` returns false. @default 65536 */
  capacity?: number
  /** `'shared'`: between threads of this process. `'memfd'`: between processes too. @default 'shared' */
  memory?: 'shared' | 'memfd'
}

/**
 * Two ports that send each other messages of bytes through rings in shared memory: worker ↔ worker, or process ↔ process by
 * a memfd, with TypeScript or Rust on the other side. While both sides are busy it makes no system call, and while they are
 * idle it takes no CPU. Use one port here and send the other's handle to where it is to be used.
 *
 * Closing both ports frees everything. See docs/CHANNEL-LAYOUT.md for the memory and the rules.
 *
 * @example
 * ```ts
 * import { Channel, ChannelPort } from 'fdmon'
 *
 * const { port1, port2 } = new Channel({ capacity: 1024 })
 * console.log(port1.send(Buffer.from('hello'))) // true
 * console.log(Buffer.from(port2.receive()!).toString()) // hello
 * port1.close()
 * console.log(await port2.closed) // closed
 * port2.close()
 * ```
 */
export class Channel {
  /** The one end. */
  readonly port1: ChannelPort
  /** The other end. */
  readonly port2: ChannelPort

  /** Makes the memory and the descriptors: 4 eventfds, or 2 memfds and a pair of sockets. */
  constructor(options: ChannelOptions = {}) {
    checkKeys('', checkObject('options', options, 'an object, for example { capacity: 4096 }'), ['capacity', 'memory'])
    const capacity = options.capacity === undefined ? CAPACITY : checkInteger('capacity', options.capacity, 1, MOST, 'bytes')
    const memory = options.memory === undefined ? 'shared' : checkOneOf('memory', options.memory, ['shared', 'memfd'])
    if (wasi !== null) throw refused('a Channel')
    const [parts1, parts2] = makeParts(memory, capacity)
    this.port1 = new ChannelPort(OWN, parts1, undefined)
    this.port2 = new ChannelPort(OWN, parts2, undefined)
    pair(this.port1, this.port2)
  }
}
