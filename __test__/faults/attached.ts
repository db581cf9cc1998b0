// A context that is attached to Node's loop, and is refused a call then or while it is attached.

/** What is done between the marks, where the calls are counted. */
export type Deed =
  /** `attach()`. */
  | 'attach'
  /** Another handler. */
  | 'register'
  /** A handler waits for another event as well, and no more. */
  | 'interest'
  /** A deadline within a millisecond. */
  | 'deadline'
  /** Events alone. */
  | 'events'

export interface Attached {
  monitor: 'poll' | 'epoll' | 'io_uring'
  deed: Deed
  /** As `refuse` knows them. */
  rules: readonly string[]
  /** The monitor afterwards, and words of its reason. */
  moves?: { to: string; says: string }
  /** The error that the deed throws, or that is uncaught; then the context is attached again. */
  error?: { code: string; syscall: string; says: string }
  why: string
}

const everywhere = ['poll', 'epoll', 'io_uring'] as const
const rings = ['io_uring'] as const
type On = readonly Attached['monitor'][]

const on = (monitors: On, row: Omit<Attached, 'monitor'>): Attached[] => monitors.map((monitor) => ({ monitor, ...row }))

const refused = (monitors: On, deed: Deed, call: string, errno: string, says: string, code = 'ERR_FDMON_SYSCALL', rule = call): Attached[] =>
  on(monitors, { deed, rules: [`${rule}@1=${errno}`], error: { code, syscall: call, says }, why: 'a typed error; the call succeeds when made again' })

const moving = (monitors: On, to: string, deed: Deed, call: string, errno: string, rule: string): Attached[] =>
  on(monitors, { deed, rules: [rule], moves: { to, says: `${errno}${call ? ` (${call})` : ''}` }, why: `the context moves to ${to} and stays attached` })

const unnoticed = (monitors: On, deed: Deed, rule: string, why: string): Attached[] => on(monitors, { deed, rules: [rule], why })

export const attached: readonly Attached[] = [
  ...['EMFILE', 'ENFILE', 'ENOMEM'].flatMap((errno) => [
    ...refused(everywhere, 'attach', 'timerfd_create', errno, errno === 'EMFILE' ? 'ulimit -n' : errno === 'ENFILE' ? 'fs.file-max' : 'memory'),
    ...refused(['poll', 'epoll'], 'attach', 'epoll_create1', errno, errno === 'EMFILE' ? 'ulimit -n' : errno === 'ENFILE' ? 'fs.file-max' : 'memory'),
  ]),
  ...refused(everywhere, 'attach', 'fcntl', 'EMFILE', 'ulimit -n', 'ERR_FDMON_SYSCALL', 'fcntl:dupfd'),
  ...refused(rings, 'attach', 'io_uring_setup', 'EPERM', 'seccomp', 'ERR_FDMON_UNSUPPORTED'),
  ...refused(everywhere, 'deadline', 'timerfd_settime', 'EPERM', 'sandbox'),
  ...moving(['epoll'], 'poll', 'register', '', 'ENOMEM', 'epoll_ctl:add@1=ENOMEM'),
  ...moving(['epoll'], 'poll', 'register', '', 'ENOSPC', 'epoll_ctl:add@1=ENOSPC'),
  ...moving(['epoll'], 'poll', 'interest', '', 'ENOMEM', 'epoll_ctl:mod@1=ENOMEM'),
  ...moving(rings, 'epoll', 'events', 'io_uring_enter', 'EPERM', 'io_uring_enter@1+=EPERM'),
  ...moving(rings, 'epoll', 'register', 'io_uring_enter', 'EBADF', 'io_uring_enter@1=EBADF'),
  ...['EINTR', 'EAGAIN', 'EBUSY'].flatMap((errno) => unnoticed(rings, 'events', `io_uring_enter@1=${errno}`, 'the call is made again')),
  ...unnoticed(['poll'], 'register', 'epoll_ctl:add@1=ENOMEM', 'libuv does not sleep, and asks the context each time'),
  ...unnoticed(['poll'], 'interest', 'epoll_ctl:mod@1=ENOMEM', 'the set that libuv watches is made anew'),
  ...[1, 2, 3].flatMap((nth) => unnoticed(everywhere, 'events', `epoll_wait@${nth}=EINTR`, 'the call is made again, by libuv or by the context')),
]
