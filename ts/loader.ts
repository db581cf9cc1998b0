// Finds the addon: a build in native/ of a checkout, the package of this platform, or the WebAssembly build.
//
// NAPI_RS_NATIVE_LIBRARY_PATH names a file to load instead of the first two. NAPI_RS_FORCE_WASI = 'true' (or '1') prefers the
// WebAssembly build, 'error' takes nothing else. Both as @napi-rs/cli has them, except that its '1' does nothing, and that
// a file that was named and cannot be loaded is an error here: what its user wants is that file.
//
// Each place is a plain require of a literal in the block of a try: so bundlers and file tracers see all of them, and
// know that one that is missing is no error. The paths are those of the built file in dist/cjs.
/* eslint-disable @typescript-eslint/no-require-imports */
import { createRequire } from 'node:module'
import { join, resolve } from 'node:path'
import { FdmonError } from './errors.js'
import { libc } from './libc.js'

export type Binding = typeof import('../native/binding.cjs')

/** A file or package that was tried and could not be used. */
interface Attempt {
  place: string
  cause: unknown
}

type Loaded = { loaded: unknown } | { cause: unknown }

interface Candidate {
  place: string
  load: () => Loaded
}

const manifest = require('../../package.json') as { version: string }

/** The addon, or ERR_FDMON_BINDING with every place that was tried and what was wrong there. */
export function loadBinding(env: NodeJS.ProcessEnv = process.env): Binding {
  const tried: Attempt[] = []
  const names = platformNames()
  for (const { place, load } of candidates(names, env)) {
    const result = load()
    const refused = 'cause' in result ? result : refusal(result.loaded)
    if (refused === null) return (result as { loaded: Binding }).loaded
    tried.push({ place, cause: refused.cause })
  }
  throw notLoaded(names, tried, env)
}

/** `linux-x64-gnu`, or nothing where there is no package. Both kinds when the C library is unknown: glibc refuses a library for musl, and not the other way round. */
function platformNames(): string[] {
  const { platform, arch } = process
  if (platform !== 'linux' || (arch !== 'x64' && arch !== 'arm64')) return []
  const found = libc()
  return (found === undefined ? ['musl', 'gnu'] : [found]).map((name) => `${platform}-${arch}-${name}`)
}

function candidates(names: string[], env: NodeJS.ProcessEnv): Candidate[] {
  const named = env['NAPI_RS_NATIVE_LIBRARY_PATH']
  const native = named
    ? [{ place: resolve(named), load: () => fromFile(resolve(named)) }]
    : [
        ...names.map((name) => ({ place: local(`fdmon.${name}.node`), load: () => fromCheckout(name) })),
        ...names.map((name) => ({ place: `fdmon-${name}`, load: () => fromPackage(name) })),
      ]
  const wasi = [
    { place: local('fdmon.wasi.cjs'), load: () => fromCheckout('wasm32-wasi') },
    { place: 'fdmon-wasm32-wasi', load: () => fromPackage('wasm32-wasi') },
  ]
  switch (env['NAPI_RS_FORCE_WASI']) {
    case 'error':
      return wasi
    case 'true':
    case '1':
      return [...wasi, ...native]
    default:
      return named ? native : [...native, ...wasi]
  }
}

function fromFile(path: string): Loaded {
  try {
    return { loaded: createRequire(path)(path) }
  } catch (cause) {
    return { cause }
  }
}

function fromCheckout(name: string): Loaded {
  try {
    if (name === 'linux-x64-gnu') return { loaded: require('../../native/fdmon.linux-x64-gnu.node') }
    if (name === 'linux-x64-musl') return { loaded: require('../../native/fdmon.linux-x64-musl.node') }
    if (name === 'linux-arm64-gnu') return { loaded: require('../../native/fdmon.linux-arm64-gnu.node') }
    if (name === 'linux-arm64-musl') return { loaded: require('../../native/fdmon.linux-arm64-musl.node') }
    return { loaded: require('../../native/fdmon.wasi.cjs') }
  } catch (cause) {
    return { cause }
  }
}

function fromPackage(name: string): Loaded {
  try {
    if (name === 'linux-x64-gnu') return { loaded: require('fdmon-linux-x64-gnu') }
    if (name === 'linux-x64-musl') return { loaded: require('fdmon-linux-x64-musl') }
    if (name === 'linux-arm64-gnu') return { loaded: require('fdmon-linux-arm64-gnu') }
    if (name === 'linux-arm64-musl') return { loaded: require('fdmon-linux-arm64-musl') }
    return { loaded: require('fdmon-wasm32-wasi') }
  } catch (cause) {
    return { cause }
  }
}

/** Why this is not the addon that belongs to this package; null when it is. */
function refusal(loaded: unknown): { cause: Error } | null {
  const { VERSION: version } = (loaded ?? {}) as Partial<Binding>
  if (version === manifest.version) return null
  const what = typeof version === 'string' ? `the addon of fdmon ${version}` : 'no addon of fdmon, or an old one'
  return { cause: new Error(`it is ${what}, and this is fdmon ${manifest.version}`) }
}

/** Where a file of native/ is, for a message; in a bundle of ES modules there is no such folder. */
function local(file: string): string {
  return typeof __dirname === 'string' ? join(__dirname, '..', '..', 'native', file) : join('native', file)
}

function notLoaded(names: string[], tried: Attempt[], env: NodeJS.ProcessEnv): FdmonError {
  const lines = tried.map(({ place, cause }) => `\n  ${place}: ${firstLine(cause)}`)
  const platform = names.length === 0 ? `${process.platform} ${process.arch}, for which there is no package,` : names.join(' or ')
  const set = ['NAPI_RS_NATIVE_LIBRARY_PATH', 'NAPI_RS_FORCE_WASI'].filter((name) => env[name])
  const advice = set.length > 0 ? `unset ${set.join(' and ')}, or ` : ''
  const text =
    `the native part of fdmon for ${platform} could not be loaded:${lines.join('')}\n` +
    `${advice}install fdmon again with its optional dependencies (no --omit=optional, no copied node_modules of another ` +
    'platform), or build it with "npm run build" in a checkout'
  const cause = new AggregateError(tried.map((attempt) => attempt.cause), 'no place had an addon that can be loaded')
  return new FdmonError('ERR_FDMON_BINDING', text, { cause })
}

/** Node adds the whole chain of requires to a message; the first line is what happened. */
function firstLine(cause: unknown): string {
  const text = cause instanceof Error ? cause.message : String(cause)
  return text.split('\n', 1)[0] ?? ''
}
