// Watches a standard input that the host cannot wait for.
import { AioContext } from 'fdmon'

const ctx = new AioContext()
let ready = 0
ctx.setFdHandler(0, { read: () => ready++ })
for (let turn = 0; turn < 3; turn++) ctx.poll()
process.stdout.write(`ready ${ready}\n`)
ctx.close()
