// A stranger's bytes: another program pushes a file through a FIFO, while a timerfd, an inotify watch and the pidfds of two
// children fire in the same loop. Everything is counted and compared with what must have come.
import { execFileSync, spawn } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { closeSync, constants, mkdirSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { AioContext } from 'fdmon'
import { inotify, InotifyEvents, pidfd, read, timerfd } from 'fdmon/fd'

const MIB = 1 << 20
/** Files that the one child makes, and children. */
export const FILES = 200
export const CHILDREN = 2
const TICK_NS = 1_000_000
const LIMIT_NS = 20_000_000_000

/** Makes the file once, then lets it come in on each monitor. `onProgress` gets a monitor and a share of 1. */
export function strangersBytes({ mebibytes, monitors, onProgress }) {
  const folder = mkdtempSync(join(tmpdir(), 'fdmon-main-job-'))
  try {
    const file = join(folder, 'bytes')
    const sha256 = makeFile(file, mebibytes)
    return monitors.map((monitor) => once(monitor, file, sha256, mebibytes * MIB, folder, onProgress))
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

function makeFile(path, mebibytes) {
  const hash = createHash('sha256')
  const block = randomBytes(MIB)
  const fd = openSync(path, 'w')
  for (let i = 0; i < mebibytes; i++) {
    block.writeUInt32LE(i, (i * 4096) % MIB) // no two blocks alike
    hash.update(block)
    writeSync(fd, block)
  }
  closeSync(fd)
  return hash.digest('hex')
}

function once(monitor, file, sha256, size, folder, onProgress) {
  const fifoPath = join(folder, `fifo-${monitor}`)
  const watched = join(folder, `watched-${monitor}`)
  mkdirSync(watched)
  execFileSync('mkfifo', [fifoPath])
  const fifo = openSync(fifoPath, constants.O_RDONLY | constants.O_NONBLOCK)
  const into = openSync(fifoPath, constants.O_WRONLY)

  const ctx = new AioContext({ monitor, name: `strangers-bytes-${monitor}` })
  const hash = createHash('sha256')
  const buffer = Buffer.alloc(MIB)
  const got = { bytes: 0, ticks: 0, files: new Set(), exits: 0 }
  let end = false
  let late = false
  const finished = () => late || (end && got.exits === CHILDREN && got.files.size === FILES)

  ctx.setFdHandler(fifo, {
    read(fd) {
      const bytes = read(fd, buffer)
      if (bytes > 0) {
        hash.update(buffer.subarray(0, bytes))
        got.bytes += bytes
        onProgress(monitor, got.bytes / size)
      } else if (bytes === 0) {
        end = true
        ctx.setFdHandler(fifo, null)
      }
    },
  })
  const watcher = inotify()
  watcher.addWatch(watched, InotifyEvents.CLOSE_WRITE)
  ctx.setFdHandler(watcher, {
    read() {
      for (const { name } of watcher.readEvents()) got.files.add(name)
    },
  })
  const armedAfter = process.hrtime.bigint()
  const clock = timerfd({ intervalNs: TICK_NS })
  const armedBefore = process.hrtime.bigint()
  ctx.setFdHandler(clock, { read: () => (got.ticks += Number(clock.read())) })
  const alarm = ctx.timer(() => (late = true))
  alarm.arm(LIMIT_NS)

  const cat = spawn('cat', [file], { stdio: ['ignore', into, 'inherit'] })
  closeSync(into)
  const script = `i=0; while [ $i -lt ${FILES} ]; do : >"$i"; i=$((i+1)); done`
  const writer = spawn('sh', ['-c', script], { cwd: watched, stdio: ['ignore', 'ignore', 'inherit'] })
  const processes = [cat, writer].map(({ pid }) => pidfd(pid))
  for (const process_ of processes) {
    ctx.setFdHandler(process_, {
      read() {
        got.exits++
        ctx.setFdHandler(process_, null)
      },
    })
  }

  const start = performance.now()
  ctx.pollUntil(finished)
  const seconds = (performance.now() - start) / 1000

  // The last ticks are read by hand; how many there must be is known to within the time that the two calls took.
  const readAfter = process.hrtime.bigint()
  got.ticks += Number(clock.read())
  const readBefore = process.hrtime.bigint()
  const due = (from, to) => Number((to - from) / BigInt(TICK_NS))
  const ticks = { least: due(armedBefore, readAfter), most: due(armedAfter, readBefore) }

  const stats = ctx.stats()
  for (const fd of [clock, watcher, ...processes]) {
    ctx.setFdHandler(fd, null)
    fd.close()
  }
  closeSync((ctx.close(), fifo))
  const problems = []
  if (late) problems.push(`not finished after ${LIMIT_NS / 1e9} s`)
  if (got.bytes !== size) problems.push(`${size - got.bytes} bytes missing`)
  if (hash.digest('hex') !== sha256) problems.push('SHA-256 differs')
  if (got.ticks < ticks.least || got.ticks > ticks.most) problems.push(`${got.ticks} ticks, due were ${ticks.least} to ${ticks.most}`)
  if (got.files.size !== FILES) problems.push(`${FILES - got.files.size} files not seen`)
  if (got.exits !== CHILDREN) problems.push(`${CHILDREN - got.exits} exits not seen`)
  return {
    monitor,
    bytes: got.bytes,
    mibPerSecond: got.bytes / MIB / seconds,
    ticks: got.ticks,
    ticksDue: ticks.least,
    files: got.files.size,
    exits: got.exits,
    turns: stats.turns,
    events: stats.events,
    problems,
  }
}
