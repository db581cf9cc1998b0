// What the tests of examples/nbd-server share: the server in a process of its own, and a client that sends any bytes.
import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { ExecutionContext } from 'ava'

export const MIB = 1024 * 1024
export const main = fileURLToPath(new URL('../examples/nbd-server/main.mjs', import.meta.url))
const LIMIT_MS = 30_000

export const Command = { READ: 0, WRITE: 1, DISC: 2, FLUSH: 3, TRIM: 4, CACHE: 5, WRITE_ZEROES: 6 } as const
export const FUA = 1
export const [EPERM, EIO, EINVAL, ENOSPC] = [1, 5, 22, 28]

/** Bytes that look random and say where they are. */
export function pattern(length: number, seed = 1): Buffer {
  const bytes = Buffer.alloc(length)
  let state = seed
  for (let at = 0; at < length; at++) {
    state = (state * 1_103_515_245 + 12_345) & 0x7fff_ffff
    bytes[at] = state >> 16
  }
  return bytes
}

export function temporary(t: ExecutionContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'fdmon-nbd-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

export interface StartOptions {
  /** What the file has; a number is a size of zeroes. */
  content?: Buffer | number
  args?: readonly string[]
  /** A command before that of Node. */
  under?: readonly string[]
}

/** A server that runs until the end of the test. */
export class NbdServer {
  readonly file: string
  readonly path: string
  readonly process: ChildProcess
  stdout = ''
  stderr = ''
  readonly #exit: Promise<unknown[]>

  static async start(t: ExecutionContext, options: StartOptions = {}): Promise<NbdServer> {
    const server = new NbdServer(temporary(t), options)
    t.teardown(() => server.process.kill('SIGKILL'))
    await until(() => server.stdout.includes('\n') || server.process.exitCode !== null, 'the server listens')
    if (!server.stdout.startsWith('serving ')) throw new Error(`the server does not start: ${server.stdout}${server.stderr}`)
    return server
  }

  private constructor(folder: string, { content = MIB, args = [], under = [] }: StartOptions) {
    this.file = join(folder, 'disk')
    this.path = join(folder, 'socket')
    writeFileSync(this.file, typeof content === 'number' ? '' : content)
    if (typeof content === 'number') truncateSync(this.file, content)
    const [command, ...rest] = [...under, process.execPath, main, this.file, this.path, ...args]
    this.process = spawn(command!, rest, { stdio: ['ignore', 'pipe', 'pipe'] })
    this.#exit = once(this.process, 'close')
    this.process.stdout!.on('data', (text) => (this.stdout += text))
    this.process.stderr!.on('data', (text) => (this.stderr += text))
  }

  /** For clients that take a URI. */
  uri(name = ''): string {
    return `nbd+unix:///${name}?socket=${this.path}`
  }

  /** What it has logged, a line each. */
  get lines(): string[] {
    return this.stderr.split('\n').filter((line) => line !== '')
  }

  /** Waits for a line of the log. */
  async logged(words: RegExp): Promise<void> {
    await until(() => words.test(this.stderr), `a line with ${words}, in "${this.stderr}"`)
  }

  /** Ends it by a signal; the server itself ends with 0, and takes its socket along. */
  async stop(t: ExecutionContext, signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    this.process.kill(signal)
    t.deepEqual(await this.#exit, [0, null], this.stderr)
    t.false(existsSync(this.path))
  }

  /** The most memory that it ever had, in bytes. */
  get peakMemory(): number {
    const kib = /VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${this.process.pid}/status`, 'utf8'))?.[1]
    return Number(kib) * 1024
  }
}

/** A connection on which each byte is ours. */
export class RawClient {
  readonly socket: Socket
  readonly #chunks: Buffer[] = []
  #length = 0
  #ended = false

  constructor(path: string) {
    this.socket = connect(path)
    this.socket.on('data', (bytes) => {
      this.#chunks.push(bytes)
      this.#length += bytes.length
    })
    this.socket.on('error', () => (this.#ended = true)).on('close', () => (this.#ended = true))
  }

  /** Past the negotiation, at the default export. */
  static async go(server: NbdServer, name = ''): Promise<RawClient> {
    const client = await RawClient.greeted(server)
    client.socket.write(option(7, infoData(name)))
    for (;;) {
      const { type } = await client.optionReply()
      if (type === 1) return client
      if (type !== 3) throw new Error(`GO was answered by ${type}`)
    }
  }

  /** With the greeting read and answered by `flags`. */
  static async greeted(server: NbdServer, flags = 3): Promise<RawClient> {
    const client = new RawClient(server.path)
    const greeting = await client.receive(18)
    if (greeting.toString('latin1') !== 'NBDMAGICIHAVEOPT\0\x03') throw new Error(`greeting ${greeting.toString('hex')}`)
    client.socket.write(u32(flags))
    return client
  }

  async receive(length: number): Promise<Buffer> {
    await until(() => this.#length >= length || this.#ended, `${length} bytes, of which ${this.#length} came`)
    if (this.#length < length) throw new Error(`the server ended the connection after ${this.#length} bytes`)
    const all = this.#chunks.length === 1 ? this.#chunks[0]! : Buffer.concat(this.#chunks)
    this.#chunks.splice(0, this.#chunks.length, all.subarray(length))
    this.#length -= length
    return all.subarray(0, length)
  }

  async optionReply(): Promise<{ option: number; type: number; data: Buffer }> {
    const header = await this.receive(20)
    if (header.readBigUInt64BE(0) !== 0x3_e889_0455_65a9n) throw new Error(`reply ${header.toString('hex')}`)
    return { option: header.readUInt32BE(8), type: header.readUInt32BE(12), data: await this.receive(header.readUInt32BE(16)) }
  }

  /** The next reply; `lengths` says how much data a successful one has. */
  async reply(lengths: number | ((cookie: bigint) => number) = 0): Promise<{ error: number; cookie: bigint; data: Buffer }> {
    const header = await this.receive(16)
    if (header.readUInt32BE(0) !== 0x6744_6698) throw new Error(`reply ${header.toString('hex')}`)
    const [error, cookie] = [header.readUInt32BE(4), header.readBigUInt64BE(8)]
    const length = typeof lengths === 'number' ? lengths : lengths(cookie)
    return { error, cookie, data: await this.receive(error === 0 ? length : 0) }
  }

  /** One request and its reply. */
  async ask(command: number, offset: number | bigint, lengthOrData: number | Buffer, flags = 0): Promise<{ error: number; data: Buffer }> {
    const length = typeof lengthOrData === 'number' ? lengthOrData : lengthOrData.length
    this.socket.write(request(command, offset, length, { flags, cookie: 7n }))
    if (typeof lengthOrData !== 'number') this.socket.write(lengthOrData)
    const { error, cookie, data } = await this.reply(command === Command.READ ? length : 0)
    if (cookie !== 7n) throw new Error(`cookie ${cookie}`)
    return { error, data }
  }

  /** Waits for the server to end the connection. */
  async end(): Promise<void> {
    await until(() => this.#ended, 'the server ends the connection')
  }
}

export function request(
  command: number,
  offset: number | bigint,
  length: number,
  { flags = 0, cookie = 0n, magic = 0x2560_9513 }: { flags?: number; cookie?: bigint; magic?: number } = {},
): Buffer {
  const bytes = Buffer.alloc(28)
  bytes.writeUInt32BE(magic, 0)
  bytes.writeUInt16BE(flags, 4)
  bytes.writeUInt16BE(command, 6)
  bytes.writeBigUInt64BE(cookie, 8)
  bytes.writeBigUInt64BE(BigInt(offset), 16)
  bytes.writeUInt32BE(length, 24)
  return bytes
}

export function option(number: number, data: Uint8Array = Buffer.alloc(0), length = data.length): Buffer {
  return Buffer.concat([Buffer.from('IHAVEOPT'), u32(number), u32(length), data])
}

/** The data of INFO and GO. */
export function infoData(name: string, infos: readonly number[] = []): Buffer {
  const wanted = [infos.length, ...infos].map((info) => Buffer.from([info >> 8, info & 0xff]))
  return Buffer.concat([u32(Buffer.byteLength(name)), Buffer.from(name), ...wanted])
}

export function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}

export async function until(is: () => boolean, what: string): Promise<void> {
  const end = Date.now() + LIMIT_MS
  while (!is()) {
    if (Date.now() > end) throw new Error(`not within ${LIMIT_MS / 1000} s: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 2))
  }
}

/** A server that is expected to end by itself. */
export function runServer(...args: string[]): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(process.execPath, [main, ...args], { encoding: 'utf8', timeout: LIMIT_MS })
}
