//! The half of a port that sends, from wherever its user is: a handler, a bottom half, a thread.

use std::fmt;

use super::endpoint::Endpoint;
use super::ring::Producer;
use super::{ChannelEnd, ChannelSide};
use crate::error::Result;
use crate::remote::lock;
use crate::sync::{Arc, Mutex};

/// Sends on one port of a channel. A clone sends on the same one.
///
/// Each message is whole, however many threads send; messages of one thread keep their order. When
/// the [`ChannelReceiver`](crate::ChannelReceiver) or [`ChannelListener`](crate::ChannelListener)
/// that it belongs to is dropped, the port is closed.
///
/// ```
/// let (one, mut two) = fdmon::ChannelPort::pair(64)?;
/// let (sender, _receiver) = one.split();
/// let other = sender.clone();
/// std::thread::spawn(move || other.send(b"from a thread")).join().unwrap()?;
/// assert!(sender.send(b"from here")?);
/// assert_eq!(two.receive()?.unwrap(), b"from a thread");
/// assert_eq!(two.receive()?.unwrap(), b"from here");
/// # Ok::<(), fdmon::Error>(())
/// ```
#[derive(Clone)]
pub struct ChannelSender(Arc<Sending>);

struct Sending {
    end: Arc<Endpoint>,
    producer: Mutex<Producer>,
}

impl ChannelSender {
    pub(super) fn new(end: Arc<Endpoint>, producer: Producer) -> Self {
        Self(Arc::new(Sending { end, producer: Mutex::new(producer) }))
    }

    /// Sends a message. `false` = the ring is full: send it again when the handler is told of room
    /// ([`ChannelHandler::room`](crate::ChannelHandler::room)).
    ///
    /// ```
    /// let (one, _two) = fdmon::ChannelPort::pair(8)?;
    /// let (sender, _receiver) = one.split();
    /// assert!(sender.send(b"12345678")?);
    /// assert!(!sender.send(b"full")?);
    /// assert!(sender.send(b"too long!").unwrap_err().is_invalid_arg());
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    ///
    /// # Errors
    /// `InvalidArg` for a message above the capacity; `Closed` when the channel is over.
    pub fn send(&self, message: &[u8]) -> Result<bool> {
        self.0.end.send(&mut lock(&self.0.producer), message)
    }

    /// Closes the port, whoever has its other half. The other side receives what was sent before.
    ///
    /// ```
    /// let (one, mut two) = fdmon::ChannelPort::pair(8)?;
    /// let (sender, receiver) = one.split();
    /// sender.close();
    /// assert_eq!(receiver.end(), Some(fdmon::ChannelEnd::Closed));
    /// assert!(two.receive().unwrap_err().is_closed());
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    pub fn close(&self) {
        self.0.end.finish(ChannelEnd::Closed);
    }

    /// How the channel ended. `None` = it goes on.
    ///
    /// ```
    /// let (one, _two) = fdmon::ChannelPort::pair(8)?;
    /// let (sender, receiver) = one.split();
    /// assert_eq!(sender.end(), None);
    /// drop(receiver);
    /// assert_eq!(sender.end(), Some(fdmon::ChannelEnd::Closed));
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    #[must_use]
    pub fn end(&self) -> Option<ChannelEnd> {
        self.0.end.end()
    }

    /// Bytes of the largest message.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.0.end.memory.capacity() as usize
    }

    /// Which of the two ports it is.
    #[must_use]
    pub fn side(&self) -> ChannelSide {
        self.0.end.side
    }

    pub(super) fn has_found_room(&self) -> std::result::Result<bool, ChannelEnd> {
        lock(&self.0.producer).has_found_room(self.0.end.out(), self.0.end.own())
    }
}

impl fmt::Debug for ChannelSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelSender")
            .field("side", &self.side())
            .field("end", &self.end())
            .finish_non_exhaustive()
    }
}
