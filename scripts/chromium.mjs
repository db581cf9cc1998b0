// Debian's Chromium without a window, driven by playwright-core: for what opens pages that the product writes.
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const PROGRAM = '/usr/bin/chromium'
const QUIET = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync']

/** Runs it as large as said and light or dark, with a profile of its own that is removed again. */
export async function withChromium({ width, height = 800, dark, reducedMotion }, use) {
  if (!existsSync(PROGRAM)) throw new Error(`${PROGRAM} is missing; run: apt-get install chromium`)
  const { chromium } = await import('playwright-core') // scripts install it first
  const profile = mkdtempSync(join(tmpdir(), 'fdmon-chromium-'))
  try {
    const viewport = { width, height }
    const colorScheme = dark ? 'dark' : 'light'
    const context = await chromium.launchPersistentContext(profile, { executablePath: PROGRAM, headless: true, args: QUIET, viewport, colorScheme, reducedMotion })
    try {
      return await use(context)
    } finally {
      await context.close()
    }
  } finally {
    rmSync(profile, { recursive: true, force: true, maxRetries: 5 })
  }
}

/** The same with an empty page. */
export function withPage(look, use) {
  return withChromium(look, async (context) => use(context.pages()[0] ?? (await context.newPage())))
}
