// Pairs of sockets whose second end each peer watches in its own way, for the workloads that are about fds.
import { readSync } from 'node:fs'
import { createRequire } from 'node:module'
import { Socket } from 'node:net'
import { AioContext } from 'fdmon'
import { socketpair } from 'fdmon/fd'

const byte = Buffer.alloc(1)

/** As many pairs: what is written into, and what is watched. */
export function pairs(count) {
  return Array.from({ length: count }, () => socketpair()).map(([from, to]) => ({ from, to }))
}

function onContext(monitor) {
  return (fds, onByte) => {
    const context = new AioContext({ monitor }).attach()
    const read = (fd) => {
      readSync(fd, byte)
      onByte(fd)
    }
    for (const { to } of fds) context.setFdHandler(to, { read })
    return () => context.close()
  }
}

/** libuv's streams, which close the fds at their end. */
function net(fds, onByte) {
  const sockets = fds.map(({ to }) => {
    const socket = new Socket({ fd: to.fd, readable: true, writable: false })
    return socket.on('data', () => onByte(to.fd))
  })
  return () => sockets.forEach((socket) => socket.destroy())
}

function epoll(fds, onByte) {
  const { Epoll } = createRequire(process.env.PEERS_EPOLL)('epoll')
  const poller = new Epoll((error, fd) => {
    if (error) throw error
    readSync(fd, byte)
    onByte(fd)
  })
  for (const { to } of fds) poller.add(to.fd, Epoll.EPOLLIN)
  return () => {
    for (const { to } of fds) poller.remove(to.fd)
    poller.close()
  }
}

/** By name: watches the fds, and returns what ends it. */
export const watchers = { 'fdmon:epoll': onContext('epoll'), 'fdmon:io_uring': onContext('io_uring'), net, epoll }
