// Debian's Chromium without a window, driven by playwright-core: for what opens pages that the product writes.
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { chromium, type Page } from 'playwright-core'

const PROGRAM = '/usr/bin/chromium'
const QUIET = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync']

/** Opens an empty page, as wide as said and light or dark, with a profile of its own that is removed again. */
export async function withPage<T>(look: { width: number; dark: boolean }, use: (page: Page) => Promise<T>): Promise<T> {
  if (!existsSync(PROGRAM)) throw new Error(`${PROGRAM} is missing; run: apt-get install chromium`)
  const profile = mkdtempSync(join(tmpdir(), 'fdmon-chromium-'))
  try {
    const context = await chromium.launchPersistentContext(profile, {
      executablePath: PROGRAM,
      headless: true,
      args: QUIET,
      viewport: { width: look.width, height: 800 },
      colorScheme: look.dark ? 'dark' : 'light',
    })
    try {
      return await use(context.pages()[0] ?? (await context.newPage()))
    } finally {
      await context.close()
    }
  } finally {
    rmSync(profile, { recursive: true, force: true, maxRetries: 5 })
  }
}
