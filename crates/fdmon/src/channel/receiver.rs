//! The half of a port that receives, for whoever has no loop, or brings it into one.

use std::fmt;
use std::time::{Duration, Instant};

use rustix::fd::{AsFd, BorrowedFd};

use super::endpoint::{Endpoint, is_over};
use super::ring::Consumer;
use super::{ChannelEnd, ChannelSide};
use crate::error::Result;
use crate::sync::{Arc, kept};

/// Receives on one port of a channel; made by [`ChannelPort::split`](crate::ChannelPort::split).
/// Dropping it closes the port.
///
/// ```
/// let (one, mut two) = fdmon::ChannelPort::pair(64)?;
/// let (_sender, mut receiver) = one.split();
/// two.send(b"hello")?;
/// assert_eq!(receiver.receive()?.unwrap(), b"hello");
/// # Ok::<(), fdmon::Error>(())
/// ```
pub struct ChannelReceiver {
    pub(super) shared: Arc<Endpoint>,
    pub(super) consumer: Consumer,
}

impl ChannelReceiver {
    pub(super) fn new(shared: Arc<Endpoint>) -> Self {
        Self { shared, consumer: Consumer::default() }
    }

    /// The next message. `None` = there is none now.
    ///
    /// It makes no system call, so it does not hear the bell: the death of the other side is noticed
    /// by [`wait`](Self::wait), or by a loop.
    ///
    /// # Errors
    /// `Closed` when the channel is over and everything was received; [`end`](Self::end) says how.
    pub fn receive(&mut self) -> Result<Option<Vec<u8>>> {
        let mut message = Vec::new();
        Ok(self.receive_into(&mut message)?.then_some(message))
    }

    /// The next message, in place of what is in `message`, whose memory is used again. `false` =
    /// there is none now, and what is in `message` is of no use.
    ///
    /// ```
    /// let (one, mut two) = fdmon::ChannelPort::pair(64)?;
    /// let (_sender, mut receiver) = one.split();
    /// two.send(b"hello")?;
    /// let mut message = Vec::with_capacity(receiver.capacity());
    /// assert!(receiver.receive_into(&mut message)?);
    /// assert_eq!(message, b"hello");
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    #[inline]
    pub fn receive_into(&mut self, message: &mut Vec<u8>) -> Result<bool> {
        self.shared.check()?;
        self.take_or_look(message).map_err(|end| {
            self.shared.finish(end);
            is_over(end)
        })
    }

    #[inline]
    fn take_or_look(&mut self, message: &mut Vec<u8>) -> std::result::Result<bool, ChannelEnd> {
        if self.take(message)? {
            return Ok(true);
        }
        let Self { shared, consumer } = self;
        let look = || consumer.look(shared.incoming());
        let (end, has_some) = shared.then_end(look);
        match (has_some?, end) {
            (true, _) => self.take(message),
            (false, Some(end)) => Err(end),
            (false, None) => Ok(false),
        }
    }

    #[inline]
    fn take(&mut self, message: &mut Vec<u8>) -> std::result::Result<bool, ChannelEnd> {
        let Self { shared, consumer } = self;
        if !consumer.has_some() && !consumer.look(shared.incoming())? {
            return Ok(false);
        }
        shared.take(consumer, message).map(|()| true)
    }

    /// Sleeps until there is a message, or the end. `false` = not within this time.
    ///
    /// ```
    /// use std::time::Duration;
    /// let (one, mut two) = fdmon::ChannelPort::pair(64)?;
    /// let (_sender, mut receiver) = one.split();
    /// assert!(!receiver.wait(Some(Duration::ZERO))?);
    /// std::thread::spawn(move || two.send(b"hello"));
    /// assert!(receiver.wait(None)?);
    /// assert_eq!(receiver.receive()?.unwrap(), b"hello");
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Closed` when the channel is over; `Syscall`.
    pub fn wait(&mut self, timeout: Option<Duration>) -> Result<bool> {
        self.wait_or(timeout, || Ok(false))
    }

    /// …or until something else has come that the bell rings for.
    pub(super) fn wait_or(
        &mut self,
        timeout: Option<Duration>,
        mut or: impl FnMut() -> std::result::Result<bool, ChannelEnd>,
    ) -> Result<bool> {
        self.shared.check()?;
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut heard = false;
        while !self.has_news(&mut or) {
            if heard {
                if !self.shared.bell.wait(until)? {
                    return Ok(false);
                }
                heard = false;
                continue;
            }
            self.shared.hear();
            heard = true;
            if !kept("hear: look") && !self.shared.bell.wait(until)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// There is a message, the end, or what else was waited for. What is corrupt is told by who
    /// receives or sends next.
    fn has_news(&mut self, or: &mut impl FnMut() -> std::result::Result<bool, ChannelEnd>) -> bool {
        let Self { shared, consumer } = self;
        let mut has_news = || {
            let has_some = consumer.has_some() || consumer.look(shared.incoming())?;
            Ok(has_some || or()? || shared.peer_end().is_some())
        };
        has_news().unwrap_or_else(|end| {
            shared.finish(end);
            true
        })
    }

    /// Closes the port, as dropping it does. The other side receives what was sent before.
    pub fn close(self) {
        drop(self);
    }

    /// How the channel ended. `None` = it goes on, or that was not noticed yet.
    #[must_use]
    pub fn end(&self) -> Option<ChannelEnd> {
        self.shared.end()
    }

    /// Bytes of the largest message.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.shared.memory.capacity() as usize
    }

    /// Which of the two ports it is.
    #[must_use]
    pub fn side(&self) -> ChannelSide {
        self.shared.side
    }
}

/// The bell: readable when there is something to look for. [`wait`](ChannelReceiver::wait) hears it.
impl AsFd for ChannelReceiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.as_fd()
    }
}

impl Drop for ChannelReceiver {
    fn drop(&mut self) {
        self.shared.finish(ChannelEnd::Closed);
    }
}

impl fmt::Debug for ChannelReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelReceiver")
            .field("side", &self.side())
            .field("end", &self.end())
            .finish_non_exhaustive()
    }
}
