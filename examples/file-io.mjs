// Many small reads with few system calls, promises in Node's own loop; and a write that is on the disk before it counts.
import { mkdtempSync, rmSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { defaultContext } from 'fdmon'

const ctx = defaultContext()
const folder = mkdtempSync(join(tmpdir(), 'fdmon-'))
const file = await open(join(folder, 'blocks'), 'w+')

await ctx.write(file, Buffer.alloc(256 * 4096, 'fdmon '), 0)
await ctx.fdatasync(file) // now it survives a power cut

const blocks = Array.from({ length: 256 }, () => Buffer.alloc(4096))
const reads = ctx.plug(() => blocks.map((block, at) => ctx.read(file, block, at * 4096)))
const bytes = (await Promise.all(reads)).reduce((sum, count) => sum + count)

const { aio, submissions, completions } = ctx.stats()
console.log(`${bytes} bytes, ${completions} requests in ${submissions} submissions, by ${aio.engine}`)
await file.close()
rmSync(folder, { recursive: true })
