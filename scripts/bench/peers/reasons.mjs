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
  'poll-bench/io-uring/instructions': 'a bare ring: it counts completions, and finds nobody whom they are for',
}

const AMONG_MANY =
  'The fds that become ready are the first of all, where ppoll finds them soonest. The time of the io_uring and poll monitors includes the first turn, in which ' +
  'all fds are armed once; the counts do not. tokio and compio hold each fd twice in this workload, which is more than this machine allows at 10,000'

/** What is to be known of a workload's rows. */
export const NOTES = { 'dispatch-1-of-10000': AMONG_MANY, 'dispatch-64-of-10000': AMONG_MANY, 'dispatch-1024-of-10000': AMONG_MANY }

/** The reason for which a peer needs less of `what` in a workload. */
export function reasonOf(workload, peer, what) {
  const keys = [`${workload}/${peer}/${what}`, `${workload}/${peer}`, `${workload}/*/${what}`, `*/${peer}/${what}`]
  return keys.map((key) => REASONS[key]).find((reason) => reason !== undefined)
}
