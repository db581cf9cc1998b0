//! The ring of the io_uring monitor.

use fdmon::ErrorCode::Unsupported;
use fdmon::MonitorKind::{Epoll, Poll};
use rustix::io::Errno;

use crate::injector::{Asked, File};
use crate::table::Expect::{Again, Error, Moves, Unnoticed};
use crate::table::{
    ALONE, Besides, On, PLACE, Phase, RINGS, RINGS_AND_AUTO, Site, fault,
};

const SETUP: &[i64] = &[libc::SYS_io_uring_setup];
const ENTER: &[i64] = &[libc::SYS_io_uring_enter];
const REGISTER: &[i64] = &[libc::SYS_io_uring_register];

const AUTO: &[On] = &[On::Auto];
const DEFERRED: &[On] = &[On::Deferred];

const GETEVENTS: u64 = 1;

/// What io_uring_enter(2) is for.
#[derive(PartialEq, Eq)]
enum Enter {
    Sleep,
    Look,
    Submit,
}

fn enter(asked: &Asked<'_>) -> Enter {
    let (wanted, flags) = (asked.arg(2) as u32, asked.arg(3));
    match (flags & GETEVENTS != 0, wanted) {
        (false, _) => Enter::Submit,
        (true, 0) => Enter::Look,
        (true, _) => Enter::Sleep,
    }
}

/// The operations of io_uring_register(2).
const RESTRICTIONS: u64 = 11;
const ENABLE_RINGS: u64 = 12;
const RING_FDS: u64 = 20;
const FORGET_RING_FDS: u64 = 21;
const NAPI: [u64; 2] = [27, 28];

/// Whoever asks for a ring gets none.
pub const REFUSED_SETUP: Besides = Besides {
    numbers: SETUP,
    is_here: |_| true,
    phases: &[Phase::Build],
    errno: Errno::PERM,
    all: false,
};

const NEVER_ENTERED: &[(&str, &str)] = &[
    ("EBADFD", "a ring that begins disabled is enabled before its first use"),
    ("EEXIST", "a context stays in the thread that made it"),
    ("EFAULT", "the timeout is a value on the stack"),
    ("EINVAL", "each flag belongs to a feature that the ring has said to have"),
    ("ENXIO", "a ring is torn down when its last descriptor is closed"),
];
const NEVER_REGISTERED: &[(&str, &str)] = &[
    ("EBADF EFAULT", "ring and argument are owned"),
    ("EBADFD", "a ring that is restricted begins disabled, and is enabled once"),
    ("ENXIO EOPNOTSUPP", "no buffers or files are registered"),
];

pub const RING: &[Site] = &[
    Site {
        call: "io_uring_setup",
        what: "the ring of a context that is to have io_uring",
        file: "monitor/ring.rs",
        numbers: SETUP,
        phases: &[Phase::Build],
        faults: &[
            fault("EINVAL", RINGS_AND_AUTO, Unnoticed(
                "an older kernel: a ring of a simpler kind is made",
            )),
            fault("EMFILE", RINGS, Error(Unsupported, "raise the limit (ulimit -n)")),
            fault("EMFILE", AUTO, Moves(Poll, "io_uring refused: EMFILE (io_uring_setup)")),
            fault("ENFILE", RINGS, Error(Unsupported, "fs.file-max")),
            fault("ENFILE", AUTO, Moves(Poll, "io_uring refused: ENFILE (io_uring_setup)")),
            fault("ENOMEM", RINGS, Error(Unsupported, "raise the limits on memory")),
            fault("ENOMEM", AUTO, Moves(Poll, "io_uring refused: ENOMEM (io_uring_setup)")),
            fault("EPERM", RINGS, Error(Unsupported, "seccomp profile")),
            fault("EPERM", AUTO, Moves(Poll, "io_uring refused: EPERM (io_uring_setup)")),
            fault("ENOSYS", RINGS, Error(Unsupported, "CONFIG_IO_URING")),
            fault("ENOSYS", AUTO, Moves(Poll, "io_uring refused: ENOSYS (io_uring_setup)")),
        ],
        impossible: &[("EFAULT", "the parameters are a value on the stack")],
        ..PLACE
    },
    Site {
        call: "io_uring_setup",
        what: "a cooperative ring takes the place of a deferred one, for an outer loop",
        file: "monitor/switch.rs",
        numbers: SETUP,
        phases: &[Phase::Embed],
        faults: &[
            fault("EINVAL", DEFERRED, Unnoticed(
                "an older kernel: a ring of a simpler kind is made",
            )),
            fault("EMFILE", DEFERRED, Error(Unsupported, "raise the limit (ulimit -n)")),
            fault("ENFILE", DEFERRED, Error(Unsupported, "fs.file-max")),
            fault("ENOMEM", DEFERRED, Error(Unsupported, "raise the limits on memory")),
            fault("EPERM", DEFERRED, Error(Unsupported, "seccomp profile")),
        ],
        impossible: &[("EFAULT", "the parameters are a value on the stack")],
        ..PLACE
    },
    Site {
        call: "mmap",
        what: "the queues and the entries of a ring",
        file: "monitor/ring.rs",
        numbers: &[libc::SYS_mmap],
        is_here: |asked| asked.file(4) == File::Ring,
        phases: &[Phase::Build],
        faults: &[
            fault("EAGAIN", RINGS, Error(Unsupported, "use 'auto'")),
            fault("EAGAIN", AUTO, Moves(Poll, "io_uring refused: EAGAIN (mmap)")),
            fault("ENFILE", RINGS, Error(Unsupported, "fs.file-max")),
            fault("ENFILE", AUTO, Moves(Poll, "io_uring refused: ENFILE (mmap)")),
            fault("ENOMEM", RINGS, Error(Unsupported, "raise the limits on memory")),
            fault("ENOMEM", AUTO, Moves(Poll, "io_uring refused: ENOMEM (mmap)")),
            fault("EPERM", RINGS, Error(Unsupported, "sandbox")),
            fault("EPERM", AUTO, Moves(Poll, "io_uring refused: EPERM (mmap)")),
        ],
        impossible: &[
            ("EACCES ETXTBSY", "are for files that are not open for writing, or run"),
            ("EBADF", "the ring is owned"),
            ("EEXIST", "no address is asked for"),
            ("EINVAL EOVERFLOW", "length and offset are what the kernel said"),
            ("ENODEV", "rings can be mapped"),
        ],
        ..PLACE
    },
    Site {
        call: "io_uring_register",
        what: "REGISTER_RING_FDS: calls that need no look-up",
        file: "monitor/ring.rs",
        numbers: REGISTER,
        is_here: |asked| asked.arg(1) == RING_FDS,
        phases: &[Phase::Build, Phase::Embed],
        faults: &[
            fault("EACCES", RINGS_AND_AUTO, BY_FD),
            fault("EBUSY", RINGS_AND_AUTO, BY_FD),
            fault("EINVAL", RINGS_AND_AUTO, BY_FD),
            fault("EMFILE", RINGS_AND_AUTO, BY_FD),
            fault("ENOMEM", RINGS_AND_AUTO, BY_FD),
        ],
        impossible: NEVER_REGISTERED,
        ..PLACE
    },
    Site {
        call: "io_uring_register",
        what: "UNREGISTER_RING_FDS: the place is given back",
        file: "monitor/ring.rs",
        numbers: REGISTER,
        is_here: |asked| asked.arg(1) == FORGET_RING_FDS,
        phases: &[Phase::Embed, Phase::Close],
        faults: &[
            fault("EINVAL", RINGS_AND_AUTO, KEPT),
            fault("ENOMEM", RINGS_AND_AUTO, KEPT),
        ],
        impossible: &[
            ("EACCES EBUSY EMFILE", "are for REGISTER"),
            ("EBADF EFAULT", "ring and argument are owned"),
            ("EBADFD", "a ring that is restricted begins disabled, and is enabled once"),
            ("ENXIO EOPNOTSUPP", "no buffers or files are registered"),
        ],
        ..PLACE
    },
    Site {
        call: "io_uring_register",
        what: "RESTRICTIONS and ENABLE_RINGS: ring.restricted",
        file: "monitor/ring.rs",
        numbers: REGISTER,
        is_here: |asked| [RESTRICTIONS, ENABLE_RINGS].contains(&asked.arg(1)),
        phases: &[Phase::Build],
        most: 2,
        faults: &[
            fault("ENOMEM", &[On::Restricted], Error(Unsupported, "leave out ring.restricted")),
        ],
        impossible: &[
            ("EACCES EBUSY EMFILE", "a new ring has no restrictions, buffers or files"),
            ("EBADF EFAULT", "ring and argument are owned"),
            ("EBADFD", "the ring begins disabled, and is enabled once"),
            ("EINVAL", "see the next row"),
            ("ENXIO EOPNOTSUPP", "no buffers or files are registered"),
        ],
        ..PLACE
    },
    Site {
        call: "io_uring_register",
        what: "RESTRICTIONS: a kernel that knows fewer of them",
        file: "monitor/ring.rs",
        numbers: REGISTER,
        is_here: |asked| asked.arg(1) == RESTRICTIONS,
        phases: &[Phase::Build],
        faults: &[fault("EINVAL", &[On::Restricted], Unnoticed(
            "the newest are left out, one by one",
        ))],
        impossible: &[(
            "EACCES EBADF EBADFD EBUSY EFAULT EMFILE ENOMEM ENXIO EOPNOTSUPP", "see the row above",
        )],
        ..PLACE
    },
    Site {
        call: "io_uring_register",
        what: "REGISTER_NAPI, UNREGISTER_NAPI: kernel busy polling",
        file: "monitor/busy_poll.rs",
        numbers: REGISTER,
        is_here: |asked| NAPI.contains(&asked.arg(1)),
        phases: &[Phase::BusyPoll],
        most: 2,
        faults: &[
            fault("EINVAL", RINGS, Error(Unsupported, "use Linux 6.9 or newer")),
            fault("ENOMEM", RINGS, Error(Unsupported, "kernel_busy_poll")),
            fault("EOPNOTSUPP", RINGS, Error(Unsupported, "CONFIG_NET_RX_BUSY_POLL")),
        ],
        impossible: &[
            ("EACCES", "is among what a restricted ring may do"),
            ("EBADF EFAULT", "ring and argument are owned"),
            ("EBADFD", "a ring that is restricted begins disabled, and is enabled once"),
            ("EBUSY EMFILE ENXIO", "no buffers or files are registered"),
        ],
        ..PLACE
    },
    Site {
        call: "io_uring_register",
        what: "REGISTER_NAPI, where auto may move to epoll",
        file: "monitor/busy_poll.rs",
        numbers: REGISTER,
        is_here: |asked| NAPI.contains(&asked.arg(1)),
        phases: &[Phase::BusyPoll],
        most: 1,
        faults: &[
            fault("EINVAL", AUTO, Moves(Epoll, "kernel busy polling was asked for")),
            fault("ENOMEM", AUTO, Moves(Epoll, "kernel busy polling was asked for")),
            fault("EOPNOTSUPP", AUTO, Moves(Epoll, "kernel busy polling was asked for")),
        ],
        impossible: &[(
            "EACCES EBADF EBADFD EBUSY EFAULT EMFILE ENXIO", "see the row above",
        )],
        ..PLACE
    },
    Site {
        call: "io_uring_enter",
        what: "the first call on a new ring",
        file: "monitor/io_uring.rs",
        numbers: ENTER,
        phases: &[Phase::Build],
        most: 1,
        faults: &[
            fault("EAGAIN", RINGS_AND_AUTO, Again),
            fault("EBADF", RINGS, Error(Unsupported, "use 'auto'")),
            fault("EBADF", AUTO, Moves(Poll, "io_uring refused: EBADF (io_uring_enter)")),
            fault("EBADR", RINGS, Error(Unsupported, "use 'auto'")),
            fault("EBADR", AUTO, Moves(Poll, "io_uring refused: EBADR (io_uring_enter)")),
            fault("EBUSY", RINGS_AND_AUTO, Again),
            fault("EINTR", RINGS_AND_AUTO, Again),
            fault("EOPNOTSUPP", RINGS, Error(Unsupported, "use 'auto'")),
            fault("EOPNOTSUPP", AUTO, Moves(Poll, "io_uring refused: EOPNOTSUPP (io_uring_enter)")),
            fault("EPERM", RINGS, Error(Unsupported, "seccomp profile")),
            fault("EPERM", AUTO, Moves(Poll, "io_uring refused: EPERM (io_uring_enter)")),
        ],
        impossible: NEVER_ENTERED,
        ..PLACE
    },
    Site {
        call: "io_uring_enter",
        what: "a sleep",
        file: "monitor/io_uring.rs",
        numbers: ENTER,
        is_here: |asked| enter(asked) == Enter::Sleep,
        phases: ALONE,
        faults: &ENTERED,
        impossible: NEVER_ENTERED,
        ..PLACE
    },
    Site {
        call: "io_uring_enter",
        what: "a look, or what is taken back now",
        file: "monitor/io_uring.rs",
        numbers: ENTER,
        is_here: |asked| enter(asked) == Enter::Look,
        phases: ALONE,
        faults: &ENTERED,
        impossible: NEVER_ENTERED,
        ..PLACE
    },
    Site {
        call: "io_uring_enter",
        what: "polls are put in before a spin",
        file: "monitor/io_uring.rs",
        numbers: ENTER,
        is_here: |asked| enter(asked) == Enter::Submit,
        phases: ALONE,
        faults: &ENTERED,
        impossible: NEVER_ENTERED,
        ..PLACE
    },
    Site {
        call: "io_uring_enter",
        what: "any call in an outer loop",
        file: "monitor/io_uring.rs",
        numbers: ENTER,
        phases: &[Phase::Embed],
        faults: &EMBEDDED,
        impossible: NEVER_ENTERED,
        ..PLACE
    },
    Site {
        call: "io_uring_enter",
        what: "polls are taken back when a ring is closed",
        file: "monitor/io_uring.rs",
        numbers: ENTER,
        phases: &[Phase::Close],
        faults: &[
            fault("EAGAIN", RINGS, Again),
            fault("EBADF", RINGS, TAKEN_BACK),
            fault("EBADR", RINGS, TAKEN_BACK),
            fault("EBUSY", RINGS, Again),
            fault("EINTR", RINGS, Again),
            fault("EOPNOTSUPP", RINGS, TAKEN_BACK),
            fault("EPERM", RINGS, TAKEN_BACK),
        ],
        impossible: NEVER_ENTERED,
        ..PLACE
    },
];

const ENTERED: [crate::table::Fault; 7] = [
    fault("EAGAIN", RINGS_AND_AUTO, Again),
    fault("EBADF", RINGS_AND_AUTO, Moves(Epoll, "io_uring refused: EBADF (io_uring_enter)")),
    fault("EBADR", RINGS_AND_AUTO, Moves(Epoll, "io_uring refused: EBADR (io_uring_enter)")),
    fault("EBUSY", RINGS_AND_AUTO, Again),
    fault("EINTR", RINGS_AND_AUTO, Again),
    fault(
        "EOPNOTSUPP",
        RINGS_AND_AUTO,
        Moves(Epoll, "io_uring refused: EOPNOTSUPP (io_uring_enter)"),
    ),
    fault("EPERM", RINGS_AND_AUTO, Moves(Epoll, "io_uring refused: EPERM (io_uring_enter)")),
];

/// A deferred ring has become a cooperative one there.
const EMBEDDED: [crate::table::Fault; 7] = [
    fault("EAGAIN", RINGS, Again),
    fault("EBADF", RINGS, Moves(Epoll, "io_uring refused: EBADF (io_uring_enter)")),
    fault("EBADR", RINGS, Moves(Epoll, "io_uring refused: EBADR (io_uring_enter)")),
    fault("EBUSY", RINGS, Again),
    fault("EINTR", RINGS, Again),
    fault("EOPNOTSUPP", RINGS, Moves(Epoll, "io_uring refused: EOPNOTSUPP (io_uring_enter)")),
    fault("EPERM", RINGS, Moves(Epoll, "io_uring refused: EPERM (io_uring_enter)")),
];

const BY_FD: crate::table::Expect = Unnoticed("calls name the ring by its fd");
const KEPT: crate::table::Expect = Unnoticed("the thread has a place less, as long as it lives");
const TAKEN_BACK: crate::table::Expect =
    Unnoticed("the kernel takes them back itself, some time after the ring is closed");
