import type { BrowserContext, Page } from 'playwright-core'

export interface Look {
  width: number
  height?: number
  dark: boolean
  reducedMotion?: 'reduce'
}

export function withChromium<T>(look: Look, use: (context: BrowserContext) => Promise<T>): Promise<T>
export function withPage<T>(look: Look, use: (page: Page) => Promise<T>): Promise<T>
