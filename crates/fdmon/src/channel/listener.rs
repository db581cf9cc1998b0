//! A port in a loop: its bell is the fd, its ring is what spinning looks at.
//!
//! ①: the bell is watched for reading, and hangs up when the other side dies. ②′: `head` ≠ `tail` is
//! the predicate, and `suppress` is up meanwhile, so that the other side rings no bell. ④: a hit takes
//! what there is; the bell also has it cleared, and looks for room and the end (rule 6).

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use rustix::fd::{AsFd, AsRawFd, BorrowedFd};

use super::endpoint::Endpoint;
use super::receiver::ChannelReceiver;
use super::ring::Consumer;
use super::sender::ChannelSender;
use super::{ChannelEnd, Memory};
use crate::error::{Error, Outcome};
use crate::handler::{Parts, Private, Source, Token};
use crate::interest::{Callbacks, Interest};
use crate::ops::Ops;
use crate::sync::{Arc, kept};
use crate::word_source::{PollSource, WordSource};

/// What a loop does with what a port receives. A closure for the messages is one as well:
/// [`ChannelPort::on_message`](crate::ChannelPort::on_message).
pub trait ChannelHandler: 'static {
    /// A message: a copy, which nobody changes. `port` sends on the same port.
    ///
    /// # Errors
    /// Reported by the turn, after its other callbacks; the messages after this one come anyway.
    fn message(&mut self, ops: &mut Ops<'_>, port: &ChannelSender, message: &[u8]) -> Outcome;

    /// There is room again, after a send that returned `false`.
    ///
    /// ```
    /// use fdmon::{AioContext, ChannelHandler, ChannelPort, ChannelSender, Ops, Outcome};
    /// /// Sends as much as there is room for, whenever there is.
    /// struct Source { left: u32 }
    /// impl ChannelHandler for Source {
    ///     fn message(&mut self, _: &mut Ops<'_>, _: &ChannelSender, _: &[u8]) -> Outcome { Ok(()) }
    ///     fn room(&mut self, ops: &mut Ops<'_>, port: &ChannelSender) -> Outcome {
    ///         while self.left > 0 && port.send(&self.left.to_le_bytes())? {
    ///             self.left -= 1;
    ///         }
    ///         if self.left == 0 { ops.stop(); }
    ///         Ok(())
    ///     }
    /// }
    /// let (one, mut two) = ChannelPort::pair(64)?;
    /// let ctx = AioContext::builder().build()?;
    /// let source = one.listen(Source { left: 100 });
    /// while source.sender().send(b"0000")? {}
    /// ctx.register(source).map_err(|(error, _)| error)?;
    /// let sink = std::thread::spawn(move || {
    ///     while two.wait(None)? {
    ///         if two.receive()?.is_some_and(|message| message == 1_u32.to_le_bytes()) { break }
    ///     }
    ///     Ok::<_, fdmon::Error>(())
    /// });
    /// ctx.run()?;
    /// sink.join().unwrap()?;
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`message`](Self::message).
    fn room(&mut self, ops: &mut Ops<'_>, port: &ChannelSender) -> Outcome {
        let _ = (ops, port);
        Ok(())
    }

    /// The channel is over, and what was sent before was received. Nothing comes after this: the
    /// listener is off the context already.
    ///
    /// # Errors
    /// As [`message`](Self::message).
    fn closed(&mut self, ops: &mut Ops<'_>, end: ChannelEnd) -> Outcome {
        let _ = (ops, end);
        Ok(())
    }
}

impl<F> ChannelHandler for F
where
    F: FnMut(&mut Ops<'_>, &ChannelSender, &[u8]) -> Outcome + 'static,
{
    fn message(&mut self, ops: &mut Ops<'_>, port: &ChannelSender, message: &[u8]) -> Outcome {
        self(ops, port, message)
    }
}

/// A port with a handler, to be registered with a context; made by
/// [`ChannelPort::listen`](crate::ChannelPort::listen).
///
/// When the channel is over it leaves the context by itself. Dropping it closes the port.
///
/// ```
/// use fdmon::{AioContext, ChannelPort};
/// let (mut one, two) = ChannelPort::pair(64)?;
/// let ctx = AioContext::builder().build()?;
/// let listener = two.on_message(|_, port, message| Ok(port.send(message).map(drop)?));
/// let sender = listener.sender();
/// let token = ctx.register(listener).map_err(|(error, _)| error)?;
/// // Whoever has a sender may send, from a bottom half for example.
/// ctx.schedule(move |_| Ok(sender.send(b"from a bottom half").map(drop)?))?;
/// ctx.poll(true)?;
/// assert_eq!(one.receive()?.unwrap(), b"from a bottom half");
/// drop(ctx.deregister(&token)); // which closes it
/// assert!(one.receive().unwrap_err().is_closed());
/// # Ok::<(), fdmon::Error>(())
/// ```
pub struct ChannelListener<H> {
    /// Before the receiver: it lowers `suppress` when it goes.
    words: Arc<WordSource>,
    receiver: ChannelReceiver,
    sender: ChannelSender,
    handler: H,
    /// The message that the handler is shown: its memory is used again.
    message: Vec<u8>,
    /// It was moved or removed after the bell had been heard, and before room and the end were looked
    /// for: the next context owes it that.
    owed: bool,
}

impl<H: ChannelHandler> ChannelListener<H> {
    pub(super) fn new(sender: ChannelSender, receiver: ChannelReceiver, handler: H) -> Self {
        let shared = &receiver.shared;
        let words = Arc::new(Memory::word_source(&shared.memory, shared.side));
        Self { words, receiver, sender, handler, message: Vec::new(), owed: false }
    }

    /// Sends on the same port, from wherever it is taken to.
    #[must_use]
    pub fn sender(&self) -> ChannelSender {
        self.sender.clone()
    }

    /// The handler.
    #[must_use]
    pub fn handler(&self) -> &H {
        &self.handler
    }

    /// The handler, before it is registered or after.
    ///
    /// ```
    /// use fdmon::{ChannelHandler, ChannelPort, ChannelSender, Ops, Outcome};
    /// #[derive(Default)]
    /// struct Count(u32);
    /// impl ChannelHandler for Count {
    ///     fn message(&mut self, _: &mut Ops<'_>, _: &ChannelSender, _: &[u8]) -> Outcome {
    ///         self.0 += 1;
    ///         Ok(())
    ///     }
    /// }
    /// let (_one, two) = ChannelPort::pair(64)?;
    /// let mut listener = two.listen(Count::default());
    /// listener.handler_mut().0 = 10;
    /// assert_eq!(listener.handler().0, 10);
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    #[must_use]
    pub fn handler_mut(&mut self) -> &mut H {
        &mut self.handler
    }

    /// The halves of the port, and the handler.
    ///
    /// ```
    /// let (mut one, two) = fdmon::ChannelPort::pair(64)?;
    /// let ctx = fdmon::AioContext::builder().build()?;
    /// let token = ctx.register(two.on_message(|_, _, _| Ok(()))).map_err(|(error, _)| error)?;
    /// let listener = ctx.deregister(&token).expect("it is registered");
    /// let (_sender, mut receiver, _handler) = listener.into_parts();
    /// one.send(b"hello")?;
    /// assert_eq!(receiver.receive()?.unwrap(), b"hello");
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    #[must_use]
    pub fn into_parts(self) -> (ChannelSender, ChannelReceiver, H) {
        (self.sender, self.receiver, self.handler)
    }

    /// Takes what there is; when the bell has rung, also looks for room and the end.
    #[inline]
    fn visit(&mut self, ops: &mut Ops<'_>, has_rung: bool) -> Outcome {
        let token = ops.token_of::<Self>(&self.receiver);
        let has_rung = has_rung || std::mem::take(&mut self.owed);
        let (errors, panic) = (Vec::new(), None);
        let Self {
            receiver: ChannelReceiver { shared, consumer }, sender, handler, message, ..
        } = self;
        let mut visit =
            Visit { ops, token, shared, consumer, sender, handler, message, errors, panic };
        let end = visit.take_all(has_rung).unwrap_or_else(Some);
        let owed = has_rung && !visit.goes_on();
        if let Some(end) = visit.shared.end().or(end) {
            visit.leave(end);
        }
        let Visit { errors, panic, .. } = visit;
        self.owed = owed;
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
        if errors.is_empty() { Ok(()) } else { report(errors) }
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[cold]
fn report(mut errors: Vec<Failure>) -> Outcome {
    match errors.pop() {
        Some(only) if errors.is_empty() => Err(only),
        last => {
            errors.extend(last);
            Err(Error::callbacks(errors).into())
        }
    }
}

/// One callback of a listener.
struct Visit<'a, 'o, H: ChannelHandler> {
    ops: &'a mut Ops<'o>,
    /// Its registration; `None` where it is part of somebody else's source.
    token: Option<Token<ChannelListener<H>>>,
    shared: &'a Endpoint,
    consumer: &'a mut Consumer,
    sender: &'a ChannelSender,
    handler: &'a mut H,
    message: &'a mut Vec<u8>,
    errors: Vec<Failure>,
    panic: Option<Box<dyn Any + Send>>,
}

impl<H: ChannelHandler> Visit<'_, '_, H> {
    /// Returns the other side's end, when everything before it was taken.
    #[inline]
    fn take_all(&mut self, has_rung: bool) -> Result<Option<ChannelEnd>, ChannelEnd> {
        self.batch()?;
        if !has_rung || !self.goes_on() {
            return Ok(None);
        }
        let shared = self.shared;
        shared.hear();
        let look = || if kept("hear: look") { self.batch() } else { Ok(()) };
        let (end, taken) = shared.then_end(look);
        taken?;
        if end.is_none() && self.goes_on() && self.sender.has_found_room()? {
            self.run(|visit| visit.handler.room(visit.ops, visit.sender));
        }
        Ok(end)
    }

    /// What one look finds.
    #[inline]
    fn batch(&mut self) -> Result<(), ChannelEnd> {
        if !self.goes_on() || !self.consumer.look(self.shared.incoming())? {
            return Ok(());
        }
        while self.consumer.has_some() && self.goes_on() {
            self.shared.take(self.consumer, self.message)?;
            self.run(|visit| visit.handler.message(visit.ops, visit.sender, visit.message));
        }
        Ok(())
    }

    /// Nobody has removed, moved or closed it meanwhile.
    #[inline]
    fn goes_on(&self) -> bool {
        self.shared.end().is_none() && self.token.as_ref().is_none_or(Token::is_live)
    }

    /// Calls the handler. A panic is kept until the others have had their turn.
    #[inline]
    fn run(&mut self, callback: impl FnOnce(&mut Self) -> Outcome) {
        match catch_unwind(AssertUnwindSafe(|| callback(self))) {
            Ok(handled) => self.errors.extend(handled.err()),
            Err(panic) => drop(self.panic.get_or_insert(panic)),
        }
    }

    /// The channel is over: closes the port, leaves the context, and tells the handler.
    #[cold]
    fn leave(&mut self, end: ChannelEnd) {
        match &self.token {
            Some(token) if !token.is_live() => return, // removed or moved: it is not to run any more
            Some(token) => drop(self.ops.deregister(token)),
            None => self.ops.remove_fd_handler(self.shared.as_fd().as_raw_fd()),
        }
        self.shared.finish(end);
        self.run(|visit| visit.handler.closed(visit.ops, end));
    }
}

impl<H: ChannelHandler> Source for ChannelListener<H> {
    fn interest(&self) -> Interest {
        Interest::READ
    }

    fn read(&mut self, ops: &mut Ops<'_>) -> Outcome {
        self.visit(ops, true)
    }

    fn poll(&self) -> bool {
        self.owed || self.words.poll()
    }

    fn poll_ready(&mut self, ops: &mut Ops<'_>) -> Outcome {
        self.visit(ops, false)
    }

    fn poll_begin(&mut self) {
        self.words.begin();
    }

    fn poll_end(&mut self) {
        self.words.end();
    }

    fn parts(&self, _: Private) -> Parts {
        let callbacks = Callbacks::READ | Callbacks::POLL_READY;
        let word = (!self.owed).then(|| Arc::clone(&self.words));
        Parts { callbacks, has_poll: Some(true), word }
    }
}

/// The bell.
impl<H> AsFd for ChannelListener<H> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.receiver.as_fd()
    }
}

impl<H> fmt::Debug for ChannelListener<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelListener").field("receiver", &self.receiver).finish_non_exhaustive()
    }
}
