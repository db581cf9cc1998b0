// Why a row is lost, by workload and peer; `*` stands for every one. A row that is lost and has no reason here fails the script.

const NO_HANDLERS =
  'it hands out what the kernel reports and no more: there is no handler to look up, take out for its call and put back, nothing is counted, and what a ' +
  'token means is up to the program, which here only counts'
const WAKE_UP =
  'a notifier of fdmon counts what it told, and the turn that hears it looks at bottom halves, timers and the spin window; the others make two to six ' +
  'system calls in place of that, which are counted in the instructions in full'

const TOLD_AGAIN =
  'it stops at a flag that is up already; fdmon tells all the same, since who raised the flag may have been killed before waking the loop, and counts each'
const IN_PLACE =
  'it calls a function that stands in an array by fd; fdmon checks that the event is of this registration and not of an older one, and takes the handler ' +
  'out while it runs, so that it may remove itself or run a turn of its own'

const IN_NODE =
  'it is part of Node’s loop and reads by itself; a context lies in that loop as one descriptor, so a wake-up asks the kernel twice: libuv’s set, then its own'

const IN_TURN =
  'a turn of fdmon that has bottom halves to run asks the kernel as well, so that they starve no handler, and a thread that tells a loop about to sleep signals it; a ' +
  'task that was told already is not told again here, and the kernel is asked after many tasks'
const CROWDED = 'more threads than CPUs: which of them run decides more than what they do, and rounds differ as their spread shows'

const REASONS = {
  '*/mio/instructions': NO_HANDLERS,
  '*/polling/instructions': NO_HANDLERS,
  '*/mio/time': NO_HANDLERS,
  '*/polling/time': NO_HANDLERS,
  '*/libuv/instructions': IN_PLACE,
  'notify-storm/*/time': TOLD_AGAIN,
  'notify-awake/*/instructions': WAKE_UP,
  'call-awake/*/instructions':
    'a call from another thread takes the turn in full: the inbox is taken over, each call is caught when it panics and counted, and a nested turn ' +
    'may go on where it stands; the others make one to four system calls in place of it, which are counted in the instructions in full',
  'notify-storm/*/instructions': TOLD_AGAIN,
  'polled-hit/mio/instructions': 'its part is three system calls a hit, which are counted in the instructions in full',
  'polled-hit/monoio/instructions':
    'a task that wakes itself goes back into the queue of its own thread, and nothing else is served: no fd, no word that tells a producer to be silent, ' +
    'no look at the clock, and no other thread may wake it',
  'register/*/instructions':
    'a registration of fdmon makes a handler, which may be told apart from any later one of the same fd, counters that other threads read, and room for the ' +
    'callbacks: four allocations; these note a number, or put a function into an array by fd',
  'million_timers/*/instructions':
    'timers of fdmon are taken out of a heap one by one, in the order of time and then of arming, so that a callback may cancel the next one or arm itself ' +
    'again; the heap lies in one array, which costs more comparisons and fewer misses of the cache: the CPU time beside it',
  'million_timers/*/time':
    'how long it takes is what the workload prescribes, and when the clock of the last timers began; fdmon’s are never early. What it costs is the CPU time beside it',
  ...Object.fromEntries([1, 2, 4, 8].flatMap((threads) => [
    ...['tokio', 'compio'].flatMap((peer) => ['calls', 'time'].map((what) => [`async_pummel_${threads}/${peer}/${what}`, IN_TURN])),
    ...['calls', 'time'].map((what) => [`async_pummel_${threads}/*/${what}`, CROWDED]),
  ])),
  'node-message/*/calls': IN_NODE,
  'node-idle/*/wakeUps':
    'threads of Node’s own, which wake up some 50 times in 10 s whatever waits; the loop’s own thread sleeps through in all of them',
  'ping_pongs/*/calls':
    'it hands reads and writes to the ring, which does them, and is told when they are done; a handler is told that the socket is ready, and reads and ' +
    'writes for itself: two calls more a side, which a program may save by the crate’s own file I/O, but not for sockets',
  'node-read/fs.readSync/time':
    'it reads at once what the page cache has, in the thread that asks, and holds up everything else until it is there, also where a disk has it; no loop takes part',
  'node-fd/net/calls': IN_NODE,
  'node-fds/net/calls': IN_NODE,
  'node-fd/net/time': IN_NODE,
  'node-fds/net/time': IN_NODE,
  'poll-bench/io-uring/instructions': 'a bare ring: it counts completions, and finds nobody whom they are for',
}

/** What is to be known of a workload's rows. */
export const NOTES = {
  'dispatch-1-of-10000': 'The fds that become ready are the last ones: ppoll, which looks at all, finds them latest',
  'million_timers': 'Time is what the workload prescribes: a thousand timers are due each millisecond. CPU µs is what differs',
}

/** The reason for which a peer needs less of `what` in a workload. */
export function reasonOf(workload, peer, what) {
  const keysOf = (what) => [`${workload}/${peer}/${what}`, `${workload}/${peer}`, `${workload}/*/${what}`, `*/${peer}/${what}`]
  // What a program does itself is a part of what is done for it.
  const keys = [...keysOf(what), ...(what === 'full' ? keysOf('instructions') : [])]
  return keys.map((key) => REASONS[key]).find((reason) => reason !== undefined)
}
