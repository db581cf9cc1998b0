// examples/nbd-server by clients that others wrote: libnbd's (nbdinfo, nbdcopy, nbdsh), those of QEMU (qemu-img, qemu-io), fio.
import { execFile } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import test from 'ava'
import { MIB, NbdServer, pattern, temporary } from './nbd-kit.js'

const LIMIT_MS = 60_000
const PACKAGES: Record<string, string> = {
  nbdinfo: 'libnbd-bin', nbdcopy: 'libnbd-bin', nbdsh: 'libnbd-bin python3-libnbd', 'qemu-img': 'qemu-utils', 'qemu-io': 'qemu-utils', fio: 'fio',
}
const run = promisify(execFile)
/** The module of nbdsh is there for the distribution's own Python, whatever other one comes first. */
const env = { ...process.env, PATH: `/usr/bin:${process.env['PATH']}` }

/** What a client prints; one that is missing fails the test with the command that installs it. */
async function client(name: string, ...args: string[]): Promise<string> {
  try {
    return (await run(name, args, { env, timeout: LIMIT_MS, maxBuffer: 16 * MIB })).stdout
  } catch (error) {
    const { code, stdout, stderr } = error as NodeJS.ErrnoException & { stdout?: string; stderr?: string }
    const isMissing = code === 'ENOENT' || /No module named '?nbd/.test(stderr ?? '')
    if (isMissing) throw new Error(`${name} is missing; run: apt-get install ${PACKAGES[name]}`, { cause: error })
    throw new Error(`${name} ${args.join(' ')}: ${code}\n${stdout}${stderr}`, { cause: error })
  }
}

/** A disk with data, and holes between it. */
function disk(): Buffer {
  const bytes = Buffer.alloc(24 * MIB)
  for (const [at, length] of [[0, 3 * MIB], [5 * MIB + 512, 70_000], [16 * MIB, 2 * MIB], [24 * MIB - 4096, 4096]] as const) {
    pattern(length, at + 1).copy(bytes, at)
  }
  return bytes
}

test.serial('nbdinfo shows the export by name and as default, what it can do, and that it is listed', async (t) => {
  const server = await NbdServer.start(t, { content: disk(), args: ['--name', 'disk'] })
  for (const name of ['', 'disk']) {
    const info = JSON.parse(await client('nbdinfo', '--json', '--no-content', server.uri(name))) as Record<string, any>
    t.is(info['protocol'], 'newstyle-fixed')
    t.like(info['exports'][0], {
      'export-size': 24 * MIB, is_read_only: false, can_flush: true, can_fua: true, can_multi_conn: true, can_trim: true, can_zero: true,
      block_size_minimum: 1, block_size_preferred: 4096, block_size_maximum: 32 * MIB,
    })
  }
  t.regex(await client('nbdinfo', '--list', server.uri()), /export="disk"/)
  await t.throwsAsync(client('nbdinfo', server.uri('other')), { message: /there is no such export|No such file|export/ })
  await server.stop(t)
})

test.serial('nbdcopy brings a disk there and back over several connections, byte for byte', async (t) => {
  const content = disk()
  const folder = temporary(t)
  const [source, back] = [join(folder, 'source'), join(folder, 'back')]
  writeFileSync(source, content)
  const server = await NbdServer.start(t, { content: content.length })
  await client('nbdcopy', '--flush', '--connections=4', '--requests=16', source, server.uri())
  t.true(readFileSync(server.file).equals(content))
  await client('nbdcopy', '--connections=4', server.uri(), back)
  t.true(readFileSync(back).equals(content))
  await client('nbdcopy', '--synchronous', '--request-size=32768', server.uri(), back)
  t.true(readFileSync(back).equals(content))
  await server.stop(t)
  t.deepEqual(server.lines, [])
})

test.serial('nbdsh: asynchronous requests, and the errors that the protocol has for the wrong ones', async (t) => {
  const server = await NbdServer.start(t, { content: disk() })
  const script = `
import errno
h.connect_uri("${server.uri()}")
assert h.get_size() == 24 << 20 and h.can_multi_conn() and h.can_fua() and not h.is_read_only()
def refused(error, call):
    try:
        call()
    except nbd.Error as ex:
        assert ex.errnum == error, ex
        return
    assert False, "not refused"
h.set_strict_mode(0)
refused(errno.EINVAL, lambda: h.pread(512, h.get_size()))
refused(errno.ENOSPC, lambda: h.pwrite(b"x" * 512, h.get_size() - 511))
refused(errno.EINVAL, lambda: h.trim(512, h.get_size()))
refused(errno.EINVAL, lambda: h.cache(512, 0))
h.pwrite(b"fua", 100, nbd.CMD_FLAG_FUA)
assert h.pread(3, 100) == b"fua"
h.zero(8192, 0, nbd.CMD_FLAG_NO_HOLE)
assert h.pread(8192, 0) == bytes(8192)
buffers = [nbd.Buffer.from_bytearray(bytearray([at]) * 4096) for at in range(64)]
cookies = [h.aio_pwrite(buffer, at * 4096) for at, buffer in enumerate(buffers)]
while h.aio_in_flight() > 0:
    h.poll(-1)
assert all(h.aio_command_completed(cookie) for cookie in cookies)
h.flush()
assert h.pread(64 * 4096, 0) == b"".join(bytes([at]) * 4096 for at in range(64))
h.shutdown()
print("all is well")
`
  t.is(await client('nbdsh', '-c', script), 'all is well\n')
  await server.stop(t)
  t.deepEqual(server.lines, [])
})

test.serial('qemu-img shows, converts and compares', async (t) => {
  const content = disk()
  const folder = temporary(t)
  const [source, qcow2, back] = [join(folder, 'source'), join(folder, 'qcow2'), join(folder, 'back')]
  writeFileSync(source, content)
  const server = await NbdServer.start(t, { content: content.length })
  const info = JSON.parse(await client('qemu-img', 'info', '--output=json', server.uri())) as Record<string, unknown>
  t.like(info, { 'virtual-size': 24 * MIB, format: 'raw' })
  await client('qemu-img', 'convert', '-n', '-f', 'raw', '-O', 'raw', '-W', '-m', '16', source, server.uri())
  t.true(readFileSync(server.file).equals(content))
  await client('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', server.uri(), qcow2)
  await client('qemu-img', 'convert', '-f', 'qcow2', '-O', 'raw', qcow2, back)
  t.true(readFileSync(back).equals(content))
  t.regex(await client('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', source, server.uri()), /Images are identical/)
  await server.stop(t)
  t.deepEqual(server.lines, [])
})

test.serial('qemu-io writes patterns and finds them again, flushes and discards', async (t) => {
  const server = await NbdServer.start(t, { content: 64 * MIB })
  const commands = [
    'write -P 0x5a 0 1M', 'write -P 0xa5 512k 64k', 'read -P 0x5a 0 512k', 'read -P 0xa5 512k 64k', 'read -P 0x5a 576k 448k',
    'writev -P 0x11 2M 4k 8k 512', 'readv -P 0x11 2M 512 12k', 'aio_write -P 0x77 3M 2M', 'aio_write -P 0x78 5M 2M', 'aio_flush',
    'read -P 0x77 3M 2M', 'read -P 0x78 5M 2M', 'write -z 3M 1M', 'read -P 0 3M 1M', 'write -f -P 0x33 7M 4k', 'flush', 'discard 8M 1M', 'read -P 0x33 7M 4k',
  ]
  const output = await client('qemu-io', '-f', 'raw', ...commands.flatMap((command) => ['-c', command]), server.uri())
  t.notRegex(output, /[Pp]attern verification failed|failed/, output)
  t.is(output.match(/^(read|wrote|discard) /gm)?.length, 16, output)
  const file = readFileSync(server.file)
  t.deepEqual([0, 512 * 1024, 2 * MIB, 3 * MIB, 4 * MIB, 5 * MIB, 7 * MIB].map((at) => file[at]), [0x5a, 0xa5, 0x11, 0, 0x77, 0x78, 0x33])
  await server.stop(t)
  t.deepEqual(server.lines, [])
})

test.serial('fio writes at random at depth 32 from two jobs and verifies all of it', async (t) => {
  const server = await NbdServer.start(t, { content: 16 * MIB })
  const job = (name: string, offset: number): string[] => [`--name=${name}`, `--offset=${offset}`, `--size=${8 * MIB}`]
  const output = await client(
    'fio', '--ioengine=nbd', `--uri=${server.uri()}`, '--rw=randwrite', '--bsrange=512-64k', '--iodepth=32', '--verify=crc32c', '--fsync=64',
    '--verify_fatal=1', '--verify_state_save=0', '--output-format=json', ...job('low', 0), ...job('high', 8 * MIB),
  )
  const { jobs } = JSON.parse(output.slice(output.indexOf('{'))) as { jobs: { error: number; read: { total_ios: number } }[] }
  t.deepEqual(jobs.map(({ error }) => error), [0, 0])
  for (const { read } of jobs) t.true(read.total_ios > 100, 'it read what it wrote')
  await server.stop(t)
})
