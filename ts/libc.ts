// Which C library this process runs on; without a child process, and without waiting for a network.
import { readFileSync } from 'node:fs'

/** The names that platform packages have for them. */
export type Libc = 'gnu' | 'musl'

// The last part of a path, as `/proc/self/maps` and reports have it. Debian's musl is a plain libc.so in a folder of its own.
const MUSL = /\/(?:ld-musl-|libc\.musl-)[^/\n]*$|\/[^/\n]*-linux-musl[^/\n]*\/libc\.so(?: \(deleted\))?$/m
// Before glibc 2.34 the files had the version in their names.
const GNU = /\/(?:ld-linux[^/\n]*|libc\.so\.6|(?:ld|libc)-2\.\d+\.so)(?: \(deleted\))?$/m

/** What is mapped into this process says it; a report does where there is no /proc. Undefined when neither can tell. */
export function libc(): Libc | undefined {
  return of(mapped()) ?? reported()
}

function of(paths: string): Libc | undefined {
  return MUSL.test(paths) ? 'musl' : GNU.test(paths) ? 'gnu' : undefined
}

function mapped(): string {
  try {
    return readFileSync('/proc/self/maps', 'latin1')
  } catch {
    return ''
  }
}

interface Report {
  header?: { glibcVersionRuntime?: string }
  sharedObjects?: string[]
}

function reported(): Libc | undefined {
  const report = process.report as (NodeJS.ProcessReport & { excludeNetwork?: boolean }) | undefined
  if (typeof report?.getReport !== 'function') return undefined
  // With its network part, a report looks up the name of each peer.
  const before = report.excludeNetwork
  report.excludeNetwork = true
  try {
    const { header, sharedObjects } = report.getReport() as Report
    return header?.glibcVersionRuntime ? 'gnu' : of((sharedObjects ?? []).join('\n'))
  } catch {
    return undefined
  } finally {
    report.excludeNetwork = before as boolean
  }
}
