//! The ring of the io_uring monitor.

use fdmon::ErrorCode::Unsupported;
use fdmon::MonitorKind::{Epoll, Poll};
use fdmon::faults::Completed;
use rustix::io::Errno;

use crate::injector::{Asked, File};
use crate::table::Expect::{Again, BadFd as Removed, Error, Moves, Unnoticed};
use crate::table::{ALONE, Besides, Fault, On, PLACE, Phase, RINGS, RINGS_AND_AUTO, Site, fault};

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
    ONE_THREAD,
    ("EFAULT", "the timeout is a value on the stack"),
    ("EINVAL", "each flag belongs to a feature that the ring has said to have"),
    ("ENXIO", "a ring is torn down when its last descriptor is closed"),
];
const NO_PARAMETERS: &[(&str, &str)] = &[
    ("EFAULT", "the parameters are a value on the stack"),
    ("ENXIO", "no ring is named whose threads were to be shared"),
];
const ONE_THREAD: (&str, &str) = ("EEXIST", "a context stays in the thread that made it");
const NEVER_REGISTERED: &[(&str, &str)] = &[
    ("EBADF EFAULT", "ring and argument are owned"),
    ("EBADFD", "a ring that is restricted begins disabled, and is enabled once"),
    ("ENXIO EOPNOTSUPP", "no buffers or files are registered"),
    ONE_THREAD,
];

pub const RING: &[Site] = &[
    Site {
        call: "io_uring_setup",
        what: "the ring of a context that is to have io_uring",
        file: "monitor/ring.rs",
        numbers: SETUP,
        phases: &[Phase::Build],
        faults: &[
            fault(
                "EINVAL",
                RINGS_AND_AUTO,
                Unnoticed("an older kernel: a ring of a simpler kind is made"),
            ),
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
        impossible: NO_PARAMETERS,
        spins: &[false],
        ..PLACE
    },
    Site {
        call: "io_uring_setup",
        what: "a cooperative ring takes the place of a deferred one, for an outer loop",
        file: "monitor/switch.rs",
        numbers: SETUP,
        phases: &[Phase::Embed],
        faults: &[
            fault(
                "EINVAL",
                DEFERRED,
                Unnoticed("an older kernel: a ring of a simpler kind is made"),
            ),
            fault("EMFILE", DEFERRED, Error(Unsupported, "raise the limit (ulimit -n)")),
            fault("ENFILE", DEFERRED, Error(Unsupported, "fs.file-max")),
            fault("ENOMEM", DEFERRED, Error(Unsupported, "raise the limits on memory")),
            fault("EPERM", DEFERRED, Error(Unsupported, "seccomp profile")),
        ],
        impossible: NO_PARAMETERS,
        spins: &[false],
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
        spins: &[false],
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
        spins: &[false],
        ..PLACE
    },
    Site {
        call: "io_uring_register",
        what: "UNREGISTER_RING_FDS: the place is given back",
        file: "monitor/ring.rs",
        numbers: REGISTER,
        is_here: |asked| asked.arg(1) == FORGET_RING_FDS,
        phases: &[Phase::Embed, Phase::Close],
        faults: &[fault("EINVAL", RINGS_AND_AUTO, KEPT), fault("ENOMEM", RINGS_AND_AUTO, KEPT)],
        impossible: &[
            ("EACCES EBUSY EMFILE", "are for REGISTER"),
            ("EBADF EFAULT", "ring and argument are owned"),
            ("EBADFD", "a ring that is restricted begins disabled, and is enabled once"),
            ("ENXIO EOPNOTSUPP", "no buffers or files are registered"),
            ONE_THREAD,
        ],
        spins: &[false],
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
        faults: &[fault(
            "ENOMEM",
            &[On::Restricted],
            Error(Unsupported, "leave out ring.restricted"),
        )],
        impossible: &[
            ("EACCES EBUSY EMFILE", "a new ring has no restrictions, buffers or files"),
            ("EBADF EFAULT", "ring and argument are owned"),
            ("EBADFD", "the ring begins disabled, and is enabled once"),
            ("EINVAL", "see the next row"),
            ("ENXIO EOPNOTSUPP", "no buffers or files are registered"),
            ONE_THREAD,
        ],
        spins: &[false],
        ..PLACE
    },
    Site {
        call: "io_uring_register",
        what: "RESTRICTIONS: a kernel that knows fewer of them",
        file: "monitor/ring.rs",
        numbers: REGISTER,
        is_here: |asked| asked.arg(1) == RESTRICTIONS,
        phases: &[Phase::Build],
        faults: &[fault(
            "EINVAL",
            &[On::Restricted],
            Unnoticed("the newest are left out, kernel busy polling first"),
        )],
        life: crate::world::live_without_busy_poll,
        impossible: &[(
            "EACCES EBADF EBADFD EBUSY EEXIST EFAULT EMFILE ENOMEM ENXIO EOPNOTSUPP",
            "see the row above",
        )],
        spins: &[false],
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
            ONE_THREAD,
        ],
        spins: &[false],
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
            "EACCES EBADF EBADFD EBUSY EEXIST EFAULT EMFILE ENXIO",
            "see the row above",
        )],
        spins: &[false],
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
        spins: &[false],
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
        what: "the first call on the cooperative ring that takes the place of a deferred one",
        file: "monitor/switch.rs",
        numbers: ENTER,
        phases: &[Phase::Embed],
        most: 1,
        faults: &[
            fault("EAGAIN", DEFERRED, Again),
            fault("EBADF", DEFERRED, Error(Unsupported, "use 'auto'")),
            fault("EBADR", DEFERRED, Error(Unsupported, "use 'auto'")),
            fault("EBUSY", DEFERRED, Again),
            fault("EINTR", DEFERRED, Again),
            fault("EOPNOTSUPP", DEFERRED, Error(Unsupported, "use 'auto'")),
            fault("EPERM", DEFERRED, Error(Unsupported, "seccomp profile")),
        ],
        impossible: NEVER_ENTERED,
        spins: &[false],
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

const ENTERED: [Fault; 7] = [
    fault("EAGAIN", ENTERING, Again),
    fault("EBADF", ENTERING, Moves(Epoll, "io_uring refused: EBADF (io_uring_enter)")),
    fault("EBADR", ENTERING, Moves(Epoll, "io_uring refused: EBADR (io_uring_enter)")),
    fault("EBUSY", ENTERING, Again),
    fault("EINTR", ENTERING, Again),
    fault("EOPNOTSUPP", ENTERING, Moves(Epoll, "io_uring refused: EOPNOTSUPP (io_uring_enter)")),
    fault("EPERM", ENTERING, Moves(Epoll, "io_uring refused: EPERM (io_uring_enter)")),
];

const ENTERING: &[On] = &[
    On::Deferred,
    On::Cooperative,
    On::Plain,
    On::SmallDeferred,
    On::SmallCooperative,
    On::SmallPlain,
    On::Auto,
];

/// A deferred ring has become a cooperative one there.
const WAKERS: &[On] = &[On::Cooperative, On::Plain];
const EMBEDDED: [Fault; 7] = [
    fault("EAGAIN", WAKERS, Again),
    fault("EBADF", WAKERS, Moves(Epoll, "io_uring refused: EBADF (io_uring_enter)")),
    fault("EBADR", WAKERS, Moves(Epoll, "io_uring refused: EBADR (io_uring_enter)")),
    fault("EBUSY", WAKERS, Again),
    fault("EINTR", WAKERS, Again),
    fault("EOPNOTSUPP", WAKERS, Moves(Epoll, "io_uring refused: EOPNOTSUPP (io_uring_enter)")),
    fault("EPERM", WAKERS, Moves(Epoll, "io_uring refused: EPERM (io_uring_enter)")),
];

/// What completes.
pub const COMPLETIONS: &[Site] = &[
    Site {
        call: "IORING_OP_POLL_ADD",
        completed: Some(Completed::Poll),
        what: "a handler's fd is ready, or could not be watched",
        file: "monitor/io_uring.rs",
        phases: ALONE,
        faults: &[
            fault("EAGAIN", COMPLETING, Again),
            fault("ECANCELED", COMPLETING, Again),
            fault("EINTR", COMPLETING, Again),
            fault("EINVAL", COMPLETING, Moves(Epoll, "io_uring refused: EINVAL (io_uring_enter)")),
            fault("ENOMEM", COMPLETING, Again),
        ],
        impossible: &[
            ("EACCES", "is among what a restricted ring may do"),
            ("EBADF", "see the next row"),
            ("EFAULT", "there is no memory in it"),
            ("EOPNOTSUPP", "the operation is older than the features that the ring must have"),
        ],
        ..PLACE
    },
    Site {
        call: "IORING_OP_POLL_ADD",
        completed: Some(Completed::Poll),
        what: "a handler's fd was closed while registered",
        file: "monitor/io_uring.rs",
        phases: &[Phase::Work],
        faults: &[fault("EBADF", COMPLETING, Removed)],
        impossible: &[(
            "EACCES EAGAIN ECANCELED EFAULT EINTR EINVAL ENOMEM EOPNOTSUPP",
            "see the row above",
        )],
        life: crate::lives::closed_on_ring,
        ..PLACE
    },
    Site {
        call: "IORING_OP_POLL_ADD",
        completed: Some(Completed::Poll),
        what: "a handler's fd is ready, which was not believed",
        file: "monitor/io_uring.rs",
        phases: &[Phase::Work],
        faults: &[
            fault("EAGAIN", COMPLETING, Again),
            fault("EINTR", COMPLETING, Again),
            fault("ENOMEM", COMPLETING, Again),
        ],
        impossible: &[(
            "EACCES EBADF ECANCELED EFAULT EINVAL EOPNOTSUPP",
            "see \"a handler's fd is ready, or could not be watched\"",
        )],
        life: crate::lives::not_believed,
        // The third round's; before it the predicate and the fd are seen in one turn.
        skip: 3,
        spins: &[true],
        ..PLACE
    },
    Site {
        call: "IORING_OP_POLL_ADD",
        completed: Some(Completed::Notifier),
        what: "the notifier was written, or could not be watched",
        file: "monitor/io_uring.rs",
        phases: ALONE,
        faults: &[
            fault("EAGAIN", COMPLETING, Again),
            fault("ECANCELED", COMPLETING, Again),
            fault("EINTR", COMPLETING, Again),
            fault(
                "EINVAL",
                &[On::Deferred, On::Cooperative, On::Noisy],
                Unnoticed("an older kernel: from now on it is watched for one write at a time"),
            ),
            fault(
                "EINVAL",
                &[On::Plain],
                Moves(Epoll, "io_uring refused: EINVAL (io_uring_enter)"),
            ),
            fault("ENOMEM", COMPLETING, Again),
        ],
        impossible: &[
            ("EACCES", "is among what a restricted ring may do"),
            ("EBADF", "the notifier is owned"),
            ("EFAULT", "there is no memory in it"),
            ("EOPNOTSUPP", "the operation is older than the features that the ring must have"),
        ],
        ..PLACE
    },
    Site {
        call: "IORING_OP_POLL_REMOVE",
        completed: Some(Completed::Change),
        what: "the interest of a handler was changed, or not",
        file: "monitor/io_uring.rs",
        phases: ALONE,
        faults: &[
            fault("EAGAIN", &[On::Noisy], CHANGED_ANEW),
            fault("EALREADY", &[On::Noisy], CHANGED_ANEW),
            fault("ECANCELED", &[On::Noisy], CHANGED_ANEW),
            fault("EINTR", &[On::Noisy], CHANGED_ANEW),
            fault("EINVAL", &[On::Noisy], CHANGED_ANEW),
            fault("ENOENT", &[On::Noisy], CHANGED_ANEW),
            fault("ENOMEM", &[On::Noisy], CHANGED_ANEW),
        ],
        impossible: &[
            ("EACCES", "is among what a restricted ring may do"),
            ("EBADF EFAULT", "there is no fd and no memory in it"),
            ("EOPNOTSUPP", "the operation is older than the features that the ring must have"),
        ],
        ..PLACE
    },
    Site {
        call: "IORING_OP_ASYNC_CANCEL",
        completed: Some(Completed::Cancel),
        what: "a handler's poll was taken back, or had completed",
        file: "monitor/io_uring.rs",
        phases: ALONE,
        faults: &[
            fault("EAGAIN", &[On::Noisy], NOT_READ),
            fault("EALREADY", &[On::Noisy], NOT_READ),
            fault("ECANCELED", &[On::Noisy], NOT_READ),
            fault("EINTR", &[On::Noisy], NOT_READ),
            fault("ENOENT", &[On::Noisy], NOT_READ),
            fault("ENOMEM", &[On::Noisy], NOT_READ),
        ],
        impossible: &[
            ("EACCES", "is among what a restricted ring may do"),
            ("EBADF EFAULT EINVAL", "there is no fd, no memory and no flag in it"),
            ("EOPNOTSUPP", "the operation is older than the features that the ring must have"),
        ],
        ..PLACE
    },
];

const SMALL: &[On] = &[On::SmallDeferred, On::SmallCooperative, On::SmallPlain];

/// No errnos, but what else can be short.
pub const FULL: Site = Site {
    call: "submission queue",
    what: "polls are put in, 2 of which fit",
    file: "monitor/io_uring.rs",
    faults: &[fault("full", SMALL, Unnoticed("some are submitted, which makes room"))],
    ..PLACE
};
pub const OVERFLOW: Site = Site {
    call: "completion queue",
    what: "polls complete, 4 of which fit",
    file: "monitor/io_uring.rs",
    faults: &[fault(
        "overflow",
        SMALL,
        Unnoticed("the kernel keeps the others aside, and is asked for them"),
    )],
    ..PLACE
};

const COMPLETING: &[On] = &[
    On::Deferred,
    On::Cooperative,
    On::Plain,
    On::SmallDeferred,
    On::SmallCooperative,
    On::SmallPlain,
    On::Noisy,
];
const CHANGED_ANEW: crate::table::Expect =
    Unnoticed("the poll is taken back, and put in as it is wanted now");
const NOT_READ: crate::table::Expect =
    Unnoticed("what became of the poll is told by its own completion");

const BY_FD: crate::table::Expect = Unnoticed("calls name the ring by its fd");
const KEPT: crate::table::Expect = Unnoticed("the thread has a place less, as long as it lives");
const TAKEN_BACK: crate::table::Expect =
    Unnoticed("the kernel takes them back itself, some time after the ring is closed");
