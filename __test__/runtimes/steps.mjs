// What the programs of runtimes.test.ts share: named steps, each a line of JSON with whether it went well.

/** Runs each step, in order; an exception ends that step only. */
export async function steps(list) {
  for (const [name, body] of Object.entries(list)) {
    try {
      await body()
      report({ name, ok: true })
    } catch (error) {
      report({ name, ok: false, error: String(error?.stack ?? error) })
    }
  }
}

export function report(line) {
  console.log(JSON.stringify(line))
}

export function equal(is, expected) {
  if (JSON.stringify(is) !== JSON.stringify(expected)) {
    throw new Error(`is ${JSON.stringify(is)}, expected ${JSON.stringify(expected)}`)
  }
}

/** The error that the call throws. */
export function thrown(call) {
  try {
    call()
  } catch (error) {
    return error
  }
  throw new Error('it threw nothing')
}
