//! What the man pages say: the section ERRORS of each call, by Linux man-pages 6.03 and, for rings,
//! by those of liburing 2.3 and newer.

use crate::injector::{File, Stray};

/// By the name in the tables; ppoll(2) is described in poll(2), open(2) describes openat(2).
pub const ERRORS: &[(&str, &str)] = &[
    ("clock_gettime", "EACCES EFAULT EINVAL ENODEV ENOTSUP EPERM"),
    (
        "clone",
        "EACCES EAGAIN EBUSY EEXIST EINVAL ENOMEM ENOSPC EOPNOTSUPP EPERM ERESTARTNOINTR EUSERS",
    ),
    ("close", "EBADF EDQUOT EINTR EIO ENOSPC"),
    ("epoll_create1", "EINVAL EMFILE ENFILE ENOMEM"),
    ("epoll_ctl", "EBADF EEXIST EINVAL ELOOP ENOENT ENOMEM ENOSPC EPERM"),
    ("epoll_wait", "EBADF EFAULT EINTR EINVAL"),
    ("eventfd2", "EINVAL EMFILE ENFILE ENODEV ENOMEM"),
    ("fcntl", "EACCES EAGAIN EBADF EBUSY EDEADLK EFAULT EINTR EINVAL EMFILE ENOLCK ENOTDIR EPERM"),
    (
        "io_uring_enter",
        "EAGAIN EBADF EBADFD EBADR EBUSY EEXIST EFAULT EINTR EINVAL ENXIO EOPNOTSUPP",
    ),
    (
        "io_uring_register",
        "EACCES EBADF EBADFD EBUSY EEXIST EFAULT EINVAL EMFILE ENOMEM ENXIO EOPNOTSUPP",
    ),
    ("io_uring_setup", "EFAULT EINVAL EMFILE ENFILE ENOMEM ENXIO EPERM"),
    // ioctl_eventpoll(2) has EOPNOTSUPP and EPERM besides those of ioctl(2).
    ("ioctl", "EBADF EFAULT EINVAL ENOTTY EOPNOTSUPP EPERM"),
    ("madvise", "EACCES EAGAIN EBADF EBUSY EFAULT EHWPOISON EINVAL EIO ENOMEM EPERM"),
    ("mmap", "EACCES EAGAIN EBADF EEXIST EINVAL ENFILE ENODEV ENOMEM EOVERFLOW EPERM ETXTBSY"),
    ("munmap", "EINVAL ENOMEM"),
    ("nanosleep", "EFAULT EINTR EINVAL"),
    (
        "open",
        "EACCES EBADF EBUSY EDQUOT EEXIST EFAULT EFBIG EINTR EINVAL EISDIR ELOOP EMFILE \
         ENAMETOOLONG ENFILE ENODEV ENOENT ENOMEM ENOSPC ENOTDIR ENXIO EOPNOTSUPP EOVERFLOW EPERM \
         EROFS ETXTBSY EWOULDBLOCK",
    ),
    ("ppoll", "EFAULT EINTR EINVAL ENOMEM"),
    ("prctl", "EACCES EBADF EBUSY EFAULT EINVAL ENODEV ENXIO EOPNOTSUPP EPERM ERANGE"),
    ("read", "EAGAIN EBADF EFAULT EINTR EINVAL EIO EISDIR"),
    ("sched_getaffinity", "EFAULT EINVAL EPERM ESRCH"),
    ("sched_yield", ""),
    ("statx", "EACCES EBADF EFAULT EINVAL ELOOP ENAMETOOLONG ENOENT ENOMEM ENOTDIR"),
    ("timerfd_create", "EINVAL EMFILE ENFILE ENODEV ENOMEM EPERM"),
    ("timerfd_settime", "EBADF ECANCELED EFAULT EINVAL"),
    ("write", "EAGAIN EBADF EDESTADDRREQ EDQUOT EFAULT EFBIG EINTR EINVAL EIO ENOSPC EPERM EPIPE"),
    // CQE ERRORS of io_uring_enter(2); what any request may complete with; and what io_uring_enter(2)
    // says of the two that find requests.
    ("IORING_OP_POLL_ADD", "EACCES EAGAIN EBADF ECANCELED EFAULT EINTR EINVAL ENOMEM EOPNOTSUPP"),
    (
        "IORING_OP_POLL_REMOVE",
        "EACCES EAGAIN EALREADY EBADF ECANCELED EFAULT EINTR EINVAL ENOENT ENOMEM EOPNOTSUPP",
    ),
    (
        "IORING_OP_ASYNC_CANCEL",
        "EACCES EAGAIN EALREADY EBADF ECANCELED EFAULT EINTR EINVAL ENOENT ENOMEM EOPNOTSUPP",
    ),
];

/// No man page has them, but a sandbox answers with them (seccomp(2)), or an older kernel.
pub const OF_SANDBOXES: &[(&str, &str)] =
    &[("io_uring_enter", "EPERM"), ("io_uring_setup", "ENOSYS"), ("timerfd_settime", "EPERM")];

/// The errnos that the man page of this call has.
pub fn errors(call: &str) -> Option<&'static str> {
    ERRORS.iter().find(|(name, _)| *name == call).map(|(_, errnos)| *errnos)
}

/// Calls of a life that are no place in the tables.
pub struct Stranger {
    pub call: &'static str,
    pub number: i64,
    pub is: fn(&Stray) -> bool,
    /// Why it is no place.
    pub why: &'static str,
}

const fn stranger(
    call: &'static str,
    number: i64,
    is: fn(&Stray) -> bool,
    why: &'static str,
) -> Stranger {
    Stranger { call, number, is, why }
}

const ALLOCATOR: &str = "memory, by the allocator and for the stacks of threads";
const THREAD: &str = "the test's other thread begins or ends";
const PEER: &str = "the test itself, as the peer of a socket";

pub const STRANGERS: &[Stranger] = &[
    stranger("brk", libc::SYS_brk, |_| true, ALLOCATOR),
    stranger("madvise", libc::SYS_madvise, |_| true, ALLOCATOR),
    stranger("mmap", libc::SYS_mmap, |call| call.file == File::Other, ALLOCATOR),
    stranger("mprotect", libc::SYS_mprotect, |_| true, ALLOCATOR),
    stranger("mremap", libc::SYS_mremap, |_| true, ALLOCATOR),
    stranger("munmap", libc::SYS_munmap, |_| true, ALLOCATOR),
    stranger(
        "fcntl",
        libc::SYS_fcntl,
        |call| call.second == libc::F_GETFD as u64,
        "the standard library asks whether an fd is open before it closes it, in debug builds",
    ),
    stranger("clock_nanosleep", libc::SYS_clock_nanosleep, |call| !call.at_home, "the test waits"),
    stranger("getrandom", libc::SYS_getrandom, |_| true, "hash maps of the standard library"),
    stranger("gettid", libc::SYS_gettid, |call| !call.at_home, THREAD),
    stranger("prctl", libc::SYS_prctl, |call| !call.at_home, THREAD),
    stranger("rseq", libc::SYS_rseq, |call| !call.at_home, THREAD),
    stranger("rt_sigprocmask", libc::SYS_rt_sigprocmask, |_| true, THREAD),
    stranger("set_robust_list", libc::SYS_set_robust_list, |call| !call.at_home, THREAD),
    stranger("sigaltstack", libc::SYS_sigaltstack, |call| !call.at_home, THREAD),
    stranger("recvfrom", libc::SYS_recvfrom, |call| call.file == File::Socket, PEER),
    stranger("sendto", libc::SYS_sendto, |call| call.file == File::Socket, PEER),
    stranger("socketpair", libc::SYS_socketpair, |_| true, PEER),
];

/// Not even asked about: the locks of the test, and the end of its threads.
pub const NEVER_ASKED: &[i64] = &[libc::SYS_futex, libc::SYS_exit, libc::SYS_exit_group];
