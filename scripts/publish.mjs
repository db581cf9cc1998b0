// npm run packages:publish: publishes target/packages/tarballs, those of the platforms first and fdmon last.
//
//   node scripts/publish.mjs [--dry-run]
//
// For the release workflow: npm gives it a token for this run alone (trusted publishing), and signs where it was built (provenance). Every package
// must be there, so that nobody gets an fdmon whose addon does not exist. What is published already is left alone: a run that broke
// off can be started again. With --dry-run npm looks at each tarball and sends nothing.
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { basename, join } from 'node:path'
import { parseArgs } from 'node:util'
import { manifestOf, tarballs, versionsAgree } from './packages/release.mjs'
import { TARGETS } from './packages/targets.mjs'
import { fail, run, say } from './step.mjs'

const { values } = parseArgs({ options: { 'dry-run': { type: 'boolean' } } })
const version = versionsAgree()
const names = [...TARGETS.map(({ name }) => manifestOf(name).name), 'fdmon']
const pathOf = (name) => join(tarballs, `${name}-${version}.tgz`)
const missing = names.filter((name) => !existsSync(pathOf(name)))
if (missing.length > 0) fail(`publish: no tarball of ${missing.join(', ')}; run: npm run packages:build and npm run packages:pack`)
// A version with a suffix is for those who ask for it.
const tag = version.includes('-') ? 'next' : 'latest'
let sent = 0
for (const name of names) {
  if (published(name)) {
    say(`${name} ${version} is published already`)
    continue
  }
  const how = values['dry-run'] ? ['--dry-run'] : ['--provenance']
  run(`${basename(pathOf(name))}`, 'npm', ['publish', pathOf(name), '--access', 'public', '--tag', tag, '--ignore-scripts', ...how])
  sent += 1
}
say(`publish: ${sent} of ${names.length} packages ${values['dry-run'] ? 'would be' : 'were'} published as ${tag}: ${names.join(', ')}`)

function published(name) {
  const { status, stdout, stderr } = spawnSync('npm', ['view', `${name}@${version}`, 'version', '--json'], { encoding: 'utf8', env: { ...process.env, NODE_AUTH_TOKEN: '' } })
  if (status === 0) return stdout.includes(version)
  if (/E404/.test(stdout + stderr)) return false
  return fail(`publish: npm view ${name}: ${stderr}`)
}
