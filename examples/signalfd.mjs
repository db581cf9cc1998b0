// Signals as a descriptor: they arrive while the loop runs, when no listener of process.on() would be called.
import { spawn } from 'node:child_process'
import { AioContext } from 'fdmon'
import { signalfd } from 'fdmon/fd'

const ctx = new AioContext()
const signals = signalfd(['SIGHUP', 'SIGTERM'])
ctx.setFdHandler(signals, {
  read() {
    for (const { signal, pid } of signals.readSignals()) {
      console.log(`${signal} from process ${pid === child.pid ? 'sh' : pid}`)
      if (signal === 'SIGTERM') ctx.stop() // it does not end the process now
    }
  },
})
const child = spawn('sh', ['-c', 'kill -HUP $0; kill -TERM $0', process.pid])
ctx.run()
ctx.close()
signals.close() // from here on SIGTERM ends the process again
