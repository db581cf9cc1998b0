//! Eventfds, timers, files that are read, and fds that are looked at or closed.

use fdmon::ErrorCode::{BadFd, Syscall};

use crate::injector::{Asked, File, Manner};
use crate::table::Expect::{Again, BadFd as Removed, CalledAgain, Error, Unnoticed};
use crate::table::{ALIVE, ALWAYS, EVERYWHERE, On, PLACE, Phase, Site, fault, in_manner};

const NOTIFIED: &[Phase] = ALIVE;
const COUNTER: (&str, &str) = ("EFAULT EINVAL", "the counter is eight bytes on the stack");

const NO_EVENTFD: [crate::table::Fault; 4] = [
    fault("EMFILE", EVERYWHERE, Error(Syscall, "raise the limit (ulimit -n)")),
    fault("ENFILE", EVERYWHERE, Error(Syscall, "fs.file-max")),
    fault("ENODEV", EVERYWHERE, Error(Syscall, "anonymous inode")),
    fault("ENOMEM", EVERYWHERE, Error(Syscall, "memory")),
];

fn is_quota(asked: &Asked<'_>) -> bool {
    asked.path() == "/proc/self/cgroup" || asked.path().starts_with("/sys/fs/cgroup")
}

pub const FDS: &[Site] = &[
    Site {
        call: "eventfd2",
        what: "the notifier of a context",
        file: "notifier.rs",
        numbers: &[libc::SYS_eventfd2],
        phases: &[Phase::Build],
        faults: &NO_EVENTFD,
        impossible: &[("EINVAL", "the flags are as old as the call")],
        spins: &[false],
        ..PLACE
    },
    Site {
        call: "eventfd2",
        what: "EventNotifier::new",
        file: "notifier.rs",
        numbers: &[libc::SYS_eventfd2],
        phases: &[Phase::Register],
        faults: &NO_EVENTFD,
        impossible: &[("EINVAL", "the flags are as old as the call")],
        spins: &[false],
        ..PLACE
    },
    Site {
        call: "write",
        what: "a notification",
        file: "notifier.rs",
        numbers: &[libc::SYS_write],
        is_here: |asked| asked.file(0) == File::Notifier,
        phases: NOTIFIED,
        faults: &[
            in_manner(Manner::Full, fault("EAGAIN", EVERYWHERE, FULL)),
            fault("EINTR", EVERYWHERE, Again),
        ],
        impossible: NO_FILE_WRITTEN,
        ..PLACE
    },
    Site {
        call: "write",
        what: "EventNotifier::set",
        file: "notifier.rs",
        numbers: &[libc::SYS_write],
        is_here: |asked| asked.file(0) == File::Bell,
        phases: NOTIFIED,
        faults: &[
            in_manner(Manner::Full, fault("EAGAIN", EVERYWHERE, FULL)),
            fault("EINTR", EVERYWHERE, Again),
        ],
        impossible: NO_FILE_WRITTEN,
        ..PLACE
    },
    Site {
        call: "read",
        what: "the notifier, after it woke the context",
        file: "monitor/switch.rs",
        numbers: &[libc::SYS_read],
        is_here: |asked| asked.file(0) == File::Notifier,
        phases: NOTIFIED,
        faults: &[
            fault("EAGAIN", &[On::Poll, On::Plain], Unnoticed("it wakes the context once more")),
            fault("EINTR", &[On::Poll, On::Plain], Again),
        ],
        impossible: NO_FILE_READ,
        ..PLACE
    },
    Site {
        call: "read",
        what: "EventNotifier::test_and_clear",
        file: "notifier.rs",
        numbers: &[libc::SYS_read],
        is_here: |asked| asked.file(0) == File::Bell,
        phases: NOTIFIED,
        faults: &[fault("EAGAIN", EVERYWHERE, CalledAgain), fault("EINTR", EVERYWHERE, Again)],
        impossible: NO_FILE_READ,
        ..PLACE
    },
    Site {
        call: "fcntl",
        what: "F_GETFD: is an fd open that is to be registered?",
        file: "register.rs",
        numbers: &[libc::SYS_fcntl],
        is_here: |asked| {
            let registered = matches!(asked.file(0), File::Bell | File::Socket);
            asked.arg(1) == libc::F_GETFD as u64 && registered
        },
        phases: &[Phase::Spin, Phase::Register],
        faults: &[fault("EBADF", EVERYWHERE, Error(BadFd, "pass the number of an open one"))],
        impossible: FLAGS_ONLY,
        spins: &[false],
        ..PLACE
    },
    Site {
        call: "fcntl",
        what: "F_GETFD: is a file still open that is always ready?",
        file: "monitor/epoll.rs",
        numbers: &[libc::SYS_fcntl],
        is_here: |asked| asked.arg(1) == libc::F_GETFD as u64 && asked.file(0) == File::Memory,
        phases: &[Phase::Work],
        skip: 1,
        most: 2, // then its owner closes it, and asks as well
        faults: &[fault("EBADF", &[On::Epoll], Removed)],
        impossible: FLAGS_ONLY,
        ..PLACE
    },
    Site {
        call: "close",
        what: "what is watched, eventfds, timers, sets and rings",
        file: "their owners",
        numbers: &[libc::SYS_close],
        is_here: |asked| asked.file(0) != File::Other,
        phases: ALWAYS,
        faults: &[
            in_manner(Manner::Done, fault("EDQUOT", EVERYWHERE, CLOSED)),
            in_manner(Manner::Done, fault("EINTR", EVERYWHERE, CLOSED)),
            in_manner(Manner::Done, fault("EIO", EVERYWHERE, CLOSED)),
            in_manner(Manner::Done, fault("ENOSPC", EVERYWHERE, CLOSED)),
        ],
        impossible: &[("EBADF", "they are owned")],
        spins: &[false],
        ..PLACE
    },
    Site {
        call: "sched_getaffinity",
        what: "how many CPUs are there to spin on?",
        file: "spin/guards.rs",
        numbers: &[libc::SYS_sched_getaffinity],
        phases: ALIVE,
        faults: &[fault(
            "EINVAL",
            SPINNERS,
            Unnoticed("the kernel has more CPUs than its set holds: no guard follows from it"),
        )],
        impossible: &[
            ("EFAULT", "the set is a value on the stack"),
            ("EPERM", "is for sched_setaffinity(2)"),
            ("ESRCH", "it is about the calling thread"),
        ],
        spins: &[true],
        ..PLACE
    },
    Site {
        call: "open",
        what: "what quota of CPU does the cgroup have?",
        file: "spin/guards.rs",
        numbers: &[libc::SYS_openat],
        is_here: is_quota,
        phases: ALIVE,
        faults: &[
            fault("EACCES", SPINNERS, NO_QUOTA),
            fault("EINTR", SPINNERS, Again),
            fault("ELOOP", SPINNERS, NO_QUOTA),
            fault("EMFILE", SPINNERS, NO_QUOTA),
            fault("ENAMETOOLONG", SPINNERS, NO_QUOTA),
            fault("ENFILE", SPINNERS, NO_QUOTA),
            fault("ENODEV", SPINNERS, NO_QUOTA),
            fault("ENOENT", SPINNERS, NO_QUOTA),
            fault("ENOMEM", SPINNERS, NO_QUOTA),
            fault("ENOTDIR", SPINNERS, NO_QUOTA),
        ],
        impossible: READ_ONLY,
        spins: &[true],
        ..PLACE
    },
    Site {
        call: "read",
        what: "what quota of CPU does the cgroup have?",
        file: "spin/guards.rs",
        numbers: &[libc::SYS_read],
        is_here: |asked| asked.file(0) == File::Other,
        phases: ALIVE,
        faults: &[
            fault("EINTR", SPINNERS, Again),
            fault("EIO", SPINNERS, NO_QUOTA),
            fault("EISDIR", SPINNERS, NO_QUOTA),
        ],
        impossible: &[
            ("EAGAIN", "it is no fd that waits"),
            ("EBADF EINVAL", "it was opened for reading"),
            ("EFAULT", "it goes into a buffer"),
        ],
        spins: &[true],
        ..PLACE
    },
    Site {
        call: "statx",
        what: "how large is the file of the quota?",
        file: "spin/guards.rs",
        numbers: &[libc::SYS_statx],
        phases: ALIVE,
        faults: &[fault("ENOMEM", SPINNERS, Unnoticed("it is read until it ends"))],
        impossible: &[
            ("EACCES ELOOP ENAMETOOLONG ENOENT ENOTDIR", "are for paths"),
            ("EBADF EFAULT EINVAL", "it is an open file, and there is no path"),
        ],
        spins: &[true],
        ..PLACE
    },
    Site {
        call: "close",
        what: "the file of the quota",
        file: "spin/guards.rs",
        numbers: &[libc::SYS_close],
        is_here: |asked| asked.file(0) == File::Other,
        phases: ALIVE,
        faults: &[
            in_manner(Manner::Done, fault("EDQUOT", SPINNERS, CLOSED)),
            in_manner(Manner::Done, fault("EINTR", SPINNERS, CLOSED)),
            in_manner(Manner::Done, fault("EIO", SPINNERS, CLOSED)),
            in_manner(Manner::Done, fault("ENOSPC", SPINNERS, CLOSED)),
        ],
        impossible: &[("EBADF", "it is owned")],
        spins: &[true],
        ..PLACE
    },
    Site {
        call: "open",
        what: "why is there no ring? (/proc/sys/kernel)",
        file: "monitor/refusal.rs",
        numbers: &[libc::SYS_openat],
        is_here: |asked| asked.path().starts_with("/proc/sys/kernel/"),
        phases: &[Phase::Build],
        faults: &[
            fault("EACCES", &[On::Deferred], LESS_SAID),
            fault("EINTR", &[On::Deferred], Again),
            fault("ELOOP", &[On::Deferred], LESS_SAID),
            fault("EMFILE", &[On::Deferred], LESS_SAID),
            fault("ENAMETOOLONG", &[On::Deferred], LESS_SAID),
            fault("ENFILE", &[On::Deferred], LESS_SAID),
            fault("ENODEV", &[On::Deferred], LESS_SAID),
            fault("ENOENT", &[On::Deferred], LESS_SAID),
            fault("ENOMEM", &[On::Deferred], LESS_SAID),
            fault("ENOTDIR", &[On::Deferred], LESS_SAID),
        ],
        impossible: READ_ONLY,
        besides: Some(super::ring::REFUSED_SETUP),
        life: crate::lives::refused_ring,
        spins: &[false],
        ..PLACE
    },
    Site {
        call: "timerfd_create",
        what: "the timer for an outer loop",
        file: "embed.rs",
        numbers: &[libc::SYS_timerfd_create],
        phases: &[Phase::Embed],
        faults: &[
            fault("EMFILE", EVERYWHERE, Error(Syscall, "raise the limit (ulimit -n)")),
            fault("ENFILE", EVERYWHERE, Error(Syscall, "fs.file-max")),
            fault("ENODEV", EVERYWHERE, Error(Syscall, "anonymous inode")),
            fault("ENOMEM", EVERYWHERE, Error(Syscall, "memory")),
        ],
        impossible: &[
            ("EINVAL", "clock and flags are as old as the call"),
            ("EPERM", "is for the clocks that wake a machine"),
        ],
        spins: &[false],
        ..PLACE
    },
    Site {
        call: "timerfd_settime",
        what: "a deadline, for an outer loop",
        file: "embed.rs",
        numbers: &[libc::SYS_timerfd_settime],
        is_here: |asked| asked.arms(),
        phases: &[Phase::Embed],
        faults: &[
            // No man page allows it, but a sandbox may.
            fault("EPERM", EVERYWHERE, Error(Syscall, "sandbox")),
        ],
        impossible: NO_TIME,
        spins: &[false],
        ..PLACE
    },
    Site {
        call: "timerfd_settime",
        what: "a deadline is taken back, for an outer loop",
        file: "embed.rs",
        numbers: &[libc::SYS_timerfd_settime],
        is_here: |asked| !asked.arms(),
        phases: &[Phase::Embed],
        faults: &[fault(
            "EPERM",
            EVERYWHERE,
            Unnoticed("it wakes the outer loop once more, and is taken back then"),
        )],
        impossible: NO_TIME,
        spins: &[false],
        ..PLACE
    },
];

const NO_TIME: &[(&str, &str)] = &[
    ("EBADF", "the timer is owned"),
    ("ECANCELED", "the clock is the monotonic one, which is not set"),
    ("EFAULT", "the time is a value on the stack"),
    ("EINVAL", "the fd is a timer, and the time has less than 10⁹ nanoseconds"),
];

/// Where the context spins.
const SPINNERS: &[On] = EVERYWHERE;
const FULL: crate::table::Expect = Unnoticed("the counter is full, so the fd is readable already");
const CLOSED: crate::table::Expect = Unnoticed("Linux has closed it all the same");
const NO_QUOTA: crate::table::Expect = Unnoticed("taken for no quota");
const LESS_SAID: crate::table::Expect =
    Unnoticed("the error of the refused ring says less about why");

const FLAGS_ONLY: &[(&str, &str)] = &[(
    "EACCES EAGAIN EBUSY EDEADLK EFAULT EINTR EINVAL EMFILE ENOLCK ENOTDIR EPERM",
    "are for other commands than F_GETFD",
)];
const NO_FILE_WRITTEN: &[(&str, &str)] = &[
    COUNTER,
    ("EBADF", "the eventfd lives as long as what writes to it"),
    ("EDESTADDRREQ EDQUOT EFBIG EIO ENOSPC EPERM EPIPE", "are for files, sockets and pipes"),
];
const NO_FILE_READ: &[(&str, &str)] = &[
    COUNTER,
    ("EBADF", "the eventfd lives as long as what reads it"),
    ("EIO EISDIR", "are for files"),
];
const READ_ONLY: &[(&str, &str)] = &[
    ("EBADF EINVAL", "the path is absolute, and the flags are O_RDONLY and O_CLOEXEC"),
    (
        "EBUSY EDQUOT EEXIST EFBIG EISDIR ENOSPC EOPNOTSUPP EPERM EROFS ETXTBSY",
        "nothing is made or written",
    ),
    ("EFAULT", "the path is a C string"),
    ("ENXIO EOVERFLOW EWOULDBLOCK", "it is no device, pipe, large file or lease"),
];
