//! ② Wait: the monitors, each a file of the same shape, behind one contract.
//!
//! A monitor knows tokens, fds and interests, and nothing of handlers. It reports what the kernel
//! says and which fds the kernel refuses; what follows from that is decided in [`switch`].

#[cfg(wasi)]
mod absent;
pub(crate) mod busy_poll;
#[cfg(epoll)]
pub(crate) mod epoll;
#[cfg(io_uring)]
pub(crate) mod io_uring;
#[cfg(loom)]
pub(crate) mod model;
#[cfg(not(wasi))]
pub(crate) mod poll;
pub(crate) mod refusal;
#[cfg(io_uring)]
pub(crate) mod ring;
pub(crate) mod ring_features;
pub(crate) mod switch;
#[cfg(wasi)]
pub(crate) mod wasi;

#[cfg(wasi)]
pub(crate) use absent::{epoll, io_uring, poll};

#[cfg(not(wasi))]
use rustix::event::Timespec;
use rustix::fd::{BorrowedFd, RawFd};
use rustix::io::Errno;

use crate::config::BusyPoll;
use crate::interest::{Events, Interest};

/// Names a registration to the kernel: generation and slot. An event that carries an old
/// generation belongs to nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MonitorToken(pub u64);

impl MonitorToken {
    /// The context's own notifier.
    pub const NOTIFIER: Self = Self(u64::MAX);

    pub fn new(slot: u32, generation: u32) -> Self {
        Self(u64::from(generation) << 32 | u64::from(slot))
    }

    #[allow(clippy::cast_possible_truncation, reason = "the low half is the slot")]
    pub fn slot(self) -> u32 {
        self.0 as u32
    }

    #[allow(clippy::cast_possible_truncation, reason = "the high half is the generation")]
    pub fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// Who takes the reports of a wait.
pub(crate) trait Sink {
    /// What is reported is taken. Otherwise it must come again.
    const HEARS: bool = true;

    fn ready(&mut self, token: MonitorToken, events: Events);

    /// This readiness may be older than the handler's last callback: should it be asked for again?
    fn doubts(&mut self, token: MonitorToken) -> bool {
        let _ = token;
        false
    }

    /// The wait fails, although something was reported.
    fn trouble(&mut self) {}

    /// From now on the kernel watches this fd for one report.
    fn arming(&mut self, token: MonitorToken) {
        let _ = token;
    }
}

/// The contract of a monitor.
pub(crate) trait FdMonitor {
    /// It sees readiness in memory, without a system call, so that spinning never starves an fd.
    const SEES_READINESS: bool;

    /// Changes what is watched. `old` is what this monitor was told last; none = not watched.
    /// The error is the kernel's refusal, after which the fd is not watched.
    fn update(
        &mut self,
        token: MonitorToken,
        fd: RawFd,
        old: Interest,
        new: Interest,
    ) -> Result<(), Errno>;

    /// Asks the kernel for at most `timeout` nanoseconds (`None` = for ever) and hands each ready
    /// fd to `sink`. May return early and with nothing; the caller keeps the deadline.
    fn wait(&mut self, timeout: Option<u64>, sink: &mut impl Sink) -> Result<(), Errno>;

    /// Something is known to be ready, seen without a system call.
    fn need_wait(&self) -> bool {
        false
    }

    /// There is something that the kernel does not know yet.
    fn has_due(&self) -> bool {
        false
    }

    /// Hands the kernel what it does not know yet: before a spin, and before somebody else's sleep.
    /// What is ready is left to the next wait.
    fn submit_due(&mut self, sink: &mut impl Sink) -> Result<(), Errno> {
        let _ = sink;
        Ok(())
    }

    /// Sets kernel busy polling of network queues for its waits; `None` = off. The error is the
    /// kernel's refusal, after which what was in force stays so.
    fn busy_poll(&mut self, params: Option<BusyPoll>) -> Result<(), Errno> {
        params.map_or(Ok(()), |_| Err(Errno::OPNOTSUPP))
    }
}

/// The monitor that runs: matched once a turn, so that the spin loop is compiled once a monitor.
pub(crate) enum Monitor {
    Poll(poll::PollMonitor),
    Epoll(epoll::EpollMonitor),
    IoUring(Box<io_uring::UringMonitor>),
    #[cfg(wasi)]
    Wasi(wasi::WasiMonitor),
    #[cfg(loom)]
    Model(model::ModelMonitor),
}

impl Monitor {
    /// One that watches nothing.
    pub fn none() -> Self {
        #[cfg(wasi)]
        return Self::Wasi(wasi::WasiMonitor::default());
        #[cfg(not(wasi))]
        Self::Poll(poll::PollMonitor::default())
    }

    pub fn kind(&self) -> crate::config::MonitorKind {
        match self {
            Self::Poll(_) => crate::config::MonitorKind::Poll,
            Self::Epoll(_) => crate::config::MonitorKind::Epoll,
            Self::IoUring(_) => crate::config::MonitorKind::IoUring,
            #[cfg(wasi)]
            Self::Wasi(_) => crate::config::MonitorKind::Wasi,
            #[cfg(loom)]
            Self::Model(m) => m.kind(),
        }
    }

    /// The call by which it takes an fd.
    pub fn call_of_update(&self) -> &'static str {
        match self {
            Self::Poll(_) => "ppoll",
            Self::Epoll(_) => "epoll_ctl",
            Self::IoUring(_) => "io_uring_enter",
            #[cfg(wasi)]
            Self::Wasi(_) => "poll_oneoff",
            #[cfg(loom)]
            Self::Model(_) => unreachable!("the models' kernel takes every fd"),
        }
    }

    /// What wakes who watches it when the monitor has something; poll has no such fd.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Poll(_) => None,
            Self::Epoll(m) => Some(m.fd()),
            Self::IoUring(m) => Some(m.fd()),
            #[cfg(wasi)]
            Self::Wasi(_) => None,
            #[cfg(loom)]
            Self::Model(_) => None,
        }
    }

    pub fn sees_readiness(&self) -> bool {
        match self {
            Self::Poll(_) => poll::PollMonitor::SEES_READINESS,
            Self::Epoll(_) => epoll::EpollMonitor::SEES_READINESS,
            Self::IoUring(_) => io_uring::UringMonitor::SEES_READINESS,
            #[cfg(wasi)]
            Self::Wasi(_) => wasi::WasiMonitor::SEES_READINESS,
            #[cfg(loom)]
            Self::Model(m) => m.sees_readiness(),
        }
    }

    #[inline]
    pub fn need_wait(&self) -> bool {
        match self {
            Self::Poll(m) => m.need_wait(),
            Self::Epoll(m) => m.need_wait(),
            Self::IoUring(m) => m.need_wait(),
            #[cfg(wasi)]
            Self::Wasi(m) => m.need_wait(),
            #[cfg(loom)]
            Self::Model(m) => m.need_wait(),
        }
    }

    #[inline]
    pub fn has_due(&self) -> bool {
        match self {
            Self::Poll(m) => m.has_due(),
            Self::Epoll(m) => m.has_due(),
            Self::IoUring(m) => m.has_due(),
            #[cfg(wasi)]
            Self::Wasi(m) => m.has_due(),
            #[cfg(loom)]
            Self::Model(m) => m.has_due(),
        }
    }

    #[inline]
    pub fn submit_due(&mut self, sink: &mut impl Sink) -> Result<(), Errno> {
        match self {
            Self::Poll(m) => m.submit_due(sink),
            Self::Epoll(m) => m.submit_due(sink),
            Self::IoUring(m) => m.submit_due(sink),
            #[cfg(wasi)]
            Self::Wasi(m) => m.submit_due(sink),
            #[cfg(loom)]
            Self::Model(m) => m.submit_due(sink),
        }
    }

    #[inline]
    pub fn update(
        &mut self,
        token: MonitorToken,
        fd: RawFd,
        old: Interest,
        new: Interest,
    ) -> Result<(), Errno> {
        match self {
            Self::Poll(m) => m.update(token, fd, old, new),
            Self::Epoll(m) => m.update(token, fd, old, new),
            Self::IoUring(m) => m.update(token, fd, old, new),
            #[cfg(wasi)]
            Self::Wasi(m) => m.update(token, fd, old, new),
            #[cfg(loom)]
            Self::Model(m) => m.update(token, fd, old, new),
        }
    }

    #[inline]
    pub fn wait(&mut self, timeout: Option<u64>, sink: &mut impl Sink) -> Result<(), Errno> {
        match self {
            Self::Poll(m) => m.wait(timeout, sink),
            Self::Epoll(m) => m.wait(timeout, sink),
            Self::IoUring(m) => m.wait(timeout, sink),
            #[cfg(wasi)]
            Self::Wasi(m) => m.wait(timeout, sink),
            #[cfg(loom)]
            Self::Model(m) => m.wait(timeout, sink),
        }
    }

    pub fn busy_poll(&mut self, params: Option<BusyPoll>) -> Result<(), Errno> {
        match self {
            Self::Poll(m) => m.busy_poll(params),
            Self::Epoll(m) => m.busy_poll(params),
            Self::IoUring(m) => m.busy_poll(params),
            #[cfg(wasi)]
            Self::Wasi(m) => m.busy_poll(params),
            #[cfg(loom)]
            Self::Model(m) => m.busy_poll(params),
        }
    }
}

/// A timeout as the kernel takes it.
#[cfg(not(wasi))]
#[allow(clippy::cast_possible_wrap, reason = "a u64 of nanoseconds is at most 2^35 seconds")]
pub(crate) fn timespec(ns: u64) -> Timespec {
    Timespec { tv_sec: (ns / 1_000_000_000) as _, tv_nsec: (ns % 1_000_000_000) as _ }
}

/// The number is that of an open file.
#[cfg(not(wasi))]
pub(crate) fn is_open(fd: RawFd) -> bool {
    rustix::io::fcntl_getfd(borrow(fd)) != Err(Errno::BADF)
}

/// …or of a notifier.
#[cfg(wasi)]
pub(crate) fn is_open(fd: RawFd) -> bool {
    crate::bell::is_open(fd) || crate::wasi::kind_of(fd) != Err(Errno::BADF)
}

/// The fd that a user registered as a number.
#[allow(unsafe_code)]
pub(crate) fn borrow(fd: RawFd) -> BorrowedFd<'static> {
    debug_assert!(fd >= 0);
    // SAFETY: it is passed to system calls only, which answer EBADF or act on the file that the
    // number means now, when the user closed it against the rules; no memory depends on it.
    // -1, the one value that `BorrowedFd` may not hold, is refused at registration.
    unsafe { BorrowedFd::borrow_raw(fd) }
}
