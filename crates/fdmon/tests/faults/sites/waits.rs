//! The calls that wait.

use fdmon::ErrorCode::Syscall;
use fdmon::MonitorKind::Poll;

use crate::injector::{Asked, File};
use crate::table::Expect::{Again, Error, Moves, Unnoticed};
use crate::table::{ALIVE, On, PLACE, Phase, RINGS, Site, fault};

const PPOLL: &[i64] = &[libc::SYS_ppoll];
const ARRAY: (&str, &str) =
    ("EFAULT", "the array is a slice, and the timeout a value on the stack");

/// The one fd that is asked about.
fn alone(asked: &Asked<'_>) -> Option<File> {
    let (file, count) = asked.polled();
    (count == 1).then_some(file)
}

pub const WAITS: &[Site] = &[
    Site {
        call: "epoll_wait",
        what: "the epoll monitor waits",
        file: "monitor/epoll.rs",
        numbers: &[libc::SYS_epoll_pwait],
        phases: ALIVE,
        faults: &[
            fault("EINTR", &[On::Epoll], Again),
            fault("EBADF", &[On::Epoll], Moves(Poll, "epoll refused: EBADF (epoll_wait)")),
            fault("EINVAL", &[On::Epoll], Moves(Poll, "epoll refused: EINVAL (epoll_wait)")),
        ],
        impossible: &[("EFAULT", "the events go into a slice")],
        ..PLACE
    },
    Site {
        call: "ppoll",
        what: "the poll monitor waits",
        file: "monitor/poll.rs",
        numbers: PPOLL,
        is_here: |asked| asked.polled().0 == File::Notifier,
        phases: &[Phase::Register, Phase::Work, Phase::Grow],
        faults: &[
            fault("EINTR", &[On::Poll], Again),
            fault("EINVAL", &[On::Poll], Error(Syscall, "ulimit -n")),
            fault("ENOMEM", &[On::Poll], Error(Syscall, "memory")),
        ],
        impossible: &[ARRAY],
        ..PLACE
    },
    Site {
        call: "ppoll",
        what: "the poll monitor is asked while the context spins",
        file: "spin/mod.rs",
        numbers: PPOLL,
        is_here: |asked| asked.polled().0 == File::Notifier && !asked.sleeps(),
        phases: &[Phase::Spin],
        faults: &[
            fault("EINTR", &[On::Poll], Again),
            fault("EINVAL", &[On::Poll], Again),
            fault("ENOMEM", &[On::Poll], Again),
        ],
        impossible: &[ARRAY],
        ..PLACE
    },
    Site {
        call: "ppoll",
        what: "the epoll monitor waits for less than a millisecond",
        file: "monitor/epoll.rs",
        numbers: PPOLL,
        is_here: |asked| alone(asked) == Some(File::Epoll),
        phases: ALIVE,
        faults: &[
            fault("EINTR", &[On::Epoll], Again),
            fault("EINVAL", &[On::Epoll], ROUNDED),
            fault("ENOMEM", &[On::Epoll], ROUNDED),
        ],
        impossible: &[ARRAY],
        ..PLACE
    },
    Site {
        call: "ppoll",
        what: "is it urgent data that completed a poll?",
        file: "monitor/io_uring.rs",
        numbers: PPOLL,
        is_here: |asked| alone(asked) == Some(File::Socket),
        phases: &[Phase::Work],
        faults: &[
            fault("EINTR", RINGS, Again),
            fault("EINVAL", RINGS, BELIEVED),
            fault("ENOMEM", RINGS, BELIEVED),
        ],
        impossible: &[ARRAY],
        life: crate::lives::urgent,
        ..PLACE
    },
    Site {
        call: "ppoll",
        what: "a spin looks whether the outer loop has something to do",
        file: "embed.rs",
        numbers: PPOLL,
        is_here: |asked| alone(asked) == Some(File::Bell),
        phases: &[Phase::Embed],
        faults: &[
            fault("EINTR", SPINNING_EMBEDDED, TAKEN_FOR_NO),
            fault("EINVAL", SPINNING_EMBEDDED, TAKEN_FOR_NO),
            fault("ENOMEM", SPINNING_EMBEDDED, TAKEN_FOR_NO),
        ],
        impossible: &[ARRAY],
        ..PLACE
    },
];

/// Only a ring spins beside handlers that cannot be spun.
const SPINNING_EMBEDDED: &[On] = &[On::Deferred, On::Cooperative, On::Plain];
const ROUNDED: crate::table::Expect =
    Unnoticed("epoll_wait(2) waits instead, up to the next whole millisecond");
const BELIEVED: crate::table::Expect =
    Unnoticed("the completion is believed; a callback may run for nothing, but none is missing");
const TAKEN_FOR_NO: crate::table::Expect = Unnoticed("taken for no; it looks again 5 µs later");
