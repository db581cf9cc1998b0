// examples/balance: descriptors that move between I/O threads lose nothing, and end up more evenly spread.
import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import test from 'ava'
import { read } from 'fdmon/fd'

const folder = new URL('../examples/balance/', import.meta.url)
const load = async (name: string): Promise<any> => import(new URL(name, folder).href)

function balance(...args: string[]): { status: number | null; stdout: string; stderr: string } {
  const program = fileURLToPath(new URL('main.mjs', folder))
  return spawnSync(process.execPath, [program, ...args], { encoding: 'utf8', timeout: 40_000 })
}

test.serial('balance moves descriptors while they are fed, loses no event, and spreads them more evenly [SPEC 10] [SPEC 52] [SPEC 53]', (t) => {
  const { status, stdout, stderr } = balance('--quick', '--json', '--by', 'events') // CPU time is not even on a busy machine
  t.is(stderr, '')
  t.is(status, 0)
  const { moves, before, after, sent, taken, lost } = JSON.parse(stdout)
  t.is(lost, 0)
  t.is(taken, sent)
  t.true(sent > 2_000, `${sent} events`)
  t.true(moves >= 1)
  const share = (members: { events: number }[]): number =>
    Math.max(...members.map(({ events }) => events)) / members.reduce((sum, { events }) => sum + events, 0)
  t.true(share(after) < share(before), `${share(before)}, then ${share(after)}`)
  for (const members of [before, after] as { events: number; sources: { number: number; events: number }[] }[][]) {
    const sources = members.flatMap((member) => member.sources)
    t.deepEqual(sources.map(({ number }) => number).sort((a, b) => a - b), Array.from({ length: 15 }, (_, number) => number))
  }
})

test('balance prints a table, and ends with 2 for what it does not understand', (t) => {
  const { status, stdout, stderr } = balance('--quick', '--threads', '2', '--sources', '4', '--rounds', '1')
  t.is(status, 0, stderr)
  t.regex(stdout, /│ io-0 +│ +2 │[^]*│ io-1 +│ +2 │[^]*largest share of the events: \d+ %, then \d+ %\n\d+ events, \d+ taken, 0 lost\n/)
  for (const args of [['--threads', '1'], ['--by', 'luck']]) t.is(balance(...args).status, 2, args.join(' '))
  t.is(balance('--help').status, 0)
})

test('balance notices an event that nobody took, and one that was taken twice', async (t) => {
  const { Sources } = await load('sources.mjs')
  for (const [counted, lost] of [[2, 0], [1, 1], [3, 1]]) {
    const sources = new Sources(4)
    const [socket] = sources.list
    sources.send(socket)
    sources.send(socket)
    read(socket.fd, new Uint8Array(8))
    Atomics.add(sources.counters, 0, counted!)
    const totals = sources.totals()
    t.is(totals.lost, lost)
    t.is(totals.taken - totals.sent, counted! - 2)
  }
})

test('balance moves what makes the busiest and the idlest thread most even, or nothing', async (t) => {
  const { plan } = await load('plan.mjs')
  const member = (name: string, load: number, ...events: number[]) => ({
    name,
    load,
    sources: events.map((count, number) => ({ number, events: count })),
  })
  const busy = member('busy', 0.8, 50, 30, 20)
  t.like(plan([member('middle', 0.5, 9), busy, member('idle', 0.3, 9)]), { number: 1, to: 'idle' })
  t.like(plan([busy, member('idle', 0, 0)]), { number: 0, to: 'idle' })
  t.is(plan([busy, member('idle', 0.75, 9)]), undefined)
  t.is(plan([member('one', 0.8, 50), member('idle', 0, 0)]), undefined, 'it would only change places')
  t.is(plan([member('none', 0), member('idle', 0)]), undefined)
  const events = (name: string, ...counts: number[]) => ({ ...member(name, 1, ...counts), events: counts.reduce((sum, count) => sum + count) })
  t.like(plan([events('idle', 15), events('busy', 30, 20, 10)], 'events'), { number: 1, to: 'idle' })
})
