// npm run fuzz: the programs of crates/fdmon/tests/programs, made of a fuzzer's bytes, on each monitor beside the model. Needs a
// nightly toolchain and cargo-fuzz, and installs neither.
//
//   node scripts/fuzz.mjs --seconds 60       how long it looks; 60 by default
//   node scripts/fuzz.mjs --minimize         leaves of the corpus only what adds to the coverage, and copies that into the repository
//   node scripts/fuzz.mjs FILE               runs one input again: what it does, and how it fails
//
// It starts from crates/fdmon/fuzz/corpus/programs and keeps what it finds besides in target/fuzz. What fails is reduced, printed as a
// test for suite/pasted.rs, and its bytes lie in target/fuzz/artifacts.
import { cpSync, mkdirSync, readdirSync, rmSync, statSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { fail, has, needCargo, nightlyHost, root, run, say } from './step.mjs'

/** The corpus in the repository stays smaller than this. */
const MOST_BYTES = 200_000
/** Bytes of one input: about what a program of 60 steps takes. */
const LONGEST = 2048

function read() {
  try {
    return parseArgs({
      options: { seconds: { type: 'string', default: '60' }, minimize: { type: 'boolean', default: false } },
      allowPositionals: true,
    })
  } catch (error) {
    return fail(`${error.message}; usage: node scripts/fuzz.mjs [--seconds N] [--minimize] [FILE]`, 2)
  }
}

const { values, positionals } = read()
const seconds = Number(values.seconds)
if (!Number.isInteger(seconds) || seconds < 1) fail(`--seconds = '${values.seconds}' is no whole number above 0`, 2)

needCargo()
const host = nightlyHost('the fuzzer')
if (!has('cargo', ['+nightly', 'fuzz', '--version'])) {
  fail('the fuzzer needs cargo-fuzz; install it with: cargo install cargo-fuzz --locked')
}

const folder = join(root, 'crates', 'fdmon', 'fuzz')
const seeds = join(folder, 'corpus', 'programs')
const found = join(root, 'target', 'fuzz', 'corpus')
const artifacts = join(root, 'target', 'fuzz', 'artifacts')
for (const path of [found, artifacts]) mkdirSync(path, { recursive: true })

/** `cargo fuzz COMMAND programs …`, with its builds apart from all others. */
function fuzz(title, command, before, after) {
  const shared = ['--fuzz-dir', folder, '--target-dir', join(root, 'target', 'fuzz'), '--target', host]
  run(title, 'cargo', ['+nightly', 'fuzz', command, ...shared, 'programs', ...before, '--', ...after])
}

/** Files of a folder, and their bytes. */
function size(path) {
  const files = readdirSync(path)
  return { count: files.length, bytes: files.reduce((sum, file) => sum + statSync(join(path, file)).size, 0) }
}

// A context that is closed gives back its memory, so what leaks is a fault.
const limits = [`-max_len=${LONGEST}`, '-timeout=60', '-rss_limit_mb=4096', '-len_control=20', `-artifact_prefix=${artifacts}/`]
if (positionals.length > 0) {
  for (const file of positionals) fuzz(`input ${file}`, 'run', [resolve(file)], limits)
} else if (values.minimize) {
  const least = join(root, 'target', 'fuzz', 'least')
  rmSync(least, { recursive: true, force: true })
  mkdirSync(least, { recursive: true })
  fuzz('minimized', 'run', [least, seeds, found], ['-merge=1', ...limits])
  const { count, bytes } = size(least)
  if (bytes > MOST_BYTES) fail(`the least corpus has ${bytes} bytes, and the repository takes ${MOST_BYTES}: ${least}`)
  rmSync(seeds, { recursive: true, force: true })
  cpSync(least, seeds, { recursive: true })
  say(`corpus: ${count} inputs, ${bytes} bytes`)
} else {
  fuzz(`fuzzed for ${seconds} s`, 'run', [found, seeds], [`-max_total_time=${seconds}`, '-print_final_stats=1', ...limits])
  const { count, bytes } = size(found)
  say(`${count} inputs found, ${bytes} bytes, in target/fuzz/corpus`)
}
