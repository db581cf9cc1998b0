// Messages, and requests with answers, of bytes over a ChannelPort: what postMessage does, without its copies and events.
//
// Each message has 8 bytes before its own: what it is, and the number of the request that it belongs to.
import { defaultContext } from 'fdmon'

const MESSAGE = 0
const REQUEST = 1
const ANSWER = 2
const FAILURE = 3
const HEAD = 8

/** A port to post to, to request from, and to answer at. Payloads are Uint8Arrays; those that arrive are copies to keep. */
export class Rpc {
  /** Called with each message; as of a MessagePort. */
  onmessage = () => {}
  #port
  #answer
  #next = 0
  #waiting = new Map()

  /**
   * @param port - a ChannelPort
   * @param options - `answer`: what answers requests, also by a promise; `context`: an attached context, which may spin
   */
  constructor(port, { answer, context = defaultContext() } = {}) {
    this.#port = port
    this.#answer = answer ?? (() => Promise.reject(new Error('this side answers no requests')))
    port.listen(context, (bytes) => this.#take(bytes), { closed: (end) => this.#end(end) })
  }

  /** As postMessage. */
  postMessage(payload) {
    this.#send(MESSAGE, 0, payload)
  }

  /** The other side's answer; rejects with what it threw, or when it ends. */
  request(payload) {
    return new Promise((resolve, reject) => {
      const id = (this.#next = (this.#next + 1) >>> 0)
      this.#waiting.set(id, { resolve, reject })
      this.#send(REQUEST, id, payload)
    })
  }

  close() {
    this.#port.close()
  }

  #send(kind, id, payload) {
    const bytes = Buffer.allocUnsafe(HEAD + payload.length)
    bytes.writeUInt32LE(kind, 0)
    bytes.writeUInt32LE(id, 4)
    bytes.set(payload, HEAD)
    // In order, and never more than fits: what does not yet, waits here.
    this.#port.sendAsync(bytes).catch((error) => this.#waiting.get(id)?.reject(error))
  }

  #take(bytes) {
    const head = new DataView(bytes.buffer, bytes.byteOffset, HEAD)
    const [kind, id] = [head.getUint32(0, true), head.getUint32(4, true)]
    const payload = bytes.slice(HEAD) // the view is only good until this returns
    if (kind === MESSAGE) return this.onmessage({ data: payload })
    if (kind === REQUEST) return void this.#serve(id, payload)
    const waiting = this.#waiting.get(id)
    this.#waiting.delete(id)
    if (kind === ANSWER) waiting?.resolve(payload)
    else if (kind === FAILURE) waiting?.reject(new Error(Buffer.from(payload).toString()))
  }

  async #serve(id, payload) {
    try {
      this.#send(ANSWER, id, await this.#answer(payload))
    } catch (error) {
      this.#send(FAILURE, id, Buffer.from(String(error?.message ?? error)))
    }
  }

  #end(end) {
    for (const { reject } of this.#waiting.values()) reject(new Error(`the other side: ${end}`))
    this.#waiting.clear()
  }
}
