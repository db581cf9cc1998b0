// fdmon/fd: Linux descriptors that Node cannot make. Close-on-exec and non-blocking; whoever made one closes it.
export type { FdLike } from './fd-like.js'
export { Fd, read, setNonblock, socketpair, write } from './fd/fd.js'
export { Inotify, inotify, InotifyEvents, type InotifyEvent } from './fd/inotify.js'
export { MemFd, memfd } from './fd/memfd.js'
export { PidFd, pidfd } from './fd/pidfd.js'
export { TimerFd, timerfd, type TimerFdOptions } from './fd/timerfd.js'
