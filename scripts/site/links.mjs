// Every link of the built site, those into /api and /rust as well, with their anchors. Asks nobody outside this machine.
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fail, root } from '../step.mjs'

/** What of this repository's address leads to a file: that must be in the checkout. */
const REPOSITORY = /^https:\/\/github\.com\/fdmon\/fdmon\/(?:blob|tree)\/main\/([^#]+)/

/** Of rustdoc's: a link in what it takes over from the crate tracing, and scripts about traits that nobody implements elsewhere. */
export const FOREIGN = /\/rust\/(fdmon\/dispatcher$|trait\.impl\/)/

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
  const broken = links.filter((link) => link.state === 'BROKEN' && !FOREIGN.test(link.url) && !hasAnchor(link)).map(({ url, parent, status }) => `${url} (${status}), on ${parent}`)
  for (const [url, path] of outside) {
    if (path !== undefined && !existsSync(join(root, decodeURI(path)))) broken.push(`${url}: there is no ${path} in the repository`)
  }
  if (broken.length > 0) fail(`links: ${broken.length} lead nowhere\n${broken.slice(0, 40).join('\n')}`)
  const good = links.filter(({ state }) => state === 'OK').length
  return `${good} links lead somewhere, ${outside.size} lead outside and are not followed`
}

/** What rustdoc writes percent-encoded into the page, and the ranges of lines that its script shows. */
function hasAnchor({ url, status }) {
  const [file, anchor] = url.replace(/^file:\/\//, '').split('#')
  if (status !== 200 || anchor === undefined || !existsSync(file)) return false
  if (/\/rust\/src\//.test(file)) return /^\d+(-\d+)?$/.test(anchor)
  return anchorsOf(file).has(plain(anchor))
}

const known = new Map()

function anchorsOf(file) {
  if (!known.has(file)) known.set(file, new Set([...readFileSync(file, 'utf8').matchAll(/\bid="([^"]*)"/g)].map(([, id]) => plain(id))))
  return known.get(file)
}

function plain(name) {
  return decodeURIComponent(name).replace(/&(lt|gt|amp);/g, (_, sign) => ({ lt: '<', gt: '>', amp: '&' })[sign])
}
