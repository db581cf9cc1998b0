//! What the halves of a port share: its words, its bell, and whether it is over.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};

use rustix::fd::{AsFd, BorrowedFd};

use super::ring::{Consumer, PortWords, Producer, Ring, Sent};
use super::{Bell, ChannelEnd, ChannelSide, Memory};
use crate::error::{Error, ErrorCode, Result};
use crate::fork::Home;
use crate::sync::{Arc, in_order, kept};

/// Values of `over`.
const OPEN: u8 = 0;
const CLOSED: u8 = 1;
const DIED: u8 = 2;
const CORRUPT: u8 = 3;
/// Given up unused, to be claimed by somebody else.
const HANDED_OVER: u8 = 4;

/// One port, of which this is the owner.
pub(super) struct Endpoint {
    pub memory: Arc<Memory>,
    pub bell: Bell,
    pub side: ChannelSide,
    /// A forked child is not the owner.
    home: Home,
    over: AtomicU8,
    /// The bell hung up: nobody has the other end any more.
    hung_up: AtomicBool,
}

impl Endpoint {
    /// The port is claimed.
    pub fn new(memory: Arc<Memory>, bell: Bell, side: ChannelSide) -> Self {
        let (over, hung_up) = (AtomicU8::new(OPEN), AtomicBool::new(false));
        Self { memory, bell, side, home: Home::here(), over, hung_up }
    }

    #[inline]
    pub fn own(&self) -> PortWords<'_> {
        self.memory.port(self.side)
    }

    #[inline]
    pub fn peer(&self) -> PortWords<'_> {
        self.memory.port(self.side.other())
    }

    /// The ring that it produces.
    #[inline]
    pub fn out(&self) -> Ring<'_> {
        self.memory.ring(self.side)
    }

    /// The ring that it consumes.
    #[inline]
    pub fn incoming(&self) -> Ring<'_> {
        self.memory.ring(self.side.other())
    }

    pub fn end(&self) -> Option<ChannelEnd> {
        match self.over.load(Relaxed) {
            OPEN => None,
            DIED => Some(ChannelEnd::PeerDied),
            CORRUPT => Some(ChannelEnd::Corrupt),
            _ => Some(ChannelEnd::Closed),
        }
    }

    #[inline]
    pub fn check(&self) -> Result<()> {
        if self.over.load(Relaxed) == OPEN && self.home.is_here() { Ok(()) } else { self.refuse() }
    }

    #[cold]
    fn refuse(&self) -> Result<()> {
        let what = match self.end() {
            Some(end) => return Err(is_over(end)),
            None => {
                "the channel's port belongs to the parent of this forked process; hand the \
                     child a port of its own by into_fds and from_fds"
            }
        };
        Err(Error::new(ErrorCode::Closed, what))
    }

    #[inline]
    pub fn ring_peer(&self) {
        if self.bell.ring() {
            self.hung_up.store(true, Relaxed);
        }
    }

    /// Rule 2. `false` = full.
    #[inline]
    pub fn send(&self, producer: &mut Producer, message: &[u8]) -> Result<bool> {
        self.check()?;
        if message.len() > self.memory.capacity() as usize {
            return Err(too_long(message.len(), self.memory.capacity()));
        }
        if let Some(end) = self.peer_end() {
            if end == ChannelEnd::Corrupt {
                self.finish(end);
            }
            return Err(is_over(end));
        }
        match producer.send(self.out(), self.own(), self.peer(), message) {
            Ok(Sent::Full) => Ok(false),
            Ok(Sent::Seen) => Ok(true),
            Ok(Sent::Ring) => {
                self.ring_peer();
                Ok(true)
            }
            Err(end) => {
                self.finish(end);
                Err(is_over(end))
            }
        }
    }

    /// The next message, up to the `head` that was loaded last.
    #[inline]
    pub fn take(
        &self,
        consumer: &mut Consumer,
        message: &mut Vec<u8>,
    ) -> std::result::Result<(), ChannelEnd> {
        if consumer.take(self.incoming(), self.peer(), message)? {
            self.ring_peer();
        }
        Ok(())
    }

    /// How the other side ended, if it did. What it sent before is seen by who looks after this.
    #[inline]
    pub fn peer_end(&self) -> Option<ChannelEnd> {
        // In this order: one that closed said so before it let go of the bell.
        let hung_up = self.hung_up.load(Relaxed);
        self.peer().ended().or(hung_up.then_some(ChannelEnd::PeerDied))
    }

    /// Rule 6: the bell has been heard.
    pub fn hear(&self) {
        if self.own().heard(|| self.bell.clear()) {
            self.hung_up.store(true, Relaxed);
        }
    }

    /// Rules 6 and 8, after the bell has been heard: takes what is there, then at the end what that
    /// is. `take` is asked whether there was something.
    #[inline]
    pub fn then_end<T>(&self, take: impl FnOnce() -> T) -> (Option<ChannelEnd>, T) {
        in_order("end: order", || self.peer_end(), take)
    }

    /// The port is over, once: says so, rings, and wakes whoever of this side waits.
    pub fn finish(&self, end: ChannelEnd) {
        let over = match end {
            ChannelEnd::Closed => CLOSED,
            ChannelEnd::PeerDied => DIED,
            ChannelEnd::Corrupt => CORRUPT,
        };
        let is_first = self.over.compare_exchange(OPEN, over, Relaxed, Relaxed).is_ok();
        if !is_first || !self.home.is_here() {
            return;
        }
        if self.own().close(self.peer()) {
            self.ring_peer();
        }
        if kept("close channel: shut") {
            self.bell.shut();
        }
    }

    /// Gives the port up as if it had never been claimed.
    #[cfg(not(loom))]
    pub fn hand_over(&self) {
        if self.over.swap(HANDED_OVER, Relaxed) == OPEN {
            self.own().state.store(super::ring::FREE, crate::sync::Ordering::Release);
        }
    }
}

impl AsFd for Endpoint {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

#[cold]
pub(super) fn is_over(end: ChannelEnd) -> Error {
    let message = match end {
        ChannelEnd::Closed => "the channel is closed; make a new one",
        ChannelEnd::PeerDied => "the other side of the channel died; make a new one",
        ChannelEnd::Corrupt => "the memory of the channel is corrupt; make a new one",
    };
    Error::new(ErrorCode::Closed, message)
}

#[cold]
fn too_long(length: usize, capacity: u32) -> Error {
    let expected = format!("at most {capacity} bytes, or make the channel larger");
    Error::invalid_arg("message", format_args!("{length} bytes"), expected)
}

#[cfg(not(loom))]
pub(super) fn duplicate(fd: BorrowedFd<'_>) -> Result<rustix::fd::OwnedFd> {
    rustix::io::fcntl_dupfd_cloexec(fd, 0)
        .map_err(|e| Error::syscall("fcntl", e, "see F_DUPFD_CLOEXEC in fcntl(2)"))
}
