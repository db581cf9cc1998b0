// npm start: installs and builds what is missing, then runs the main job; its options go after "--".
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { ready, root, sayOnStderr } from './step.mjs'

sayOnStderr() // standard output is the job's: a table, or JSON with --json
ready()
const job = join(root, 'examples', 'main-job', 'main.mjs')
const result = spawnSync(process.execPath, [job, ...process.argv.slice(2)], { cwd: root, stdio: 'inherit' })
process.exitCode = result.status ?? 1
