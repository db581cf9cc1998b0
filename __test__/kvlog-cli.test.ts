// examples/kvlog as a command: what it prints, its exit codes, and a disk that takes no more.
import { spawnSync } from 'node:child_process'
import { appendFileSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import test from 'ava'

const program = ['--import=tsx', fileURLToPath(new URL('../examples/kvlog/main.ts', import.meta.url))]
const folder = mkdtempSync(join(tmpdir(), 'kvlog-cli-'))
test.after.always(() => rmSync(folder, { recursive: true, force: true }))

function kvlog(args: readonly string[], input = ''): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(process.execPath, [...program, ...args], { input, encoding: 'utf8', timeout: 40_000 })
}

test('kvlog sets, gets, deletes, lists, loads and checks', (t) => {
  t.timeout(200_000)
  const path = join(folder, 'log')
  const says = (args: readonly string[], stdout: string, stderr = '', status = 0, input = ''): void => {
    const end = kvlog([path, ...args], input)
    t.deepEqual([end.status, end.stdout, end.stderr], [status, stdout, stderr], args.join(' '))
  }
  says(['set', 'a', '1'], '')
  says(['set', 'b', 'two\nlines'], '')
  says(['get', 'b'], 'two\nlines\n')
  says(['delete', 'a'], '')
  says(['get', 'a'], '', 'kvlog: a is not there\n', 1)
  says(['delete', 'a'], '', 'kvlog: a is not there\n', 1)
  says(['load'], 'c\nd\nc\n', 'kvlog: 3 records in 1 commits\n', 0, 'c\t3\nd\t\tx\nc\t\n')
  says(['list'], 'b\ttwo\nlines\nc\t\nd\t\tx\n')
  says(['list', '--json'], '["b","two\\nlines"]\n["c",""]\n["d","\\tx"]\n')
  const { size } = statSync(path)
  says(['check'], `6 records, 3 keys, ${size} bytes\n`)
  appendFileSync(path, 'torn')
  says(['check'], `6 records, 3 keys, ${size} bytes\n`, 'kvlog: 4 bytes of a torn commit follow; the next set, delete or load cuts them off\n', 1)
  says(['load'], 'e\n', 'kvlog: cut off 4 bytes of a torn commit\nkvlog: line 2 has no tab; write "KEY<tab>VALUE"\n', 1, 'e\t5\nno tab\nf\t6\n')
  says(['get', 'e'], '5\n')
  says(['get', 'f'], '', 'kvlog: f is not there\n', 1)
})

test('kvlog tells damage, and leaves the file as it is', (t) => {
  t.timeout(200_000)
  const path = join(folder, 'damaged')
  kvlog([path, 'set', 'a', '1'])
  kvlog([path, 'set', 'b', '2'])
  const damaged = readFileSync(path)
  damaged[28]! ^= 1
  writeFileSync(path, damaged)
  for (const command of [['check'], ['list'], ['set', 'c', '3']]) {
    const { status, stdout, stderr } = kvlog([path, ...command])
    t.deepEqual([status, stdout], [1, ''], stderr)
    t.regex(stderr, /^kvlog: record 1 at byte 0 is damaged/)
  }
  t.deepEqual(readFileSync(path), damaged)
})

test('kvlog ends with 2 for what it does not understand, with 0 for --help', (t) => {
  t.timeout(200_000)
  const path = join(folder, 'none')
  for (const args of [[], [path], [path, 'put', 'a', '1'], [path, 'set', 'a'], [path, 'get', 'a', 'b'], [path, 'list', '--yaml'], ['--nope']]) {
    const { status, stdout, stderr } = kvlog(args)
    t.deepEqual([status, stdout], [2, ''], args.join(' '))
    t.true(stderr.includes('kvlog'), stderr)
  }
  for (const args of [['--help'], [path, '--help'], [path, 'set', '--help']]) t.is(kvlog(args).status, 0, args.join(' '))
  const { status, stderr } = kvlog([path, 'get', 'a'])
  t.is(status, 1)
  t.regex(stderr, /^kvlog: ENOENT/)
})

test('kvlog on a disk that is full keeps what it acknowledged, and says what failed', (t) => {
  t.timeout(200_000)
  const path = join(folder, 'full')
  const lines = Array.from({ length: 3000 }, (_, n) => `key ${n}\t${'x'.repeat(100)}\n`).join('')
  // A limit of 200 KB for files, which comes in the middle of a commit: the kernel writes what fits, and then nothing.
  const limited = `trap '' XFSZ; ulimit -f 200; exec "$0" "$@"`
  const { status, stdout, stderr } = spawnSync('bash', ['-c', limited, process.execPath, ...program, path, 'load'], { input: lines, encoding: 'utf8', timeout: 40_000 })
  t.is(status, 1)
  t.regex(stderr, /^kvlog: .*(EFBIG|File too large|file too large)/)
  const acknowledged = stdout.split('\n').filter(Boolean)
  t.true(acknowledged.length > 0 && acknowledged.length < 3000, `${acknowledged.length} acknowledged`)
  const { stdout: list } = kvlog([path, 'list'])
  t.deepEqual(list.split('\n').filter(Boolean).map((line) => line.split('\t')[0]), acknowledged)
  t.is(kvlog([path, 'check']).status, 0)
})
