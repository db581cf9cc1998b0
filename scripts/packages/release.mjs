// The release copy: the folders of the packages as they are published, made in target/packages and never in the checkout.
import { spawnSync } from 'node:child_process'
import { copyFileSync, cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fail, root } from '../step.mjs'
import { TARGETS } from './targets.mjs'

const LICENCES = ['LICENSE-APACHE', 'LICENSE-MIT']
/** Of what is linked into the addons; made by scripts/notices.mjs. */
export const NOTICES = 'THIRD-PARTY-NOTICES.txt'
/** What is for the checkout alone. */
const OWN = ['scripts', 'napi', 'ava', 'devDependencies', 'overrides', 'private']

export const folder = join(root, 'target', 'packages')
export const tarballs = join(folder, 'tarballs')
export const readJson = (path) => JSON.parse(readFileSync(path, 'utf8'))

/** Ends the script when the version is not the same in each manifest. */
export function versionsAgree() {
  const { version } = readJson(join(root, 'package.json'))
  const cargo = /^\[workspace\.package\]\s*(?:^(?!\[).*$\s*)*?^version = "(.*)"$/m.exec(readFileSync(join(root, 'Cargo.toml'), 'utf8'))?.[1]
  const others = [['Cargo.toml', cargo], ...TARGETS.map(({ name }) => [`npm/${name}/package.json`, manifestOf(name).version])]
  for (const [path, other] of others) {
    if (other !== version) fail(`pack: ${path} has version ${other}, and package.json has ${version}; make them the same`)
  }
  return version
}

export function manifestOf(name) {
  return readJson(join(root, 'npm', name, 'package.json'))
}

/** `fdmon` without what is for the checkout, and with the packages of the platforms, which the checkout must not name: npm
 * would look for them before they are published. */
export function releaseRoot(version) {
  const from = join(root, 'package.json')
  if (!existsSync(join(root, 'dist', 'cjs', 'index.js'))) fail('pack: dist/ is missing; run: npm run build:ts')
  const manifest = readJson(from)
  for (const name of OWN) delete manifest[name]
  manifest.optionalDependencies = Object.fromEntries(TARGETS.map(({ name }) => [manifestOf(name).name, version]))
  const to = fresh('fdmon')
  cpSync(join(root, 'dist'), join(to, 'dist'), { recursive: true })
  // The maps would be a third of the download; the code is readable as it is.
  for (const path of readdirSync(join(to, 'dist'), { recursive: true }).map((name) => join(to, 'dist', name))) {
    if (path.endsWith('.js')) writeFileSync(path, readFileSync(path, 'utf8').replace(/\n\/\/# sourceMappingURL=\S+\s*$/, '\n'))
  }
  for (const name of ['README.md', 'CHANGELOG.md', ...LICENCES]) copyFileSync(join(root, name), join(to, name))
  writeFileSync(join(to, 'package.json'), `${JSON.stringify(manifest, null, 2)}\n`)
  return to
}

/** The package of one platform; `addons` is the folder that its files are in. */
export function releasePlatform({ name, files }, addons) {
  const to = fresh(`fdmon-${name}`)
  for (const file of ['package.json', 'README.md']) copyFileSync(join(root, 'npm', name, file), join(to, file))
  for (const file of LICENCES) copyFileSync(join(root, file), join(to, file))
  copyFileSync(join(root, 'npm', NOTICES), join(to, NOTICES))
  for (const file of files) copyFileSync(join(addons, file), join(to, file))
  return to
}

/** Runs npm pack there; returns what npm says about the tarball, and its path. */
export function tarball(from) {
  mkdirSync(tarballs, { recursive: true })
  const args = ['pack', '--json', '--ignore-scripts', '--pack-destination', tarballs]
  const { status, stdout, stderr } = spawnSync('npm', args, { cwd: from, encoding: 'utf8' })
  if (status !== 0) fail(`pack: npm pack in ${from}: ${stderr}`)
  const said = JSON.parse(stdout)
  const about = Array.isArray(said) ? said[0] : Object.values(said)[0]
  return { ...about, path: join(tarballs, about.filename.replace('@', '').replace('/', '-')) }
}

function fresh(name) {
  const to = join(folder, 'release', name)
  rmSync(to, { recursive: true, force: true })
  mkdirSync(to, { recursive: true })
  return to
}
