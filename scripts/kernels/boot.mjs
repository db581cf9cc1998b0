// Starts a kernel under QEMU with an initramfs, and reads what the guest says on its console.
import { spawn } from 'node:child_process'
import { accessSync, constants, existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs'
import { basename, join } from 'node:path'
import { fail, has, need, run, say } from '../step.mjs'

/**
 * `cpu`: what is emulated. For arm64 a CPU that is built: with all that QEMU 7.2 knows ('max') code that V8 had optimized failed in one of seven
 * runs of a test, by SIGILL, SIGSEGV or a wrong value, on one emulated CPU as on two; never on this one, nor without V8's optimizer.
 */
export const MACHINES = {
  x64: { debian: 'amd64', command: ['qemu-system-x86_64'], cpu: 'max', console: 'ttyS0' },
  arm64: { debian: 'arm64', command: ['qemu-system-aarch64', '-machine', 'virt'], cpu: 'cortex-a72', console: 'ttyAMA0' },
}
const MEMORY_MB = 2048
const CPUS = 2
/**
 * While a kernel patches its own code as it starts, an emulated CPU may run into the breakpoint that it puts there meanwhile, and the
 * kernel panics before the first process. So it is started this often at most.
 */
const STARTS = 3
/** A kernel that KVM can run has started by then. */
const KVM_MS = 30_000

/** KVM where it may be used; nested in a paravirtualized host (PVM) there is a /dev/kvm that runs no unmodified kernel. */
export function accelerator(arch) {
  if (arch !== process.arch || existsSync('/sys/module/kvm_pvm')) return 'tcg'
  try {
    accessSync('/dev/kvm', constants.R_OK | constants.W_OK)
    return 'kvm'
  } catch {
    return 'tcg'
  }
}

/** Ends the script with the command that installs what is missing. In one command: alone, one package has removed the other. */
export function needQemu(archs) {
  const packages = { x64: 'qemu-system-x86', arm64: 'qemu-system-arm' }
  const missing = archs.filter((arch) => !has(MACHINES[arch].command[0]))
  need('cpio', 'cpio')
  need('dpkg-deb', 'dpkg')
  if (missing.length > 0) fail(`kernels: ${missing.map((arch) => MACHINES[arch].command[0]).join(', ')} is missing; run: apt-get install --no-install-recommends ${Object.values(packages).join(' ')}`)
}

/**
 * Boots; resolves to { results, accel, console }: what the guest said, line by line, and all that its console had. With `counts` the
 * clocks of the guest, which has one CPU then, count instructions: one is a nanosecond. Its kernel guards against no flaw of a CPU.
 */
export async function boot({ arch, kernel, archive, plan = '', limitMs, file, counts = false }) {
  if (!counts && accelerator(arch) === 'kvm') {
    const said = await once('kvm', KVM_MS)
    if (said.results.length > 0) return said
  }
  for (let start = 1; ; start++) {
    const said = await once('tcg', limitMs)
    if (said.results.length > 0 || start === STARTS || !/Oops: int3[^]*Kernel panic/.test(said.console)) return said
    say(`kernels: ${basename(file)}: the emulator let the kernel panic before its first process; started again`)
  }

  async function once(accel, firstMs) {
    const machine = MACHINES[arch]
    const [command, ...before] = machine.command
    rmSync(file, { force: true })
    const cpus = counts ? ['-accel', 'tcg', '-icount', 'shift=0,sleep=off', '-smp', '1'] : ['-accel', accel === 'tcg' ? 'tcg,thread=multi' : accel, '-smp', String(CPUS)]
    const child = spawn(command, [
      ...before,
      ...[...cpus, '-cpu', accel === 'kvm' ? 'host' : machine.cpu],
      ...['-m', String(MEMORY_MB), '-display', 'none', '-nodefaults', '-no-reboot', '-serial', `file:${file}`],
      // What the kernel does not know becomes the environment of its first process.
      ...['-kernel', kernel, '-initrd', archive, '-append', `console=${machine.console} quiet loglevel=3 panic=-1${counts ? ' mitigations=off' : ''} FDMON_PLAN=${plan} FDMON_EMULATED=${accel === 'tcg' ? 1 : 0}`],
    ], { stdio: ['ignore', 'ignore', 'pipe'] })
    let complaints = ''
    child.stderr.setEncoding('utf8').on('data', (text) => (complaints += text))
    const kill = () => child.kill('SIGKILL')
    process.once('exit', kill)
    const limits = [setTimeout(kill, limitMs), setTimeout(() => heard(file).length === 0 && kill(), firstMs)]
    await new Promise((resolve) => {
      child.on('error', (error) => { complaints += String(error); resolve() })
      child.on('close', resolve)
    })
    limits.forEach(clearTimeout)
    process.removeListener('exit', kill)
    return { results: heard(file), accel, console: `${complaints}${text(file)}` }
  }
}

/** Fetches Debian's kernels of these series into `folder`, unless they are there; returns where each lies. */
export function fetchKernels(folder, arch, series, isComplete = () => true) {
  const { debian } = MACHINES[arch]
  const places = series.map((one) => join(folder, debian, one))
  mkdirSync(folder, { recursive: true })
  if (!places.every((place) => existsSync(join(place, 'vmlinuz'))) || !isComplete()) {
    run(`kernels for ${arch}`, 'bash', [join('scripts', 'kernels', 'fetch.sh'), folder, debian, ...series])
  }
  return places
}

const text = (file) => (existsSync(file) ? readFileSync(file, 'utf8').replaceAll('\r', '') : '')

function heard(file) {
  return [...text(file).matchAll(/^@@ (\{.*\})$/gm)].map(([, json]) => JSON.parse(json))
}
