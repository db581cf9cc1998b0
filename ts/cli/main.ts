#!/usr/bin/env node
// `npx fdmon`: the command line. Exit codes: 0, 1 failed, 2 usage, 128 + the signal that ended it.
import { readFileSync } from 'node:fs'
import { constants } from 'node:os'
import { join } from 'node:path'
import { Command, CommanderError } from 'commander'
import { bench } from './bench/bench.js'
import { settingsOf, withBenchOptions } from './bench/settings.js'
import { describe, probe } from './probe.js'
import { terminalOf } from './terminal.js'
import { tune, withTuneOptions, type TuneOptions } from './tune/tune.js'
import { top, withTopOptions, type TopOptions } from './top/top.js'

const USAGE = 2

const BENCH_HELP = `
A producer in one thread and a loop in another share a word of memory and an
eventfd. A gap after an event was handled the next one is due; latency runs from
then until its handler runs.

Placements:
  two        two CPUs, a thread pinned to each; guards off, which see one CPU
  free       two CPUs or more, where the scheduler likes; guards on
  one        one CPU for both; guards on: no policy spins
  unguarded  one CPU for both; guards off: what spinning costs where the other
             side needs the CPU

Policies are those of the option poll.policy, with maxNs as --window says;
blocking is maxNs: 0.

Examples:
  fdmon bench --quick
  fdmon bench --monitor epoll --policy blocking,cost --gap 20,50
  fdmon bench --html bench.html --json > bench.json

Exit codes: 0; 1 when a row could not be measured or lost an event; 2 for a
wrong option; 130 after Ctrl-C.`

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
    .addHelpText('after', '\nExit codes: 0; 1 failed; 2 for a wrong option.')
  fdmon
    .command('probe')
    .description('print what this kernel and container allow, why not, and what to do')
    .option('--json', 'print JSON for machines')
    .helpOption('-h, --help', 'print this help')
    .allowExcessArguments(false)
    .action((options: { json?: boolean }) => {
      const found = probe()
      process.stdout.write(options.json === true ? `${JSON.stringify(found, null, 2)}\n` : describe(found, terminalOf(process.stdout)))
    })
  withBenchOptions(fdmon.command('bench'))
    .description('measure latency beside CPU time and system calls: monitors × policies × placements × gaps')
    .helpOption('-h, --help', 'print this help')
    .addHelpText('after', BENCH_HELP)
    .allowExcessArguments(false)
    .action(async (options: Parameters<typeof settingsOf>[0]) => {
      process.exitCode = await bench(settingsOf(options), version())
    })
  withTuneOptions(fdmon.command('tune'))
    .description('find parameters of spinning for this machine, and what they gain and cost')
    .helpOption('-h, --help', 'print this help')
    .action(async (command: string[], options: TuneOptions) => {
      process.exitCode = await tune(command, options, version())
    })
  withTopOptions(fdmon.command('top'))
    .description('show live what the contexts and handlers of a running process do')
    .helpOption('-h, --help', 'print this help')
    .allowExcessArguments(false)
    .action(async (pid: number | undefined, options: TopOptions) => {
      process.exitCode = await top(pid, options)
    })
  return fdmon
}

// A reader that has seen enough is no error; anything else that keeps the output from its reader is.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit()
  process.stderr.write(`fdmon: cannot write the output: ${error.message}\n`)
  process.exit(1)
})

// As a shell says it of a command that a signal ended; children, files and the cursor are seen to on exit.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(signal, () => process.exit(128 + constants.signals[signal]))
}

async function main(): Promise<void> {
  try {
    await program().parseAsync()
  } catch (error) {
    if (error instanceof CommanderError) {
      process.exitCode = error.exitCode === 0 ? 0 : USAGE
    } else {
      process.stderr.write(`fdmon: ${error instanceof Error ? error.message : String(error)}\n`)
      process.exitCode = 1
    }
  }
}

void main()
