//! Acknowledgements: the answer to what was asked of another thread's context.
//!
//! An [`Ack`] and its [`Answer`] share one place for one value. The answer is given once, by whoever
//! has the request last: the context that served it, or whoever drops it unserved. Nobody waits
//! for a home thread but by choice, and no home thread waits at all.

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::PoisonError;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::context::AioContext;
use crate::error::{Error, ErrorCode, Outcome, Result};
use crate::fork::Home;
use crate::inbox::{Job, Node};
use crate::ops::Ops;
use crate::registry::Callback;
use crate::remote::{Remote, lock};
use crate::sync::{Arc, Condvar, Mutex};

thread_local! {
    /// Contexts that are at home in this thread, and open.
    static OPEN_HERE: Cell<u32> = const { Cell::new(0) };
}

/// A context was built in this thread.
pub(crate) fn came_home() {
    OPEN_HERE.set(OPEN_HERE.get() + 1);
}

/// …and is closed.
pub(crate) fn left_home() {
    OPEN_HERE.set(OPEN_HERE.get().saturating_sub(1));
}

/// What was asked of another thread's context, until it answers.
///
/// The request is on its way as soon as it is made, whatever becomes of this. There are four ways
/// to hear the answer, and none of them needs the others:
///
/// - in a context of one's own, [`Ack::then`]: a bottom half; from a thread that has only the
///   remote of a context, [`Ack::then_on`];
/// - as a future, in any executor;
/// - in a thread that is no context's home, [`Ack::wait`];
/// - now and then, [`Ack::try_take`].
///
/// The answer always comes: a context that closes first answers `Closed`, and gives back what was
/// on its way to it. Dropped, an `Ack` drops the answer.
///
/// ```
/// use fdmon::{EventNotifier, IoThread, SendHandlers};
/// let thread = IoThread::builder().spawn()?;
/// let bell = EventNotifier::new()?;
/// let clear = bell.clone();
/// let handlers = SendHandlers::new(bell).read(move |_| { clear.test_and_clear()?; Ok(()) });
/// let token = thread.remote().register_send(handlers).wait()?.map_err(|(error, _)| error)?;
/// assert_eq!(token.context_id(), thread.remote().id());
/// # Ok::<(), fdmon::Error>(())
/// ```
#[must_use = "dropped, it drops the answer: a token, or a source that comes back"]
pub struct Ack<T>(Arc<Place<T>>);

/// The other end.
pub(crate) struct Answer<T>(Arc<Place<T>>);

struct Place<T> {
    stage: Mutex<Stage<T>>,
    arrived: Condvar,
    home: Home,
}

enum Stage<T> {
    Waiting(Option<Wake>),
    Here(T),
    Taken,
}

/// How to tell that the answer is here.
enum Wake {
    Waker(Waker),
    Job(Remote, Job),
    Half(Remote, Arc<Node>),
}

impl Wake {
    fn wake(self) {
        match self {
            Self::Waker(waker) => waker.wake(),
            // A context that is closed hears nothing any more, and drops the answer.
            Self::Job(asker, job) => drop(asker.push_job(job)),
            Self::Half(asker, node) => asker.schedule_node(&node),
        }
    }
}

/// An acknowledgement that is still to come, and where to give it.
pub(crate) fn pair<T>() -> (Ack<T>, Answer<T>) {
    let place = Arc::new(Place {
        stage: Mutex::new(Stage::Waiting(None)),
        arrived: Condvar::new(),
        home: Home::here(),
    });
    (Ack(Arc::clone(&place)), Answer(place))
}

/// An acknowledgement of what is answered already.
pub(crate) fn answered<T>(value: T) -> Ack<T> {
    let (ack, answer) = pair();
    answer.give(value);
    ack
}

impl<T> Answer<T> {
    /// Gives the answer. Not to be called while something is borrowed or locked: a waker is
    /// somebody's code.
    pub fn give(self, value: T) {
        let before = std::mem::replace(&mut *lock(&self.0.stage), Stage::Here(value));
        self.0.arrived.notify_all();
        if let Stage::Waiting(Some(wake)) = before {
            wake.wake();
        }
    }

    /// Gives the answer in a destructor, through which no waker may unwind.
    pub fn give_at_last(self, value: T) {
        let _ = catch_unwind(AssertUnwindSafe(|| self.give(value)));
    }
}

impl<T> Place<T> {
    /// The answer, if it is here and was not taken.
    fn take(&self) -> Option<T> {
        let mut stage = lock(&self.stage);
        match std::mem::replace(&mut *stage, Stage::Taken) {
            Stage::Here(value) => Some(value),
            other => {
                *stage = other;
                None
            }
        }
    }

    /// Leaves word how to wake, or wakes at once.
    fn wake_by(&self, wake: Wake) {
        let mut stage = lock(&self.stage);
        let rest = match &mut *stage {
            Stage::Waiting(place) => {
                let old = place.replace(wake);
                drop(stage);
                drop(old); // a waker's drop is somebody's code as well
                return;
            }
            Stage::Here(_) | Stage::Taken => wake,
        };
        drop(stage);
        rest.wake();
    }
}

impl<T> Ack<T> {
    /// The answer is here.
    ///
    /// ```
    /// let ctx = fdmon::AioContext::builder().build()?;
    /// let bell = fdmon::EventNotifier::new()?;
    /// let token = ctx.set_fd_handler(bell, fdmon::Handlers::new().read(|_| Ok(())))?;
    /// let ack = ctx.remote().deregister(&token.to_send());
    /// assert!(!ack.is_done());
    /// ctx.poll(false)?;
    /// assert!(ack.is_done());
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    #[must_use]
    pub fn is_done(&self) -> bool {
        !matches!(*lock(&self.0.stage), Stage::Waiting(_))
    }

    /// The answer, if it is here; it can be taken once.
    ///
    /// ```
    /// let ctx = fdmon::AioContext::builder().build()?;
    /// let bell = fdmon::EventNotifier::new()?;
    /// let token = ctx.set_fd_handler(bell, fdmon::Handlers::new().read(|_| Ok(())))?;
    /// let mut ack = ctx.remote().deregister(&token.to_send());
    /// assert!(ack.try_take().is_none());
    /// ctx.poll(false)?;
    /// let bell: Option<fdmon::EventNotifier> = ack.try_take().expect("it is here")?;
    /// assert!(bell.is_some());
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    pub fn try_take(&mut self) -> Option<T> {
        self.0.take()
    }

    /// Blocks this thread until the answer is here.
    ///
    /// ```
    /// use fdmon::{EventNotifier, IoThread, Remote, SendHandlers};
    /// let thread = IoThread::builder().spawn()?;
    /// let handlers = SendHandlers::new(EventNotifier::new()?).read(|_| Ok(()));
    /// let token = thread.remote().register_send(handlers).wait()?.map_err(|(error, _)| error)?;
    /// let back = thread.remote().deregister(&token).wait()??;
    /// assert!(back.is_some());
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    ///
    /// # Errors
    /// `WrongThread` in a thread that is the home of an open context, which must never wait for
    /// another; the request goes on, and this can still be used. `Closed` in a forked child.
    /// `InvalidArg` when the answer was taken already.
    pub fn wait(&mut self) -> Result<T> {
        self.wait_until(None)?.ok_or_else(taken)
    }

    /// [`Ack::wait`] for at most this long; `None` = it did not come.
    ///
    /// ```
    /// # use std::time::Duration;
    /// let (send, receive) = std::sync::mpsc::channel();
    /// let home = std::thread::spawn(move || {
    ///     let ctx = fdmon::AioContext::builder().build()?;
    ///     send.send(ctx.remote()).expect("somebody listens");
    ///     ctx.run()
    /// });
    /// let remote = receive.recv().expect("it was built");
    /// let handlers = fdmon::SendHandlers::new(fdmon::EventNotifier::new()?).read(|_| Ok(()));
    /// let mut ack = remote.register_send(handlers);
    /// match ack.wait_for(Duration::from_secs(10))? {
    ///     Some(registered) => drop(registered.map_err(|(error, _)| error)?),
    ///     None => println!("that thread is busy"),
    /// }
    /// remote.stop()?;
    /// home.join().unwrap()?;
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Ack::wait`].
    pub fn wait_for(&mut self, time: Duration) -> Result<Option<T>> {
        self.wait_until(Instant::now().checked_add(time))
    }

    fn wait_until(&mut self, deadline: Option<Instant>) -> Result<Option<T>> {
        let mut stage = lock(&self.0.stage);
        loop {
            match std::mem::replace(&mut *stage, Stage::Taken) {
                Stage::Here(value) => return Ok(Some(value)),
                Stage::Taken => return Err(taken()),
                waiting @ Stage::Waiting(_) => *stage = waiting,
            }
            may_wait(self.0.home)?;
            let arrived = &self.0.arrived;
            stage = match deadline {
                None => arrived.wait(stage).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Ok(None);
                    }
                    let waited = arrived.wait_timeout(stage, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Runs a closure with the answer as a bottom half of this context, which is the asker's own:
    /// so the closure may hold what never leaves the thread.
    ///
    /// Until then it counts as a bottom half of the context; one that closes first drops it.
    ///
    /// ```
    /// # use std::{cell::Cell, rc::Rc};
    /// use fdmon::{AioContext, EventNotifier, IoThread, SendHandlers};
    /// let (ctx, thread) = (AioContext::builder().build()?, IoThread::builder().spawn()?);
    /// let handlers = SendHandlers::new(EventNotifier::new()?).read(|_| Ok(()));
    /// let token = Rc::new(Cell::new(None));
    /// let place = token.clone();
    /// let ack = thread.remote().register_send(handlers);
    /// ack.then(&ctx, move |_ops, registered| {
    ///     place.set(Some(registered.map_err(|(error, _)| error)?));
    ///     Ok(())
    /// })
    /// .map_err(|(error, _)| error)?;
    /// while token.get().is_none() {
    ///     ctx.poll(true)?;
    /// }
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Closed`; the acknowledgement comes back.
    pub fn then(
        self,
        ctx: &AioContext,
        f: impl FnOnce(&mut Ops<'_>, T) -> Outcome + 'static,
    ) -> std::result::Result<(), (Error, Self)>
    where
        T: 'static,
    {
        let place = Arc::clone(&self.0);
        let run = move |ops: &mut Ops<'_>| place.take().map_or(Ok(()), |value| f(ops, value));
        match ctx.0.add_half(Callback::Once(Box::new(run))) {
            Ok(node) => {
                self.0.wake_by(Wake::Half(ctx.remote(), node));
                Ok(())
            }
            Err(error) => Err((error, self)),
        }
    }

    /// Runs a closure with the answer in the home thread of this context, in order with its bottom
    /// halves. A context that closes first drops both.
    ///
    /// ```
    /// use fdmon::{AioContext, EventNotifier, IoThread, SendHandlers};
    /// let (ctx, thread) = (AioContext::builder().build()?, IoThread::builder().spawn()?);
    /// let (asker, disk) = (ctx.remote(), thread.remote());
    /// std::thread::spawn(move || {
    ///     let handlers = SendHandlers::new(EventNotifier::new()?).read(|_| Ok(()));
    ///     let ack = disk.register_send(handlers);
    ///     ack.then_on(&asker, |ops, registered| {
    ///         assert!(registered.is_ok());
    ///         ops.stop();
    ///     })
    ///     .map_err(|(error, _)| error)
    /// });
    /// ctx.run()?;
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Closed`; the acknowledgement comes back.
    pub fn then_on(
        self,
        asker: &Remote,
        f: impl FnOnce(&mut Ops<'_>, T) + Send + 'static,
    ) -> std::result::Result<(), (Error, Self)>
    where
        T: Send + 'static,
    {
        if let Err(error) = asker.open() {
            return Err((error, self));
        }
        let place = Arc::clone(&self.0);
        let run = move |ops: &mut Ops<'_>| {
            if let Some(value) = place.take() {
                f(ops, value);
            }
        };
        self.0.wake_by(Wake::Job(asker.clone(), Box::new(run)));
        Ok(())
    }
}

impl<T> Future for Ack<T> {
    type Output = T;

    /// # Panics
    /// When it is polled again after the answer was taken.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let waker = cx.waker().clone(); // somebody's code, so before the lock
        let mut stage = lock(&self.0.stage);
        match std::mem::replace(&mut *stage, Stage::Taken) {
            Stage::Here(value) => Poll::Ready(value),
            Stage::Taken => panic!("the acknowledgement was polled after its answer was taken"),
            Stage::Waiting(old) => {
                *stage = Stage::Waiting(Some(Wake::Waker(waker)));
                drop(stage);
                drop(old);
                Poll::Pending
            }
        }
    }
}

impl<T> fmt::Debug for Ack<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ack").field("done", &self.is_done()).finish_non_exhaustive()
    }
}

/// Would it be right for this thread to wait for another one?
fn may_wait(home: Home) -> Result<()> {
    if !home.is_here() {
        return Err(Error::new(
            ErrorCode::Closed,
            "the request was made by the parent of this forked process; make it anew",
        ));
    }
    match OPEN_HERE.get() {
        0 => Ok(()),
        contexts => Err(Error::new(
            ErrorCode::WrongThread,
            format!(
                "wait = in a thread that is the home of {contexts} open contexts, which would stand \
                 still; use then() there, or await it"
            ),
        )),
    }
}

fn taken() -> Error {
    Error::invalid_arg("ack", "taken", "one whose answer was not taken before")
}
