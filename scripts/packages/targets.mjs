// The packages with an addon, and what must hold of each.

/** The oldest glibc that the addons run on: that of RHEL 7, and the oldest that Rust's own library knows. */
export const GLIBC = '2.17'

const native = (name, triple, machine, libs) => ({
  name,
  triple,
  /** As cargo-zigbuild is told: with the version of glibc to link for. */
  zig: triple.endsWith('-gnu') ? `${triple}.${GLIBC}` : triple,
  file: `fdmon.${name}.node`,
  files: [`fdmon.${name}.node`],
  machine,
  /** What it may need at run time. */
  libs,
})

const GNU = ['libc.so.6', 'libdl.so.2', 'libm.so.6', 'libpthread.so.0', 'librt.so.1']
const MUSL = ['libc.so']

/** By the name of the folder in npm/. */
export const TARGETS = [
  native('linux-x64-gnu', 'x86_64-unknown-linux-gnu', 'Advanced Micro Devices X86-64', [...GNU, 'ld-linux-x86-64.so.2']),
  native('linux-x64-musl', 'x86_64-unknown-linux-musl', 'Advanced Micro Devices X86-64', MUSL),
  native('linux-arm64-gnu', 'aarch64-unknown-linux-gnu', 'AArch64', [...GNU, 'ld-linux-aarch64.so.1']),
  native('linux-arm64-musl', 'aarch64-unknown-linux-musl', 'AArch64', MUSL),
  {
    name: 'wasm32-wasi',
    triple: 'wasm32-wasip1-threads',
    file: 'fdmon.wasm32-wasi.wasm',
    files: ['fdmon.wasm32-wasi.wasm', 'fdmon.wasi.cjs', 'host-fds.cjs', 'wasi-worker.mjs'],
  },
]

/** The targets of these names; without names, those that run on a kernel: WebAssembly needs a toolchain of its own. */
export function targetsOf(names, refuse) {
  const all = TARGETS.map(({ name }) => name)
  const unknown = names.find((name) => !all.includes(name))
  if (unknown !== undefined) refuse(`'${unknown}' is no target; pass one of ${all.join(', ')}`)
  return TARGETS.filter(({ name, machine }) => (names.length > 0 ? names.includes(name) : machine !== undefined))
}
