// A pidfd of a child; when it has ended, of the next one.
import { spawn } from 'node:child_process'
import { watch } from 'fdmon'
import { pidfd } from 'fdmon/fd'
import { keepCounters } from './report.mjs'

const SECONDS = '1.5'

export function child() {
  const source = { name: 'pidfd', fd: -1, note: () => `${ended} ended, ${running} runs`, start, pause, close }
  let running = 'none'
  let ended = 0
  let paused = false
  let context
  let sleeper
  let end

  function start(given) {
    context = given
    sleeper = spawn('sleep', [SECONDS], { stdio: 'ignore' })
    running = sleeper.pid
    end = pidfd(sleeper.pid)
    source.fd = end.fd
    const registration = watch(end, {
      poll: 'kernel',
      read() {
        // A pidfd stays readable for ever: its handler goes, and the next child gets one of its own.
        keepCounters(context, source)
        registration.remove()
        end.close()
        end = undefined
        running = 'none'
        ended += 1
        if (!paused) start(context)
      },
    }, { context })
  }

  function pause(on) {
    paused = on
    if (!on && end === undefined) start(context)
  }

  // The context is closed next, so no handler hears of this end.
  function close() {
    if (end === undefined) return
    context.setFdHandler(end, null)
    end.close()
    sleeper.kill()
  }
  return source
}
