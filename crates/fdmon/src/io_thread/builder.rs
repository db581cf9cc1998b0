//! The options of an I/O thread, and its start.

use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::ControlFlow;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, mpsc};
use std::thread;

use rustix::io::Errno;

use super::life::{Ended, Hook, RaisedAtEnd, run_turns};
use super::{Failure, IoThread, Meter};
use crate::clock::monotonic_ns;
use crate::config::{AioParams, MonitorKind, PollParams, RingParams};
use crate::context::AioContext;
use crate::cpu_clock::CpuClock;
use crate::error::{Error, ErrorCode, Result};
use crate::sync::Mutex;

/// The longest spin of an I/O thread, unless told otherwise.
const MAX_NS: u64 = 32_768;

/// Options of a new I/O thread; made by [`IoThread::builder`].
///
/// ```
/// use fdmon::{IoThread, IoThreadBuilder, PollParams};
/// let builder: IoThreadBuilder = IoThread::builder().name("disk");
/// let thread = builder.poll(PollParams { max_ns: 10_000, ..PollParams::default() }).spawn()?;
/// assert_eq!(thread.poll_params().max_ns, 10_000);
/// # Ok::<(), fdmon::Error>(())
/// ```
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
    pub(super) fn new() -> Self {
        Self {
            name: "fdmon-io".into(),
            monitor: MonitorKind::default(),
            ring: RingParams::default(),
            poll: PollParams { max_ns: MAX_NS, ..PollParams::default() },
            aio: AioParams::default(),
            hook: None,
        }
    }

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
