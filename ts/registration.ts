// ① A registration: what the user holds of a handler.
import { inspect } from 'node:util'
import type { Loop } from './batch.js'
import { checkBoolean, checkKeys, checkObject } from './check.js'
import { invalidArg } from './errors.js'
import type { Slot } from './slot.js'

const READ = 1
const WRITE = 2
const PRIORITY = 4

/**
 * A registered handler. It is a token: once its handler was removed or replaced, or the context closed, all it does is
 * nothing.
 *
 * @example
 * ```ts
 * import { AioContext } from 'fdmon'
 * import { socketpair } from 'fdmon/fd'
 *
 * using ctx = new AioContext()
 * const [left, right] = socketpair()
 * const registration = ctx.setFdHandler(left, { read() {}, write() {} })
 * registration.setInterest({ write: false }) // nothing to send for now
 * registration.remove()
 * left.close()
 * right.close()
 * ```
 */
export interface Registration extends Disposable {
  /** The file descriptor that was registered. */
  readonly fd: number
  /** Turns callbacks on and off without replacing the handler; keys that are left out keep their value. */
  setInterest(interest: { read?: boolean; write?: boolean; priority?: boolean }): void
  /** Removes the handler. Nothing of it runs after this returns. */
  remove(): void
}

/** @internal */
export class FdRegistration implements Registration {
  readonly fd: number
  readonly #loop: Loop
  readonly #slot: Slot

  constructor(loop: Loop, slot: Slot) {
    this.fd = slot.fd
    this.#loop = loop
    this.#slot = slot
  }

  setInterest(interest: { read?: boolean; write?: boolean; priority?: boolean }): void {
    const slot = this.#slot
    if (!slot.live) return
    const given = checkObject('interest', interest, 'an object, for example { write: false }')
    checkKeys('interest.', given, ['read', 'write', 'priority'])
    let bits = slot.interest
    bits = withBit(slot, bits, 'read', given['read'], READ)
    bits = withBit(slot, bits, 'write', given['write'], WRITE)
    bits = withBit(slot, bits, 'priority', given['priority'], PRIORITY)
    if (bits === slot.interest) return
    this.#loop.native.setInterest(slot.slot, bits)
    slot.interest = bits
  }

  remove(): void {
    const slot = this.#slot
    if (slot.live) removeHandler(this.#loop, slot)
  }

  [Symbol.dispose](): void {
    this.remove()
  }

  [inspect.custom](): string {
    return `Registration { fd: ${this.fd}, live: ${this.#slot.live} }`
  }
}

function withBit(slot: Slot, bits: number, name: string, value: unknown, bit: number): number {
  if (value === undefined) return bits
  if (!checkBoolean(`interest.${name}`, value)) return bits & ~bit
  if ((slot.callbacks & bit) === 0) {
    throw invalidArg(`interest.${name}`, true, `register fd ${slot.fd} again with a ${name} callback`)
  }
  return bits | bit
}

/** Removes a live handler. Its `pollEnd` still finds it while native lets go of it. */
export function removeHandler(loop: Loop, slot: Slot): void {
  slot.live = false
  slot.interest = 0
  loop.withHooks(() => {
    try {
      loop.native.remove(slot.slot)
    } finally {
      loop.forget(slot)
    }
  })
}
