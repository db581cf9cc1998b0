// What the tests of examples/kvlog share: contexts of each I/O engine, folders that go, and contexts that count and fail.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { AioContext, capabilities } from 'fdmon'
import type { LogContext } from '../../examples/kvlog/log.js'

export type Engine = 'io_uring' | 'threads'

/** Without io_uring only where that is asked for: the other tests fail then by name. */
export const engines: readonly Engine[] =
  process.env['FDMON_WITHOUT_IO_URING'] === '1' && !capabilities().monitors.io_uring.available ? ['threads'] : ['io_uring', 'threads']

/** What a test is given; all of it goes at its end. */
export interface Kit {
  engine: Engine
  folder: string
  context: AioContext
}

/** A test for each engine, with the name `<engine>: kvlog <title>`. */
export function onEachEngine(title: string, body: (t: ExecutionContext, kit: Kit) => Promise<void>): void {
  for (const engine of engines) {
    test(`${engine}: kvlog ${title}`, async (t) => {
      const context = new AioContext({ name: 'kvlog', aio: { engine } })
      const folder = mkdtempSync(join(tmpdir(), 'kvlog-'))
      try {
        await body(t, { engine, folder, context })
      } finally {
        context.close()
        rmSync(folder, { recursive: true, force: true })
      }
    })
  }
}

type Call = 'writev' | 'fsync' | 'fdatasync'

/** A context that counts what it is asked for, and does something else instead where a test says so. */
export class Watched implements LogContext {
  readonly calls: Call[] = []
  /** By call: what it does instead, as long as it is set. */
  instead: { writev?: LogContext['writev']; fsync?: LogContext['fsync']; fdatasync?: LogContext['fdatasync'] } = {}

  constructor(readonly inner: LogContext) {}

  count(call: Call): number {
    return this.calls.filter((made) => made === call).length
  }

  attach(): unknown {
    return this.inner.attach()
  }

  read(...args: Parameters<LogContext['read']>): Promise<number> {
    return this.inner.read(...args)
  }

  writev(...args: Parameters<LogContext['writev']>): Promise<number> {
    this.calls.push('writev')
    return this.instead.writev?.(...args) ?? this.inner.writev(...args)
  }

  fsync(...args: Parameters<LogContext['fsync']>): Promise<void> {
    this.calls.push('fsync')
    return this.instead.fsync?.(...args) ?? this.inner.fsync(...args)
  }

  fdatasync(...args: Parameters<LogContext['fdatasync']>): Promise<void> {
    this.calls.push('fdatasync')
    return this.instead.fdatasync?.(...args) ?? this.inner.fdatasync(...args)
  }
}
