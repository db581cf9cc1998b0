// What must be so before a release: one version in every manifest, in the tag and in CHANGELOG.md.
//
//   node scripts/release-check.mjs [TAG] [--notes]      without a tag only the manifests; --notes prints what CHANGELOG.md says of the version
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { readJson, versionsAgree } from './packages/release.mjs'
import { fail, root, say, sayOnStderr } from './step.mjs'

const { values, positionals } = parseArgs({ options: { notes: { type: 'boolean' } }, allowPositionals: true })
const tag = positionals[0] ?? ''
if (values.notes) sayOnStderr()
const version = versionsAgree()
const lock = readJson(join(root, 'package-lock.json'))
for (const [place, other] of [['package-lock.json', lock.version], ['packages of package-lock.json', lock.packages[''].version]]) {
  if (other !== version) fail(`release: ${place} has version ${other}, and package.json has ${version}; run: npm install`)
}
for (const name of ['fdmon', 'fdmon-napi']) {
  const locked = new RegExp(`name = "${name}"\\nversion = "(.*)"`).exec(readFileSync(join(root, 'Cargo.lock'), 'utf8'))?.[1]
  if (locked !== version) fail(`release: Cargo.lock has ${name} ${locked}, and package.json has ${version}; run: cargo update --workspace`)
}
const wanted = /^fdmon = \{.*version = "(.*?)"/m.exec(readFileSync(join(root, 'Cargo.toml'), 'utf8'))?.[1]
if (wanted !== version) fail(`release: the workspace depends on fdmon ${wanted}, and package.json has ${version}; make them the same`)
if (tag !== '') {
  if (tag !== `v${version}`) fail(`release: the tag is ${tag}, and the version is ${version}; tag v${version}, or change the version everywhere`)
  const notes = notesOf(version)
  if (notes === '') fail(`release: CHANGELOG.md has nothing under "## ${version}"; move what is unreleased there, with the date`)
  if (values.notes) process.stdout.write(`${notes}\n`)
}
say(`release: ${version} everywhere${tag === '' ? ', no tag' : ', also in the tag and in CHANGELOG.md'}`)

/** The section `## 1.2.3 - DATE`. */
function notesOf(name) {
  const sections = readFileSync(join(root, 'CHANGELOG.md'), 'utf8').split(/^## /m)
  const found = sections.find((text) => new RegExp(`^\\[?${name.replaceAll('.', '\\.')}\\]?(?: |\\n)`).test(text))
  return found?.slice(found.indexOf('\n')).trim() ?? ''
}
