//! What a row of the table is: where a call is made, which errno comes back, and what then happens.
//!
//! The words of a row are made of the values that its cases are checked against.

use std::fmt;
use std::sync::Arc;

use fdmon::faults::{Completed, Shape};
use fdmon::{ErrorCode, MonitorKind};
use rustix::io::Errno;

use crate::injector::{Asked, Manner, Rule, Stage};
use crate::ledger::Log;
use crate::world::live;

/// A kind of context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum On {
    Poll,
    Epoll,
    Deferred,
    Cooperative,
    Plain,
    Restricted,
    /// Queues that are too small for what the context does.
    SmallDeferred,
    SmallCooperative,
    SmallPlain,
    /// Requests that always say that they succeeded.
    Noisy,
    /// The best there is: a ring.
    Auto,
    /// `auto` without a ring: poll, and epoll from 64 fds on.
    AutoWithoutRing,
}

impl On {
    /// In the order of the declaration.
    pub const ALL: [Self; 12] = [
        Self::Poll,
        Self::Epoll,
        Self::Deferred,
        Self::Cooperative,
        Self::Plain,
        Self::Restricted,
        Self::SmallDeferred,
        Self::SmallCooperative,
        Self::SmallPlain,
        Self::Noisy,
        Self::Auto,
        Self::AutoWithoutRing,
    ];
}

pub const EVERYWHERE: &[On] =
    &[On::Poll, On::Epoll, On::Deferred, On::Cooperative, On::Plain, On::Auto, On::AutoWithoutRing];
/// A ring that was asked for.
pub const RINGS: &[On] = &[On::Deferred, On::Cooperative, On::Plain];
pub const RINGS_AND_AUTO: &[On] = &[On::Deferred, On::Cooperative, On::Plain, On::Auto];

impl On {
    pub fn needs_ring(self) -> bool {
        !matches!(self, Self::Poll | Self::Epoll | Self::AutoWithoutRing)
    }

    /// What its ring is like, if not as usual.
    pub fn shape(self) -> Option<Shape> {
        let (submissions, completions) = match self {
            Self::SmallDeferred | Self::SmallCooperative | Self::SmallPlain => (2, 4),
            Self::Noisy => (256, 1024),
            _ => return None,
        };
        Some(Shape { submissions, completions, noisy: self == Self::Noisy })
    }
}

impl fmt::Display for On {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Poll => "poll",
            Self::Epoll => "epoll",
            Self::Deferred => "io_uring",
            Self::Cooperative => "io_uring, cooperative",
            Self::Plain => "io_uring, plain",
            Self::Restricted => "io_uring, restricted",
            Self::SmallDeferred => "io_uring, small",
            Self::SmallCooperative => "io_uring, small and cooperative",
            Self::SmallPlain => "io_uring, small and plain",
            Self::Noisy => "io_uring without CQE_SKIP_SUCCESS",
            Self::Auto => "auto",
            Self::AutoWithoutRing => "auto without io_uring",
        })
    }
}

/// At work, before there is an outer loop.
pub const ALONE: &[Phase] =
    &[Phase::Spin, Phase::Register, Phase::Work, Phase::Grow, Phase::BusyPoll];
/// From the first handler on.
pub const ALIVE: &[Phase] =
    &[Phase::Spin, Phase::Register, Phase::Work, Phase::Grow, Phase::BusyPoll, Phase::Embed];

pub const ALWAYS: &[Phase] = &[
    Phase::Build,
    Phase::Spin,
    Phase::Register,
    Phase::Work,
    Phase::Grow,
    Phase::BusyPoll,
    Phase::Embed,
    Phase::Close,
];

/// Where in the life of a context the calls are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    Build,
    /// All handlers can be spun.
    Spin,
    /// The first handlers.
    Register,
    /// Events of all kinds.
    Work,
    /// Beyond 64 fds, and back.
    Grow,
    /// Kernel busy polling is asked for, and given up.
    BusyPoll,
    /// In an outer loop.
    Embed,
    Close,
}

/// What is expected of a context that met the fault.
#[derive(Clone, Copy, Debug)]
pub enum Expect {
    /// The call is made again, and nobody notices.
    Again,
    /// Nobody notices, for this reason.
    Unnoticed(&'static str),
    /// It goes on with another monitor, and `monitor_reason` has these words.
    Moves(MonitorKind, &'static str),
    /// It goes on with the monitor that it has, and `monitor_reason` has these words.
    Stays(&'static str),
    /// The call of the user that met it fails with a typed error that has these words, once.
    Error(ErrorCode, &'static str),
    /// The handler is removed, and reported as BAD_FD by the turn.
    BadFd,
    /// A callback was called for nothing, as a reader must expect; the event comes again.
    CalledAgain,
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Again => f.write_str("the call is made again"),
            Self::Unnoticed(why) => f.write_str(why),
            Self::Moves(to, reason) => {
                write!(f, "moves to {to}; `monitor_reason` says \"{reason}\"")
            }
            Self::Stays(reason) => write!(f, "stays as it is; `monitor_reason` says \"{reason}\""),
            Self::Error(code, words) => {
                write!(f, "{} with errno and call: \"{words}\"", code.as_str())
            }
            Self::BadFd => f.write_str("the handler is removed and reported once, as BAD_FD"),
            Self::CalledAgain => {
                f.write_str("`Ok(false)`: nothing was there; the event is reported again")
            }
        }
    }
}

/// One errno of a call.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub errno: &'static str,
    pub on: &'static [On],
    pub manner: Manner,
    pub expect: Expect,
    /// The errno that the error has.
    pub told: &'static str,
}

/// A table of places.
pub struct Group {
    pub title: &'static str,
    pub sites: &'static [Site],
}

impl Group {
    /// Which table it is, from 0.
    pub fn number(&self) -> usize {
        crate::sites::ALL.iter().position(|group| group.title == self.title).unwrap()
    }

    /// Not calls, but queues that are too small.
    pub fn is_of_queues(&self) -> bool {
        self.sites.iter().all(|site| site.phases.is_empty())
    }
}

/// A place where a call is made.
#[derive(Clone, Copy)]
pub struct Site {
    /// As man pages name it.
    pub call: &'static str,
    /// Not a call, but what completes on a ring.
    pub completed: Option<Completed>,
    /// What it is for.
    pub what: &'static str,
    pub file: &'static str,
    /// How many the filter asks about: the call may have several numbers.
    pub numbers: &'static [i64],
    /// Which of these calls are made here.
    pub is_here: fn(&Asked<'_>) -> bool,
    pub phases: &'static [Phase],
    pub faults: &'static [Fault],
    /// Names of errnos, and why this place never sees them.
    pub impossible: &'static [(&'static str, &'static str)],
    /// So many of them belong to another place, and the rest to this one…
    pub skip: u32,
    /// …but at most so many.
    pub most: u32,
    /// What is refused besides, so that this call is made at all.
    pub besides: Option<Besides>,
    /// With spinning or without, where that makes a difference.
    pub spins: &'static [bool],
    /// What the context lives through.
    pub life: Life,
    /// The call is made once a process, so each case has one of its own, in which this test runs.
    pub once: Option<&'static str>,
}

pub type Life = fn(On, bool, &Stage, &Arc<Log>);

/// What most places have.
pub const PLACE: Site = Site {
    call: "",
    completed: None,
    what: "",
    file: "",
    numbers: &[],
    is_here: |_| true,
    phases: &[],
    faults: &[],
    impossible: &[],
    skip: 0,
    most: u32::MAX,
    besides: None,
    spins: &[false, true],
    life: live,
    once: None,
};

/// Another fault that leads to the place.
#[derive(Clone, Copy)]
pub struct Besides {
    pub numbers: &'static [i64],
    pub is_here: fn(&Asked<'_>) -> bool,
    pub phases: &'static [Phase],
    pub errno: Errno,
    /// Each of them, not only the first.
    pub all: bool,
}

impl Site {
    /// Counts the calls that are made here.
    pub fn count(&self) -> Rule {
        Rule {
            completed: self.completed,
            numbers: self.numbers,
            is_here: self.is_here,
            phases: self.phases,
            errno: Errno::NOSYS,
            manner: Manner::Instead,
            nth: u32::MAX,
            and_later: false,
        }
    }

    pub fn rule(&self, fault: &Fault, nth: u32) -> Rule {
        let (errno, nth) = (errno(fault.errno), self.skip + nth);
        Rule { errno, manner: fault.manner, nth, ..self.count() }
    }
}

impl Besides {
    pub fn rule(&self) -> Rule {
        Rule {
            completed: None,
            numbers: self.numbers,
            is_here: self.is_here,
            phases: self.phases,
            errno: self.errno,
            manner: Manner::Instead,
            nth: 1,
            and_later: self.all,
        }
    }
}

/// Shorthands for the tables.
pub const fn fault(errno: &'static str, on: &'static [On], expect: Expect) -> Fault {
    Fault { errno, on, manner: Manner::Instead, expect, told: errno }
}

/// The C library makes another errno of it.
pub const fn told_as(told: &'static str, fault: Fault) -> Fault {
    Fault { told, ..fault }
}

pub const fn in_manner(manner: Manner, fault: Fault) -> Fault {
    Fault { manner, ..fault }
}

macro_rules! errnos {
    ($($name:literal $value:ident,)*) => {
        /// The errno of this name.
        pub fn errno(name: &str) -> Errno {
            match name {
                $($name => Errno::$value,)*
                _ => panic!("errno {name} is not in the list of the tests; add it"),
            }
        }
    };
}

errnos! {
    "EACCES" ACCESS, "EAGAIN" AGAIN, "EALREADY" ALREADY, "EBADF" BADF, "EBADFD" BADFD, "EBADR" BADR, "EBUSY" BUSY,
    "ECANCELED" CANCELED, "EDQUOT" DQUOT, "EEXIST" EXIST, "EFAULT" FAULT, "EINTR" INTR,
    "EINVAL" INVAL, "EIO" IO, "EISDIR" ISDIR, "ELOOP" LOOP, "EMFILE" MFILE,
    "ENAMETOOLONG" NAMETOOLONG, "ENFILE" NFILE, "ENODEV" NODEV, "ENOENT" NOENT, "ENOMEM" NOMEM,
    "ENOSPC" NOSPC, "ENOSYS" NOSYS, "ENOTDIR" NOTDIR, "ENOTTY" NOTTY, "ENXIO" NXIO,
    "EOPNOTSUPP" OPNOTSUPP, "EOVERFLOW" OVERFLOW, "EPERM" PERM, "ESRCH" SRCH,
}
