// Every link of the built site, those into /api and /rust as well, with their anchors. Asks nobody outside this machine.
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { fail, root } from '../step.mjs'

/** What of this repository's address leads to a file: that must be in the checkout. */
const REPOSITORY = /^https:\/\/github\.com\/fdmon\/fdmon\/(?:blob|tree)\/main\/([^#]+)/

export async function checkLinks(site) {
  const { LinkChecker } = await import('linkinator')
  const checker = new LinkChecker()
  const outside = new Map()
  const { links } = await checker.check({
    path: site,
    recurse: true,
    concurrency: 20,
    checkFragments: true,
    retryErrors: false,
    async linksToSkip(url) {
      if (/^http:\/\/(localhost|127\.0\.0\.1)[:/]/.test(url)) return false
      outside.set(url, REPOSITORY.exec(url)?.[1])
      return true
    },
  })
  const broken = links.filter(({ state }) => state === 'BROKEN').map(({ url, parent, status }) => `${url} (${status}), on ${parent}`)
  for (const [url, path] of outside) {
    if (path !== undefined && !existsSync(join(root, decodeURI(path)))) broken.push(`${url}: there is no ${path} in the repository`)
  }
  if (broken.length > 0) fail(`links: ${broken.length} lead nowhere\n${broken.slice(0, 40).join('\n')}`)
  const good = links.filter(({ state }) => state === 'OK').length
  return `${good} links lead somewhere, ${outside.size} lead outside and are not followed`
}
