// The child processes that measure, as their parent sees them. None of them outlives it.
import { spawn, type ChildProcess } from 'node:child_process'
import { join } from 'node:path'
import { createInterface, type Interface } from 'node:readline'
import type { Place } from './plan.js'
import type { Answer, Setup, Task } from './protocol.js'

/** A task that takes so much longer than its gaps hangs. */
const PATIENCE_MS = 60_000

const alive = new Set<ChildProcess>()
process.on('exit', killAll)

/** Ends every child at once. */
export function killAll(): void {
  for (const child of alive) child.kill('SIGKILL')
}

/** One of them. */
export class Child {
  readonly #process: ChildProcess
  readonly #lines: Interface
  readonly #ended: Promise<void>
  #why = ''
  #answered: ((answer: Answer) => void) | undefined

  /** `wrapper`: a command that counts what this one does. */
  constructor({ cpu, pins, shared }: Place, wrapper: readonly string[] = []) {
    const setup: Setup = { ...(pins && { pins }), shared }
    const pinned = cpu === undefined ? [] : ['taskset', '-c', `${cpu}`]
    const [command = '', ...args] = [...wrapper, ...pinned, process.execPath, join(__dirname, 'runner.js'), JSON.stringify(setup)]
    const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'pipe'] })
    alive.add(child)
    this.#process = child
    this.#lines = createInterface({ input: child.stdout })
    this.#lines.on('line', (line) => this.#answer(JSON.parse(line) as Answer))
    child.stderr.on('data', (text: Buffer) => (this.#why = text.toString().trim().split('\n').at(-1) ?? ''))
    child.stdin.on('error', () => {}) // it has ended; that is told below
    child.on('error', (error) => (this.#why = error.message))
    this.#ended = new Promise((resolve) => {
      child.on('close', (code, signal) => {
        alive.delete(child)
        this.#answer({ failed: `the measuring process ended with ${signal ?? `exit code ${code}`}${this.#why === '' ? '' : `: ${this.#why}`}` })
        resolve()
      })
    })
  }

  get ended(): boolean {
    return !alive.has(this.#process)
  }

  /** Measures one cell once. */
  measure(task: Task): Promise<Answer> {
    if (this.ended) return Promise.resolve({ failed: 'the measuring process has ended' })
    const patience = PATIENCE_MS + ((task.warmUp + task.events) * task.gapNs) / 1e6
    return new Promise((resolve) => {
      const late = setTimeout(() => {
        this.#answer({ failed: `not finished after ${Math.round(patience / 1000)} s` })
        this.#process.kill('SIGKILL')
      }, patience)
      this.#answered = (answer) => {
        clearTimeout(late)
        resolve(answer)
      }
      this.#process.stdin?.write(`${JSON.stringify(task)}\n`)
    })
  }

  #answer(answer: Answer): void {
    this.#answered?.(answer)
    this.#answered = undefined
  }

  /** Lets it end by itself, and waits for that. */
  async end(): Promise<void> {
    this.#process.stdin?.write('end\n')
    await this.#ended
  }
}
