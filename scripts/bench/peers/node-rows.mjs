// What is measured inside Node: fdmon's addon beside what Node has, and beside npm's epoll where it builds.

const ATTACHED = ['fdmon:epoll', 'fdmon:io_uring']

const row = (id, title, lengths, quick, timed, more) => ({
  id, title, args: [id], lengths, quick, timed, cpus: 1, counts: ['calls', 'switches'], node: true, fdmon: ATTACHED, ...more,
})

/** In the order of the table. */
export const NODE_WORKLOADS = [
  row('node-message', '64 bytes to a worker and back', [1000, 5000], [50, 150], 10_000,
    { cpus: 2, fdmon: ['fdmon', 'fdmon+spin'], others: ['MessagePort', 'waitAsync', 'net'] }),
  row('node-fd', 'a byte into a socket, and a callback that reads it from the other end', [1000, 5000], [50, 150], 10_000, { others: ['net', 'epoll'] }),
  row('node-fds', '64 sockets of 256 become ready: one of them', [1280, 12_800], [128, 256], 25_600, { others: ['net', 'epoll'] }),
  row('node-read', 'a read of 4 KiB of a file in the page cache, 32 in flight', [1000, 9000], [64, 256], 20_000,
    { fdmon: ['fdmon-callback', 'fdmon-promise'], others: ['fs.read', 'FileHandle.read', 'fs.readSync'] }),
  row('node-idle', 'left alone for 10 s with 100 sockets', [1, 11], [1, 2], undefined,
    { length: '--seconds', counts: ['wakeUps'], others: ['net', 'epoll'] }),
]

/** How the peers of these rows are called in the table. */
export const NODE_NAMES = {
  'fdmon': 'fdmon, a channel',
  'fdmon+spin': 'fdmon, a channel, spinning',
  'fdmon-callback': 'fdmon, `submitRead` in `run()`',
  'fdmon-promise': 'fdmon, `read` attached',
  'waitAsync': 'Atomics.waitAsync',
  'net': 'net (libuv)',
  'epoll': 'npm epoll',
}
