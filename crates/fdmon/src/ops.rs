//! ① What callbacks may do: the context as they are given it.

use std::io;
use std::ops::DerefMut;
use std::time::Duration;

use rustix::fd::{AsFd, BorrowedFd, RawFd};
use stable_deref_trait::StableDeref;

use crate::ack::Ack;
use crate::aio::IoToken;
use crate::context::AioContext;
use crate::error::{Error, Outcome, Result};
use crate::handler::{Handlers, Source, Token};
use crate::interest::Events;
use crate::migrate::Moved;
use crate::remote::Remote;

/// What a callback may do with the context that runs it.
pub struct Ops<'a> {
    pub(crate) ctx: &'a AioContext,
    pub(crate) fd: Option<BorrowedFd<'a>>,
    pub(crate) events: Events,
}

impl Ops<'_> {
    /// The fd of a handler made of closures.
    ///
    /// # Panics
    /// In a bottom half, a timer or a [`Source`], which have no fd or know it themselves.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.expect("only callbacks of set_fd_handler have an fd")
    }

    /// What the kernel reported; empty when only the predicate said yes.
    #[must_use]
    pub fn events(&self) -> Events {
        self.events
    }

    /// Monotonic time in nanoseconds, on the context's clock.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        self.ctx.now_ns()
    }

    /// The context's `Send + Sync` side.
    #[must_use]
    pub fn remote(&self) -> Remote {
        self.ctx.remote()
    }

    /// A nested turn.
    ///
    /// # Errors
    /// As [`AioContext::poll`].
    pub fn poll(&mut self, blocking: bool) -> Result<bool> {
        self.ctx.poll(blocking)
    }

    /// Nested turns until the condition holds.
    ///
    /// # Errors
    /// As [`AioContext::poll_until`].
    pub fn poll_until(&mut self, condition: impl FnMut() -> bool) -> Result<()> {
        self.ctx.poll_until(condition)
    }

    /// As [`AioContext::register`].
    ///
    /// # Errors
    /// As there.
    pub fn register<S: Source>(&mut self, source: S) -> std::result::Result<Token<S>, (Error, S)> {
        self.ctx.register(source)
    }

    /// As [`AioContext::deregister`].
    pub fn deregister<S: 'static>(&mut self, token: &Token<S>) -> Option<S> {
        self.ctx.deregister(token)
    }

    /// As [`AioContext::move_to`]; also for the handler whose callback this is, which moves when
    /// that returns.
    ///
    /// ```
    /// use fdmon::{AioContext, EventNotifier, IoThread, SendHandlers};
    /// let (ctx, thread) = (AioContext::builder().build()?, IoThread::builder().spawn()?);
    /// let (there, done) = (thread.remote(), ctx.remote());
    /// // The event is left where it is: it moves along with its handler.
    /// let bell = EventNotifier::with_value(1)?;
    /// let handlers = SendHandlers::new(bell).read(move |ops| {
    ///     let own = ops.token_of::<SendHandlers<EventNotifier>>(ops.fd()).expect("it is live");
    ///     if ops.remote().id() != there.id() {
    ///         let _moved = ops.move_to(&own, &there);
    ///     } else {
    ///         ops.deregister(&own);
    ///         done.stop()?;
    ///     }
    ///     Ok(())
    /// });
    /// ctx.register(handlers).map_err(|(error, _)| error)?;
    /// ctx.run()?; // until it has run over there
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    ///
    /// # Errors
    /// As there.
    pub fn move_to<S: Source + Send>(&mut self, token: &Token<S>, to: &Remote) -> Ack<Moved<S>> {
        self.ctx.move_to(token, to)
    }

    /// As [`AioContext::token_of`]: with its own fd, a handler finds its own token.
    ///
    /// ```
    /// use std::os::fd::{AsFd, BorrowedFd};
    /// use fdmon::{AioContext, EventNotifier, Interest, Ops, Outcome, Source};
    /// struct Once(EventNotifier);
    /// impl AsFd for Once {
    ///     fn as_fd(&self) -> BorrowedFd<'_> { self.0.as_fd() }
    /// }
    /// impl Source for Once {
    ///     fn interest(&self) -> Interest { Interest::READ }
    ///     fn read(&mut self, ops: &mut Ops<'_>) -> Outcome {
    ///         let own = ops.token_of::<Self>(&*self).expect("its own handler runs");
    ///         ops.deregister(&own);
    ///         Ok(())
    ///     }
    /// }
    /// let ctx = AioContext::builder().build()?;
    /// ctx.register(Once(EventNotifier::with_value(1)?)).map_err(|(error, _)| error)?;
    /// assert!(ctx.poll(true)?);
    /// assert!(ctx.stats().handlers.is_empty());
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    #[must_use]
    pub fn token_of<S: 'static>(&self, fd: impl AsFd) -> Option<Token<S>> {
        self.ctx.token_of(fd)
    }

    /// As [`AioContext::set_fd_handler`].
    ///
    /// # Errors
    /// As there.
    pub fn set_fd_handler<F: AsFd + 'static>(
        &mut self,
        fd: F,
        handlers: Handlers,
    ) -> Result<Token<F>> {
        self.ctx.set_fd_handler(fd, handlers)
    }

    /// As [`AioContext::remove_fd_handler`].
    pub fn remove_fd_handler(&mut self, fd: RawFd) {
        self.ctx.remove_fd_handler(fd);
    }

    /// As [`AioContext::schedule`].
    ///
    /// # Errors
    /// As there.
    pub fn schedule(&mut self, f: impl FnOnce(&mut Ops<'_>) -> Outcome + 'static) -> Result<()> {
        self.ctx.schedule(f)
    }

    /// As [`AioContext::bottom_half`].
    ///
    /// # Errors
    /// As there.
    pub fn bottom_half(
        &mut self,
        f: impl FnMut(&mut Ops<'_>) -> Outcome + 'static,
    ) -> Result<crate::BottomHalf> {
        self.ctx.bottom_half(f)
    }

    /// As [`AioContext::timer`].
    ///
    /// # Errors
    /// As there.
    pub fn timer(
        &mut self,
        f: impl FnMut(&mut Ops<'_>) -> Outcome + 'static,
    ) -> Result<crate::Timer> {
        self.ctx.timer(f)
    }

    /// Runs a closure once, this long from now.
    ///
    /// # Errors
    /// As [`AioContext::timer`].
    pub fn arm(
        &mut self,
        delay: Duration,
        f: impl FnMut(&mut Ops<'_>) -> Outcome + 'static,
    ) -> Result<crate::Timer> {
        let timer = self.ctx.timer(f)?;
        timer.arm(delay)?;
        Ok(timer)
    }

    /// As [`AioContext::read_at`].
    ///
    /// # Errors
    /// As there.
    pub fn read_at<B>(
        &mut self,
        fd: impl AsFd + 'static,
        buffer: B,
        offset: u64,
        done: impl FnOnce(&mut Ops<'_>, io::Result<usize>, B) + 'static,
    ) -> Result<IoToken>
    where
        B: StableDeref<Target = [u8]> + DerefMut + 'static,
    {
        self.ctx.read_at(fd, buffer, offset, done)
    }

    /// As [`AioContext::write_at`].
    ///
    /// # Errors
    /// As there.
    pub fn write_at<B>(
        &mut self,
        fd: impl AsFd + 'static,
        buffer: B,
        offset: u64,
        done: impl FnOnce(&mut Ops<'_>, io::Result<usize>, B) + 'static,
    ) -> Result<IoToken>
    where
        B: StableDeref<Target = [u8]> + 'static,
    {
        self.ctx.write_at(fd, buffer, offset, done)
    }

    /// As [`AioContext::fsync`].
    ///
    /// # Errors
    /// As there.
    pub fn fsync(
        &mut self,
        fd: impl AsFd + 'static,
        done: impl FnOnce(&mut Ops<'_>, io::Result<()>) + 'static,
    ) -> Result<IoToken> {
        self.ctx.fsync(fd, done)
    }

    /// As [`AioContext::fdatasync`].
    ///
    /// # Errors
    /// As there.
    pub fn fdatasync(
        &mut self,
        fd: impl AsFd + 'static,
        done: impl FnOnce(&mut Ops<'_>, io::Result<()>) + 'static,
    ) -> Result<IoToken> {
        self.ctx.fdatasync(fd, done)
    }

    /// As [`AioContext::cancel_io`].
    pub fn cancel_io(&mut self, token: &IoToken) {
        self.ctx.cancel_io(token);
    }

    /// As [`AioContext::plug`].
    pub fn plug<T>(&mut self, section: impl FnOnce(&mut Ops<'_>) -> T) -> T {
        let ctx = self.ctx;
        ctx.plug(|| section(self))
    }

    /// As [`AioContext::disable_external`].
    pub fn disable_external(&mut self) {
        self.ctx.disable_external();
    }

    /// As [`AioContext::enable_external`].
    pub fn enable_external(&mut self) {
        self.ctx.enable_external();
    }

    /// As [`AioContext::stop`].
    pub fn stop(&mut self) {
        self.ctx.stop();
    }

    /// As [`AioContext::close`]: no further callback runs.
    pub fn close(&mut self) -> crate::LeakReport {
        self.ctx.close()
    }

    /// The context itself, for everything else.
    #[must_use]
    pub fn context(&self) -> &AioContext {
        self.ctx
    }
}

impl std::fmt::Debug for Ops<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ops").field("events", &self.events).finish_non_exhaustive()
    }
}
