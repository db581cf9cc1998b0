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
export async function faulted(rules: readonly string[], source: string, data: { monitor?: string; [key: string]: unknown } = {}): Promise<Faulted> {
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

/** Into the file that FDMON_FAULTS_OUT names: one line of JSON a row. */
export function report(line: object): void {
  const file = process.env['FDMON_FAULTS_OUT']
  if (file) appendFileSync(file, `${JSON.stringify(line)}\n`)
}
