//! ① Handlers: what users register, and what their callbacks are given.

use std::any::{Any, TypeId};
use std::cell::Cell;
use std::marker::PhantomData;
use std::rc::Weak;

use rustix::fd::{AsFd, RawFd};

use crate::context::{AioContext, Inner};
use crate::error::{Outcome, Result};
use crate::interest::{Callbacks, Events, Interest};
use crate::ops::Ops;
use crate::stats::HandlerCounters;
use crate::sync::Arc;
use crate::word_source::{PollSource, WordSource, word_or_code};

thread_local! {
    /// The default of `Source::poll` ran: that source has no predicate.
    static DEFAULT_POLL_RAN: Cell<bool> = const { Cell::new(false) };
}

/// A device or connection with its own state, registered with [`AioContext::register`].
///
/// ```
/// use std::os::fd::{AsFd, BorrowedFd};
/// use fdmon::{AioContext, EventNotifier, Interest, Ops, Outcome, Source};
///
/// struct Doorbell { bell: EventNotifier, rings: u32 }
/// impl AsFd for Doorbell {
///     fn as_fd(&self) -> BorrowedFd<'_> { self.bell.as_fd() }
/// }
/// impl Source for Doorbell {
///     fn interest(&self) -> Interest { Interest::READ }
///     fn read(&mut self, _ops: &mut Ops<'_>) -> Outcome {
///         self.rings += u32::from(self.bell.test_and_clear()?);
///         Ok(())
///     }
/// }
///
/// let bell = EventNotifier::new()?;
/// let ctx = AioContext::builder().build()?;
/// let token = ctx.register(Doorbell { bell: bell.clone(), rings: 0 }).map_err(|(e, _)| e)?;
/// bell.set()?;
/// ctx.poll(true)?;
/// assert_eq!(ctx.deregister(&token).unwrap().rings, 1);
/// # Ok::<(), fdmon::Error>(())
/// ```
pub trait Source: AsFd + 'static {
    /// What to watch at first.
    fn interest(&self) -> Interest;

    /// The fd is fed by outside clients: `disable_external` holds it back. Asked at registration.
    ///
    /// ```
    /// # use std::os::fd::{AsFd, BorrowedFd};
    /// # use fdmon::{EventNotifier, Interest, Source};
    /// # struct Client(EventNotifier);
    /// # impl AsFd for Client {
    /// #     fn as_fd(&self) -> BorrowedFd<'_> { self.0.as_fd() }
    /// # }
    /// impl Source for Client {
    ///     fn interest(&self) -> Interest { Interest::READ }
    ///     fn external(&self) -> bool { true }
    /// }
    /// # assert!(Client(EventNotifier::new()?).external());
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    fn external(&self) -> bool {
        false
    }

    /// Spin on the kernel's readiness of the fd; one that has a predicate spins on that instead.
    /// Asked at registration.
    ///
    /// ```
    /// # use std::os::fd::{AsFd, BorrowedFd};
    /// # use fdmon::{EventNotifier, Interest, Source};
    /// # struct Client(EventNotifier);
    /// # impl AsFd for Client {
    /// #     fn as_fd(&self) -> BorrowedFd<'_> { self.0.as_fd() }
    /// # }
    /// impl Source for Client {
    ///     fn interest(&self) -> Interest { Interest::READ }
    ///     fn poll_kernel(&self) -> bool { true }
    /// }
    /// # assert!(Client(EventNotifier::new()?).poll_kernel());
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    fn poll_kernel(&self) -> bool {
        false
    }

    /// What traces call its callbacks, of which they show the first 40 bytes; without it they say
    /// `fd 5`. Asked at registration.
    ///
    /// ```
    /// # use std::os::fd::{AsFd, BorrowedFd};
    /// # use fdmon::{EventNotifier, Interest, Source};
    /// # struct Client(EventNotifier);
    /// # impl AsFd for Client {
    /// #     fn as_fd(&self) -> BorrowedFd<'_> { self.0.as_fd() }
    /// # }
    /// impl Source for Client {
    ///     fn interest(&self) -> Interest { Interest::READ }
    ///     fn name(&self) -> Option<&str> { Some("client") }
    /// }
    /// # assert_eq!(Client(EventNotifier::new()?).name(), Some("client"));
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    fn name(&self) -> Option<&str> {
        None
    }

    /// The fd is readable, hung up or in error; or it is so and the predicate said yes as well.
    ///
    /// # Errors
    /// Reported by the turn, after its other callbacks.
    fn read(&mut self, ops: &mut Ops<'_>) -> Outcome {
        let _ = ops;
        Ok(())
    }

    /// Writing will not block, or the fd is in error.
    ///
    /// # Errors
    /// As [`Source::read`].
    fn write(&mut self, ops: &mut Ops<'_>) -> Outcome {
        let _ = ops;
        Ok(())
    }

    /// There is urgent data, or the fd is in error.
    ///
    /// # Errors
    /// As [`Source::read`].
    fn priority(&mut self, ops: &mut Ops<'_>) -> Outcome {
        let _ = ops;
        Ok(())
    }

    /// The predicate that spinning asks: is there something to do? It runs over and over, so it
    /// must be quick and have no side effects. A source that does not override it is not spun.
    fn poll(&self) -> bool {
        DEFAULT_POLL_RAN.set(true);
        false
    }

    /// The predicate said yes.
    ///
    /// # Errors
    /// As [`Source::read`].
    fn poll_ready(&mut self, ops: &mut Ops<'_>) -> Outcome {
        let _ = ops;
        Ok(())
    }

    /// Spinning begins: the producer may stop signalling the fd.
    fn poll_begin(&mut self) {}

    /// Spinning ends: the producer must signal again.
    fn poll_end(&mut self) {}

    #[doc(hidden)]
    fn parts(&self, _: Private) -> Parts {
        Parts::default()
    }
}

/// Only this crate has one.
#[derive(Debug)]
pub struct Private(());

/// What a source of this crate is made of; those of users have every callback.
#[derive(Debug)]
pub struct Parts {
    pub(crate) callbacks: Callbacks,
    /// It has a predicate; `None` = to be found out.
    pub(crate) has_poll: Option<bool>,
    /// The predicate, where it is a word in memory, which is read in place.
    pub(crate) word: Option<Arc<WordSource>>,
}

impl Default for Parts {
    fn default() -> Self {
        Self { callbacks: Callbacks::all(), has_poll: None, word: None }
    }
}

type Callback = Box<dyn FnMut(&mut Ops<'_>) -> Outcome>;

/// Callbacks for one fd, registered with [`AioContext::set_fd_handler`].
///
/// `Ops::fd()` is the fd. Interest follows from the callbacks: `read`, `write`, `priority`.
#[derive(Default)]
#[must_use]
pub struct Handlers {
    closures: Closures,
    word: Option<Arc<WordSource>>,
    external: bool,
    kernel: bool,
    name: Option<Box<str>>,
}

/// What of them is called.
#[derive(Default)]
struct Closures {
    read: Option<Callback>,
    write: Option<Callback>,
    priority: Option<Callback>,
    poll_ready: Option<Callback>,
    source: Option<Box<dyn PollSource>>,
}

impl Handlers {
    /// No callback yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The fd is readable, hung up or in error.
    pub fn read(mut self, f: impl FnMut(&mut Ops<'_>) -> Outcome + 'static) -> Self {
        self.closures.read = Some(Box::new(f));
        self
    }

    /// Writing will not block, or the fd is in error.
    pub fn write(mut self, f: impl FnMut(&mut Ops<'_>) -> Outcome + 'static) -> Self {
        self.closures.write = Some(Box::new(f));
        self
    }

    /// There is urgent data, or the fd is in error.
    pub fn priority(mut self, f: impl FnMut(&mut Ops<'_>) -> Outcome + 'static) -> Self {
        self.closures.priority = Some(Box::new(f));
        self
    }

    /// The predicate that spinning asks: a closure, a [`WordSource`], or your own [`PollSource`].
    /// Without [`Handlers::poll_ready`] it has nothing to run and is ignored.
    pub fn poll(mut self, source: impl PollSource) -> Self {
        let (word, code) = word_or_code(source);
        self.word = word.map(Arc::new);
        self.closures.source = code.map(|code| Box::new(code) as Box<_>);
        self
    }

    /// The predicate said yes.
    pub fn poll_ready(mut self, f: impl FnMut(&mut Ops<'_>) -> Outcome + 'static) -> Self {
        self.closures.poll_ready = Some(Box::new(f));
        self
    }

    /// Spin on the kernel's readiness of this fd instead of a predicate.
    pub fn poll_kernel(mut self) -> Self {
        self.kernel = true;
        self
    }

    /// The fd is fed by outside clients: `disable_external` holds it back.
    pub fn external(mut self, external: bool) -> Self {
        self.external = external;
        self
    }

    /// What traces call it, of which they show the first 40 bytes; without it they say `fd 5`.
    pub fn name(mut self, name: impl Into<Box<str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    fn callbacks(&self) -> Callbacks {
        let mut callbacks = Callbacks::empty();
        callbacks.set(Callbacks::READ, self.closures.read.is_some());
        callbacks.set(Callbacks::WRITE, self.closures.write.is_some());
        callbacks.set(Callbacks::PRIORITY, self.closures.priority.is_some());
        callbacks.set(Callbacks::POLL_READY, self.closures.poll_ready.is_some());
        callbacks
    }

    pub(crate) fn into_handler<F: AsFd + 'static>(mut self, fd: F, raw: RawFd) -> Handler {
        let mut callbacks = self.callbacks();
        // A predicate without `poll_ready` has nothing to run on a hit, and the other way round.
        let has_poll = callbacks.contains(Callbacks::POLL_READY)
            && (self.word.is_some() || self.closures.source.is_some());
        callbacks.set(Callbacks::POLL_READY, has_poll);
        Handler {
            callbacks,
            wanted: Interest::of(callbacks),
            external: self.external,
            has_poll,
            kernel: self.kernel && !has_poll,
            word: self.word.take().filter(|_| has_poll),
            name: self.name.take(),
            kind: TypeId::of::<F>(),
            body: Some(Box::new(ClosureBody { fd, closures: self.closures })),
            ..Handler::new(raw)
        }
    }
}

impl std::fmt::Debug for Handlers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handlers")
            .field("callbacks", &self.callbacks())
            .field("external", &self.external)
            .finish_non_exhaustive()
    }
}

/// What a predicate said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// There is something to do.
    Hit,
    /// There is nothing to do.
    Miss,
    /// It could not say: no hit, and the spin ends.
    Failed,
}

/// Whatever runs behind a handler. Taken out of the registry while one of its functions runs,
/// so that nothing is borrowed over a call into user code.
pub(crate) trait Body {
    fn ready(&mut self, ctx: &AioContext, events: Events) -> Outcome;
    fn read(&mut self, ctx: &AioContext, events: Events) -> Outcome;
    fn write(&mut self, ctx: &AioContext, events: Events) -> Outcome;
    fn priority(&mut self, ctx: &AioContext, events: Events) -> Outcome;
    fn poll(&mut self) -> Probe;
    fn poll_begin(&mut self);
    fn poll_end(&mut self);
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
}

struct ClosureBody<F> {
    closures: Closures,
    fd: F,
}

/// Calls one of the closures, if there is one.
#[inline(always)]
pub(crate) fn call<C: FnMut(&mut Ops<'_>) -> Outcome + ?Sized>(
    callback: &mut Option<Box<C>>,
    fd: &impl AsFd,
    ctx: &AioContext,
    events: Events,
) -> Outcome {
    match callback {
        Some(callback) => callback(&mut Ops { ctx, fd: Some(fd.as_fd()), events }),
        None => Ok(()),
    }
}

impl<F: AsFd + 'static> Body for ClosureBody<F> {
    fn ready(&mut self, ctx: &AioContext, events: Events) -> Outcome {
        call(&mut self.closures.poll_ready, &self.fd, ctx, events)
    }

    fn read(&mut self, ctx: &AioContext, events: Events) -> Outcome {
        call(&mut self.closures.read, &self.fd, ctx, events)
    }

    fn write(&mut self, ctx: &AioContext, events: Events) -> Outcome {
        call(&mut self.closures.write, &self.fd, ctx, events)
    }

    fn priority(&mut self, ctx: &AioContext, events: Events) -> Outcome {
        call(&mut self.closures.priority, &self.fd, ctx, events)
    }

    fn poll(&mut self) -> Probe {
        match &self.closures.source {
            Some(source) if source.poll() => Probe::Hit,
            _ => Probe::Miss,
        }
    }

    fn poll_begin(&mut self) {
        if let Some(source) = &mut self.closures.source {
            source.poll_begin();
        }
    }

    fn poll_end(&mut self) {
        if let Some(source) = &mut self.closures.source {
            source.poll_end();
        }
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        Box::new(self.fd)
    }
}

pub(crate) struct SourceBody<S>(pub S);

impl<S: Source> Body for SourceBody<S> {
    fn ready(&mut self, ctx: &AioContext, events: Events) -> Outcome {
        self.0.poll_ready(&mut Ops { ctx, fd: None, events })
    }

    fn read(&mut self, ctx: &AioContext, events: Events) -> Outcome {
        self.0.read(&mut Ops { ctx, fd: None, events })
    }

    fn write(&mut self, ctx: &AioContext, events: Events) -> Outcome {
        self.0.write(&mut Ops { ctx, fd: None, events })
    }

    fn priority(&mut self, ctx: &AioContext, events: Events) -> Outcome {
        self.0.priority(&mut Ops { ctx, fd: None, events })
    }

    fn poll(&mut self) -> Probe {
        if self.0.poll() { Probe::Hit } else { Probe::Miss }
    }

    fn poll_begin(&mut self) {
        self.0.poll_begin();
    }

    fn poll_end(&mut self) {
        self.0.poll_end();
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        Box::new(self.0)
    }
}

/// All of a source's handler but its body.
pub(crate) fn describe<S: Source>(source: &S, raw: RawFd) -> Handler {
    let Parts { mut callbacks, has_poll, word } = source.parts(Private(()));
    let has_poll = has_poll.unwrap_or_else(|| {
        DEFAULT_POLL_RAN.set(false);
        let _ = source.poll();
        !DEFAULT_POLL_RAN.get()
    });
    callbacks.set(Callbacks::POLL_READY, has_poll);
    Handler {
        callbacks,
        wanted: source.interest() & Interest::of(callbacks),
        external: source.external(),
        has_poll,
        kernel: source.poll_kernel() && !has_poll,
        word,
        name: source.name().map(Box::from),
        kind: TypeId::of::<S>(),
        is_source: true,
        ..Handler::new(raw)
    }
}

pub(crate) const NOWHERE: u32 = u32::MAX;

/// A registered handler.
pub(crate) struct Handler {
    pub fd: RawFd,
    pub callbacks: Callbacks,
    /// What the user wants to hear.
    pub wanted: Interest,
    /// What the monitor was told last; `wanted`, or nothing while the handler is held back.
    pub armed: Interest,
    /// Taken out while one of its functions runs. A foreign handler without a predicate or hooks
    /// of its own has none.
    pub body: Option<Box<dyn Body>>,
    pub word: Option<Arc<WordSource>>,
    pub has_poll: bool,
    /// What its token names: a source, or the fd of closures.
    pub kind: TypeId,
    pub is_source: bool,
    /// `read` is the only callback, and it is native.
    pub only_reads: bool,
    /// A hit has nothing to do but run `poll_ready`: native, and on the spin list.
    pub simple_hit: bool,
    /// Spins on the kernel's readiness.
    pub kernel: bool,
    pub external: bool,
    /// Its callbacks live in another language and run from a batch.
    pub foreign: bool,
    /// …and it has hooks: where there is no body it is out, for one of them.
    pub hooked: bool,
    /// How many of its callbacks run now, in turns around this one.
    pub running: u32,
    /// One of its callbacks was run since the kernel began to watch its fd: what is reported may
    /// be old.
    pub ran_while_armed: bool,
    /// Reported while it was running and therefore taken off the monitor until it has returned.
    pub parked: bool,
    /// `poll_begin` was called last, not `poll_end`.
    pub begun: bool,
    /// Spin mode was left while the body was out; `poll_end` follows when it is back.
    pub end_owed: bool,
    /// Its predicate runs once in the next turn, before any sleep.
    pub look: bool,
    /// A hit at leaving the spin list is run but does not bring the handler back.
    pub leaving: bool,
    /// Place in the spin list, or `NOWHERE`.
    pub member: u32,
    /// When its predicate last hit, or when it joined the spin list.
    pub last_hit: u64,
    pub counters: Arc<HandlerCounters>,
    /// What traces call it.
    pub name: Option<Box<str>>,
    /// The trace that knows this name.
    pub named_in: u64,
}

impl Handler {
    pub fn new(fd: RawFd) -> Self {
        Self {
            fd,
            callbacks: Callbacks::empty(),
            wanted: Interest::empty(),
            armed: Interest::empty(),
            body: None,
            word: None,
            has_poll: false,
            kind: TypeId::of::<()>(),
            is_source: false,
            only_reads: false,
            simple_hit: false,
            kernel: false,
            external: false,
            foreign: false,
            hooked: false,
            running: 0,
            ran_while_armed: false,
            parked: false,
            begun: false,
            end_owed: false,
            look: false,
            leaving: false,
            member: NOWHERE,
            last_hit: 0,
            counters: Arc::new(HandlerCounters::new(fd)),
            name: None,
            named_in: 0,
        }
    }
}

/// Names a registration. Used after its handler is gone, it does nothing.
pub struct Token<S> {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
    pub(crate) context: Weak<Inner>,
    pub(crate) source: PhantomData<fn() -> S>,
}

impl<S> Token<S> {
    /// Changes what is watched; callbacks, spin membership and estimates stay. `false` = the
    /// handler is gone.
    ///
    /// # Errors
    /// `InvalidArg` for an interest without a callback; `Syscall` when the kernel refuses the fd.
    pub fn set_interest(&self, interest: Interest) -> Result<bool> {
        match self.context.upgrade() {
            Some(inner) => inner.set_interest(self.slot, self.generation, interest),
            None => Ok(false),
        }
    }

    /// The handler is registered.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.context.upgrade().is_some_and(|inner| inner.is_live(self.slot, self.generation))
    }
}

impl<S> Clone for Token<S> {
    fn clone(&self) -> Self {
        Self {
            slot: self.slot,
            generation: self.generation,
            context: self.context.clone(),
            source: PhantomData,
        }
    }
}

impl<S> std::fmt::Debug for Token<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token")
            .field("slot", &self.slot)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}
