// examples/nbd-server by its protocol: bytes of all kinds from clients of all manners. nbd-clients.test.ts has the real ones,
// nbd-command.test.ts how it starts and ends.
import { readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import {
  Command,
  EINVAL,
  EIO,
  ENOSPC,
  EPERM,
  FUA,
  infoData,
  MIB,
  NbdServer,
  option,
  pattern,
  RawClient,
  request,
  temporary,
  u32,
} from './nbd-kit.js'
import { monitors } from './on-each.js'

const [EXPORT_NAME, ABORT, LIST, STARTTLS, INFO, GO, STRUCTURED_REPLY] = [1, 2, 3, 5, 6, 7, 8]
const [ACK, REP_SERVER, REP_INFO] = [1, 2, 3]
const [ERR_UNSUP, ERR_INVALID, ERR_UNKNOWN] = [0x8000_0001, 0x8000_0003, 0x8000_0006]
const CAN = { all: 1, readOnly: 2, flush: 4, fua: 8, trim: 32, zeroes: 64, multiConn: 256 }
const WRITABLE = CAN.all | CAN.flush | CAN.fua | CAN.trim | CAN.zeroes | CAN.multiConn

// --- Negotiation ------------------------------------------------------------------------------------------------------------

test.serial('options that the server does not know are refused, and the negotiation goes on', async (t) => {
  const server = await NbdServer.start(t)
  const client = await RawClient.greeted(server)
  for (const [number, data] of [[STARTTLS], [STRUCTURED_REPLY], [99, pattern(300)], [0xffff_ffff]] as const) {
    client.socket.write(option(number!, data))
    t.like(await client.optionReply(), { option: number, type: ERR_UNSUP })
  }
  client.socket.write(option(GO, infoData('')))
  t.is((await client.optionReply()).type, REP_INFO)
  t.is((await client.optionReply()).type, ACK)
  t.is((await client.ask(Command.READ, 0, 16)).error, 0)
  client.socket.write(request(Command.DISC, 0, 0))
  await client.end()
  await server.stop(t)
  t.deepEqual(server.lines, [])
})

test.serial('LIST names the export, and INFO tells its size, flags, name and block sizes', async (t) => {
  const server = await NbdServer.start(t, { content: 3 * MIB, args: ['--name', 'größe'] })
  const client = await RawClient.greeted(server)
  const name = Buffer.from('größe')
  client.socket.write(option(LIST))
  t.deepEqual(await client.optionReply(), { option: LIST, type: REP_SERVER, data: Buffer.concat([u32(name.length), name]) })
  t.is((await client.optionReply()).type, ACK)
  client.socket.write(option(LIST, Buffer.alloc(1)))
  t.is((await client.optionReply()).type, ERR_INVALID)

  for (const asked of ['größe', '']) {
    client.socket.write(option(INFO, infoData(asked, [1, 3, 77])))
    const { data } = await client.optionReply()
    t.deepEqual([data.readUInt16BE(0), data.readBigUInt64BE(2), data.readUInt16BE(10)], [0, BigInt(3 * MIB), WRITABLE])
    t.deepEqual((await client.optionReply()).data, Buffer.concat([Buffer.from([0, 1]), name]))
    const sizes = (await client.optionReply()).data
    t.deepEqual([sizes.readUInt16BE(0), sizes.readUInt32BE(2), sizes.readUInt32BE(10)], [3, 1, 32 * MIB])
    t.is((await client.optionReply()).type, ACK)
  }
  client.socket.write(option(INFO, infoData('other')))
  t.is((await client.optionReply()).type, ERR_UNKNOWN)
  client.socket.write(option(ABORT))
  t.is((await client.optionReply()).type, ACK)
  await client.end()
  await server.stop(t)
  t.deepEqual(server.lines, [])
})

test.serial('INFO and GO whose lengths do not fit together are invalid, and change nothing', async (t) => {
  const server = await NbdServer.start(t)
  const client = await RawClient.greeted(server)
  const bad = [Buffer.alloc(0), Buffer.alloc(5), Buffer.concat([u32(9), Buffer.alloc(4)]), infoData('', [1]).subarray(0, 7), Buffer.concat([infoData(''), Buffer.alloc(2)])]
  for (const data of bad) {
    for (const number of [INFO, GO]) {
      client.socket.write(option(number!, data))
      t.like(await client.optionReply(), { option: number, type: ERR_INVALID })
    }
  }
  client.socket.write(option(GO, Buffer.concat([u32(0xffff_ffff), Buffer.alloc(4)])))
  t.is((await client.optionReply()).type, 0x8000_0009)
  client.socket.write(option(ABORT))
  t.is((await client.optionReply()).type, ACK)
})

test.serial('EXPORT_NAME answers with 124 zeroes or without them, as the client asked', async (t) => {
  const server = await NbdServer.start(t, { content: 2 * MIB, args: ['--name', 'disk'] })
  for (const [flags, name, length] of [[1, 'disk', 134], [3, 'disk', 10], [3, '', 10]] as const) {
    const client = await RawClient.greeted(server, flags)
    client.socket.write(option(EXPORT_NAME!, Buffer.from(name)))
    const answer = await client.receive(length)
    t.is(answer.readBigUInt64BE(0), BigInt(2 * MIB))
    t.is(answer.readUInt16BE(8), WRITABLE)
    t.true(answer.subarray(10).every((byte) => byte === 0))
    t.is((await client.ask(Command.READ, 0, 5)).error, 0)
    client.socket.write(request(Command.DISC, 0, 0))
    await client.end()
  }
  const wrong = await RawClient.greeted(server)
  wrong.socket.write(option(EXPORT_NAME!, Buffer.from('other')))
  await wrong.end()
  await server.stop(t)
  t.deepEqual(server.lines, ['nbd-server: connection 4: there is no export "other"'])
})

test.serial('a negotiation and requests that come byte by byte, or all at once, are the same', async (t) => {
  const content = pattern(MIB)
  const server = await NbdServer.start(t, { content })
  const data = pattern(100, 5)
  const all = Buffer.concat([
    u32(3), option(99), option(GO, infoData('')),
    request(Command.READ, 10, 20, { cookie: 1n }), request(Command.WRITE, 0, 100, { cookie: 2n }), data, request(Command.FLUSH, 0, 0, { cookie: 3n }),
  ])
  for (const step of [1, all.length]) {
    writeFileSync(server.file, content)
    const client = new RawClient(server.path)
    client.socket.setNoDelay(true)
    await client.receive(18)
    for (let at = 0; at < all.length; at += step) {
      client.socket.write(all.subarray(at, at + step))
      await new Promise((resolve) => setImmediate(resolve))
    }
    for (const type of [ERR_UNSUP, REP_INFO, ACK]) t.is((await client.optionReply()).type, type)
    const answers = new Map<bigint, Buffer>()
    for (let count = 0; count < 3; count++) {
      const { error, cookie, data: bytes } = await client.reply((cookie) => (cookie === 1n ? 20 : 0))
      t.is(error, 0)
      answers.set(cookie, bytes)
    }
    t.deepEqual([...answers.keys()].sort(), [1n, 2n, 3n])
    t.true(readFileSync(server.file).subarray(0, 100).equals(data))
    client.socket.destroy()
  }
})

// --- Requests ---------------------------------------------------------------------------------------------------------------

test.serial('what is out of bounds or unknown gets the error of the protocol, and the connection goes on', async (t) => {
  const content = pattern(MIB)
  const server = await NbdServer.start(t, { content })
  const client = await RawClient.go(server)
  const far = 2n ** 64n - 1n
  const rows: [number, number | bigint, number | Buffer, number, number][] = [
    [Command.READ, MIB - 4096, 4096, 0, 0],
    [Command.READ, MIB - 4095, 4096, 0, EINVAL],
    [Command.READ, far, 1, 0, EINVAL],
    [Command.READ, 0, 0xffff_ffff, 0, EINVAL],
    [Command.WRITE, MIB - 99, pattern(100), 0, ENOSPC],
    [Command.WRITE, far, pattern(5000), 0, ENOSPC],
    [Command.WRITE, 0, pattern(70_000), 2, EINVAL],
    [Command.WRITE_ZEROES, MIB, 1, 0, ENOSPC],
    [Command.WRITE_ZEROES, 0, 1, 16, EINVAL],
    [Command.TRIM, MIB, 1, 0, EINVAL],
    [Command.TRIM, 0, MIB, 0, 0],
    [Command.READ, 0, 16, 4, EINVAL],
    [Command.CACHE, 0, 16, 0, EINVAL],
    [1234, 0, 0, 0, EINVAL],
    [Command.READ, 5, 0, 0, 0],
    [Command.WRITE, 5, 0, 0, 0],
    [Command.FLUSH, 0, 0, FUA, 0],
  ]
  for (const [command, offset, data, flags, error] of rows) {
    t.is((await client.ask(command, offset, data, flags)).error, error, `${command} at ${offset}, flags ${flags}`)
  }
  t.true((await client.ask(Command.READ, 0, MIB)).data.equals(content), 'nothing was written, and a trim is a hint')
  await server.stop(t)
  t.deepEqual(server.lines, [])
})

test.serial('a read-only export says so, refuses what changes it, and serves a file that cannot be written', async (t) => {
  const content = pattern(MIB)
  const server = await NbdServer.start(t, { content, args: ['--read-only'] })
  const client = await RawClient.greeted(server)
  client.socket.write(option(GO, infoData('')))
  t.is((await client.optionReply()).data.readUInt16BE(10), CAN.all | CAN.readOnly | CAN.flush | CAN.fua | CAN.multiConn)
  await client.optionReply()
  t.is((await client.ask(Command.WRITE, 0, pattern(5000, 3))).error, EPERM)
  t.is((await client.ask(Command.WRITE_ZEROES, 0, 5)).error, EPERM)
  t.is((await client.ask(Command.TRIM, 0, 5)).error, EPERM)
  t.is((await client.ask(Command.FLUSH, 0, 0)).error, 0)
  t.true((await client.ask(Command.READ, 0, MIB)).data.equals(content))
})

for (const engine of monitors.includes('io_uring') ? ['io_uring', 'threads'] : ['threads']) {
  for (const monitor of monitors) {
    test.serial(`engine ${engine} on ${monitor}: a thousand requests at once are each answered once, rightly, with and without spinning`, async (t) => {
      const content = pattern(4 * MIB)
      for (const spin of ['0', '100']) {
        const server = await NbdServer.start(t, { content, args: ['--engine', engine, '--monitor', monitor, '--spin', spin] })
        const client = await RawClient.go(server)
        const sizes = [512, 4096, 4096, 4096, 100, 70_000]
        const reads = Array.from({ length: 1000 }, (_, at) => ({ offset: (at * 7919) % (2 * MIB - 70_000), length: sizes[at % sizes.length]! }))
        const writes = Array.from({ length: 64 }, (_, at) => pattern(at % 2 === 0 ? 4096 : 20_000, at + 9))
        for (const [at, { offset, length }] of reads.entries()) {
          client.socket.write(request(Command.READ, offset, length, { cookie: BigInt(at) }))
          const data = writes[at]
          if (data === undefined) continue
          client.socket.write(request(Command.WRITE, 2 * MIB + at * 32_768, data.length, { cookie: BigInt(10_000 + at), flags: at % 3 === 0 ? FUA : 0 }))
          client.socket.write(data)
        }
        const missing = new Set([...reads.keys(), ...writes.map((_, at) => 10_000 + at)])
        while (missing.size > 0) {
          const { error, cookie, data } = await client.reply((cookie) => reads[Number(cookie)]?.length ?? 0)
          t.is(error, 0)
          if (!missing.delete(Number(cookie))) t.fail(`${cookie} was answered twice`)
          const read = reads[Number(cookie)]
          if (read && !data.equals(content.subarray(read.offset, read.offset + read.length))) t.fail(`request ${cookie} brings other bytes`)
        }
        const disk = readFileSync(server.file)
        for (const [at, data] of writes.entries()) t.true(disk.subarray(2 * MIB + at * 32_768).subarray(0, data.length).equals(data))
        await server.stop(t)
        t.deepEqual(server.lines, [])
      }
    })
  }
}

test.serial('the longest payloads go both ways, and a longer one ends the connection', async (t) => {
  const server = await NbdServer.start(t, { content: 40 * MIB })
  const client = await RawClient.go(server)
  const data = Buffer.alloc(32 * MIB, pattern(65_537))
  t.is((await client.ask(Command.WRITE, 5 * MIB, data)).error, 0)
  t.true((await client.ask(Command.READ, 5 * MIB, 32 * MIB)).data.equals(data))
  t.is((await client.ask(Command.WRITE_ZEROES, 6 * MIB, 30 * MIB + 5, FUA)).error, 0)
  const disk = readFileSync(server.file)
  t.true(disk.subarray(5 * MIB, 6 * MIB).equals(data.subarray(0, MIB)))
  t.true(disk.subarray(6 * MIB, 36 * MIB + 5).every((byte) => byte === 0))
  t.true(disk.subarray(36 * MIB + 5, 37 * MIB).equals(data.subarray(31 * MIB + 5)))
  client.socket.write(request(Command.WRITE, 0, 32 * MIB + 1))
  await client.end()
  await server.stop(t)
  t.deepEqual(server.lines, ['nbd-server: connection 1: a write has 33554433 bytes, more than 33554432'])
})

test.serial('a flush and a write with FUA make the kernel write the file to the disk', async (t) => {
  const trace = join(temporary(t), 'trace')
  const under = ['strace', '-D', '-f', '-qq', '-e', 'trace=fdatasync', '-o', trace]
  const server = await NbdServer.start(t, { args: ['--engine', 'threads'], under })
  const client = await RawClient.go(server)
  const syncs = (): number => (readFileSync(trace, 'utf8').match(/fdatasync\(\d+\) += 0|fdatasync resumed>\) += 0/g) ?? []).length
  for (const [command, data, flags, more] of [
    [Command.WRITE, pattern(512), 0, 0],
    [Command.FLUSH, 0, 0, 1],
    [Command.WRITE, pattern(512), FUA, 1],
    [Command.WRITE_ZEROES, 4096, FUA, 1],
    [Command.READ, 4096, FUA, 0],
  ] as const) {
    const before = syncs()
    t.is((await client.ask(command, 0, data, flags)).error, 0)
    t.is(syncs() - before, more, `command ${command}, flags ${flags}`)
  }
  client.socket.destroy()
})

test.serial('a file at its limit is no space, and one that became shorter an I/O error', async (t) => {
  // The limit counts blocks of 512 bytes: 256 KiB.
  const server = await NbdServer.start(t, { under: ['sh', '-c', 'ulimit -f 512; exec "$@"', 'sh'] })
  const client = await RawClient.go(server)
  t.is((await client.ask(Command.WRITE, 256 * 1024 - 4096, pattern(4096))).error, 0)
  t.is((await client.ask(Command.WRITE, 256 * 1024, pattern(4096))).error, ENOSPC)
  truncateSync(server.file, 4096)
  t.is((await client.ask(Command.READ, 0, 4096)).error, 0)
  t.is((await client.ask(Command.READ, 4000, 4096)).error, EIO)
  await server.stop(t)
})

// --- Clients that misbehave -------------------------------------------------------------------------------------------------

test.serial('garbage ends its own connection with one line, and the others go on', async (t) => {
  const content = pattern(MIB)
  const server = await NbdServer.start(t, { content })
  const witness = await RawClient.go(server)
  const goes = async (): Promise<void> => {
    t.true((await witness.ask(Command.READ, 77, 4096)).data.equals(content.subarray(77, 77 + 4096)))
  }
  const garbage: [RawClient, Buffer, RegExp][] = [
    [new RawClient(server.path), u32(0xdead), /handshake flags 0x0000dead are unknown/],
    [await RawClient.greeted(server), pattern(5000), /an option begins with [0-9a-f]{16} in place of "IHAVEOPT"/],
    [await RawClient.greeted(server), option(LIST, Buffer.alloc(0), 1_000_000), /option 3 has 1000000 bytes, more than \d+/],
    [await RawClient.go(server), pattern(5000), /a request begins with 0x[0-9a-f]{8} in place of 0x25609513/],
    [await RawClient.go(server), request(Command.READ, 0, 4096, { magic: 0x2560_9512 }), /a request begins with 0x25609512/],
    [await RawClient.go(server), Buffer.concat([request(Command.READ, 0, 4096), pattern(28)]), /a request begins with/],
  ]
  for (const [at, [client, bytes, words]] of garbage.entries()) {
    client.socket.write(bytes)
    await client.end()
    await server.logged(new RegExp(`connection ${at + 2}: ${words.source}`))
    await goes()
  }
  await server.stop(t)
  t.is(server.lines.length, garbage.length, server.stderr)
})

test.serial('half a request waits without holding up others, and is half a request when its client leaves', async (t) => {
  const server = await NbdServer.start(t)
  const witness = await RawClient.go(server)
  const halves = [
    option(GO, infoData('')).subarray(0, 12),
    request(Command.READ, 0, 4096).subarray(0, 27),
    Buffer.concat([request(Command.WRITE, 0, 5000), pattern(4999)]),
    Buffer.concat([request(Command.WRITE, 0, MIB), pattern(300_000)]),
  ]
  const clients = [await RawClient.greeted(server)]
  while (clients.length < halves.length) clients.push(await RawClient.go(server))
  for (const [at, client] of clients.entries()) client.socket.write(halves[at]!)
  t.is((await witness.ask(Command.WRITE, 0, pattern(4096, 3))).error, 0)
  for (const client of clients) client.socket.destroy()
  await server.logged(/(.*\n){4}/)
  t.true((await witness.ask(Command.READ, 0, 4096)).data.equals(pattern(4096, 3)), 'half a write writes nothing')
  await server.stop(t)
  for (const line of server.lines) t.regex(line, /^nbd-server: connection \d: the client left in the middle of a message$/)
  t.is(server.lines.length, 4)
})

test.serial('clients that vanish with requests in flight leave everything to the others as it was', async (t) => {
  const server = await NbdServer.start(t, { content: 8 * MIB })
  const witness = await RawClient.go(server)
  const block = pattern(65_536, 4)
  for (let round = 0; round < 20; round++) {
    const client = await RawClient.go(server)
    for (let at = 0; at < 64; at++) {
      const isWrite = at % 2 === 0
      client.socket.write(request(isWrite ? Command.WRITE : Command.READ, 4 * MIB + at * 4096, 65_536))
      if (isWrite) client.socket.write(Buffer.alloc(65_536, 0xee))
    }
    const asked = witness.ask(Command.WRITE, round * 65_536, block)
    if (round % 2 === 0) await client.receive(100)
    client.socket.destroy()
    t.is((await asked).error, 0)
    t.true((await witness.ask(Command.READ, round * 65_536, 65_536)).data.equals(block))
  }
  t.true(readFileSync(server.file).subarray(0, 20 * 65_536).equals(Buffer.concat(Array<Buffer>(20).fill(block))))
  await server.logged(/(.*\n){20}/)
  await server.stop(t)
  t.is(server.lines.length, 20, server.stderr)
  for (const line of server.lines) t.regex(line, /connection \d+: the client (left|is gone)/)
})

test.serial('a client that does not take its replies is read no more, and what it holds is bounded', async (t) => {
  const server = await NbdServer.start(t, { content: MIB })
  const witness = await RawClient.go(server)
  const client = await RawClient.go(server)
  client.socket.pause()
  const requests = Buffer.concat(Array<Buffer>(50_000).fill(request(Command.READ, 0, MIB)))
  client.socket.write(requests)
  for (let count = 0; count < 50; count++) t.is((await witness.ask(Command.READ, 0, 4096)).error, 0)
  t.true(client.socket.writableLength > 0, 'the server has not taken all that was sent')
  t.true(server.peakMemory < 400 * MIB, `${server.peakMemory} bytes for 50,000 requests of a MiB`)
  client.socket.resume()
  for (let count = 0; count < 300; count++) t.is((await client.reply(MIB)).error, 0)
  client.socket.destroy()
  await server.stop(t)
})

test.serial('without a descriptor for them clients wait, and are let in when others leave', async (t) => {
  const server = await NbdServer.start(t, { under: ['sh', '-c', 'ulimit -n 64; exec "$@"', 'sh'] })
  const clients = Array.from({ length: 80 }, () => new RawClient(server.path))
  await clients[0]!.receive(18)
  await server.logged(/nobody is let in for now: .*(EMFILE|Too many open files)/)
  const leaving = clients.splice(1, 60)
  for (const client of leaving) client.socket.destroy()
  for (const client of clients.slice(1)) await client.receive(18)
  for (const client of clients) client.socket.write(Buffer.concat([u32(3), option(GO, infoData(''))]))
  for (const client of clients) {
    for (const type of [REP_INFO, ACK]) t.is((await client.optionReply()).type, type)
    t.is((await client.ask(Command.READ, 0, 4096)).error, 0)
  }
  await server.stop(t)
})

test.serial('two connections see each other\'s writes at once, as the flag for several connections says', async (t) => {
  const server = await NbdServer.start(t)
  const clients = [await RawClient.go(server), await RawClient.go(server)] as const
  for (let round = 0; round < 50; round++) {
    const [writer, reader] = round % 2 === 0 ? clients : [clients[1], clients[0]]
    const data = pattern(4096, round)
    t.is((await writer.ask(Command.WRITE, round * 512, data)).error, 0)
    t.true((await reader.ask(Command.READ, round * 512, 4096)).data.equals(data))
  }
  t.is((await clients[0].ask(Command.FLUSH, 0, 0)).error, 0)
})
