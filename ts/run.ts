// Turns in a row: `run()` and `pollUntil()`, and how they end.
import type { Loop } from './batch.js'
import { checkFunction, checkKeys, checkNs, checkObject, checkSignal } from './check.js'
import { invalidArg } from './errors.js'
import { Timer } from './timer.js'

/**
 * Turns until `done` says so, the context closes, or a stop is asked for. A stop ends every loop that is active, at each
 * level of nesting; with none active it ends the next one. The outermost loop takes it and leaves spin mode.
 */
function turns(loop: Loop, call: string, done: () => boolean): void {
  loop.enter(call)
  const base = loop.errors.length
  loop.native.loopBegin()
  loop.loops++
  try {
    // While a loop is active each turn tells; before it only native knows.
    loop.stopping ||= loop.native.stopRequested()
    while (!loop.stopping && !loop.closed && !done()) loop.turn(true)
  } catch (error) {
    loop.errors.push(error)
  }
  loop.loops--
  if (loop.loops === 0) loop.stopping = false
  try {
    loop.native.loopEnd()
  } catch (error) {
    loop.errors.push(error)
  }
  if (loop.errors.length !== base) loop.throwFrom(base)
}

/** `pollUntil()` */
export function pollUntil(loop: Loop, condition: unknown): void {
  const check = checkFunction('condition', condition, '() => done')
  turns(loop, 'pollUntil()', () => {
    const result = check()
    if (typeof result === 'object' && result !== null) {
      throw invalidArg('the result of condition', result, 'return true or false, and do not make the function async')
    }
    return Boolean(result)
  })
}

/** `run()` */
export function run(loop: Loop, options: unknown): void {
  const given = options === undefined ? {} : checkObject('options', options, 'an object, for example { forNs: 1e9 }')
  checkKeys('options.', given, ['signal', 'forNs'])
  const signal = checkSignal('options.signal', given['signal'])
  const forNs = given['forNs'] === undefined ? undefined : checkNs('options.forNs', given['forNs'])

  loop.enter('run()')
  let over = signal?.aborted ?? false
  const end = (): void => {
    over = true
  }
  const clock = forNs === undefined ? undefined : Timer.create(loop, end, false)
  signal?.addEventListener('abort', end)
  try {
    if (forNs !== undefined) clock?.arm(forNs)
    turns(loop, 'run()', () => over)
  } finally {
    signal?.removeEventListener('abort', end)
    clock?.[Symbol.dispose]()
  }
}
