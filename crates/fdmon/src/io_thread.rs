//! A thread with a context of its own that runs turns until it is stopped.

use std::any::Any;
use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};

use rustix::io::Errno;

use crate::clock::monotonic_ns;
use crate::config::{AioParams, MonitorKind, PollParams, RingParams};
use crate::context::{AioContext, LeakReport};
use crate::cpu_clock::CpuClock;
use crate::error::{Error, ErrorCode, Result};
use crate::remote::{Remote, lock};
use crate::stats::ContextStats;

/// The longest spin of an I/O thread, unless told otherwise.
const MAX_NS: u64 = 32_768;
/// Loads are not taken over a shorter time than this.
const LOAD_NS: u64 = 1_000_000;

type Hook = Box<dyn FnMut(&Failure) -> ControlFlow<()> + Send>;

/// Options of a new I/O thread; made by [`IoThread::builder`].
#[must_use]
pub struct IoThreadBuilder {
    name: String,
    monitor: MonitorKind,
    ring: RingParams,
    poll: PollParams,
    aio: AioParams,
    hook: Option<Hook>,
}

impl IoThreadBuilder {
    /// The name of the thread and of its context. Default `fdmon-io`; the kernel shows 15 bytes.
    ///
    /// ```
    /// let thread = fdmon::IoThread::builder().name("disk").spawn()?;
    /// assert_eq!(thread.remote().name(), "disk");
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Which monitor; see [`Builder::monitor`](crate::Builder::monitor).
    ///
    /// ```
    /// use fdmon::{IoThread, MonitorKind};
    /// let thread = IoThread::builder().monitor(MonitorKind::Epoll).spawn()?;
    /// assert_eq!(thread.stats().monitor, MonitorKind::Epoll);
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    pub fn monitor(mut self, kind: MonitorKind) -> Self {
        self.monitor = kind;
        self
    }

    /// What kind of ring, where the monitor is io_uring.
    ///
    /// ```
    /// use fdmon::{IoThread, RingMode, RingParams};
    /// let ring = RingParams { mode: RingMode::Off, ..RingParams::default() };
    /// let thread = IoThread::builder().ring(ring).spawn()?;
    /// assert!(thread.stats().monitor_reason.contains("turned off"));
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    pub fn ring(mut self, params: RingParams) -> Self {
        self.ring = params;
        self
    }

    /// How to spin. Default: for 32,768 ns at most, everything else as by default.
    ///
    /// ```
    /// use fdmon::{IoThread, PollParams};
    /// assert_eq!(IoThread::builder().spawn()?.poll_params().max_ns, 32_768);
    /// let never = IoThread::builder().poll(PollParams::default()).spawn()?;
    /// assert_eq!(never.poll_params().max_ns, 0);
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    pub fn poll(mut self, params: PollParams) -> Self {
        self.poll = params;
        self
    }

    /// How to batch file I/O.
    ///
    /// ```
    /// use fdmon::{AioParams, IoThread};
    /// let aio = AioParams { max_batch: 8, ..AioParams::default() };
    /// let thread = IoThread::builder().aio(aio).spawn()?;
    /// assert_eq!(thread.aio_params().max_batch, 8);
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    pub fn aio(mut self, params: AioParams) -> Self {
        self.aio = params;
        self
    }

    /// Runs in the thread after each turn that failed, and says whether the thread goes on. A
    /// failure that it answered with `Continue` is dealt with, and not reported at the end.
    ///
    /// Without a hook the thread goes on, and [`IoThread::stop`] reports the first failure.
    ///
    /// ```
    /// use std::ops::ControlFlow;
    /// let (tell, told) = std::sync::mpsc::channel();
    /// let thread = fdmon::IoThread::builder()
    ///     .on_failure(move |failure| {
    ///         let _ = tell.send(failure.to_string());
    ///         ControlFlow::Continue(())
    ///     })
    ///     .spawn()?;
    /// thread.remote().run(|ops| {
    ///     ops.schedule(|_| Err("no such device".into())).expect("it is open");
    /// })?;
    /// assert!(told.recv().unwrap().contains("no such device"));
    /// thread.stop()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn on_failure(
        mut self,
        hook: impl FnMut(&Failure) -> ControlFlow<()> + Send + 'static,
    ) -> Self {
        self.hook = Some(Box::new(hook));
        self
    }

    /// Starts the thread, and returns when it has its context.
    ///
    /// ```
    /// use fdmon::{IoThread, PollParams};
    /// let error = IoThread::builder().poll(PollParams::spin(std::time::Duration::MAX)).spawn();
    /// assert!(error.unwrap_err().is_invalid_arg());
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Builder::build`](crate::Builder::build); `InvalidArg` for a name with a NUL; `Syscall`
    /// when there is no further thread.
    pub fn spawn(self) -> Result<IoThread> {
        let Self { name, monitor, ring, poll, aio, hook } = self;
        if name.contains('\0') {
            return Err(Error::invalid_arg("name", format_args!("{name:?}"), "one without a NUL"));
        }
        let builder = thread::Builder::new().name(name.clone());
        let (tell, told) = mpsc::sync_channel(1);
        let ended = Arc::new(AtomicBool::new(false));
        let flag = RaisedAtEnd(Arc::clone(&ended));
        let run = move || {
            let _flag = flag;
            let builder = AioContext::builder().name(name).monitor(monitor).ring(ring);
            match builder.poll(poll).aio(aio).build() {
                Ok(ctx) => {
                    let _ = tell.send(Ok(ctx.remote()));
                    run_turns(ctx, hook)
                }
                Err(error) => {
                    let _ = tell.send(Err(error));
                    Ended::default()
                }
            }
        };
        let thread = builder.spawn(run).map_err(|error| {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::AGAIN);
            Error::syscall("clone", errno, "raise the limit of threads (ulimit -u)")
        })?;
        let remote = match told.recv() {
            Ok(Ok(remote)) => remote,
            Ok(Err(error)) => {
                let _ = thread.join();
                return Err(error);
            }
            Err(_) => {
                let message = "the thread panicked as it began; report this with what led to it";
                return Err(Error::new(ErrorCode::Internal, message));
            }
        };
        let meter = Meter { since_ns: monotonic_ns(), ..Meter::default() };
        Ok(IoThread {
            remote,
            clock: CpuClock::of(&thread),
            ended,
            meter: Mutex::new(meter),
            thread: Some(ManuallyDrop::new(thread)),
        })
    }
}

impl fmt::Debug for IoThreadBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IoThreadBuilder")
            .field("name", &self.name)
            .field("monitor", &self.monitor)
            .field("ring", &self.ring)
            .field("poll", &self.poll)
            .field("aio", &self.aio)
            .finish_non_exhaustive()
    }
}

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
        IoThreadBuilder {
            name: "fdmon-io".into(),
            monitor: MonitorKind::default(),
            ring: RingParams::default(),
            poll: PollParams { max_ns: MAX_NS, ..PollParams::default() },
            aio: AioParams::default(),
            hook: None,
        }
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

/// A turn of an I/O thread failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum Failure {
    /// What the turn returned: callbacks that failed, or what keeps the context from going on.
    Error(Error),
    /// A callback panicked, with this.
    Panic(Box<dyn Any + Send>),
}

impl Failure {
    /// Callbacks failed, in whichever way; the thread can go on.
    fn is_of_callbacks(&self) -> bool {
        match self {
            Self::Error(error) => error.is_callback(),
            Self::Panic(_) => true,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(error) => fmt::Display::fmt(error, f),
            Self::Panic(payload) => {
                let text = payload.downcast_ref::<&str>().copied();
                let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
                write!(f, "a callback panicked: {}", text.unwrap_or("without a message"))
            }
        }
    }
}

/// An I/O thread ended with a failure, or had one that no hook dealt with.
#[derive(Debug)]
pub struct IoThreadError {
    /// The one that ended it, or else the first one.
    pub failure: Failure,
    /// How many turns failed without being dealt with.
    pub failures: u64,
    /// What its context still had when it closed.
    pub leaks: LeakReport,
}

impl fmt::Display for IoThreadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.failures {
            0 | 1 => fmt::Display::fmt(&self.failure, f),
            n => write!(f, "{n} turns of the I/O thread failed, among them: {}", self.failure),
        }
    }
}

impl std::error::Error for IoThreadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.failure {
            Failure::Error(error) => Some(error),
            Failure::Panic(_) => None,
        }
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

/// Raises a flag when it is dropped, which is last of all.
struct RaisedAtEnd(Arc<AtomicBool>);

impl Drop for RaisedAtEnd {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// How a thread ended.
#[derive(Default)]
struct Ended {
    leaks: LeakReport,
    failure: Option<Failure>,
    failures: u64,
}

/// The thread's life: turns until it is stopped, closed or given up.
fn run_turns(ctx: AioContext, mut hook: Option<Hook>) -> Ended {
    let mut ended = Ended::default();
    ctx.0.state().loops += 1;
    while !ctx.stop_requested() {
        let failure = match catch_unwind(AssertUnwindSafe(|| ctx.poll(true))) {
            Ok(Ok(_)) => continue,
            Ok(Err(error)) if error.is_closed() => break,
            Ok(Err(error)) => Failure::Error(error),
            Err(payload) => Failure::Panic(payload),
        };
        let goes_on = failure.is_of_callbacks();
        let answer = hook.as_mut().map(|hook| catch_unwind(AssertUnwindSafe(|| hook(&failure))));
        match answer {
            Some(Ok(ControlFlow::Continue(()))) if goes_on => {}
            None if goes_on => ended.note(failure),
            Some(Err(payload)) => {
                ended.give_up(Failure::Panic(payload));
                break;
            }
            _ => {
                ended.give_up(failure);
                break;
            }
        }
    }
    ctx.leave_loop();
    ended.leaks = ctx.close();
    // Hooks that failed as spin mode was left for good.
    if let Some(failure) = ctx.take_failure() {
        ended.note(failure);
    }
    ended
}

impl Ended {
    fn note(&mut self, failure: Failure) {
        self.failures += 1;
        self.failure.get_or_insert(failure);
    }

    fn give_up(&mut self, failure: Failure) {
        self.failures += 1;
        self.failure = Some(failure);
    }
}

impl AioContext {
    /// What no turn has reported.
    fn take_failure(&self) -> Option<Failure> {
        let mut failures = std::mem::take(&mut self.0.state().failures);
        if let Some((_, payload)) = failures.panics.pop() {
            return Some(Failure::Panic(payload));
        }
        let errors: Vec<_> = failures.errors.into_iter().map(|(_, error)| error).collect();
        (!errors.is_empty()).then(|| Failure::Error(Error::callbacks(errors)))
    }
}
