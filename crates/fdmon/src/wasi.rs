//! The calls of WASI preview 1 that the standard library and rustix do not have, as safe functions:
//! the clock, what a file is, and poll_oneoff.
#![allow(unsafe_code)] // each is one call, with memory that lives here

use std::mem::MaybeUninit;

use rustix::fd::RawFd;
use rustix::io::Errno;
use wasip1::{
    CLOCKID_MONOTONIC, EVENTRWFLAGS_FD_READWRITE_HANGUP, EVENTTYPE_CLOCK, EVENTTYPE_FD_READ,
    EVENTTYPE_FD_WRITE, Event, FILETYPE_DIRECTORY, FILETYPE_REGULAR_FILE, Subscription,
    SubscriptionClock, SubscriptionFdReadwrite, SubscriptionU, SubscriptionUU,
};

fn errno(errno: wasip1::Errno) -> Errno {
    Errno::from_raw_os_error(errno.raw().into())
}

/// The monotonic clock.
pub(crate) fn monotonic_ns() -> u64 {
    // SAFETY: it has no preconditions. Every host has this clock.
    unsafe { wasip1::clock_time_get(CLOCKID_MONOTONIC, 1) }.unwrap_or(0)
}

/// What can be known of a file before it is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Always ready; some hosts refuse to wait for it.
    File,
    /// To be waited for.
    Stream,
}

/// What kind of file it is.
pub(crate) fn kind_of(fd: RawFd) -> Result<Kind, Errno> {
    let Ok(fd) = u32::try_from(fd) else { return Err(Errno::BADF) };
    // SAFETY: it has no preconditions.
    let stat = unsafe { wasip1::fd_fdstat_get(fd) }.map_err(errno)?;
    Ok(match stat.fs_filetype {
        FILETYPE_REGULAR_FILE | FILETYPE_DIRECTORY => Kind::File,
        _ => Kind::Stream,
    })
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    Read(RawFd),
    Write(RawFd),
    /// So many nanoseconds.
    Clock(u64),
}

/// What has come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Report {
    /// Of which [`Wait`], by its place.
    pub at: usize,
    pub error: Option<Errno>,
    pub hung_up: bool,
}

/// Room for the calls of one monitor.
#[derive(Default)]
pub(crate) struct Poller {
    subscriptions: Vec<Subscription>,
    events: Vec<MaybeUninit<Event>>,
}

impl Poller {
    /// Sleeps until one of these comes. There must be at least one.
    pub fn wait(
        &mut self,
        waits: impl Iterator<Item = Wait>,
        mut each: impl FnMut(Report),
    ) -> Result<(), Errno> {
        self.subscriptions.clear();
        self.subscriptions.extend((0..).zip(waits).map(|(at, wait)| subscription(at, wait)));
        let count = self.subscriptions.len();
        self.events.resize_with(count, MaybeUninit::uninit);
        let into = self.events.as_mut_ptr().cast::<Event>();
        // SAFETY: as many subscriptions as it is told lie there, and there is room for an event of
        // each; both live until it returns.
        let came = unsafe { wasip1::poll_oneoff(self.subscriptions.as_ptr(), into, count) };
        let came = came.map_err(errno)?.min(count);
        for event in &self.events[..came] {
            // SAFETY: the host has written so many events.
            let event = unsafe { event.assume_init_ref() };
            let Ok(at) = usize::try_from(event.userdata) else { continue };
            let error = (event.error != wasip1::ERRNO_SUCCESS).then(|| errno(event.error));
            let is_clock = event.type_ == EVENTTYPE_CLOCK;
            let flags = if is_clock { 0 } else { event.fd_readwrite.flags };
            each(Report { at, error, hung_up: flags & EVENTRWFLAGS_FD_READWRITE_HANGUP != 0 });
        }
        Ok(())
    }
}

fn subscription(at: u64, wait: Wait) -> Subscription {
    let number = |fd: RawFd| SubscriptionFdReadwrite { file_descriptor: fd.cast_unsigned() };
    let u = match wait {
        Wait::Read(fd) => SubscriptionU {
            tag: EVENTTYPE_FD_READ.raw(),
            u: SubscriptionUU { fd_read: number(fd) },
        },
        Wait::Write(fd) => SubscriptionU {
            tag: EVENTTYPE_FD_WRITE.raw(),
            u: SubscriptionUU { fd_write: number(fd) },
        },
        Wait::Clock(timeout) => SubscriptionU {
            tag: EVENTTYPE_CLOCK.raw(),
            u: SubscriptionUU {
                clock: SubscriptionClock { id: CLOCKID_MONOTONIC, timeout, precision: 0, flags: 0 },
            },
        },
    };
    Subscription { userdata: at, u }
}
