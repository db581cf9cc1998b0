// examples/nbd-server beside nbdkit and qemu-nbd: `qemu-img bench` with 4 KiB reads and writes at depths 1, 8 and 64.
//
//   node scripts/bench-nbd.mjs            measures in full and writes docs/NBD.md, 5 minutes
//   node scripts/bench-nbd.mjs --check    fewer rounds and depths; half of each goal in one round at least, for CI
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import { spawnSync } from 'node:child_process'
import { checkGoals, count, machineLine, median, table } from './measure.mjs'
import { measure } from './nbd/client.mjs'
import { hasKernelWorkers, SERVERS, start } from './nbd/servers.mjs'
import { seal } from './seal.mjs'
import { fail, has, root, say, seconds } from './step.mjs'

const check = process.argv.includes('--check')
const since = performance.now()
const ROUNDS = check ? 3 : 9
const DEPTHS = check ? [1, 64] : [1, 8, 64]
/** About half a second each. */
const REQUESTS = check ? { 1: 3_000, 64: 12_000 } : { 1: 8_000, 8: 16_000, 64: 32_000 }
const MIB = 1024 * 1024
const SIZE = 256 * MIB
const [SERVER_CPU, CLIENT_CPU] = [0, 1]
const QEMU = ['qemu-nbd', 'qemu-nbd, io_uring']
const PEERS = ['nbdkit', ...QEMU]

need()
const folder = mkdtempSync(join(tmpdir(), 'fdmon-nbd-'))
process.on('exit', () => rmSync(folder, { recursive: true, force: true }))
const file = join(folder, 'disk')
writeFileSync(file, Buffer.alloc(SIZE, 0x5a))

const names = Object.keys(SERVERS)
const servers = []
for (const name of names) servers.push(await start(name, { file, folder, cpu: SERVER_CPU }))
const cells = []
let hasWorkers = false
for (const depth of DEPTHS) for (const write of [false, true]) cells.push({ depth, write, rounds: Object.fromEntries(names.map((name) => [name, []])) })
for (let round = 0; round <= ROUNDS; round++) {
  for (const { depth, write, rounds } of cells) {
    for (let at = 0; at < servers.length; at++) {
      const server = servers[(at + round) % servers.length] // nobody is always the first
      const result = measure(server, { cpu: CLIENT_CPU, write, depth, requests: REQUESTS[depth] })
      if (round > 0) rounds[server.name].push(result) // the first warms up
      if (write && server.name === 'fdmon') hasWorkers ||= hasKernelWorkers(server.pid)
    }
  }
}
for (const server of servers) server.stop()

const goals = listGoals()
if (check) {
  for (const { depth, write, rounds } of cells) {
    const rates = names.map((name) => `${name} ${count(Math.round(median(rounds[name].map((row) => row.perSecond))))}`)
    say(`${write ? 'writes' : 'reads'} a second at depth ${depth}: ${rates.join('; ')}`)
  }
  checkGoals(goals)
} else {
  writeFileSync(join(root, 'docs', 'NBD.md'), seal(report()))
}
say(`${check ? 'network block device, quickly' : 'docs/NBD.md written'}: ${seconds(since)}`)

function need() {
  for (const [command, thing] of [['qemu-img', 'qemu-utils'], ['qemu-nbd', 'qemu-utils'], ['nbdkit', 'nbdkit'], ['taskset', 'util-linux'], ['bash', 'bash']]) {
    if (!has(command)) fail(`${command} is missing; run: apt-get install ${thing}`)
  }
  if (availableParallelism() < 2) fail('server and client need a CPU each, and there is one; run it on a machine with two')
}

// --- Goals ----------------------------------------------------------------------------------------------------------------

/** How many times as many requests a second as a peer, round by round; of several peers, the one that it does worst against. */
function against({ rounds }, ours, peers) {
  const each = peers.map((peer) => {
    const ratios = rounds[ours].map(({ perSecond }, round) => perSecond / rounds[peer][round].perSecond)
    return { ratio: median(ratios), least: Math.min(...ratios), most: Math.max(...ratios) }
  })
  return each.toSorted((a, b) => a.ratio - b.ratio)[0]
}

function listGoals() {
  const of = (depth, write) => cells.find((cell) => cell.depth === depth && cell.write === write)
  const reason = hasWorkers
    ? 'this file system takes no buffered write without blocking, so the kernel gives each to a thread of its own, here on the same CPU as the ' +
      'server; the engine of threads (`--engine threads`) has the same detour, and nbdkit none: each of its threads receives, writes and answers by itself'
    : undefined
  const goal = (depth, write, ours, peers, text, isKept) => {
    const { ratio, least, most } = against(of(depth, write), ours, peers)
    const value = `${ratio.toFixed(2)} times (${least.toFixed(2)}–${most.toFixed(2)})`
    return { goal: `${write ? 'writes' : 'reads'} at depth ${depth}${text}`, value, kept: isKept(ratio), half: most >= 0.5, reason: write ? reason : undefined }
  }
  return [false, true].flatMap((write) => [
    goal(64, write, 'fdmon', QEMU, ': as many a second as qemu-nbd, with threads and with io_uring, or more', (ratio) => ratio >= 1),
    goal(1, write, 'fdmon on epoll, spinning', PEERS, ', spinning: more a second than nbdkit and qemu-nbd', (ratio) => ratio > 1),
  ])
}

// --- The report -------------------------------------------------------------------------------------------------------------

function report() {
  const sections = cells.map((cell) => {
    const rows = names.map((name) => {
      const over = (key) => cell.rounds[name].map((row) => row[key])
      const rates = over('perSecond')
      const { ratio, least, most } = against(cell, name, QEMU.slice(0, 1))
      return [
        name, count(Math.round(median(rates))), `${count(Math.round(Math.min(...rates)))}–${count(Math.round(Math.max(...rates)))}`,
        name === QEMU[0] ? '' : `${ratio.toFixed(2)} × (${least.toFixed(2)}–${most.toFixed(2)})`,
        median(over('server')).toFixed(1), median(over('client')).toFixed(1),
      ]
    })
    const head = ['server', 'requests a second', 'least–most', 'of qemu-nbd (least–most)', 'CPU s, server', 'CPU s, client']
    return `## ${cell.write ? 'Writes' : 'Reads'} of 4 KiB at depth ${cell.depth}\n\n${table(head, rows)}`
  })
  return `# A network block device

Written by \`npm run bench:nbd\`; do not edit.

[examples/nbd-server](../examples/nbd-server), TypeScript on one thread of Node, beside nbdkit (its file plugin) and qemu-nbd (with its default,
a pool of threads, and with io_uring), all by one client: \`qemu-img bench\`. CPU seconds are for a million requests, with what the kernel does for them.
Spinning is \`--spin 100\`: up to 100 µs.

${sections.join('\n')}
## Goals

${table(
    ['goal', 'measured', 'kept?'],
    goals.map(({ goal, value, kept, reason }) => [goal, value, kept ? 'kept' : `**missed**${reason ? `: ${reason}` : ''}`]),
  )}
A file of ${SIZE / MIB} MiB in the page cache; the servers pinned to CPU ${SERVER_CPU}, the client to CPU ${CLIENT_CPU}; ${ROUNDS} rounds after one to warm up, in each of which the
servers take turns; medians, ratios round by round, in the goals against the peer that it does worst against. ${tools()} ${machineLine()}
`
}

function tools() {
  const first = (command) => spawnSync(command, ['--version'], { encoding: 'utf8' }).stdout.split('\n')[0].trim()
  return `${first('nbdkit')}, ${first('qemu-img')}.`
}
