// The programs in examples/ that send over channels, run as a reader would, but shorter.
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import test from 'ava'

const file = (path: string): string => fileURLToPath(new URL(`../${path}`, import.meta.url))

function run(program: string, ...args: string[]): string {
  const { status, stdout, stderr } = spawnSync(process.execPath, [file(program), ...args], { encoding: 'utf8', timeout: 50_000 })
  if (status !== 0) throw new Error(`exit code ${status}\n${stdout}${stderr}`)
  return stdout
}

for (const maxNs of ['0', '100000']) {
  test(`worker-rpc: every answer is right, and errors cross, with a window of ${maxNs} ns`, (t) => {
    t.regex(run('examples/worker-rpc/main.mjs', '--calls', '2000', '--max-ns', maxNs), /0 wrong answers; an empty request: nothing to hash/)
  })

  test(`fan-out: no record is lost or counted twice, with a window of ${maxNs} ns`, (t) => {
    t.regex(run('examples/fan-out/main.mjs', '--records', '30000', '--max-ns', maxNs), /30000 records in \d+ ms, none lost/)
  })
}

for (const maker of ['node', 'rust']) {
  test(`rust-peer: a Rust process on the other side, echoing and counting, on a channel that ${maker} made`, (t) => {
    const peer = ['debug', 'release'].map((kind) => file(`target/${kind}/examples/channel_peer`)).find(existsSync)
    if (peer === undefined) {
      return t.fail('the peer is missing; run: cargo build -p fdmon --features channel --example channel_peer')
    }
    const text = run('examples/rust-peer/main.mjs', '--maker', maker, '--peer', peer, '--rounds', '2000', '--count', '20000')
    t.regex(text, /2000 round trips .* 0 wrong/)
    t.regex(text, /20000 messages each way: .* 0 not right here, the peer says 0/)
  })
}
