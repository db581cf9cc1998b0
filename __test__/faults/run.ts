// Runs Node in a sandbox whose supervisor fails the n-th call, and keeps count.
import { appendFileSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { inProcess, type End } from '../in-process.js'
import { refuseProgram } from '../refusing.js'

export interface Faulted extends End {
  /** How often each rule was met. */
  hits: number[]
}

/**
 * Runs a piece of CommonJS as `inProcess()` does, with `mark()` and `buffer` at hand as well: calls are counted between the
 * first two marks. `rules` such as `epoll_ctl:add@2=ENOMEM`.
 */
export function faulted(rules: readonly string[], source: string, data: { monitor?: string; [key: string]: unknown } = {}): Promise<Faulted> {
  return inTurn(() => run(rules, source, data))
}

/** How many such processes there are at once: ava begins all tests of a file together. */
const AT_ONCE = 2
const lanes: Promise<unknown>[] = Array.from({ length: AT_ONCE }, () => Promise.resolve())
let turn = 0

function inTurn<T>(body: () => Promise<T>): Promise<T> {
  const lane = turn++ % AT_ONCE
  const result = lanes[lane]!.then(body)
  lanes[lane] = result.catch(() => undefined)
  return result
}

async function run(rules: readonly string[], source: string, data: { monitor?: string; [key: string]: unknown }): Promise<Faulted> {
  const folder = mkdtempSync(join(tmpdir(), 'fdmon-faults-'))
  try {
    const file = join(folder, 'hits')
    const prologue = 'const mark = () => process.kill(process.pid, 0)\nconst buffer = new Uint8Array(64)\n'
    const end = await inProcess(prologue + source, data, [refuseProgram(), '--hits', file, ...rules, '--'])
    const lines = end.signal === null ? readFileSync(file, 'utf8').trim().split('\n') : []
    return { ...end, hits: lines.map((line) => Number(line.split(' ').at(-1))) }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** Into the file that FDMON_FAULTS_REPORT names: one line of JSON a row. */
export function report(line: object): void {
  const file = process.env['FDMON_FAULTS_REPORT']
  if (file) appendFileSync(file, `${JSON.stringify(line)}\n`)
}
