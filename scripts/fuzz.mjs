// npm run fuzz: what a fuzzer's bytes make of the targets in crates/fdmon/fuzz. `programs` are those of crates/fdmon/tests/programs, on
// each monitor beside the model; `channel` are the two sides of a channel, whose memory somebody overwrites. Needs a nightly toolchain
// and cargo-fuzz, and installs neither.
//
//   node scripts/fuzz.mjs --seconds 60       how long it looks, half of it at each target; 60 by default
//   node scripts/fuzz.mjs --only channel     one target alone
//   node scripts/fuzz.mjs --minimize         leaves of the corpus only what adds to the coverage, and copies that into the repository
//   node scripts/fuzz.mjs FILE               runs one input again: what it does, and how it fails
//
// It starts from crates/fdmon/fuzz/corpus and keeps what it finds besides in target/fuzz. A program that fails is reduced and printed as
// a test for suite/pasted.rs. The bytes of what fails lie in target/fuzz/artifacts/TARGET, and FILE is taken for the target of its folder.
import { cpSync, mkdirSync, readdirSync, rmSync, statSync } from 'node:fs'
import { basename, dirname, join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { fail, has, needCargo, nightlyHost, root, run, say } from './step.mjs'

/** The corpus in the repository stays smaller than this. */
const MOST_BYTES = 200_000
/** Bytes of one input: about what a program of 60 steps takes. */
const LONGEST = 2048
const TARGETS = ['programs', 'channel']

function read() {
  try {
    return parseArgs({
      options: { seconds: { type: 'string', default: '60' }, minimize: { type: 'boolean', default: false }, only: { type: 'string' } },
      allowPositionals: true,
    })
  } catch (error) {
    return fail(`${error.message}; usage: node scripts/fuzz.mjs [--seconds N] [--minimize] [--only TARGET] [FILE]`, 2)
  }
}

const { values, positionals } = read()
const seconds = Number(values.seconds)
if (!Number.isInteger(seconds) || seconds < 1) fail(`--seconds = '${values.seconds}' is no whole number above 0`, 2)
if (values.only !== undefined && !TARGETS.includes(values.only)) fail(`--only '${values.only}' is no target; use one of: ${TARGETS.join(', ')}`, 2)
const targets = values.only === undefined ? TARGETS : [values.only]

needCargo()
const host = nightlyHost('the fuzzer')
if (!has('cargo', ['+nightly', 'fuzz', '--version'])) {
  fail('the fuzzer needs cargo-fuzz; install it with: cargo install cargo-fuzz --locked')
}

const folder = join(root, 'crates', 'fdmon', 'fuzz')

/** Where the inputs of a target come from, and what is found of it. */
function places(target) {
  const seeds = join(folder, 'corpus', target)
  const found = join(root, 'target', 'fuzz', 'corpus', target)
  const artifacts = join(root, 'target', 'fuzz', 'artifacts', target)
  for (const path of [seeds, found, artifacts]) mkdirSync(path, { recursive: true })
  // A context that is closed gives back its memory, so what leaks is a fault.
  const limits = [`-max_len=${LONGEST}`, '-timeout=60', '-rss_limit_mb=4096', '-len_control=20', `-artifact_prefix=${artifacts}/`]
  return { seeds, found, limits }
}

/** `cargo fuzz COMMAND TARGET …`, with its builds apart from all others. */
function fuzz(title, command, target, before, after) {
  const shared = ['--fuzz-dir', folder, '--target-dir', join(root, 'target', 'fuzz'), '--target', host]
  run(title, 'cargo', ['+nightly', 'fuzz', command, ...shared, target, ...before, '--', ...after])
}

/** Files of a folder, and their bytes. */
function size(path) {
  const files = readdirSync(path)
  return { count: files.length, bytes: files.reduce((sum, file) => sum + statSync(join(path, file)).size, 0) }
}

if (positionals.length > 0) {
  for (const file of positionals) {
    const target = values.only ?? TARGETS.find((name) => name === basename(dirname(resolve(file)))) ?? TARGETS[0]
    fuzz(`input ${file}`, 'run', target, [resolve(file)], places(target).limits)
  }
} else if (values.minimize) {
  for (const target of targets) {
    const { seeds, found, limits } = places(target)
    const least = join(root, 'target', 'fuzz', 'least', target)
    rmSync(least, { recursive: true, force: true })
    mkdirSync(least, { recursive: true })
    fuzz(`${target}: minimized`, 'run', target, [least, seeds, found], ['-merge=1', ...limits])
    const { count, bytes } = size(least)
    if (bytes > MOST_BYTES) fail(`the least corpus has ${bytes} bytes, and the repository takes ${MOST_BYTES}: ${least}`)
    rmSync(seeds, { recursive: true, force: true })
    cpSync(least, seeds, { recursive: true })
    say(`${target}: ${count} inputs, ${bytes} bytes in the corpus`)
  }
} else {
  const each = Math.max(1, Math.round(seconds / targets.length))
  for (const target of targets) {
    const { seeds, found, limits } = places(target)
    fuzz(`${target}: fuzzed for ${each} s`, 'run', target, [found, seeds], [`-max_total_time=${each}`, '-print_final_stats=1', ...limits])
    const { count, bytes } = size(found)
    say(`${target}: ${count} inputs found, ${bytes} bytes, in target/fuzz/corpus/${target}`)
  }
}
