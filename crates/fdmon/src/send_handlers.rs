//! ① Closures that may run in any thread: what [`Handlers`](crate::Handlers) are at home, as a
//! source that can be registered from afar and move between contexts.

use std::fmt;

use rustix::fd::{AsFd, BorrowedFd};

use crate::error::Outcome;
use crate::handler::{Parts, Private, Source, call};
use crate::interest::{Callbacks, Interest};
use crate::ops::Ops;
use crate::sync::Arc;
use crate::word_source::{PollSource, WordSource, word_or_code};

type Callback = Box<dyn FnMut(&mut Ops<'_>) -> Outcome + Send>;

/// Callbacks for one fd, as [`Handlers`](crate::Handlers), that may leave the thread: a [`Source`]
/// for [`AioContext::register`](crate::AioContext::register) and
/// [`Remote::register_send`](crate::Remote::register_send).
///
/// `Ops::fd()` is the fd. Interest follows from the callbacks: `read`, `write`, `priority`.
///
/// ```
/// use fdmon::{AioContext, EventNotifier, SendHandlers};
/// let ctx = AioContext::builder().build()?;
/// let bell = EventNotifier::with_value(1)?;
/// let clear = bell.clone();
/// let handlers = SendHandlers::new(bell).read(move |ops| {
///     clear.test_and_clear()?;
///     ops.stop();
///     Ok(())
/// });
/// let token = ctx.register(handlers).map_err(|(error, _)| error)?;
/// ctx.run()?;
/// let bell: EventNotifier = ctx.deregister(&token).expect("it is registered").into_fd();
/// assert!(!bell.test_and_clear()?);
/// # Ok::<(), fdmon::Error>(())
/// ```
#[must_use]
pub struct SendHandlers<F> {
    fd: F,
    read: Option<Callback>,
    write: Option<Callback>,
    priority: Option<Callback>,
    poll_ready: Option<Callback>,
    source: Option<Box<dyn PollSource + Send>>,
    word: Option<Arc<WordSource>>,
    external: bool,
    kernel: bool,
    name: Option<Box<str>>,
}

impl<F: AsFd + Send + 'static> SendHandlers<F> {
    /// No callbacks yet; the fd belongs to them from now on.
    ///
    /// ```
    /// let ctx = fdmon::AioContext::builder().build()?;
    /// let none = fdmon::SendHandlers::new(fdmon::EventNotifier::new()?);
    /// let (error, _none) = ctx.register(none).unwrap_err();
    /// assert!(error.is_invalid_arg(), "there must be a callback");
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    pub fn new(fd: F) -> Self {
        Self {
            fd,
            read: None,
            write: None,
            priority: None,
            poll_ready: None,
            source: None,
            word: None,
            external: false,
            kernel: false,
            name: None,
        }
    }

    /// The fd is readable, hung up or in error; or it is so and the predicate said yes as well.
    ///
    /// ```
    /// let bell = fdmon::EventNotifier::new()?;
    /// let clear = bell.clone();
    /// let handlers = fdmon::SendHandlers::new(bell).read(move |_ops| {
    ///     clear.test_and_clear()?;
    ///     Ok(())
    /// });
    /// # drop(handlers);
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    pub fn read(mut self, f: impl FnMut(&mut Ops<'_>) -> Outcome + Send + 'static) -> Self {
        self.read = Some(Box::new(f));
        self
    }

    /// Writing will not block, or the fd is in error.
    ///
    /// ```
    /// let (reader, writer) = std::io::pipe()?;
    /// let handlers = fdmon::SendHandlers::new(writer).write(|ops| {
    ///     println!("room in {:?}", ops.fd());
    ///     Ok(())
    /// });
    /// # drop((reader, handlers));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn write(mut self, f: impl FnMut(&mut Ops<'_>) -> Outcome + Send + 'static) -> Self {
        self.write = Some(Box::new(f));
        self
    }

    /// There is urgent data, or the fd is in error.
    ///
    /// ```
    /// let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
    /// let handlers = fdmon::SendHandlers::new(socket).priority(|ops| {
    ///     println!("{:?}", ops.events());
    ///     Ok(())
    /// });
    /// # drop(handlers);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn priority(mut self, f: impl FnMut(&mut Ops<'_>) -> Outcome + Send + 'static) -> Self {
        self.priority = Some(Box::new(f));
        self
    }

    /// The predicate that spinning asks: a closure, a [`WordSource`], or your own [`PollSource`].
    /// Without [`SendHandlers::poll_ready`] it has nothing to run and is ignored.
    ///
    /// ```
    /// use std::sync::{Arc, atomic::{AtomicU32, Ordering}};
    /// use fdmon::{AioContext, EventNotifier, SendHandlers, WordSource};
    /// let (head, tail) = (Arc::new(AtomicU32::new(1)), Arc::new(AtomicU32::new(0)));
    /// let (seen, end) = (head.clone(), tail.clone());
    /// let handlers = SendHandlers::new(EventNotifier::new()?)
    ///     .poll(WordSource::words_differ(head, tail))
    ///     .poll_ready(move |_ops| Ok(end.store(seen.load(Ordering::Acquire), Ordering::Release)));
    /// let ctx = AioContext::builder().build()?;
    /// ctx.register(handlers).map_err(|(error, _)| error)?;
    /// assert!(ctx.poll(true)?, "it is asked before any sleep");
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    pub fn poll(mut self, source: impl PollSource + Send) -> Self {
        let (word, code) = word_or_code(source);
        self.word = word.map(Arc::new);
        self.source = code.map(|code| Box::new(code) as Box<_>);
        self
    }

    /// The predicate said yes.
    ///
    /// ```
    /// let handlers = fdmon::SendHandlers::new(fdmon::EventNotifier::new()?)
    ///     .poll(|| true)
    ///     .poll_ready(|ops| { ops.stop(); Ok(()) });
    /// let ctx = fdmon::AioContext::builder().build()?;
    /// ctx.register(handlers).map_err(|(error, _)| error)?;
    /// ctx.run()?;
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    pub fn poll_ready(mut self, f: impl FnMut(&mut Ops<'_>) -> Outcome + Send + 'static) -> Self {
        self.poll_ready = Some(Box::new(f));
        self
    }

    /// Spin on the kernel's readiness of this fd instead of a predicate.
    ///
    /// ```
    /// let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
    /// let handlers = fdmon::SendHandlers::new(socket).read(|_ops| Ok(())).poll_kernel();
    /// # drop(handlers);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn poll_kernel(mut self) -> Self {
        self.kernel = true;
        self
    }

    /// The fd is fed by outside clients: `disable_external` holds it back.
    ///
    /// ```
    /// let ctx = fdmon::AioContext::builder().build()?;
    /// let bell = fdmon::EventNotifier::with_value(1)?;
    /// let handlers = fdmon::SendHandlers::new(bell).read(|_ops| Ok(())).external(true);
    /// ctx.register(handlers).map_err(|(error, _)| error)?;
    /// ctx.disable_external();
    /// assert!(!ctx.poll(false)?);
    /// ctx.enable_external();
    /// assert!(ctx.poll(false)?);
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    pub fn external(mut self, external: bool) -> Self {
        self.external = external;
        self
    }

    /// As [`Handlers::name`](crate::Handlers::name).
    ///
    /// ```
    /// let bell = fdmon::EventNotifier::new()?;
    /// let handlers = fdmon::SendHandlers::new(bell).read(|_ops| Ok(())).name("bell");
    /// assert_eq!(fdmon::Source::name(&handlers), Some("bell"));
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    pub fn name(mut self, name: impl Into<Box<str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The fd; the callbacks are dropped.
    ///
    /// ```
    /// let bell = fdmon::EventNotifier::with_value(1)?;
    /// let bell = fdmon::SendHandlers::new(bell).read(|_ops| Ok(())).into_fd();
    /// assert!(bell.test_and_clear()?);
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    #[must_use]
    pub fn into_fd(self) -> F {
        self.fd
    }

    fn has_poll(&self) -> bool {
        self.poll_ready.is_some() && (self.word.is_some() || self.source.is_some())
    }
}

impl<F> SendHandlers<F> {
    fn callbacks(&self) -> Callbacks {
        let mut callbacks = Callbacks::empty();
        callbacks.set(Callbacks::READ, self.read.is_some());
        callbacks.set(Callbacks::WRITE, self.write.is_some());
        callbacks.set(Callbacks::PRIORITY, self.priority.is_some());
        callbacks
    }
}

impl<F: AsFd> AsFd for SendHandlers<F> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl<F: AsFd + Send + 'static> Source for SendHandlers<F> {
    fn interest(&self) -> Interest {
        Interest::of(self.callbacks())
    }

    fn external(&self) -> bool {
        self.external
    }

    fn poll_kernel(&self) -> bool {
        self.kernel
    }

    fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    fn read(&mut self, ops: &mut Ops<'_>) -> Outcome {
        call(&mut self.read, &self.fd, ops.ctx, ops.events)
    }

    fn write(&mut self, ops: &mut Ops<'_>) -> Outcome {
        call(&mut self.write, &self.fd, ops.ctx, ops.events)
    }

    fn priority(&mut self, ops: &mut Ops<'_>) -> Outcome {
        call(&mut self.priority, &self.fd, ops.ctx, ops.events)
    }

    fn poll(&self) -> bool {
        self.source.as_ref().is_some_and(|source| source.poll())
    }

    fn poll_ready(&mut self, ops: &mut Ops<'_>) -> Outcome {
        call(&mut self.poll_ready, &self.fd, ops.ctx, ops.events)
    }

    fn poll_begin(&mut self) {
        if let Some(source) = &mut self.source {
            source.poll_begin();
        }
    }

    fn poll_end(&mut self) {
        if let Some(source) = &mut self.source {
            source.poll_end();
        }
    }

    fn parts(&self, _: Private) -> Parts {
        let has_poll = self.has_poll();
        let mut callbacks = self.callbacks();
        callbacks.set(Callbacks::POLL_READY, has_poll);
        Parts { callbacks, has_poll: Some(has_poll), word: self.word.clone().filter(|_| has_poll) }
    }
}

impl<F> fmt::Debug for SendHandlers<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendHandlers")
            .field("callbacks", &self.callbacks())
            .field("external", &self.external)
            .finish_non_exhaustive()
    }
}
