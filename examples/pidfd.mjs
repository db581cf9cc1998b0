// A pidfd: readable when a process has ended. Of a child, Node gives the exit code to its 'exit' event.
import { spawn } from 'node:child_process'
import { watch } from 'fdmon'
import { pidfd } from 'fdmon/fd'

const child = spawn('sh', ['-c', 'exit 7'])
child.on('exit', (code) => console.log(`Node says: exit code ${code}`))

const exit = pidfd(child.pid)
const registration = watch(exit, {
  read() {
    console.log('the child has ended')
    registration.remove() // a pidfd stays readable
    exit.close()
  },
})
