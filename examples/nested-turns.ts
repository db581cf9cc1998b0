// A callback that waits for something else: it runs turns of its own until that has happened.
import { AioContext, EventNotifier } from 'fdmon'
import { timerfd } from 'fdmon/fd'

using ctx = new AioContext()
using question = new EventNotifier()
using answer = timerfd({ delayNs: 5_000_000 })
let answered = false
const second = ctx.setFdHandler(answer, {
  read() {
    answered = answer.read() > 0n
    console.log('the answer')
  },
})
const first = ctx.setEventNotifier(question, {
  read() {
    question.testAndClear()
    console.log('the question, which waits for')
    ctx.pollUntil(() => answered) // nested: other handlers run, this one does not
    ctx.stop()
  },
})
question.set()
ctx.run()
for (const registration of [first, second]) registration.remove()
