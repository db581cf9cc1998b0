// What is measured: the workloads, how long each is run for what, and who takes part.
//
// `lengths`: two numbers of operations, whose difference is what is counted. `quick`: the same for a smoke run. `timed`: operations of a
// timed run. `cpus`: how many the program is pinned to when it is timed. `counts`: what of it is counted.

const ALL = ['instructions', 'full', 'calls', 'switches']
/** What depends on when the threads run is no count of instructions. */
const CALLS = ['calls', 'switches']

/** fdmon on each monitor. */
const PLAIN = ['fdmon:epoll', 'fdmon:io_uring', 'fdmon:poll']
const SPINNING = ['fdmon:epoll+spin', 'fdmon:io_uring+spin', 'fdmon:poll+spin']
const OTHERS = ['libuv', 'mio', 'polling', 'event-manager', 'tokio', 'compio', 'monoio']
/** The peers that other threads can wake, and that have a readiness of plain fds. */
const FDS = OTHERS.filter((peer) => peer !== 'monoio')
const TIMERS = ['libuv', 'tokio', 'compio', 'monoio']

const row = (id, title, args, lengths, quick, timed, more = {}) => ({
  id, title, args, lengths, quick, timed, cpus: 1, counts: ALL, fdmon: PLAIN, others: OTHERS, ...more,
})
const threads = { cpus: 2, counts: CALLS }

const pings = (count) =>
  row(`async${count}`, `async${count}: a message to ${count === 1 ? 'a thread’s loop' : `${count} threads’ loops`} and back`,
    ['async', '--threads', `${count}`], [200, 2200].map((ops) => Math.ceil(ops / count)), [20, 60], Math.ceil(4000 / count),
    { ...threads, times: count, others: FDS, fdmon: count === 1 ? [...PLAIN, ...SPINNING] : PLAIN })
const pummel = (count) =>
  row(`async_pummel_${count}`, `async_pummel_${count}: a callback while ${count === 1 ? 'a thread tells' : `${count} threads tell`} the loop without a pause`,
    ['async-pummel', '--threads', `${count}`], [100, 600], [20, 60], 300, { ...threads, others: FDS })
const dispatch = (ready, of, rounds) =>
  row(`dispatch-${ready}-of-${of}`, `${ready.toLocaleString('en-US')} ready among ${of.toLocaleString('en-US')}: an event`,
    ['dispatch', '--ready', `${ready}`, '--of', `${of}`], [ready * 4, ready * rounds], [ready * 2, ready * 4], ready === 1 ? 2 * rounds : 20 * ready, { others: FDS })

/** In the order of the table. */
export const WORKLOADS = [
  row('notify-awake', 'the loop is told while it is awake, and hears it', ['notify-awake'], [1000, 5000], [100, 300], 50_000, { others: ['mio', 'polling', 'event-manager'] }),
  row('call-awake', 'the loop is told while it is awake, and calls what it was told to', ['call-awake'], [1000, 5000], [100, 300], 50_000,
    { others: ['libuv', 'event-manager', 'tokio', 'compio'] }),
  row('notify-storm', 'a telling among many, while the loop is busy', ['notify-storm'], [1000, 11_000], [100, 1100], 200_000, { cpus: 2, others: FDS }),
  row('polled-hit', 'the loop does not sleep, and finds what came', ['polled-hit'], [1000, 5000], [100, 300], 50_000, { fdmon: SPINNING }),
  dispatch(1, 1, 4000),
  dispatch(1, 10_000, 1000),
  dispatch(64, 10_000, 100),
  dispatch(1024, 1024, 8),
  dispatch(1024, 10_000, 8),
  row('million_timers', 'million_timers: a timer is made, fires and goes', ['million-timers'], [200_000, 400_000], [2000, 4000], 1_000_000, { others: TIMERS }),
  row('poll-bench', 'poll-bench: 32 readers of one pipe become ready: one of them', ['poll-bench', '--ready', '32'], [3200, 16_000], [320, 640], 64_000,
    { others: [...FDS, 'io-uring'] }),
  row('register', 'register and remove one of 10,000 fds', ['register', '--of', '10000'], [1000, 10_000], [1000, 2000], 10_000,
    { others: FDS.filter((peer) => peer !== 'compio') }),
  row('idle', 'left alone for 10 s with 100 fds', ['idle'], [1, 11], [1, 2], undefined,
    { length: '--seconds', counts: ['calls', 'wakeUps'], fdmon: [...PLAIN, ...SPINNING] }),
  row('ping_pongs', 'ping_pongs: five bytes over TCP to an echo server and back', ['ping-pongs'], [200, 2200], [20, 60], 4000,
    { ...threads, fdmon: [...PLAIN, ...SPINNING] }),
  ...[1, 2, 4, 8].map(pings),
  ...[1, 2, 4, 8].map(pummel),
]
