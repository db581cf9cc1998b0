//! ② The poll monitor: one ppoll(2) over the live handlers.
//!
//! The array is kept between calls and changed in place. A call costs what the number of watched
//! fds costs; there is nothing to set up, and files without a poll operation count as ready.

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::RawFd;
use rustix::io::Errno;

use super::{FdMonitor, MonitorToken, Sink, borrow, timespec};
use crate::interest::{Events, Interest};

const ABSENT: u32 = u32::MAX;

#[derive(Default)]
pub(crate) struct PollMonitor {
    fds: Vec<PollFd<'static>>,
    /// Whose entry of `fds` it is.
    tokens: Vec<MonitorToken>,
    /// Slot → index into both; the notifier's is kept apart.
    index: Vec<u32>,
    notifier: Option<u32>,
}

impl PollMonitor {
    fn position(&self, token: MonitorToken) -> Option<usize> {
        let at = if token == MonitorToken::NOTIFIER {
            self.notifier?
        } else {
            *self.index.get(token.slot() as usize)?
        };
        (at != ABSENT).then_some(at as usize)
    }

    fn set_position(&mut self, token: MonitorToken, at: u32) {
        if token == MonitorToken::NOTIFIER {
            self.notifier = Some(at);
            return;
        }
        let slot = token.slot() as usize;
        if slot >= self.index.len() {
            self.index.resize(slot + 1, ABSENT);
        }
        self.index[slot] = at;
    }
}

fn flags(interest: Interest) -> PollFlags {
    #[allow(clippy::cast_possible_truncation, reason = "IN, PRI and OUT fit 16 bits")]
    PollFlags::from_bits_retain(interest.to_events().bits() as _)
}

/// As the kernel has them, in 16 bits: signed ones with rustix's backend for libc, which another crate's
/// features, or Miri, may choose.
pub(super) fn bits(flags: PollFlags) -> u32 {
    i32::from(flags.bits()).cast_unsigned() & 0xffff
}

#[allow(clippy::cast_possible_truncation, reason = "there are fewer fds than 2^32")]
impl FdMonitor for PollMonitor {
    const SEES_READINESS: bool = false;

    fn update(
        &mut self,
        token: MonitorToken,
        fd: RawFd,
        old: Interest,
        new: Interest,
    ) -> Result<(), Errno> {
        match (old.is_empty(), new.is_empty()) {
            (true, false) => {
                self.set_position(token, self.fds.len() as u32);
                self.fds.push(PollFd::from_borrowed_fd(borrow(fd), flags(new)));
                self.tokens.push(token);
            }
            (false, false) => {
                if let Some(at) = self.position(token) {
                    self.fds[at] = PollFd::from_borrowed_fd(borrow(fd), flags(new));
                }
            }
            (false, true) => {
                if let Some(at) = self.position(token) {
                    self.fds.swap_remove(at);
                    self.tokens.swap_remove(at);
                    self.set_position(token, ABSENT);
                    if let Some(&moved) = self.tokens.get(at) {
                        self.set_position(moved, at as u32);
                    }
                }
            }
            (true, true) => {}
        }
        Ok(())
    }

    fn wait(&mut self, timeout: Option<u64>, sink: &mut impl Sink) -> Result<(), Errno> {
        let timeout = timeout.map(timespec);
        let mut left = poll(&mut self.fds, timeout.as_ref())?;
        for (fd, &token) in self.fds.iter().zip(&self.tokens) {
            if left == 0 {
                break;
            }
            let events = fd.revents();
            if !events.is_empty() {
                left -= 1;
                sink.ready(token, Events::from_bits_retain(bits(events)));
            }
        }
        Ok(())
    }
}
