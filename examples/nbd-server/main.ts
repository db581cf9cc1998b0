// Serves a file as a network block device at a Unix socket. README.md shows what one does with it.
//
//   main.ts         options, signals, exit codes: 0 ended by a signal, 1 failed, 2 wrong usage
//   server.ts       the file, the listening socket, and what connections share
//   connection.ts   one client: bytes in, requests to the disk, replies out, and the bounds of all that
//   handshake.ts    the negotiation before the first request
//   request.ts      a request from its header to its reply, and the pool of their buffers
//   outbox.ts       replies on their way into the socket
//   protocol.ts     the numbers of the protocol
import { writeSync } from 'node:fs'
import { Command, InvalidArgumentError, Option } from 'commander'
import { AioContext } from 'fdmon'
import { signalfd } from 'fdmon/fd'
import { messageOf, Server } from './server.js'

const LONGEST_SPIN_US = 1_000_000
/** What a nanosecond of a client's waiting is worth in CPU time, to somebody who asks for --spin. */
const LATENCY_WEIGHT = 50
/** Requests that are handed to the kernel in one go, at most. */
const BATCH = 256

interface Options {
  readOnly?: boolean
  spin: number
  guards: boolean
  name: string
  monitor: 'auto' | 'epoll' | 'poll' | 'io_uring'
  engine: 'auto' | 'io_uring' | 'threads'
}

const command = new Command('nbd-server')
  .description('Serves a file as a network block device (NBD) at a Unix socket, until SIGINT or SIGTERM.')
  .argument('<file>', 'a file or a block device')
  .argument('<socket>', 'where to listen')
  .option('--read-only', 'refuse writes')
  .option('--spin <microseconds>', 'ask for requests for so long before sleeping, where they come that fast', microseconds, 0)
  .option('--no-guards', 'spin also where this process may use one CPU only: clients must have others')
  .option('--name <export>', 'the name of the export, beside the empty one', '')
  .addOption(new Option('--monitor <name>', 'who waits').choices(['auto', 'epoll', 'poll', 'io_uring']).default('auto'))
  .addOption(new Option('--engine <name>', 'who reads and writes').choices(['auto', 'io_uring', 'threads']).default('auto'))
  .exitOverride((error) => process.exit(error.exitCode === 0 ? 0 : 2))
  .parse()

process.exitCode = main(command.args as [string, string], command.opts())

function main([file, socket]: [string, string], options: Options): number {
  try {
    serve(file, socket, options)
    return 0
  } catch (error) {
    log(messageOf(error))
    return 1
  }
}

/** Owns the thread until a signal: nothing of Node's own loop is needed, and nothing of it runs. */
function serve(file: string, socket: string, { readOnly = false, spin, guards, name, monitor, engine }: Options): void {
  using signals = signalfd(['SIGINT', 'SIGTERM'])
  using context = new AioContext({
    name: 'nbd-server',
    monitor,
    poll: { maxNs: spin * 1_000, latencyWeight: LATENCY_WEIGHT, guards },
    aio: { engine, maxBatch: BATCH },
  })
  const server = new Server(context, { file, socket, name, readOnly, log })
  context.setFdHandler(signals, {
    poll: 'kernel',
    read() {
      signals.readSignals()
      context.stop()
    },
  })
  writeSync(1, `serving ${file}, ${server.export.size} bytes, at ${socket}; monitor ${context.monitor}\n`)
  context.run()
  server.close()
}

function microseconds(text: string): number {
  const value = Number(text)
  if (Number.isInteger(value) && value >= 0 && value <= LONGEST_SPIN_US) return value
  throw new InvalidArgumentError(`pass a whole number from 0 to ${LONGEST_SPIN_US}`)
}

/** Written at once: nothing that would be written later by Node's loop runs. */
function log(line: string): void {
  try {
    writeSync(2, `nbd-server: ${line}\n`)
  } catch {
    // Nobody reads the log any more; the clients are served all the same.
  }
}
