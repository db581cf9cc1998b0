//! A port of a channel: both halves, for one owner.

use std::fmt;
use std::time::Duration;

use rustix::fd::{AsFd, BorrowedFd};

use super::endpoint::Endpoint;
use super::listener::{ChannelHandler, ChannelListener};
use super::receiver::ChannelReceiver;
use super::ring::Producer;
use super::sender::ChannelSender;
use super::{Bell, ChannelEnd, ChannelSide, MOST, Memory, Sizes};
use crate::error::{Error, Outcome, Result};
use crate::ops::Ops;
use crate::sync::Arc;

/// One side of a channel: sends messages to the other one and receives those of the other, in order
/// and whole, through shared memory. While both sides are awake there is no system call.
///
/// The other side may be in this thread, in another one, or, by [`into_fds`](Self::into_fds) and
/// [`from_fds`](Self::from_fds), in another process, which may be written in another language.
/// [`listen`](Self::listen) brings it into a loop, [`split`](Self::split) apart. Dropping it closes
/// it.
///
/// ```
/// use fdmon::ChannelPort;
/// let (mut one, mut two) = ChannelPort::pair(1024)?;
/// assert!(one.send(b"ping")?);
/// assert_eq!(two.receive()?.unwrap(), b"ping");
/// assert!(two.receive()?.is_none());
/// one.close();
/// assert!(two.receive().unwrap_err().is_closed());
/// # Ok::<(), fdmon::Error>(())
/// ```
pub struct ChannelPort {
    pub(super) receiver: ChannelReceiver,
    pub(super) producer: Producer,
}

impl ChannelPort {
    /// Both ports of a new channel. `capacity` = bytes of the largest message, at most 2³⁰ − 64; each
    /// direction has room for one of these, or for more that are smaller (each takes 8 bytes
    /// besides). Takes three descriptors.
    ///
    /// ```
    /// let (one, two) = fdmon::ChannelPort::pair(1 << 20)?;
    /// assert_eq!((one.side().number(), two.side().number()), (1, 2));
    /// assert!(fdmon::ChannelPort::pair(0).unwrap_err().is_invalid_arg());
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    ///
    /// # Errors
    /// `InvalidArg` for a capacity out of range; `Syscall`.
    pub fn pair(capacity: usize) -> Result<(Self, Self)> {
        let sizes = u32::try_from(capacity).ok().and_then(Sizes::of);
        let sizes = sizes.ok_or_else(|| {
            Error::invalid_arg("capacity", capacity, format_args!("1 to {MOST} bytes"))
        })?;
        let memory = Arc::new(Memory::new(sizes)?);
        let [one, two] = Bell::pair()?;
        let port = |memory: Arc<Memory>, bell, side| {
            memory.port(side).claim(); // nobody else knows of it yet
            Self::of(Endpoint::new(memory, bell, side))
        };
        let first = port(Arc::clone(&memory), one, ChannelSide::One);
        Ok((first, port(memory, two, ChannelSide::Two)))
    }

    pub(super) fn of(end: Endpoint) -> Self {
        let receiver = ChannelReceiver::new(Arc::new(end));
        Self { receiver, producer: Producer::default() }
    }

    /// Sends a message. `false` = the ring is full; [`wait`](Self::wait) returns when there is room
    /// for it.
    ///
    /// ```
    /// let (mut one, mut two) = fdmon::ChannelPort::pair(8)?;
    /// assert!(one.send(b"12345678")?);
    /// assert!(!one.send(b"full")?);
    /// two.receive()?;
    /// assert!(one.wait(None)?, "there is room");
    /// assert!(one.send(b"again")?);
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    ///
    /// # Errors
    /// `InvalidArg` for a message above the capacity; `Closed` when the channel is over.
    #[inline]
    pub fn send(&mut self, message: &[u8]) -> Result<bool> {
        self.receiver.shared.send(&mut self.producer, message)
    }

    /// The next message. `None` = there is none now.
    ///
    /// It makes no system call, so it does not hear the bell: the death of the other side is noticed
    /// by [`wait`](Self::wait), or by a loop.
    ///
    /// ```
    /// let (mut one, mut two) = fdmon::ChannelPort::pair(8)?;
    /// assert!(two.receive()?.is_none());
    /// one.send(b"hello")?;
    /// assert_eq!(two.receive()?.unwrap(), b"hello");
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Closed` when the channel is over and everything was received; [`end`](Self::end) says how.
    pub fn receive(&mut self) -> Result<Option<Vec<u8>>> {
        self.receiver.receive()
    }

    /// As [`ChannelReceiver::receive_into`].
    ///
    /// ```
    /// let (mut one, mut two) = fdmon::ChannelPort::pair(8)?;
    /// one.send(b"hello")?;
    /// let mut message = Vec::new();
    /// assert!(two.receive_into(&mut message)?);
    /// assert_eq!(message, b"hello");
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    #[inline]
    pub fn receive_into(&mut self, message: &mut Vec<u8>) -> Result<bool> {
        self.receiver.receive_into(message)
    }

    /// Sleeps until there is a message, the end, or room that a [`send`](Self::send) did not find.
    /// `false` = not within this time.
    ///
    /// ```
    /// let (mut one, mut two) = fdmon::ChannelPort::pair(8)?;
    /// std::thread::spawn(move || one.send(b"hello"));
    /// assert!(two.wait(None)?);
    /// assert_eq!(two.receive()?.unwrap(), b"hello");
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Closed` when the channel is over; `Syscall`.
    pub fn wait(&mut self, timeout: Option<Duration>) -> Result<bool> {
        let Self { receiver, producer } = self;
        let shared = Arc::clone(&receiver.shared);
        receiver.wait_or(timeout, || producer.has_found_room(shared.out(), shared.own()))
    }

    /// Two halves, for two owners: the one that sends can be cloned; the one that receives closes
    /// the port when it is dropped.
    ///
    /// ```
    /// let (one, mut two) = fdmon::ChannelPort::pair(8)?;
    /// let (sender, mut receiver) = one.split();
    /// let echo = std::thread::spawn(move || -> fdmon::Result<()> {
    ///     receiver.wait(None)?;
    ///     sender.send(&receiver.receive()?.unwrap()).map(drop)
    /// });
    /// two.send(b"hello")?;
    /// two.wait(None)?;
    /// assert_eq!(two.receive()?.unwrap(), b"hello");
    /// echo.join().unwrap()?;
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    #[must_use]
    pub fn split(self) -> (ChannelSender, ChannelReceiver) {
        let Self { receiver, producer } = self;
        (ChannelSender::new(Arc::clone(&receiver.shared), producer), receiver)
    }

    /// What a context hears: a [`Source`](crate::Source) for
    /// [`AioContext::register`](crate::AioContext::register), and for
    /// [`Remote::register_send`](crate::Remote::register_send) if the handler is `Send`.
    ///
    /// ```
    /// use fdmon::{AioContext, ChannelEnd, ChannelHandler, ChannelPort, ChannelSender, Ops, Outcome};
    /// struct Echo;
    /// impl ChannelHandler for Echo {
    ///     fn message(&mut self, _: &mut Ops<'_>, port: &ChannelSender, message: &[u8]) -> Outcome {
    ///         port.send(message)?;
    ///         Ok(())
    ///     }
    ///     fn closed(&mut self, ops: &mut Ops<'_>, _end: ChannelEnd) -> Outcome {
    ///         ops.stop();
    ///         Ok(())
    ///     }
    /// }
    /// let (mut one, two) = ChannelPort::pair(64)?;
    /// let ctx = AioContext::builder().build()?;
    /// ctx.register(two.listen(Echo)).map_err(|(error, _)| error)?;
    /// one.send(b"hello")?;
    /// ctx.poll(true)?;
    /// assert_eq!(one.receive()?.unwrap(), b"hello");
    /// one.close();
    /// ctx.run()?;
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    #[must_use]
    pub fn listen<H: ChannelHandler>(self, handler: H) -> ChannelListener<H> {
        let (sender, receiver) = self.split();
        ChannelListener::new(sender, receiver, handler)
    }

    /// As [`listen`](Self::listen), with a closure for the messages.
    ///
    /// ```
    /// let (mut one, two) = fdmon::ChannelPort::pair(64)?;
    /// let ctx = fdmon::AioContext::builder().build()?;
    /// let listener = two.on_message(|ops, port, message| {
    ///     assert_eq!(message, b"hello");
    ///     port.send(b"goodbye")?;
    ///     ops.stop();
    ///     Ok(())
    /// });
    /// ctx.register(listener).map_err(|(error, _)| error)?;
    /// one.send(b"hello")?;
    /// ctx.run()?;
    /// assert_eq!(one.receive()?.unwrap(), b"goodbye");
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    #[must_use]
    pub fn on_message<F>(self, message: F) -> ChannelListener<F>
    where
        F: FnMut(&mut Ops<'_>, &ChannelSender, &[u8]) -> Outcome + 'static,
    {
        self.listen(message)
    }

    /// Closes the port, as dropping it does. The other side receives what was sent before.
    pub fn close(self) {
        drop(self);
    }

    /// How the channel ended. `None` = it goes on, or that was not noticed yet.
    ///
    /// ```
    /// let (one, mut two) = fdmon::ChannelPort::pair(8)?;
    /// drop(one);
    /// assert!(two.receive().is_err());
    /// assert_eq!(two.end(), Some(fdmon::ChannelEnd::Closed));
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    #[must_use]
    pub fn end(&self) -> Option<ChannelEnd> {
        self.receiver.end()
    }

    /// Bytes of the largest message.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.receiver.capacity()
    }

    /// Which of the two ports it is.
    #[must_use]
    pub fn side(&self) -> ChannelSide {
        self.receiver.side()
    }
}

/// The bell: readable when there is something to look for. [`wait`](ChannelPort::wait) hears it.
impl AsFd for ChannelPort {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.receiver.as_fd()
    }
}

impl fmt::Debug for ChannelPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelPort")
            .field("side", &self.side())
            .field("end", &self.end())
            .finish_non_exhaustive()
    }
}
