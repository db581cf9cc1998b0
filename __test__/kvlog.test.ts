// examples/kvlog: what a log promises while nothing crashes, group commit, and failures of the disk.
import { readlinkSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { AioContext } from 'fdmon'
import { crc32, tableCrc32 } from '../examples/kvlog/crc32.js'
import { KvLog, KvLogError, readLog, type KvLogErrorCode } from '../examples/kvlog/log.js'
import { encode } from '../examples/kvlog/record.js'
import { onEachEngine, Watched } from './kvlog/kit.js'

async function refuses(t: ExecutionContext, call: Promise<unknown>, code: KvLogErrorCode, message: RegExp): Promise<void> {
  const error = await t.throwsAsync(call, { instanceOf: KvLogError, message })
  t.is(error?.code, code)
}

onEachEngine('gives back what was set and deleted, also after it was opened again', async (t, { folder, context }) => {
  const path = join(folder, 'log')
  const log = await KvLog.open(path, { context })
  await Promise.all([log.set('a', '1'), log.set('ä\t', ''), log.set('', 'x\ny😀'), log.set('b', 'x'.repeat(3_000_000))])
  await log.set('a', '2')
  await log.delete('b')
  await log.delete('never there')
  const expected = [['a', '2'], ['ä\t', ''], ['', 'x\ny😀']]
  t.deepEqual([...log.entries()], expected as [string, string][])
  t.is(log.get('b'), undefined)
  t.is(log.size, 3)
  await log.close()

  await using again = await KvLog.open(path, { context })
  t.deepEqual([...again.entries()], expected as [string, string][])
  t.is(again.torn, 0)
  t.is((await readLog(path, { context })).records, 7)
})

onEachEngine('shows a value when it is durable, not before', async (t, { folder, context }) => {
  const watched = new Watched(context)
  await using log = await KvLog.open(join(folder, 'log'), { context: watched })
  const seen: (string | undefined)[] = []
  watched.instead.fdatasync = async (fd) => {
    seen.push(log.get('key'))
    await context.fdatasync(fd)
  }
  const done = log.set('key', 'value')
  t.is(log.get('key'), undefined)
  await done
  t.deepEqual(seen, [undefined])
  t.is(log.get('key'), 'value')
})

onEachEngine('commits what is appended in one turn by one writev and one fdatasync', async (t, { folder, context }) => {
  const watched = new Watched(context)
  await using log = await KvLog.open(join(folder, 'log'), { context: watched })
  watched.calls.length = 0
  const before = context.stats().completions
  await Promise.all(Array.from({ length: 500 }, async (_, n) => {
    if (n % 2 === 1) await Promise.resolve() // another reaction of the same turn
    await log.set(`key ${n}`, 'value')
  }))
  t.deepEqual(watched.calls, ['writev', 'fdatasync'])
  t.is(context.stats().completions - before, 2)
  t.is(log.commits, 1)
})

onEachEngine('makes the next commit of what arrives while one is in flight', async (t, { folder, context }) => {
  const watched = new Watched(context)
  await using log = await KvLog.open(join(folder, 'log'), { context: watched })
  watched.calls.length = 0
  const later: Promise<void>[] = []
  watched.instead.fdatasync = async (fd) => {
    if (later.length === 0) for (let n = 0; n < 100; n++) later.push(log.set(`later ${n}`, 'value'))
    await context.fdatasync(fd)
  }
  await log.set('first', 'value')
  t.is(log.commits, 1)
  await Promise.all(later)
  t.deepEqual(watched.calls, ['writev', 'fdatasync', 'writev', 'fdatasync'])
  t.is(log.size, 101)
})

onEachEngine('splits what is too much for one writev, by buffers and by bytes', async (t, { folder, context }) => {
  const watched = new Watched(context)
  const path = join(folder, 'log')
  const log = await KvLog.open(path, { context: watched })
  watched.calls.length = 0
  await Promise.all(Array.from({ length: 2_049 }, (_, n) => log.set(`key ${n}`, 'value')))
  t.is(watched.count('writev'), 3)
  t.is(watched.count('fdatasync'), 3)
  await Promise.all(['x', 'y', 'z'].map((key) => log.set(key, key.repeat(8 << 20))))
  t.is(watched.count('writev'), 6)
  await log.close()
  t.is((await readLog(path, { context })).entries.size, 2_052)
})

onEachEngine('syncs the directory of a log that has no record yet, before the first', async (t, { folder, context }) => {
  const path = join(folder, 'log')
  const synced: string[] = []
  const watched = new Watched(context)
  watched.instead.fsync = (fd) => {
    synced.push(readlinkSync(`/proc/self/fd/${typeof fd === 'number' ? fd : fd.fd}`))
    return context.fsync(fd)
  }
  await (await KvLog.open(path, { context: watched })).close()
  t.deepEqual(synced, [path, folder])
  const log = await KvLog.open(path, { context: watched })
  t.deepEqual(synced.splice(0), [path, folder, path, folder], 'whoever created it may not have come to that')
  await log.set('key', 'value')
  await log.close()
  await (await KvLog.open(path, { context: watched })).close()
  t.deepEqual(synced, [path])
})

for (const call of ['writev', 'fdatasync'] as const) {
  onEachEngine(`rejects a whole commit when its ${call} fails, and takes nothing more`, async (t, { folder, context }) => {
    const path = join(folder, 'log')
    const watched = new Watched(context)
    const log = await KvLog.open(path, { context: watched })
    await log.set('kept', '1')
    const { size } = statSync(path)
    const disk = Object.assign(new Error('EIO: the disk says no'), { code: 'EIO' })
    const later: Promise<void>[] = []
    const fails = (): Promise<never> => {
      later.push(log.set('kept', 'while it failed'))
      return Promise.reject(disk)
    }
    watched.instead = { [call]: fails }
    const group = await Promise.allSettled([log.set('kept', '2'), log.set('new', '2'), log.delete('kept')])
    t.deepEqual(group, group.map(() => ({ status: 'rejected' as const, reason: disk })))
    watched.instead = {}
    watched.calls.length = 0
    await refuses(t, later[0]!, 'ERR_KVLOG_FAILED', /EIO: the disk says no.*open it again/)
    await refuses(t, log.set('kept', '3'), 'ERR_KVLOG_FAILED', /EIO/)
    t.deepEqual(watched.calls, [], 'nothing is tried again')
    t.deepEqual([...log.entries()], [['kept', '1']])
    t.is(statSync(path).size, size, 'what was rejected is cut off')
    await log.close()
    await using again = await KvLog.open(path, { context })
    t.deepEqual([...again.entries()], [['kept', '1']])
    await again.set('kept', '4')
  })
}

onEachEngine('takes a short write for a failed one', async (t, { folder, context }) => {
  const path = join(folder, 'log')
  const watched = new Watched(context)
  const log = await KvLog.open(path, { context: watched })
  watched.instead.writev = async (fd, [first], position) => context.writev(fd, [first!.subarray(0, 30)], position)
  const done = await Promise.allSettled([log.set('a', '1'), log.set('b', '2')])
  t.deepEqual(done.map(({ status }) => status), ['rejected', 'rejected'])
  t.is(watched.count('fdatasync'), 0)
  t.is(statSync(path).size, 0)
  await log.close()
})

onEachEngine('syncs at open() what it has read, and fails with it', async (t, { folder, context }) => {
  const path = join(folder, 'log')
  writeFileSync(path, encode({ key: 'written', value: 'but not synced' }, 1, 0))
  const watched = new Watched(context)
  const disk = new Error('EIO')
  watched.instead.fsync = () => Promise.reject(disk)
  t.is(await t.throwsAsync(KvLog.open(path, { context: watched })), disk)
  watched.instead = {}
  await using log = await KvLog.open(path, { context: watched })
  t.is(log.get('written'), 'but not synced')
})

onEachEngine('is open for writing once', async (t, { folder, context }) => {
  const path = join(folder, 'log')
  const log = await KvLog.open(path, { context })
  await log.set('key', 'value')
  await refuses(t, KvLog.open(path, { context }), 'ERR_KVLOG_LOCKED', /open for writing elsewhere/)
  t.is((await readLog(path, { context })).entries.get('key'), 'value')
  await log.close()
  await (await KvLog.open(path, { context })).close()
})

onEachEngine('commits what waits at close(), and takes nothing after it', async (t, { folder, context }) => {
  const path = join(folder, 'log')
  const log = await KvLog.open(path, { context })
  let done = false
  void log.set('key', 'value').then(() => (done = true))
  const closed = log.close()
  await refuses(t, log.set('key', 'later'), 'ERR_KVLOG_CLOSED', /closed/)
  await closed
  t.true(done)
  t.is(log.close(), closed)
  t.is((await readLog(path, { context })).entries.get('key'), 'value')
})

onEachEngine('rejects what no record can hold, and keeps the rest of the turn', async (t, { folder, context }) => {
  await using log = await KvLog.open(join(folder, 'log'), { context })
  const good = log.set('good', 'value')
  await refuses(t, log.set('k'.repeat(65_536), ''), 'ERR_KVLOG_INVALID_ARG', /^key has 65536 bytes; pass at most 65535/)
  await refuses(t, log.set('k', 'ä'.repeat((4 << 20) + 1)), 'ERR_KVLOG_INVALID_ARG', /^value has 8388610 bytes/)
  await refuses(t, log.set('k', '\ud83d'), 'ERR_KVLOG_INVALID_ARG', /^value contains half/)
  await refuses(t, log.set(7 as any, ''), 'ERR_KVLOG_INVALID_ARG', /^key is number/)
  await refuses(t, log.set('k', undefined as any), 'ERR_KVLOG_INVALID_ARG', /^value is undefined/)
  await good
  t.is(log.size, 1)
})

test('kvlog: the sums of the table are those of Node, and of everybody else', (t) => {
  t.is(tableCrc32(Buffer.from('123456789')), 0xcbf43926)
  for (let bytes = 0; bytes < 600; bytes++) {
    const text = Buffer.from(Array.from({ length: bytes }, (_, at) => (at * at * 31 + bytes) & 0xff))
    t.is(tableCrc32(text), crc32(text))
  }
})

onEachEngine('lets a context be closed under it, and says so', async (t, { folder, engine }) => {
  const context = new AioContext({ aio: { engine } })
  const log = await KvLog.open(join(folder, 'log'), { context })
  const waiting = log.set('key', 'value')
  context.close()
  await t.throwsAsync(waiting, { code: 'ERR_FDMON_CLOSED' })
  await refuses(t, log.set('key', 'value'), 'ERR_KVLOG_FAILED', /closed/)
  await log.close()
})
