// Fixed newstyle negotiation: the client haggles over options until it takes an export, or gives up.
import {
  ClientFlag,
  Info,
  MAX_NAME,
  MAX_PAYLOAD,
  Option,
  OPTION_HEADER,
  OPTION_MAGIC,
  OptionReply,
  ProtocolError,
} from './protocol.js'

/** What is served, as the client is told. */
export interface Export {
  readonly name: string
  readonly size: number
  /** Bits of `Transmission`. */
  readonly flags: number
}

/** Where the negotiation stands: it goes on, the client took the export, or it said goodbye. */
export type Stage = 'options' | 'transmission' | 'aborted'

/** An option is a name and a few numbers; a longer one is refused. */
const MAX_OPTION = MAX_NAME + 4 + 2 + 2 * 64
const EXPORT_NAME_ZEROES = 124
const PREFERRED_BLOCK = 4096

export class Handshake {
  readonly #export: Export
  readonly #send: (bytes: Uint8Array) => void
  #stage: Stage = 'options'
  #flags: number | undefined

  constructor(exported: Export, send: (bytes: Uint8Array) => void) {
    this.#export = exported
    this.#send = send
  }

  get stage(): Stage {
    return this.#stage
  }

  /** Takes what is complete, at most one option; how many bytes that were, 0 = more must come first. */
  take(bytes: Buffer): number {
    if (this.#flags === undefined) {
      if (bytes.length < 4) return 0
      this.#flags = bytes.readUInt32BE(0)
      if ((this.#flags & ~(ClientFlag.FIXED_NEWSTYLE | ClientFlag.NO_ZEROES)) === 0) return 4
      throw new ProtocolError(`handshake flags ${hex(this.#flags)} are unknown`)
    }
    if (bytes.length < Math.min(OPTION_MAGIC.length, OPTION_HEADER)) return 0
    if (OPTION_MAGIC.compare(bytes, 0, OPTION_MAGIC.length) !== 0) {
      throw new ProtocolError(`an option begins with ${bytes.toString('hex', 0, 8)} in place of "IHAVEOPT"`)
    }
    if (bytes.length < OPTION_HEADER) return 0
    const option = bytes.readUInt32BE(8)
    const length = bytes.readUInt32BE(12)
    if (length > MAX_OPTION) throw new ProtocolError(`option ${option} has ${length} bytes, more than ${MAX_OPTION}`)
    if (bytes.length < OPTION_HEADER + length) return 0
    this.#option(option, bytes.subarray(OPTION_HEADER, OPTION_HEADER + length))
    return OPTION_HEADER + length
  }

  #option(option: number, data: Buffer): void {
    switch (option) {
      case Option.EXPORT_NAME:
        return this.#exportName(data.toString('utf8'))
      case Option.ABORT:
        this.#stage = 'aborted'
        return this.#reply(option, OptionReply.ACK)
      case Option.LIST: {
        if (data.length !== 0) return this.#reply(option, OptionReply.ERR_INVALID, text('LIST takes no data'))
        const name = text(this.#export.name)
        this.#reply(option, OptionReply.SERVER, Buffer.concat([u32(name.length), name]))
        return this.#reply(option, OptionReply.ACK)
      }
      case Option.INFO:
      case Option.GO:
        return this.#info(option, data)
      default:
        return this.#reply(option, OptionReply.ERR_UNSUP)
    }
  }

  /** The old way to take an export has no room for an error: a wrong name ends the connection. */
  #exportName(name: string): void {
    if (!this.#has(name)) throw new ProtocolError(`there is no export "${name}"`)
    const { size, flags } = this.#export
    const zeroes = ((this.#flags ?? 0) & ClientFlag.NO_ZEROES) === 0 ? EXPORT_NAME_ZEROES : 0
    this.#send(Buffer.concat([u64(size), u16(flags), Buffer.alloc(zeroes)]))
    this.#stage = 'transmission'
  }

  #info(option: number, data: Buffer): void {
    const invalid = (why: string): void => this.#reply(option, OptionReply.ERR_INVALID, text(why))
    if (data.length < 6) return invalid('the data is too short')
    const nameEnd = 4 + data.readUInt32BE(0)
    if (nameEnd - 4 > MAX_NAME) return this.#reply(option, OptionReply.ERR_TOO_BIG, text('the name is too long'))
    if (nameEnd + 2 > data.length) return invalid('the name is longer than the data')
    const wanted = data.readUInt16BE(nameEnd)
    if (data.length !== nameEnd + 2 + 2 * wanted) return invalid('the number of information requests is wrong')
    if (!this.#has(data.toString('utf8', 4, nameEnd))) {
      return this.#reply(option, OptionReply.ERR_UNKNOWN, text('there is no such export'))
    }
    const { name, size, flags } = this.#export
    this.#reply(option, OptionReply.INFO, Buffer.concat([u16(Info.EXPORT), u64(size), u16(flags)]))
    for (let at = nameEnd + 2; at < data.length; at += 2) {
      const info = data.readUInt16BE(at)
      if (info === Info.NAME) this.#reply(option, OptionReply.INFO, Buffer.concat([u16(info), text(name)]))
      if (info === Info.BLOCK_SIZE) {
        const sizes = [u32(1), u32(PREFERRED_BLOCK), u32(MAX_PAYLOAD)]
        this.#reply(option, OptionReply.INFO, Buffer.concat([u16(info), ...sizes]))
      }
    }
    this.#reply(option, OptionReply.ACK)
    if (option === Option.GO) this.#stage = 'transmission'
  }

  /** There is one export: the empty name means it too. */
  #has(name: string): boolean {
    return name === '' || name === this.#export.name
  }

  #reply(option: number, type: number, data: Uint8Array = new Uint8Array(0)): void {
    this.#send(Buffer.concat([u64(0x3_e889_0455_65a9), u32(option), u32(type), u32(data.length), data]))
  }
}

function text(value: string): Buffer {
  return Buffer.from(value, 'utf8')
}

function u16(value: number): Buffer {
  const bytes = Buffer.alloc(2)
  bytes.writeUInt16BE(value)
  return bytes
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}

function u64(value: number): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64BE(BigInt(value))
  return bytes
}

export function hex(value: number): string {
  return `0x${value.toString(16).padStart(8, '0')}`
}
