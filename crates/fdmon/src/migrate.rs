//! Moving a handler from one context to another, without losing an event or running one twice.
//!
//! Removed here, with its `poll_end`; then sent; then added there, where its predicate is asked
//! before any sleep. While it travels neither context has it, so it runs on neither, and whatever
//! happens meanwhile is found on arrival: the fd's readiness is level-triggered, and a producer
//! whose suppress word was cleared by `poll_end` signals again. What the old context had collected
//! and not run yet is dropped there and found again in the same way.
//!
//! One that cannot arrive comes back: to its old context, and if that is closed, to the asker.

use std::any::TypeId;
use std::fmt;

use rustix::fd::RawFd;

use crate::ack::{self, Ack, Answer};
use crate::context::AioContext;
use crate::error::Error;
use crate::handler::{Handler, Source, Token};
use crate::inbox::Node;
use crate::interest::Interest;
use crate::remote::Remote;
use crate::remote_handlers::SendToken;
use crate::stats::HandlerCounters;
use crate::sync::Arc;

/// What comes of a move: the token in the new context, or why not and where the handler is.
pub type Moved<S> = Result<SendToken<S>, MoveError<S>>;

/// A handler was not moved.
///
/// ```
/// use fdmon::{AioContext, EventNotifier, Left, SendHandlers};
/// let (here, there) = (AioContext::builder().build()?, AioContext::builder().build()?);
/// let handlers = SendHandlers::new(EventNotifier::new()?).read(|_| Ok(()));
/// let token = here.register(handlers).map_err(|(error, _)| error)?;
/// there.close();
/// let failed = here.move_to(&token, &there.remote()).try_take().expect("at once").unwrap_err();
/// assert!(failed.error.is_closed());
/// assert!(matches!(failed.left, Left::Registered(_)) && token.is_live());
/// # Ok::<(), fdmon::Error>(())
/// ```
pub struct MoveError<S> {
    /// Why.
    pub error: Error,
    /// Where the handler is now.
    pub left: Left<S>,
}

/// Where a handler is that was not moved.
///
/// ```
/// use fdmon::{AioContext, EventNotifier, Left, SendHandlers};
/// let (here, there) = (AioContext::builder().build()?, AioContext::builder().build()?);
/// let handlers = SendHandlers::new(EventNotifier::new()?).read(|_| Ok(()));
/// let token = here.register(handlers).map_err(|(error, _)| error)?;
/// let mut ack = here.move_to(&token, &there.remote());
/// there.close(); // before it has arrived
/// here.poll(false)?;
/// match ack.try_take().expect("it is back").unwrap_err().left {
///     Left::Registered(token) => assert!(token.to_local(&here).unwrap().is_live()),
///     Left::Source(handlers) => drop(handlers.into_fd()),
///     Left::Gone => {}
/// }
/// # Ok::<(), fdmon::Error>(())
/// ```
pub enum Left<S> {
    /// In its old context, under this token: the old one if it never left, else a new one.
    Registered(SendToken<S>),
    /// In neither. Here it is.
    Source(S),
    /// The token names no handler: it was gone before.
    Gone,
}

impl<S> fmt::Debug for Left<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registered(token) => f.debug_tuple("Registered").field(token).finish(),
            Self::Source(_) => f.debug_tuple("Source").finish_non_exhaustive(),
            Self::Gone => f.write_str("Gone"),
        }
    }
}

impl<S> fmt::Debug for MoveError<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { error, left } = self;
        f.debug_struct("MoveError").field("error", error).field("left", left).finish()
    }
}

impl<S> fmt::Display for MoveError<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.error, f)
    }
}

impl<S> std::error::Error for MoveError<S> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl AioContext {
    /// Moves a handler to another context: removed here at once, or when its running callback has
    /// returned; then added there. No event is lost, none runs on both, and its interest and
    /// counters go with it. A handler that its fd may have there is replaced.
    ///
    /// Only sources can move, and [`SendHandlers`](crate::SendHandlers), which are one.
    ///
    /// ```
    /// use fdmon::{AioContext, EventNotifier, IoThread, SendHandlers};
    /// let (ctx, thread) = (AioContext::builder().build()?, IoThread::builder().spawn()?);
    /// let bell = EventNotifier::with_value(1)?; // an event is pending
    /// let (clear, done) = (bell.clone(), ctx.remote());
    /// let handlers = SendHandlers::new(bell).read(move |ops| {
    ///     clear.test_and_clear()?;
    ///     assert_ne!(ops.remote().id(), done.id(), "it runs over there");
    ///     done.stop()?;
    ///     Ok(())
    /// });
    /// let token = ctx.register(handlers).map_err(|(error, _)| error)?;
    /// let _moved = ctx.move_to(&token, &thread.remote());
    /// ctx.run()?; // until it has run there
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    ///
    /// A panic of the source's `poll_end` outside a turn resumes from the next call or turn of the
    /// context, not from here: the answer would be lost with it.
    ///
    /// # Errors
    /// In the answer, with where the handler is: `Closed` when either context is closed, or the
    /// target closes first; `InvalidArg` for a token that names no handler of this context, or one
    /// made of [`Handlers`](crate::Handlers); what [`AioContext::register`] there refuses.
    pub fn move_to<S: Source + Send>(&self, token: &Token<S>, to: &Remote) -> Ack<Moved<S>> {
        let (ack, answer) = ack::pair();
        self.depart(token.to_send(), to, answer);
        ack
    }

    fn depart<S: Source + Send>(&self, token: SendToken<S>, to: &Remote, answer: Answer<Moved<S>>) {
        let kept = match self.may_depart(token, to) {
            Ok(kept) => kept,
            Err(stays) => return answer.give(Err(stays)),
        };
        let request = MoveRequest(Some(answer));
        let (from, to) = (self.remote(), to.clone());
        self.withdraw(token.slot, token.generation, move |ctx, body| {
            let source = body.and_then(|body| body.into_any().downcast::<S>().ok());
            match source {
                Some(source) => request.leave(*source, kept, from, &to),
                // A hook took it, or closed the context.
                None if ctx.is_closed() => request.gone(Error::closed()),
                None => request.gone(gone()),
            }
        });
    }

    /// Looks before anything is touched: what can be refused now stays where it is.
    fn may_depart<S: Source>(
        &self,
        token: SendToken<S>,
        to: &Remote,
    ) -> Result<Kept, MoveError<S>> {
        let stays = |error| MoveError { error, left: Left::Registered(token) };
        let is_gone = |error| MoveError { error, left: Left::Gone };
        let mut st = self.0.open_state().map_err(is_gone)?;
        if token.is_nowhere() {
            return Err(is_gone(gone()));
        }
        token.check(self.id()).map_err(stays)?;
        let handler = st.reg.live_handler(token.slot, token.generation);
        let handler = handler.ok_or_else(|| is_gone(gone()))?;
        if !handler.is_source || handler.kind != TypeId::of::<S>() {
            return Err(stays(Error::invalid_arg(
                "token",
                "that of closures which belong to this thread",
                "the token of a Source or of SendHandlers",
            )));
        }
        to.open().map_err(stays)?;
        let Handler { fd, wanted, counters, .. } = handler;
        Ok(Kept { fd: *fd, wanted: *wanted, counters: Arc::clone(counters) })
    }
}

impl Remote {
    /// Moves a handler of this context to another one, from any thread; see
    /// [`AioContext::move_to`].
    ///
    /// ```
    /// use fdmon::{EventNotifier, IoThread, SendHandlers};
    /// let threads = [IoThread::builder().spawn()?, IoThread::builder().spawn()?];
    /// let [first, second] = threads.each_ref().map(|thread| thread.remote());
    /// let handlers = SendHandlers::new(EventNotifier::new()?).read(|_| Ok(()));
    /// let token = first.register_send(handlers).wait()?.map_err(|(error, _)| error)?;
    /// let token = first.move_to(&token, &second).wait()?.map_err(|failed| failed.error)?;
    /// assert_eq!(token.context_id(), second.id());
    /// assert_eq!((first.stats().handlers.len(), second.stats().handlers.len()), (0, 1));
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    ///
    /// # Errors
    /// As there. When this context closes before it could serve the request, the handler was
    /// released with it.
    pub fn move_to<S: Source + Send>(&self, token: &SendToken<S>, to: &Remote) -> Ack<Moved<S>> {
        if let Err(error) = token.check(self.id()) {
            return ack::answered(Err(MoveError { error, left: Left::Registered(*token) }));
        }
        if let Err(error) = self.open() {
            return ack::answered(Err(MoveError { error, left: Left::Gone }));
        }
        let (ack, answer) = ack::pair();
        let (request, token, to) = (MoveRequest(Some(answer)), *token, to.clone());
        self.0.deliver(Node::leaving(Box::new(move |ops| request.serve(ops.ctx, token, &to))));
        ack
    }
}

fn gone() -> Error {
    Error::invalid_arg("token", "that of a handler that is gone", "the token of a live one")
}

/// What a source does not know itself.
struct Kept {
    fd: RawFd,
    wanted: Interest,
    counters: Arc<HandlerCounters>,
}

impl Kept {
    fn unpack(&self, handler: &mut Handler) {
        handler.wanted = self.wanted & Interest::of(handler.callbacks);
        handler.counters = Arc::clone(&self.counters);
    }
}

/// A request to move that has nothing to carry yet.
struct MoveRequest<S>(Option<Answer<Moved<S>>>);

impl<S> MoveRequest<S> {
    fn serve(mut self, ctx: &AioContext, token: SendToken<S>, to: &Remote)
    where
        S: Source + Send,
    {
        if let Some(answer) = self.0.take() {
            ctx.depart(token, to, answer);
        }
    }

    fn leave(mut self, source: S, kept: Kept, from: Remote, to: &Remote)
    where
        S: Source + Send,
    {
        let Some(answer) = self.0.take() else { return };
        let home = Some(from);
        Transfer(Some(InTransit { source, kept, home, refused: None, answer })).go(to);
    }

    fn gone(mut self, error: Error) {
        if let Some(answer) = self.0.take() {
            answer.give(Err(MoveError { error, left: Left::Gone }));
        }
    }
}

impl<S> Drop for MoveRequest<S> {
    fn drop(&mut self) {
        if let Some(answer) = self.0.take() {
            answer.give_at_last(Err(MoveError { error: Error::closed(), left: Left::Gone }));
        }
    }
}

/// A source between two contexts.
struct InTransit<S> {
    source: S,
    kept: Kept,
    /// Where it comes from; `None` = it is on its way back there.
    home: Option<Remote>,
    /// Why it comes back.
    refused: Option<Error>,
    answer: Answer<Moved<S>>,
}

/// …on its way; one that is dropped on the way turns back.
struct Transfer<S: Source + Send>(Option<InTransit<S>>);

impl<S: Source + Send> Transfer<S> {
    fn go(self, to: &Remote) {
        to.0.deliver(Node::job(Box::new(move |ops| self.arrive(ops.ctx))));
    }

    fn arrive(mut self, ctx: &AioContext) {
        let Some(transit) = self.0.take() else { return };
        let InTransit { source, kept, home, refused, answer } = transit;
        // On the way back nobody is replaced who has come meanwhile.
        let admitted = match &refused {
            Some(_) if ctx.registered_slot(kept.fd).is_some() => Err((gone(), source)),
            _ => ctx.admit(source, |handler| kept.unpack(handler)),
        };
        match (admitted, refused) {
            (Ok(token), None) => answer.give(Ok(token)),
            (Ok(token), Some(error)) => {
                answer.give(Err(MoveError { error, left: Left::Registered(token) }));
            }
            (Err((error, source)), refused) => {
                let refused = Some(refused.unwrap_or(error));
                self.0 = Some(InTransit { source, kept, home, refused, answer });
            }
        }
    }
}

impl<S: Source + Send> Drop for Transfer<S> {
    fn drop(&mut self) {
        let Some(mut transit) = self.0.take() else { return };
        let refused = transit.refused.take().unwrap_or_else(Error::closed);
        match transit.home.take().filter(|home| home.open().is_ok()) {
            Some(home) => {
                transit.refused = Some(refused);
                Self(Some(transit)).go(&home);
            }
            None => {
                let left = Left::Source(transit.source);
                transit.answer.give_at_last(Err(MoveError { error: refused, left }));
            }
        }
    }
}
