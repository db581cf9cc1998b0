// Leaves a context open, with a handler, and ends.
import { AioContext, EventNotifier } from 'fdmon'

const ctx = new AioContext()
const bell = new EventNotifier()
bell.handle // given out
ctx.setFdHandler(bell, { read() {} })
ctx.schedule(() => {})
ctx.poll()
process.stdout.write('the end\n')
