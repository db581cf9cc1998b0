// kvlog: the log on the command line. Exit codes: 0, 1 failed or not there, 2 usage.
//
//   node --import tsx examples/kvlog/main.ts FILE set K V | get K | delete K | list | load | check
import { Command, CommanderError } from 'commander'
import { load } from './load.js'
import { KvLog, readLog } from './log.js'

const USAGE = 2

/** A failure that is an answer: the exit code says it, and a line on standard error. */
class Failure extends Error {}

function program(path: string): Command {
  const kvlog = new Command('kvlog FILE')
    .usage('COMMAND …')
    .description('An append-only log of keys and values: what it has acknowledged is on the disk')
    .helpOption('-h, --help', 'print this help')
    .helpCommand(false)
    .showHelpAfterError('(kvlog --help shows the commands)')
    .exitOverride()
  const command = (name: string, description: string) =>
    kvlog.command(name).description(description).helpOption('-h, --help', 'print this help').allowExcessArguments(false)

  command('set <key> <value>', 'give a key a value').action((key: string, value: string) => writing(path, (log) => log.set(key, value)))
  command('get <key>', 'print the value of a key').action(async (key: string) => {
    const value = (await readLog(path)).entries.get(key)
    if (value === undefined) throw new Failure(`${key} is not there`)
    print(value)
  })
  command('delete <key>', 'remove a key').action((key: string) =>
    writing(path, async (log) => {
      if (log.get(key) === undefined) throw new Failure(`${key} is not there`)
      await log.delete(key)
    }),
  )
  command('list', 'print each key with its value, a tab between them')
    .option('--json', 'print each as a JSON array, for values with tabs and line breaks')
    .action(async ({ json }: { json?: boolean }) => {
      for (const entry of (await readLog(path)).entries) print(json === true ? JSON.stringify(entry) : entry.join('\t'))
    })
  command('load', 'set a key a line of standard input, "KEY<tab>VALUE"; print each key when it is durable').action(() =>
    writing(path, async (log) => {
      const records = await load(log, process.stdin, print)
      process.stderr.write(`kvlog: ${records} records in ${log.commits} commits\n`)
    }),
  )
  command('check', 'read the whole log; 1 if a crash has torn its end or something is damaged').action(async () => {
    const { records, entries, end, torn } = await readLog(path)
    print(`${records} records, ${entries.size} keys, ${end} bytes`)
    if (torn > 0) throw new Failure(`${torn} bytes of a torn commit follow; the next set, delete or load cuts them off`)
  })
  return kvlog
}

async function writing(path: string, work: (log: KvLog) => Promise<void>): Promise<void> {
  const log = await KvLog.open(path)
  try {
    if (log.torn > 0) process.stderr.write(`kvlog: cut off ${log.torn} bytes of a torn commit\n`)
    await work(log)
  } finally {
    await log.close()
  }
}

function print(line: string): void {
  process.stdout.write(`${line}\n`)
}

// A reader that has seen enough is no error; anything else that keeps the output from its reader is.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit()
  process.stderr.write(`kvlog: cannot write the output: ${error.message}\n`)
  process.exit(1)
})

// The file stands before the command, where commander has no place for one. An option there is one of kvlog itself.
const [first, ...rest] = process.argv.slice(2)
const isFile = first !== undefined && !first.startsWith('-')
try {
  await program(isFile ? first : '').parseAsync(isFile ? rest : process.argv.slice(2, 3), { from: 'user' })
} catch (error) {
  if (error instanceof CommanderError) {
    process.exitCode = error.exitCode === 0 ? 0 : USAGE
  } else {
    process.stderr.write(`kvlog: ${error instanceof Error ? error.message : String(error)}\n`)
    process.exitCode = 1
  }
}
