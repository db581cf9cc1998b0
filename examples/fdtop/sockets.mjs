// A Unix socket in three rows: who listens, the server's side, which echoes, and the client's side, which asks.
import { watch } from 'fdmon'
import { accept, connectUnix, listenUnix, read, write } from 'fdmon/fd'
import { keepCounters } from './report.mjs'

const MESSAGE_MS = 20
const MESSAGES = 50
const message = Buffer.alloc(64, 'x')
const buffer = Buffer.alloc(4096)

export function sockets(path) {
  const { listener, server } = serverOf(path)
  return [listener, server, clientOf(path)]
}

function serverOf(path) {
  const socket = listenUnix(path)
  let connections = 0
  let bytes = 0
  let connection
  const server = { name: '  its server', fd: -1, note: () => `${bytes} bytes`, close: () => connection?.close() }
  const listener = {
    name: 'unix socket',
    fd: socket.fd,
    note: () => `${connections} accepted`,
    start(context) {
      watch(socket, {
        poll: 'kernel',
        read() {
          const next = accept(socket)
          if (next === undefined) return
          connections += 1
          serve(next, context)
        },
      }, { context })
    },
    close: () => socket.close(),
  }

  function serve(next, context) {
    connection = next
    server.fd = next.fd
    let waiting = 0
    const registration = watch(next, {
      poll: 'kernel',
      read(fd) {
        const size = read(fd, buffer) // 0: the client is gone; negative: nothing there now
        if (size === 0) return hangUp()
        waiting += Math.max(size, 0)
        registration.setInterest({ write: waiting > 0 })
      },
      write(fd) {
        const size = Math.max(write(fd, buffer.subarray(0, waiting)), 0)
        waiting -= size
        bytes += size
        registration.setInterest({ write: waiting > 0 })
      },
    }, { context })
    // A socket nearly always has room: `write` is watched only while there is something to send.
    registration.setInterest({ write: false })

    function hangUp() {
      keepCounters(context, server)
      registration.remove()
      next.close()
      connection = undefined
    }
  }
  return { listener, server }
}

function clientOf(path) {
  let context
  let socket
  let sent
  let timer
  let answers = 0
  const client = { name: '  its client', fd: -1, note: () => `${answers} answers`, start, pause, close }

  function start(given) {
    context = given
    connect()
    pause(false)
  }

  function connect() {
    socket = connectUnix(path)
    client.fd = socket.fd
    sent = 0
    watch(socket, { poll: 'kernel', read: (fd) => (answers += Number(read(fd, buffer) > 0)) }, { context })
  }

  function pause(on) {
    clearInterval(timer)
    if (!on) timer = setInterval(send, MESSAGE_MS)
  }

  function send() {
    if (sent === MESSAGES) {
      hangUp()
      connect()
    }
    write(socket, message)
    sent += 1
  }

  function hangUp() {
    keepCounters(context, client)
    context.setFdHandler(socket, null)
    socket.close()
  }

  function close() {
    clearInterval(timer)
    hangUp()
  }
  return client
}
