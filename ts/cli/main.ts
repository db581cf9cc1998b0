#!/usr/bin/env node
// `npx fdmon`: the command line. Exit codes: 0, 1 failed, 2 usage.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Command, CommanderError } from 'commander'
import { probe } from './probe.js'

const USAGE = 2

function version(): string {
  const manifest = readFileSync(join(__dirname, '..', '..', '..', 'package.json'), 'utf8')
  return (JSON.parse(manifest) as { version: string }).version
}

function program(): Command {
  const fdmon = new Command('fdmon')
    .description('An adaptive busy-polling event loop for Linux file descriptors')
    .version(version(), '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print this help')
    .helpCommand(false)
    .showHelpAfterError('(fdmon --help shows the commands)')
    .exitOverride()
  fdmon
    .command('probe')
    .description('print what this kernel and container allow, and why not')
    .option('--json', 'print JSON for machines')
    .helpOption('-h, --help', 'print this help')
    .allowExcessArguments(false)
    .action((options: { json?: boolean }) => {
      process.stdout.write(probe(options.json === true, process.stdout.isTTY))
    })
  return fdmon
}

// A reader that has seen enough is no error; anything else that keeps the output from its reader is.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit()
  process.stderr.write(`fdmon: cannot write the output: ${error.message}\n`)
  process.exit(1)
})

try {
  program().parse()
} catch (error) {
  if (error instanceof CommanderError) {
    process.exitCode = error.exitCode === 0 ? 0 : USAGE
  } else {
    process.stderr.write(`fdmon: ${error instanceof Error ? error.message : String(error)}\n`)
    process.exitCode = 1
  }
}
