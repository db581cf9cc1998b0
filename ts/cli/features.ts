// The features of capabilities(): since which Linux they exist, what fdmon does with them and what it does without.

interface Feature {
  /** The first release that has it. */
  since: string
  use: string
  without: string
}

const SLOWER = 'fdmon works without, with a few more instructions an event'

/** By the name that capabilities() gives them. */
export const FEATURES: Readonly<Record<string, Feature>> = {
  eventfd: { since: '2.6.27', use: 'wakes a loop from another thread', without: 'fdmon does not work without' },
  timerfd: { since: '2.6.27', use: 'timerfd() of fdmon/fd', without: 'use ctx.timer() instead' },
  inotify: { since: '2.6.27', use: 'inotify() of fdmon/fd', without: 'use fs.watchFile() instead' },
  pidfd: { since: '5.3', use: 'pidfd() of fdmon/fd, and the ends of channels between processes', without: "use the 'exit' event of child_process instead" },
  memfd: { since: '3.17', use: 'memory that processes share: memfd() and Channel', without: 'share memory between workers only' },
  epollBusyPoll: { since: '6.9', use: 'kernelBusyPoll on epoll', without: 'leave kernelBusyPoll out' },
  ioUringExtArg: { since: '5.11', use: 'waits with a timeout of their own', without: 'there is no io_uring monitor without' },
  ioUringRestrictions: { since: '5.10', use: 'ring: { restricted: true }', without: 'leave ring.restricted out' },
  ioUringMultishotPoll: { since: '5.13', use: 'one request reports readiness again and again', without: SLOWER },
  ioUringSkipSuccess: { since: '5.17', use: 'requests that are silent about their success', without: SLOWER },
  ioUringRegisteredRing: { since: '5.18', use: 'calls that find the ring without looking up its fd', without: SLOWER },
  ioUringCooperative: { since: '5.19', use: "completions that wait for the thread's next system call, for attached contexts", without: 'a plain ring is used instead' },
  ioUringDeferTaskrun: { since: '6.1', use: 'completions that wait until the loop asks, the cheapest ring', without: 'a cooperative or plain ring is used instead' },
  ioUringNoSqarray: { since: '6.6', use: 'a submission queue without an index array', without: SLOWER },
  ioUringNapi: { since: '6.9', use: 'kernelBusyPoll on a ring', without: 'kernelBusyPoll needs epoll there' },
  ioUringMinTimeout: { since: '6.12', use: 'one wait collects several completions: aio.minBatch', without: 'leave aio.minBatch out' },
  ioUringNoIowait: { since: '6.15', use: 'a sleeping loop is not shown as waiting for a disk', without: 'an idle loop may show as iowait, which costs nothing' },
}

/** Why it is missing, as far as the kernel's release tells, and what to do. */
export function featureAdvice(name: string, kernel: string): string {
  const { since, without } = FEATURES[name] ?? { since: '0', without: 'fdmon works without' }
  const why = isOlder(kernel, since)
    ? `Linux ${since} or newer has it, and this is ${kernel}`
    : `this kernel is new enough, so a sandbox or its configuration refuses it; a wider seccomp profile may allow it`
  return `${why}; ${without}`
}

/** Whether a release, as in `6.1.0-13-amd64`, comes before a version, as in `6.9`. */
export function isOlder(kernel: string, since: string): boolean {
  const numbers = (text: string): number[] => text.split(/[^0-9]+/, 3).map(Number)
  const [a, b] = [numbers(kernel), numbers(since)]
  for (let at = 0; at < 3; at++) if ((a[at] ?? 0) !== (b[at] ?? 0)) return (a[at] ?? 0) < (b[at] ?? 0)
  return false
}
