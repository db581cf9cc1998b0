//! The sets of the epoll monitor, and what is in them.

use fdmon::ErrorCode::{BadFd, Syscall, Unsupported};
use fdmon::MonitorKind::{Epoll, Poll};
use rustix::io::Errno;

use crate::injector::{Asked, File, Manner};
use crate::table::Expect::{BadFd as Removed, Error, Moves, Stays, Unnoticed};
use crate::table::{ALIVE, ALONE, Besides, Fault, On, PLACE, Phase, RINGS, Site, fault, in_manner};

const CREATE: &[i64] = &[libc::SYS_epoll_create1];
const CTL: &[i64] = &[libc::SYS_epoll_ctl];
const FLAG: (&str, &str) = ("EINVAL", "the one flag, EPOLL_CLOEXEC, is as old as the call");

fn is(asked: &Asked<'_>, op: i32, files: &[File]) -> bool {
    asked.arg(1) as i32 == op && files.contains(&asked.file(2))
}

const ADD: i32 = libc::EPOLL_CTL_ADD;
const MOD: i32 = libc::EPOLL_CTL_MOD;
const DEL: i32 = libc::EPOLL_CTL_DEL;
const WATCHED: &[File] = &[File::Bell, File::Socket];

const REFUSED_CREATE: [Fault; 3] = {
    const ON: &[On] = &[On::Epoll];
    [
        fault("EMFILE", ON, Error(Unsupported, "raise the limit (ulimit -n)")),
        fault("ENFILE", ON, Error(Unsupported, "fs.file-max")),
        fault("ENOMEM", ON, Error(Unsupported, "raise the limits on memory")),
    ]
};

pub const EPOLL: &[Site] = &[
    Site {
        call: "epoll_create1",
        what: "the set of a context that is to have epoll",
        file: "monitor/epoll.rs",
        numbers: CREATE,
        phases: &[Phase::Build],
        faults: &REFUSED_CREATE,
        impossible: &[FLAG],
        spins: &[false],
        ..PLACE
    },
    Site {
        call: "epoll_create1",
        what: "the set that auto moves to at 64 fds",
        file: "monitor/switch.rs",
        numbers: CREATE,
        phases: &[Phase::Grow],
        faults: &[
            fault("EMFILE", &[On::AutoWithoutRing], Stays("epoll refused: EMFILE (epoll_create1)")),
            fault("ENFILE", &[On::AutoWithoutRing], Stays("epoll refused: ENFILE (epoll_create1)")),
            fault("ENOMEM", &[On::AutoWithoutRing], Stays("epoll refused: ENOMEM (epoll_create1)")),
        ],
        impossible: &[FLAG],
        spins: &[false],
        ..PLACE
    },
    Site {
        call: "epoll_create1",
        what: "the set that auto moves to from a ring, for an outer loop",
        file: "monitor/switch.rs",
        numbers: CREATE,
        phases: &[Phase::Embed],
        most: 1,
        faults: &[
            fault("EMFILE", &[On::Auto], Stays("epoll refused: EMFILE (epoll_create1)")),
            fault("ENFILE", &[On::Auto], Stays("epoll refused: ENFILE (epoll_create1)")),
            fault("ENOMEM", &[On::Auto], Stays("epoll refused: ENOMEM (epoll_create1)")),
        ],
        impossible: &[FLAG],
        spins: &[false],
        ..PLACE
    },
    Site {
        call: "epoll_create1",
        what: "a new set, when one holds an fd that cannot be taken out",
        file: "monitor/switch.rs",
        numbers: CREATE,
        phases: &[Phase::Work],
        faults: &[
            fault("EMFILE", &[On::Epoll], Moves(Poll, "epoll refused: EMFILE (epoll_create1)")),
            fault("ENFILE", &[On::Epoll], Moves(Poll, "epoll refused: ENFILE (epoll_create1)")),
            fault("ENOMEM", &[On::Epoll], Moves(Poll, "epoll refused: ENOMEM (epoll_create1)")),
        ],
        impossible: &[FLAG],
        ..PLACE
    },
    Site {
        call: "epoll_create1",
        what: "the set that replaces a ring that is refused later",
        file: "monitor/switch.rs",
        numbers: CREATE,
        phases: &[Phase::Work],
        most: 1,
        faults: &[
            fault("EMFILE", RINGS, Moves(Poll, "epoll refused: EMFILE (epoll_create1)")),
            fault("ENFILE", RINGS, Moves(Poll, "epoll refused: ENFILE (epoll_create1)")),
            fault("ENOMEM", RINGS, Moves(Poll, "epoll refused: ENOMEM (epoll_create1)")),
        ],
        impossible: &[FLAG],
        besides: Some(REFUSED_RING),
        ..PLACE
    },
    Site {
        call: "epoll_ctl",
        what: "ADD: the notifier of a context that is to have epoll",
        file: "monitor/epoll.rs",
        numbers: CTL,
        is_here: |asked| is(asked, ADD, &[File::Notifier]),
        phases: &[Phase::Build],
        faults: &[
            fault("ENOMEM", &[On::Epoll], Error(Unsupported, "raise the limits on memory")),
            fault("ENOSPC", &[On::Epoll], Error(Unsupported, "fs.epoll.max_user_watches")),
        ],
        impossible: FRESH,
        spins: &[false],
        ..PLACE
    },
    Site {
        call: "epoll_ctl",
        what: "ADD: the notifier, when auto moves at 64 fds",
        file: "monitor/switch.rs",
        numbers: CTL,
        is_here: |asked| is(asked, ADD, &[File::Notifier]),
        phases: &[Phase::Grow],
        faults: &[
            fault("ENOMEM", &[On::AutoWithoutRing], Stays("epoll refused: ENOMEM (epoll_ctl)")),
            fault("ENOSPC", &[On::AutoWithoutRing], Stays("epoll refused: ENOSPC (epoll_ctl)")),
        ],
        impossible: FRESH,
        spins: &[false],
        ..PLACE
    },
    Site {
        call: "epoll_ctl",
        what: "ADD: a handler's fd, when auto moves at 64 fds",
        file: "monitor/switch.rs",
        numbers: CTL,
        is_here: |asked| is(asked, ADD, WATCHED),
        phases: &[Phase::Grow],
        most: 60,
        faults: &[
            fault("ELOOP", &[On::AutoWithoutRing], Stays("epoll refused: ELOOP (epoll_ctl)")),
            fault("ENOMEM", &[On::AutoWithoutRing], Stays("epoll refused: ENOMEM (epoll_ctl)")),
            fault("ENOSPC", &[On::AutoWithoutRing], Stays("epoll refused: ENOSPC (epoll_ctl)")),
        ],
        impossible: &[
            ("EBADF", "see the next row"),
            ("EEXIST", "the set is new, and a number is registered once"),
            ("EINVAL", "the set is not known to anybody, so it is not registered in itself"),
            ("ENOENT", "is for MOD and DEL"),
            ("EPERM", "an fd that is not always ready has a poll operation; for others see below"),
        ],
        ..PLACE
    },
    Site {
        call: "epoll_ctl",
        what: "ADD: an fd that was closed while registered, when auto moves at 64 fds",
        file: "monitor/switch.rs",
        numbers: CTL,
        is_here: |asked| is(asked, ADD, WATCHED),
        phases: &[Phase::Grow],
        most: 60,
        faults: &[fault("EBADF", &[On::AutoWithoutRing], Removed)],
        impossible: &[("EEXIST EINVAL ELOOP ENOENT ENOMEM ENOSPC EPERM", "see the row above")],
        life: crate::lives::closed_under_move,
        spins: &[false],
        ..PLACE
    },
    Site {
        call: "epoll_ctl",
        what: "ADD: an external fd that was closed while it was held back",
        file: "register.rs",
        numbers: CTL,
        is_here: |asked| is(asked, ADD, WATCHED),
        phases: &[Phase::Work],
        faults: &[fault("EBADF", &[On::Epoll], Removed)],
        impossible: &[("EEXIST EINVAL ELOOP ENOENT ENOMEM ENOSPC EPERM", "see \"a handler's fd\"")],
        life: crate::lives::closed_while_held_back,
        spins: &[false],
        ..PLACE
    },
    Site {
        call: "epoll_ctl",
        what: "ADD: a handler's fd",
        file: "monitor/epoll.rs",
        numbers: CTL,
        is_here: |asked| is(asked, ADD, WATCHED),
        phases: ALIVE,
        faults: &[
            in_manner(
                Manner::Done,
                fault(
                    "EEXIST",
                    &[On::Epoll],
                    Unnoticed(
                        "a number that was closed and opened again while a duplicate kept the old file: changed by MOD",
                    ),
                ),
            ),
            fault("EINVAL", &[On::Epoll], Moves(Poll, "epoll refused an fd: EINVAL")),
            fault("ELOOP", &[On::Epoll], Moves(Poll, "epoll refused an fd: ELOOP")),
            fault("ENOMEM", &[On::Epoll], Moves(Poll, "epoll refused an fd: ENOMEM")),
            fault("ENOSPC", &[On::Epoll], Moves(Poll, "epoll refused an fd: ENOSPC")),
        ],
        impossible: &[
            ("EBADF", "see the next row"),
            ("ENOENT", "is for MOD and DEL"),
            ("EPERM", "for a file without a poll operation; see below"),
        ],
        ..PLACE
    },
    Site {
        call: "epoll_ctl",
        what: "ADD: an fd that is closed after it was looked at",
        file: "monitor/epoll.rs",
        numbers: CTL,
        is_here: |asked| is(asked, ADD, WATCHED),
        phases: &[Phase::Register],
        faults: &[fault("EBADF", &[On::Epoll], Error(BadFd, "pass the number of an open one"))],
        impossible: &[("EEXIST EINVAL ELOOP ENOENT ENOMEM ENOSPC EPERM", "see the row above")],
        ..PLACE
    },
    Site {
        call: "epoll_ctl",
        what: "ADD: a file without a poll operation",
        file: "monitor/epoll.rs",
        numbers: CTL,
        is_here: |asked| is(asked, ADD, &[File::Memory]),
        phases: ALONE,
        faults: &[fault(
            "EPERM",
            &[On::Epoll],
            Unnoticed("it is always ready: kept in a set of our own, and reported in each turn"),
        )],
        impossible: &[
            ("EBADF EEXIST EINVAL ELOOP ENOENT", "see the rows above"),
            ("ENOMEM ENOSPC", "EPERM comes before anything is allocated"),
        ],
        ..PLACE
    },
    Site {
        call: "epoll_ctl",
        what: "MOD: the interest of a handler is changed",
        file: "monitor/epoll.rs",
        numbers: CTL,
        is_here: |asked| is(asked, MOD, WATCHED),
        phases: ALONE,
        faults: &[
            fault("EBADF", &[On::Epoll], Error(BadFd, "it was closed while registered")),
            in_manner(
                Manner::Gone,
                fault(
                    "ENOENT",
                    &[On::Epoll],
                    Unnoticed("a number that was closed and opened again: added by ADD"),
                ),
            ),
            fault("ENOMEM", &[On::Epoll], Moves(Poll, "epoll refused an fd: ENOMEM")),
        ],
        impossible: &[
            ("EEXIST ELOOP ENOSPC", "are for ADD"),
            ("EINVAL", "ADD has accepted the same set, fd and events"),
            (
                "EPERM",
                "a file whose ADD was accepted has a poll operation; for another one see ENOENT",
            ),
        ],
        ..PLACE
    },
    Site {
        call: "epoll_ctl",
        what: "DEL: a handler is removed or held back",
        file: "monitor/epoll.rs",
        numbers: CTL,
        // Other: it was closed before.
        is_here: |asked| is(asked, DEL, &[File::Bell, File::Socket, File::Other]),
        phases: ALONE,
        faults: &[
            in_manner(Manner::Done, fault("EBADF", &[On::Epoll], GONE_ALREADY)),
            in_manner(Manner::Done, fault("ENOENT", &[On::Epoll], GONE_ALREADY)),
            in_manner(
                Manner::Done,
                fault(
                    "EPERM",
                    &[On::Epoll],
                    Unnoticed(
                        "the number means a file without a poll operation by now: the old one is gone",
                    ),
                ),
            ),
        ],
        impossible: &[
            ("EEXIST ELOOP ENOSPC", "are for ADD"),
            ("EINVAL", "ADD has accepted the same set and fd"),
            ("ENOMEM", "nothing is allocated to take an fd out"),
        ],
        ..PLACE
    },
];

const FRESH: &[(&str, &str)] = &[
    ("EBADF EINVAL", "both fds were made a moment ago, and are owned"),
    ("EEXIST ENOENT", "the set is new"),
    ("ELOOP EPERM", "an eventfd is no set, and has a poll operation"),
];

const GONE_ALREADY: crate::table::Expect =
    Unnoticed("the fd was closed while registered: it is gone");

/// Whatever is asked of the ring from now on is refused.
pub const REFUSED_RING: Besides = Besides {
    numbers: &[libc::SYS_io_uring_enter],
    is_here: |_| true,
    phases: &[Phase::Work],
    errno: Errno::PERM,
    all: true,
};

/// For an outer loop.
pub const OUTER: &[Site] = &[
    Site {
        call: "epoll_create1",
        what: "the set that an outer loop watches",
        file: "embed.rs",
        numbers: CREATE,
        phases: &[Phase::Embed],
        most: 1,
        faults: &[
            fault("EMFILE", MADE_FIRST, Error(Syscall, "ulimit -n")),
            fault("ENFILE", MADE_FIRST, Error(Syscall, "fs.file-max")),
            fault("ENOMEM", MADE_FIRST, Error(Syscall, "memory")),
        ],
        impossible: &[FLAG],
        spins: &[false],
        ..PLACE
    },
    Site {
        call: "epoll_create1",
        what: "the set of the fds of the poll monitor, for an outer loop",
        file: "embed.rs",
        numbers: CREATE,
        phases: &[Phase::Embed],
        skip: 1,
        faults: &[
            fault("EMFILE", &[On::Poll], AWAKE),
            fault("ENFILE", &[On::Poll], AWAKE),
            fault("ENOMEM", &[On::Poll], AWAKE),
        ],
        impossible: &[FLAG],
        spins: &[false],
        ..PLACE
    },
    Site {
        call: "epoll_ctl",
        what: "ADD: the timer, to the set that an outer loop watches",
        file: "embed.rs",
        numbers: CTL,
        is_here: |asked| is(asked, ADD, &[File::Timer]),
        phases: &[Phase::Embed],
        faults: &[
            fault("ENOMEM", MADE_LAST, Error(Syscall, "memory")),
            fault("ENOSPC", MADE_LAST, Error(Syscall, "fs.epoll.max_user_watches")),
        ],
        impossible: FRESH_OUTER,
        spins: &[false],
        ..PLACE
    },
    Site {
        call: "epoll_ctl",
        what: "ADD: the monitor's own fd, to the set that an outer loop watches",
        file: "embed.rs",
        numbers: CTL,
        is_here: |asked| is(asked, ADD, &[File::Epoll, File::Ring]),
        phases: &[Phase::Embed],
        faults: &[
            fault("ENOMEM", MADE_LAST, Error(Syscall, "memory")),
            fault("ENOSPC", MADE_LAST, Error(Syscall, "fs.epoll.max_user_watches")),
            fault("ELOOP", MADE_LAST, Error(Syscall, "nested")),
        ],
        impossible: &[
            ("EBADF EINVAL", "both are owned, and two different files"),
            ("EEXIST ENOENT", "a set that is replaced is closed before, which takes it out"),
            ("EPERM", "sets and rings have a poll operation"),
        ],
        spins: &[false],
        ..PLACE
    },
    Site {
        call: "epoll_ctl",
        what: "ADD: the notifier, to the set of the fds of the poll monitor",
        file: "embed.rs",
        numbers: CTL,
        is_here: |asked| is(asked, ADD, &[File::Notifier]),
        phases: &[Phase::Embed],
        faults: &[fault("ENOMEM", &[On::Poll], AWAKE), fault("ENOSPC", &[On::Poll], AWAKE)],
        impossible: FRESH,
        ..PLACE
    },
    Site {
        call: "epoll_ctl",
        what: "ADD: a handler's fd, to the set of the fds of the poll monitor",
        file: "embed.rs",
        numbers: CTL,
        is_here: |asked| is(asked, ADD, WATCHED),
        phases: &[Phase::Embed],
        faults: &[
            fault("EBADF", &[On::Poll], AWAKE_WITHOUT),
            in_manner(
                Manner::Done,
                fault(
                    "EEXIST",
                    &[On::Poll],
                    Unnoticed("a number that was closed and opened again: the set is filled anew"),
                ),
            ),
            fault("EINVAL", &[On::Poll], AWAKE_WITHOUT),
            fault("ELOOP", &[On::Poll], AWAKE_WITHOUT),
            fault("ENOMEM", &[On::Poll], AWAKE_WITHOUT),
            fault("ENOSPC", &[On::Poll], AWAKE_WITHOUT),
            fault("EPERM", &[On::Poll], AWAKE_WITHOUT),
        ],
        impossible: &[("ENOENT", "is for MOD and DEL")],
        ..PLACE
    },
    Site {
        call: "epoll_ctl",
        what: "MOD: the interest of a handler, in the set of the fds of the poll monitor",
        file: "embed.rs",
        numbers: CTL,
        is_here: |asked| is(asked, MOD, WATCHED),
        phases: &[Phase::Embed],
        faults: &[
            fault("EBADF", &[On::Poll], ANEW),
            in_manner(Manner::Gone, fault("ENOENT", &[On::Poll], ANEW)),
            fault("ENOMEM", &[On::Poll], ANEW),
            fault("EPERM", &[On::Poll], ANEW),
        ],
        impossible: &[
            ("EEXIST ELOOP ENOSPC", "are for ADD"),
            ("EINVAL", "ADD has accepted the same set, fd and events"),
        ],
        ..PLACE
    },
    Site {
        call: "epoll_ctl",
        what: "DEL: a handler is removed, from the set of the fds of the poll monitor",
        file: "embed.rs",
        numbers: CTL,
        is_here: |asked| is(asked, DEL, WATCHED),
        phases: &[Phase::Embed],
        faults: &[
            fault("EBADF", &[On::Poll], ANEW),
            in_manner(Manner::Done, fault("ENOENT", &[On::Poll], ANEW)),
            fault("EPERM", &[On::Poll], ANEW),
        ],
        impossible: &[
            ("EEXIST ELOOP ENOSPC", "are for ADD"),
            ("EINVAL", "ADD has accepted the same set and fd"),
            ("ENOMEM", "nothing is allocated to take an fd out"),
        ],
        ..PLACE
    },
];

/// Where the set for an outer loop is the first of them.
const MADE_FIRST: &[On] =
    &[On::Poll, On::Epoll, On::Deferred, On::Cooperative, On::Plain, On::AutoWithoutRing];
/// Whose monitor is in its place by then.
const MADE_LAST: &[On] = crate::table::EVERYWHERE;

const AWAKE: crate::table::Expect =
    Unnoticed("`prepare` returns 0, so that nothing is missed, and tries again each time");
const AWAKE_WITHOUT: crate::table::Expect =
    Unnoticed("`prepare` returns 0 as long as this handler is there, so that nothing is missed");
const ANEW: crate::table::Expect = Unnoticed("the set is made and filled anew");

const FRESH_OUTER: &[(&str, &str)] = &[
    ("EBADF EINVAL", "both are owned, and two different files"),
    ("EEXIST ENOENT", "it is added once"),
    ("ELOOP EPERM", "a timer is no set, and has a poll operation"),
];

/// Kernel busy polling.
pub const BUSY_POLL: &[Site] = &[
    Site {
        call: "ioctl",
        what: "EPIOCSPARAMS: kernel busy polling is asked for or given up",
        file: "monitor/busy_poll.rs",
        numbers: &[libc::SYS_ioctl],
        is_here: |asked| asked.file(0) == File::Epoll,
        phases: &[Phase::BusyPoll],
        most: 1,
        faults: &[
            fault("EINVAL", &[On::Epoll], Error(Unsupported, "kernel_busy_poll")),
            fault("ENOTTY", &[On::Epoll], Error(Unsupported, "use Linux 6.9 or newer")),
            fault("EOPNOTSUPP", &[On::Epoll], Error(Unsupported, "CONFIG_NET_RX_BUSY_POLL")),
            fault("EPERM", &[On::Epoll], Error(Unsupported, "kernel_busy_poll")),
        ],
        impossible: &[
            ("EBADF", "the set is owned"),
            ("EFAULT", "the parameters are a value on the stack"),
        ],
        spins: &[false],
        ..PLACE
    },
    Site {
        call: "ioctl",
        what: "EPIOCSPARAMS: the set was made anew",
        file: "monitor/busy_poll.rs",
        numbers: &[libc::SYS_ioctl],
        is_here: |asked| asked.file(0) == File::Epoll,
        phases: &[Phase::BusyPoll],
        skip: 1,
        most: 1,
        faults: &[
            fault("EINVAL", &[On::Epoll], Stays("kernel busy polling is off")),
            fault("ENOTTY", &[On::Epoll], Stays("kernel busy polling is off")),
            fault("EOPNOTSUPP", &[On::Epoll], Stays("kernel busy polling is off")),
            fault("EPERM", &[On::Epoll], Stays("kernel busy polling is off")),
        ],
        impossible: &[
            ("EBADF", "the set is owned"),
            ("EFAULT", "the parameters are a value on the stack"),
        ],
        spins: &[false],
        ..PLACE
    },
];
const _: fdmon::MonitorKind = Epoll;
