//! Handlers of another thread's context: added, changed and taken away from afar.
//!
//! Each request is a job in the context's inbox that carries what it is about and the answer to
//! give. Whoever drops it unserved (a context that closes, or a thread that pushes it into one
//! that has closed) gives the answer then, so no source is lost on the way.

use std::fmt;
use std::marker::PhantomData;

use crate::ack::{self, Ack, Answer};
use crate::context::AioContext;
use crate::error::{Error, ErrorCode, Result};
use crate::handler::{Body, Handler, Source, Token};
use crate::inbox::Node;
use crate::interest::Interest;
use crate::remote::Remote;

/// What comes of [`Remote::register_send`]: a token, or the error and the source.
pub type Registered<S> = std::result::Result<SendToken<S>, (Error, S)>;

/// Names a registration from any thread. Used after its handler is gone, it does nothing.
///
/// A handler that moves to another context gets a new one there.
///
/// ```
/// let ctx = fdmon::AioContext::builder().build()?;
/// let bell = fdmon::EventNotifier::new()?;
/// let token = ctx.set_fd_handler(bell, fdmon::Handlers::new().read(|_| Ok(())))?;
/// let name = token.to_send();
/// assert_eq!(name.context_id(), ctx.id());
/// std::thread::spawn(move || {
///     fdmon::Remote::from_id(name.context_id())?.set_interest(&name, fdmon::Interest::empty());
///     Ok::<_, fdmon::Error>(())
/// });
/// # Ok::<(), fdmon::Error>(())
/// ```
pub struct SendToken<S> {
    pub(crate) context: u64,
    pub(crate) slot: u32,
    pub(crate) generation: u32,
    source: PhantomData<fn() -> S>,
}

impl<S> SendToken<S> {
    /// The id of the context that made it.
    ///
    /// ```
    /// # let ctx = fdmon::AioContext::builder().build()?;
    /// # let bell = fdmon::EventNotifier::new()?;
    /// # let token = ctx.set_fd_handler(bell, fdmon::Handlers::new().read(|_| Ok(())))?;
    /// assert_eq!(token.to_send().context_id(), ctx.id());
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    #[must_use]
    pub fn context_id(&self) -> u64 {
        self.context
    }

    /// The token of the home thread. `None` = the context is another one.
    ///
    /// ```
    /// # let ctx = fdmon::AioContext::builder().build()?;
    /// # let bell = fdmon::EventNotifier::new()?;
    /// let token = ctx.set_fd_handler(bell, fdmon::Handlers::new().read(|_| Ok(())))?;
    /// assert!(token.to_send().to_local(&ctx).is_some_and(|token| token.is_live()));
    /// assert!(token.to_send().to_local(&fdmon::AioContext::builder().build()?).is_none());
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    #[must_use]
    pub fn to_local(&self, ctx: &AioContext) -> Option<Token<S>> {
        (self.context == ctx.id()).then(|| ctx.token(self.slot, self.generation))
    }

    /// The context was gone when it was made.
    pub(crate) fn is_nowhere(&self) -> bool {
        self.context == 0
    }

    /// It is of this context.
    pub(crate) fn check(&self, context: u64) -> Result<()> {
        if self.context == context {
            return Ok(());
        }
        Err(Error::invalid_arg(
            "token",
            format_args!("a token of context {}", self.context),
            "one of the remote's own context",
        ))
    }
}

impl<S> Token<S> {
    /// The token for other threads. Of a context that is gone, it names no handler.
    ///
    /// ```
    /// let ctx = fdmon::AioContext::builder().build()?;
    /// let bell = fdmon::EventNotifier::new()?;
    /// let token = ctx.set_fd_handler(bell, fdmon::Handlers::new().read(|_| Ok(())))?;
    /// let (remote, name) = (ctx.remote(), token.to_send());
    /// std::thread::spawn(move || remote.deregister(&name)).join().unwrap();
    /// ctx.poll(false)?;
    /// assert!(!token.is_live());
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    #[must_use]
    pub fn to_send(&self) -> SendToken<S> {
        let context = self.context.upgrade().map_or(0, |inner| inner.shared.id);
        SendToken { context, slot: self.slot, generation: self.generation, source: PhantomData }
    }
}

impl<S> Clone for SendToken<S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for SendToken<S> {}

impl<S> fmt::Debug for SendToken<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendToken")
            .field("context", &self.context)
            .field("slot", &self.slot)
            .field("generation", &self.generation)
            .finish()
    }
}

impl Remote {
    /// Registers a source on the context, as [`AioContext::register`] does there, and wakes the
    /// loop. Closures are registered as [`SendHandlers`](crate::SendHandlers).
    ///
    /// What the source says of itself (its fd, its interest, its predicate) is asked in the home
    /// thread. One that panics then comes back; the panic resumes in the context's turn.
    ///
    /// ```
    /// use fdmon::{AioContext, EventNotifier, SendHandlers};
    /// let ctx = AioContext::builder().build()?;
    /// let remote = ctx.remote();
    /// let asker = std::thread::spawn(move || {
    ///     let bell = EventNotifier::with_value(1)?;
    ///     let handlers = SendHandlers::new(bell).read(|ops| { ops.stop(); Ok(()) });
    ///     remote.register_send(handlers).wait()?.map_err(|(error, _handlers)| error)
    /// });
    /// ctx.run()?; // until the handler stops it
    /// assert_eq!(asker.join().unwrap()?.context_id(), ctx.id());
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`AioContext::register`], in the answer; `Closed` also when the context closes first. The
    /// source comes back.
    pub fn register_send<S: Source + Send>(&self, source: S) -> Ack<Registered<S>> {
        if let Err(error) = self.open() {
            return ack::answered(Err((error, source)));
        }
        let (ack, answer) = ack::pair();
        let registration = Registration(Some((source, answer)));
        self.0.deliver(Node::job(Box::new(move |ops| registration.serve(ops.ctx))));
        ack
    }

    /// Removes a handler and gives back its source, or the fd of closures: when this is
    /// acknowledged, nothing of it runs any more. If one of its callbacks runs at that moment, the
    /// acknowledgement follows its return. `None` = it was gone already.
    ///
    /// ```
    /// use fdmon::{EventNotifier, Handlers, IoThread};
    /// let ctx = fdmon::AioContext::builder().build()?;
    /// let bell = EventNotifier::new()?;
    /// let token = ctx.set_fd_handler(bell, Handlers::new().read(|_| Ok(())))?.to_send();
    /// let remote = ctx.remote();
    /// let asker = std::thread::spawn(move || remote.deregister(&token).wait()?);
    /// while !asker.is_finished() {
    ///     ctx.poll(false)?;
    /// }
    /// assert!(asker.join().unwrap()?.is_some());
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    ///
    /// # Errors
    /// In the answer: `Closed`, after which the context has released the source; `InvalidArg` for a
    /// token of another context. A request that came before the end is served by it.
    pub fn deregister<S: Send + 'static>(&self, token: &SendToken<S>) -> Ack<Result<Option<S>>> {
        if let Err(error) = self.open().and_then(|()| token.check(self.id())) {
            return ack::answered(Err(error));
        }
        let (ack, answer) = ack::pair();
        let (removal, token) = (Removal(Some(answer)), *token);
        self.0.deliver(Node::leaving(Box::new(move |ops| removal.serve(ops.ctx, token))));
        ack
    }

    /// Changes what a handler hears, as [`Token::set_interest`] does at home. `false` = the handler
    /// is gone.
    ///
    /// ```
    /// use fdmon::{AioContext, Handlers, Interest};
    /// let ctx = AioContext::builder().build()?;
    /// let bell = fdmon::EventNotifier::with_value(1)?;
    /// let token = ctx.set_fd_handler(bell, Handlers::new().read(|_| Ok(())))?.to_send();
    /// let remote = ctx.remote();
    /// let asker = std::thread::spawn(move || {
    ///     remote.set_interest(&token, Interest::empty()).wait()?
    /// });
    /// while !asker.is_finished() {
    ///     ctx.poll(false)?;
    /// }
    /// assert!(asker.join().unwrap()?);
    /// assert!(!ctx.poll(false)?, "it hears nothing");
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Token::set_interest`], in the answer; `Closed` also when the context closes first, and
    /// `InvalidArg` for a token of another context.
    pub fn set_interest<S>(&self, token: &SendToken<S>, interest: Interest) -> Ack<Result<bool>> {
        if let Err(error) = self.open().and_then(|()| token.check(self.id())) {
            return ack::answered(Err(error));
        }
        let (ack, answer) = ack::pair();
        let change = InterestChange(Some(answer));
        let (slot, generation) = (token.slot, token.generation);
        self.0.deliver(Node::job(Box::new(move |ops| {
            change.give(ops.ctx.0.set_interest(slot, generation, interest));
        })));
        ack
    }
}

/// A source on its way to another thread's context.
struct Registration<S>(Option<(S, Answer<Registered<S>>)>);

impl<S: Source> Registration<S> {
    fn serve(mut self, ctx: &AioContext) {
        if let Some((source, answer)) = self.0.take() {
            answer.give(ctx.admit(source, |_| ()));
        }
    }
}

impl<S> Drop for Registration<S> {
    fn drop(&mut self) {
        if let Some((source, answer)) = self.0.take() {
            answer.give_at_last(Err((Error::closed(), source)));
        }
    }
}

/// A request to remove a handler.
struct Removal<S>(Option<Answer<Result<Option<S>>>>);

impl<S: 'static> Removal<S> {
    fn serve(mut self, ctx: &AioContext, token: SendToken<S>) {
        ctx.withdraw(token.slot, token.generation, move |ctx, body| {
            let source = body.and_then(|body| body.into_any().downcast::<S>().ok());
            let Some(answer) = self.0.take() else { return };
            // A hook may have closed the context, which released it.
            let released = source.is_none() && ctx.is_closed();
            answer.give(if released { Err(Error::closed()) } else { Ok(source.map(|s| *s)) });
        });
    }
}

impl<S> Drop for Removal<S> {
    fn drop(&mut self) {
        if let Some(answer) = self.0.take() {
            answer.give_at_last(Err(Error::closed()));
        }
    }
}

/// A request to change a handler.
struct InterestChange(Option<Answer<Result<bool>>>);

impl InterestChange {
    fn give(mut self, result: Result<bool>) {
        if let Some(answer) = self.0.take() {
            answer.give(result);
        }
    }
}

impl Drop for InterestChange {
    fn drop(&mut self) {
        if let Some(answer) = self.0.take() {
            answer.give_at_last(Err(Error::closed()));
        }
    }
}

impl AioContext {
    /// Registers a source that comes from another thread. Its own code is asked what it is before
    /// anything is made of it, so that a panic there loses nothing.
    pub(crate) fn admit<S: Source>(
        &self,
        source: S,
        change: impl FnOnce(&mut Handler),
    ) -> Registered<S> {
        let mut handler = match self.0.guarded(|| self.describe(&source)) {
            Some(Ok(handler)) => handler,
            Some(Err(error)) => return Err((error, source)),
            None => {
                let error = Error::new(
                    ErrorCode::Callback,
                    "the source panicked when it was asked what it is; mend its interest(), \
                     poll() or as_fd()",
                );
                return Err((error, source));
            }
        };
        change(&mut handler);
        self.register_as(handler, source).map(|token| token.to_send())
    }

    /// Removes a handler and hands on its body: at once, or when the function of it that runs
    /// has returned. `None` = it was gone.
    pub(crate) fn withdraw(
        &self,
        slot: u32,
        generation: u32,
        then: impl FnOnce(&Self, Option<Box<dyn Body>>) + 'static,
    ) {
        let live = self.0.state().reg.live_handler(slot, generation).is_some();
        let Some(mut handler) = live.then(|| self.remove_slot(slot)).flatten() else {
            return then(self, None);
        };
        let body = handler.body.take();
        drop(handler); // and with it its claim on a suppress word
        match body {
            Some(body) => then(self, Some(body)),
            None => {
                let take = Box::new(move |ctx: &Self, body| then(ctx, Some(body)));
                self.0.state().claims.push(Claim { slot, generation, take });
            }
        }
    }
}

type Take = Box<dyn FnOnce(&AioContext, Box<dyn Body>)>;

/// The body of this handler, which is gone, belongs to somebody as soon as it returns.
pub(crate) struct Claim {
    slot: u32,
    generation: u32,
    take: Take,
}

impl crate::context::State {
    /// Who is to get this body instead of having it dropped.
    pub(crate) fn take_claim(&mut self, slot: u32, generation: u32) -> Option<Take> {
        let of = |claim: &Claim| claim.slot == slot && claim.generation == generation;
        let at = self.claims.iter().position(of)?;
        Some(self.claims.swap_remove(at).take)
    }
}
