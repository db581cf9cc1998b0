//! A thread with a context of its own that runs turns until it is stopped.

mod builder;
mod failure;
mod life;

use std::fmt;
use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use crate::clock::monotonic_ns;
use crate::config::{AioParams, PollParams};
use crate::context::LeakReport;
use crate::cpu_clock::CpuClock;
use crate::error::{Error, ErrorCode, Result};
use crate::remote::{Remote, lock};
use crate::stats::ContextStats;
use crate::sync::Mutex;

pub use builder::IoThreadBuilder;
pub use failure::{Failure, IoThreadError};
use life::Ended;

/// Loads are not taken over a shorter time than this.
const LOAD_NS: u64 = 1_000_000;

/// A thread with a context of its own, which runs turns until it is stopped.
///
/// Handlers come to it by [`Remote::register_send`] and [`Remote::move_to`], anything else by
/// [`Remote::run`]. Dropping it stops it and waits for its end, as [`IoThread::stop`] does; what
/// failed is not reported then.
///
/// ```
/// use fdmon::{EventNotifier, IoThread, SendHandlers};
/// let thread = IoThread::builder().name("bells").spawn()?;
/// let (bell, heard) = (EventNotifier::with_value(1)?, std::sync::mpsc::channel());
/// let clear = bell.clone();
/// let handlers = SendHandlers::new(bell).read(move |_ops| {
///     clear.test_and_clear()?;
///     Ok(heard.0.send("somebody rang")?)
/// });
/// let token = thread.remote().register_send(handlers).wait()?.map_err(|(error, _)| error)?;
/// assert_eq!(heard.1.recv()?, "somebody rang");
/// thread.remote().deregister(&token).wait()??;
/// assert_eq!(thread.stop()?.handlers, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct IoThread {
    remote: Remote,
    clock: Option<CpuClock>,
    /// Set by the thread as the last thing it does.
    ended: Arc<AtomicBool>,
    meter: Mutex<Meter>,
    /// Given up, without a join, in a forked child, which has no such thread.
    thread: Option<ManuallyDrop<JoinHandle<Ended>>>,
}

impl IoThread {
    /// Options for a new thread.
    ///
    /// ```
    /// let thread = fdmon::IoThread::builder().name("disk").spawn()?;
    /// thread.stop()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn builder() -> IoThreadBuilder {
        IoThreadBuilder::new()
    }

    /// The context's `Send + Sync` side.
    ///
    /// ```
    /// let thread = fdmon::IoThread::builder().spawn()?;
    /// let (tell, told) = std::sync::mpsc::channel();
    /// thread.remote().run(move |_ops| tell.send(std::thread::current().id()).unwrap())?;
    /// assert_ne!(told.recv().unwrap(), std::thread::current().id());
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    #[must_use]
    pub fn remote(&self) -> Remote {
        self.remote.clone()
    }

    /// As [`Remote::set_poll_params`].
    ///
    /// ```
    /// use fdmon::{IoThread, PollParams};
    /// let thread = IoThread::builder().spawn()?;
    /// thread.set_poll_params(PollParams { grow: 4, ..thread.poll_params() })?;
    /// assert_eq!(thread.poll_params().grow, 4);
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    ///
    /// # Errors
    /// As there.
    pub fn set_poll_params(&self, params: PollParams) -> Result<()> {
        self.remote.set_poll_params(params)
    }

    /// As [`Remote::set_aio_params`].
    ///
    /// ```
    /// use fdmon::{AioParams, IoThread};
    /// let thread = IoThread::builder().spawn()?;
    /// thread.set_aio_params(AioParams { max_batch: 16, ..thread.aio_params() })?;
    /// assert_eq!(thread.aio_params().max_batch, 16);
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    ///
    /// # Errors
    /// As there.
    pub fn set_aio_params(&self, params: AioParams) -> Result<()> {
        self.remote.set_aio_params(params)
    }

    /// The spin parameters in force, or asked for last.
    ///
    /// ```
    /// let thread = fdmon::IoThread::builder().spawn()?;
    /// assert_eq!(thread.poll_params().max_ns, 32_768);
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    #[must_use]
    pub fn poll_params(&self) -> PollParams {
        self.remote.poll_params()
    }

    /// The I/O parameters in force, or asked for last.
    ///
    /// ```
    /// let thread = fdmon::IoThread::builder().spawn()?;
    /// assert_eq!(thread.aio_params().max_batch, 0);
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    #[must_use]
    pub fn aio_params(&self) -> AioParams {
        self.remote.aio_params()
    }

    /// What its context did so far.
    ///
    /// ```
    /// let thread = fdmon::IoThread::builder().spawn()?;
    /// assert_eq!(thread.stats().handlers.len(), 0);
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    #[must_use]
    pub fn stats(&self) -> ContextStats {
        self.remote.stats()
    }

    /// CPU time of the thread in nanoseconds that was not spun in vain.
    ///
    /// ```
    /// let thread = fdmon::IoThread::builder().spawn()?;
    /// let before = thread.busy_ns();
    /// assert!(thread.busy_ns() >= before);
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    #[must_use]
    pub fn busy_ns(&self) -> u64 {
        self.busy(&mut lock(&self.meter))
    }

    /// The share of a CPU that the thread was busy since this was last asked, or since it began: 0
    /// to 1. For spreading handlers over threads. Asked again within a millisecond, it says the
    /// same.
    ///
    /// ```
    /// use fdmon::IoThread;
    /// let threads = [IoThread::builder().spawn()?, IoThread::builder().spawn()?];
    /// let loads = threads.each_ref().map(IoThread::load);
    /// assert!(loads.iter().all(|load| (0.0..=1.0).contains(load)));
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "a share of two times")]
    pub fn load(&self) -> f64 {
        let mut meter = lock(&self.meter);
        let now = monotonic_ns();
        let time = now.saturating_sub(meter.since_ns);
        if time >= LOAD_NS {
            let busy = self.busy(&mut meter);
            let share = busy.saturating_sub(meter.busy_then_ns) as f64 / time as f64;
            (meter.load, meter.since_ns, meter.busy_then_ns) = (share.min(1.0), now, busy);
        }
        meter.load
    }

    fn busy(&self, meter: &mut Meter) -> u64 {
        let cpu = self.clock.and_then(CpuClock::now_ns);
        // The number of a thread that has ended may be that of another one.
        if let Some(cpu) = cpu.filter(|_| !self.ended.load(Ordering::Acquire)) {
            // A spin is measured in time that passed, so it may be longer than its CPU time.
            let in_vain = self.remote.0.stats.spin_wasted_ns.get();
            meter.busy_ns = meter.busy_ns.max(cpu.saturating_sub(in_vain));
        }
        meter.busy_ns
    }

    /// It has ended: [`IoThread::join`] returns at once.
    ///
    /// ```
    /// let thread = fdmon::IoThread::builder().spawn()?;
    /// assert!(!thread.is_finished());
    /// thread.remote().stop()?;
    /// while !thread.is_finished() {
    ///     std::thread::yield_now();
    /// }
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(|thread| thread.is_finished())
    }

    /// Stops the thread by a bottom half, so after what was asked of it before, and waits for its
    /// end. The report says what its context still had.
    ///
    /// ```
    /// use fdmon::{EventNotifier, IoThread, SendHandlers};
    /// let thread = IoThread::builder().spawn()?;
    /// let handlers = SendHandlers::new(EventNotifier::new()?).read(|_ops| Ok(()));
    /// let _registered = thread.remote().register_send(handlers);
    /// assert_eq!(thread.stop()?.handlers, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// What ended the thread, or else its first failure that no hook dealt with. `WrongThread`
    /// inside the thread itself, which stops then without being waited for; `Closed` in a forked
    /// child.
    pub fn stop(self) -> std::result::Result<LeakReport, IoThreadError> {
        self.ask_to_stop();
        self.join()
    }

    /// Waits until the thread ends by itself: by `stop()` in one of its callbacks, by
    /// [`Remote::stop`], or because a failure ended it.
    ///
    /// ```
    /// let thread = fdmon::IoThread::builder().spawn()?;
    /// thread.remote().run(|ops| ops.stop())?;
    /// thread.join()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`IoThread::stop`].
    pub fn join(mut self) -> std::result::Result<LeakReport, IoThreadError> {
        let thread = self.take_thread().map_err(|error| IoThreadError {
            failure: Failure::Error(error),
            failures: 0,
            leaks: LeakReport::default(),
        })?;
        let ended = thread.join().unwrap_or_else(|payload| Ended {
            failure: Some(Failure::Panic(payload)),
            failures: 1,
            leaks: LeakReport::default(),
        });
        match ended.failure {
            None => Ok(ended.leaks),
            Some(failure) => {
                Err(IoThreadError { failure, failures: ended.failures, leaks: ended.leaks })
            }
        }
    }

    fn ask_to_stop(&self) {
        // Its context may have closed itself, which ends the thread as well.
        let _ = self.remote.run(|ops| ops.stop());
    }

    /// The thread to be joined, if this one may wait for it.
    fn take_thread(&mut self) -> Result<JoinHandle<Ended>> {
        let here = self.remote.0.home.is_here();
        let thread = self.thread.take().filter(|_| here).map(ManuallyDrop::into_inner);
        let thread = thread.ok_or_else(|| {
            let message =
                "the thread belongs to the parent of this forked process; spawn a new one";
            Error::new(ErrorCode::Closed, message)
        })?;
        if thread.thread().id() == thread::current().id() {
            let message = "a thread cannot wait for its own end; stop it by Ops::stop there";
            return Err(Error::new(ErrorCode::WrongThread, message));
        }
        Ok(thread)
    }
}

impl Drop for IoThread {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.ask_to_stop();
            if let Ok(thread) = self.take_thread() {
                let _ = thread.join();
            }
        }
    }
}

impl fmt::Debug for IoThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IoThread")
            .field("name", &self.remote.name())
            .field("remote", &self.remote)
            .field("finished", &self.is_finished())
            .finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Meter {
    busy_ns: u64,
    /// When the load was last taken, and what it was.
    since_ns: u64,
    busy_then_ns: u64,
    load: f64,
}
