// Why a row is lost, by workload and peer; `*` stands for every one. A row that is lost and has no reason here fails the script.

const NO_HANDLERS =
  'it hands out what the kernel reports and no more: there is no handler to look up, take out for its call and put back, nothing is counted, and what a ' +
  'token means is up to the program, which here only counts'
const WAKE_UP =
  'a notifier of fdmon counts what it told, and the turn that hears it looks at bottom halves, timers and the spin window; the others make two to six ' +
  'system calls in place of that, whose instructions are not in this count'

const TOLD_AGAIN =
  'it stops at a flag that is up already; fdmon tells all the same, since who raised the flag may have been killed before waking the loop, and counts each'
const IN_PLACE =
  'it calls a function that stands in an array by fd; fdmon checks that the event is of this registration and not of an older one, and takes the handler ' +
  'out while it runs, so that it may remove itself or run a turn of its own'

const IN_NODE =
  'it is part of Node’s loop and reads by itself; a context lies in that loop as one descriptor, so a wake-up asks the kernel twice: libuv’s set, then its own'

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
    'may go on where it stands; the others make two to four system calls in place of it, whose instructions are not in this count',
  'notify-storm/*/instructions': TOLD_AGAIN,
  'polled-hit/mio/instructions': 'its part is three system calls a hit, whose instructions are not in this count',
  'polled-hit/monoio/instructions':
    'a task that wakes itself goes back into the queue of its own thread, and nothing else is served: no fd, no word that tells a producer to be silent, ' +
    'no look at the clock, and no other thread may wake it',
  'register/*/instructions':
    'a registration of fdmon makes a handler, which may be told apart from any later one of the same fd, counters that other threads read, and room for the ' +
    'callbacks: four allocations; these note a number, or put a function into an array by fd',
  'million_timers/*/instructions':
    'timers of fdmon are taken out of a heap one by one, in the order of time and then of arming, so that a callback may cancel the next one or arm itself ' +
    'again; the heap lies in one array, which costs more comparisons and fewer misses of the cache: the CPU time beside it',
  'ping_pongs/*/calls':
    'it hands reads and writes to the ring, which does them, and is told when they are done; a handler is told that the socket is ready, and reads and ' +
    'writes for itself: two calls more a side, which a program may save by the crate’s own file I/O, but not for sockets',
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
  const keys = [`${workload}/${peer}/${what}`, `${workload}/${peer}`, `${workload}/*/${what}`, `*/${peer}/${what}`]
  return keys.map((key) => REASONS[key]).find((reason) => reason !== undefined)
}
