// Reads of 4 KiB of a file that the page cache has, 32 in flight: the ways of "npm run bench:files".
import { statSync } from 'node:fs'
import { FILE_HANDLE, FS_READ, SYNC, promiseWay, ways as files } from '../../../files/ways.mjs'

const PAGE = 4096
const IN_FLIGHT = 32

const way = (open) => async ({ ops }) => {
  const path = process.execPath // some file of many pages that was just read
  const pages = Math.min(1024, Math.floor(statSync(path).size / PAGE))
  const positions = Array.from({ length: ops }, (_, at) => (at % pages) * PAGE)
  const buffers = Array.from({ length: IN_FLIGHT }, () => Buffer.allocUnsafeSlow(PAGE))
  const file = await open(path)
  await file.run({ positions: positions.slice(0, 32), buffers }) // threads and rings of a new context
  return { work: () => file.run({ positions, buffers }), end: () => file.close() }
}

export const ways = {
  'fdmon-callback': way(files['ctx.submitRead in ctx.run(), io_uring, maxBatch 32']),
  'fdmon-promise': way(files[promiseWay('io_uring', 32)]),
  'fs.read': way(files[FS_READ]),
  'FileHandle.read': way(files[FILE_HANDLE]),
  'fs.readSync': way(files[SYNC]),
}
