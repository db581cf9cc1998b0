//! Threads, their clocks, and memory: what is asked of the process rather than of a file.

use fdmon::ErrorCode::Syscall;

use crate::injector::Asked;
use crate::lives::{io_thread, measured};
use crate::table::Expect::{Error, Unnoticed};
use crate::table::{
    ALIVE, ALWAYS, EVERYWHERE, On, PLACE, Phase, RINGS_AND_AUTO, Site, fault, told_as,
};

/// The test whose process a case has for itself.
const ONCE: &str = "every_failure_of_threads_clocks_and_memory_has_its_expected_result";
/// What is once a process does not depend on the monitor.
const ONE: &[On] = &[On::Epoll];

const WIPE_ON_FORK: u64 = libc::MADV_WIPEONFORK as u64;
const GET_SLACK: u64 = libc::PR_GET_TIMERSLACK as u64;
const SET_SLACK: u64 = libc::PR_SET_TIMERSLACK as u64;

/// A page of its own, as nobody else maps.
fn is_guard_page(asked: &Asked<'_>) -> bool {
    asked.fd(4) == -1 && asked.arg(1) == 4096 && asked.arg(3) & libc::MAP_PRIVATE as u64 != 0
}

fn is_slack(asked: &Asked<'_>, option: u64) -> bool {
    asked.at_home && asked.arg(0) == option
}

/// Of a thread that may be another one, or of the calling one.
fn is_cpu_clock(asked: &Asked<'_>, of_another: bool) -> bool {
    let clock = asked.arg(0) as i32;
    if of_another { clock < 0 } else { clock == libc::CLOCK_THREAD_CPUTIME_ID }
}

pub const PROCESS: &[Site] = &[
    Site {
        call: "clone",
        what: "IoThread::spawn: the thread",
        file: "io_thread/builder.rs",
        numbers: &[libc::SYS_clone3, libc::SYS_clone],
        phases: &[Phase::Build],
        faults: &[
            fault("EAGAIN", THREADS, Error(Syscall, "raise the limit of threads (ulimit -u)")),
            told_as(
                "EAGAIN",
                fault("ENOMEM", THREADS, Error(Syscall, "raise the limit of threads")),
            ),
            fault("EPERM", THREADS, Error(Syscall, "allow it in the sandbox")),
        ],
        impossible: &[
            (
                "EACCES EBUSY EEXIST EINVAL ENOSPC EOPNOTSUPP EUSERS",
                "are for namespaces, cgroups, and flags that the C library does not pass",
            ),
            ("ERESTARTNOINTR", "is never seen outside of the kernel"),
        ],
        spins: &[false],
        life: io_thread,
        ..PLACE
    },
    Site {
        call: "clock_gettime",
        what: "IoThread::busy_ns: the CPU time of the thread",
        file: "cpu_clock.rs",
        numbers: &[libc::SYS_clock_gettime],
        is_here: |asked| is_cpu_clock(asked, true),
        phases: &[Phase::Work],
        faults: &[fault(
            "EINVAL",
            THREADS,
            Unnoticed("the thread has ended: it is as busy as it was when last asked"),
        )],
        impossible: CLOCKS,
        spins: &[false],
        life: io_thread,
        ..PLACE
    },
    Site {
        call: "clock_gettime",
        what: "what CPU time does a wake-up take?",
        file: "clock.rs",
        numbers: &[libc::SYS_clock_gettime],
        is_here: |asked| is_cpu_clock(asked, false),
        phases: ALIVE,
        impossible: &[CLOCKS[0], CLOCKS[1], ("EINVAL", "the clock is as old as the call")],
        ..PLACE
    },
    Site {
        call: "prctl",
        what: "PR_GET_TIMERSLACK: how exact is a sleep?",
        file: "spin/wake_up.rs",
        numbers: &[libc::SYS_prctl],
        is_here: |asked| is_slack(asked, GET_SLACK),
        phases: ALWAYS,
        faults: &[fault("EINVAL", EVERYWHERE, Unnoticed("taken for exact"))],
        impossible: NO_SLACK,
        spins: &[true],
        life: measured,
        ..PLACE
    },
    Site {
        call: "prctl",
        what: "PR_SET_TIMERSLACK: exact sleeps for a measurement, and back",
        file: "spin/wake_up.rs",
        numbers: &[libc::SYS_prctl],
        is_here: |asked| is_slack(asked, SET_SLACK),
        phases: ALWAYS,
        faults: &[fault(
            "EINVAL",
            ONE,
            Unnoticed("the slack is taken off what was measured; or the thread stays exact"),
        )],
        impossible: NO_SLACK,
        spins: &[true],
        life: measured,
        once: Some(ONCE),
        ..PLACE
    },
    Site {
        call: "nanosleep",
        what: "what latency does a wake-up have?",
        file: "spin/wake_up.rs",
        numbers: &[libc::SYS_nanosleep],
        is_here: |asked| asked.at_home,
        phases: ALWAYS,
        faults: &[fault(
            "EINTR",
            ONE,
            Unnoticed("one of five sleeps is shorter; the median counts"),
        )],
        impossible: &[
            ("EFAULT", "the time is a value on the stack"),
            ("EINVAL", "the time has less than 10⁹ nanoseconds"),
        ],
        spins: &[true],
        life: measured,
        once: Some(ONCE),
        ..PLACE
    },
    Site {
        call: "sched_yield",
        what: "a spin lets others run",
        file: "spin/mod.rs",
        numbers: &[libc::SYS_sched_yield],
        phases: ALIVE,
        ..PLACE
    },
    Site {
        call: "mmap",
        what: "the page that tells a forked child",
        file: "fork.rs",
        numbers: &[libc::SYS_mmap],
        is_here: is_guard_page,
        phases: ALWAYS,
        faults: &[
            fault("EAGAIN", ONE, UNGUARDED),
            fault("ENOMEM", ONE, UNGUARDED),
            fault("EPERM", ONE, UNGUARDED),
        ],
        impossible: &[
            ("EACCES EBADF ENFILE ENODEV EOVERFLOW ETXTBSY", "are for files"),
            ("EEXIST EINVAL", "no address is asked for, and the length is a page"),
        ],
        spins: &[false],
        once: Some(ONCE),
        ..PLACE
    },
    Site {
        call: "madvise",
        what: "MADV_WIPEONFORK: a forked child finds it empty",
        file: "fork.rs",
        numbers: &[libc::SYS_madvise],
        is_here: |asked| asked.arg(2) == WIPE_ON_FORK,
        phases: ALWAYS,
        faults: &[
            fault("EAGAIN", ONE, UNGUARDED),
            fault("EINVAL", ONE, UNGUARDED),
            fault("ENOMEM", ONE, UNGUARDED),
        ],
        impossible: &[("EACCES EBADF EBUSY EFAULT EHWPOISON EIO EPERM", "are for other advice")],
        spins: &[false],
        once: Some(ONCE),
        ..PLACE
    },
    Site {
        call: "munmap",
        what: "the queues and the entries of a ring",
        file: "monitor/ring.rs",
        numbers: &[libc::SYS_munmap],
        is_here: |asked| asked.unmaps_ring(),
        phases: ALWAYS,
        faults: &[fault(
            "ENOMEM",
            RINGS_AND_AUTO,
            Unnoticed("they stay mapped as long as the process lives"),
        )],
        impossible: &[("EINVAL", "address and length are those of mmap(2)")],
        spins: &[false],
        ..PLACE
    },
];

const THREADS: &[On] = &[On::Poll, On::Epoll, On::Deferred];
const CLOCKS: &[(&str, &str)] = &[
    ("EACCES ENODEV ENOTSUP EPERM", "are for clocks that are devices, or set"),
    ("EFAULT", "the time is a value on the stack"),
];
const NO_SLACK: &[(&str, &str)] =
    &[("EACCES EBADF EBUSY EFAULT ENODEV ENXIO EOPNOTSUPP EPERM ERANGE", "are for other options")];
const UNGUARDED: crate::table::Expect =
    Unnoticed("a child that is forked is not told that the context is its parent's");
