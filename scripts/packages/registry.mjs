// A registry on this machine that has the packed packages, and sends on who asks for others; so that npm chooses as it will
// when they are published: by os, cpu and libc.
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'

/**
 * Serves them until `close()`: `{ manifest, path }`, the tarball's path, or none for a package that must not be downloaded
 * here. `taken` names the packages whose tarball was asked for.
 */
export async function serve(packages, upstream) {
  const taken = []
  const byName = new Map(packages.map((one) => [one.manifest.name, one]))
  const server = createServer((request, response) => {
    const path = decodeURIComponent(request.url.replace(/\?.*$/, '')).slice(1)
    const tarball = /^-\/(.*)\.tgz$/.exec(path)?.[1]
    const found = byName.get(tarball ?? path)
    if (!found) return void response.writeHead(307, { location: new URL(request.url.slice(1), upstream).href }).end()
    if (tarball === undefined) return void response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(packument(found, url)))
    taken.push(tarball)
    if (!found.path) return void response.writeHead(404).end()
    response.writeHead(200, { 'content-type': 'application/octet-stream' }).end(readFileSync(found.path))
  })
  await new Promise((resolve, reject) => server.once('error', reject).listen(0, '127.0.0.1', resolve))
  const url = `http://127.0.0.1:${server.address().port}/`
  return { url, taken, close: () => (server.close(), server.closeAllConnections()) }
}

function packument({ manifest, path }, url) {
  const { name, version } = manifest
  const integrity = path && `sha512-${createHash('sha512').update(readFileSync(path)).digest('base64')}`
  const dist = { tarball: `${url}-/${name}.tgz`, ...(integrity ? { integrity } : {}) }
  return { name, 'dist-tags': { latest: version }, versions: { [version]: { ...manifest, dist } } }
}
