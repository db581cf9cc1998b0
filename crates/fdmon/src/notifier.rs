//! Event notifiers: an eventfd that any thread or process may set; on WASI a counter in memory, with
//! a number in place of an fd.

use std::sync::Arc;

#[cfg(not(wasi))]
use rustix::event::{EventfdFlags, eventfd};
#[cfg(not(wasi))]
use rustix::fd::OwnedFd as Counter;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
#[cfg(not(any(loom, wasi)))]
use rustix::io::Errno;

#[cfg(wasi)]
use crate::bell::Counter;
use crate::error::{Error, Result};

/// A counter with an fd: set it from anywhere, watch it in a context.
///
/// A clone is the same notifier. Close-on-exec and non-blocking.
///
/// ```
/// let notifier = fdmon::EventNotifier::new()?;
/// notifier.set()?;
/// assert!(notifier.test_and_clear()?);
/// assert!(!notifier.test_and_clear()?);
/// # Ok::<(), fdmon::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct EventNotifier(Arc<Counter>);

impl EventNotifier {
    /// A notifier that is not set.
    ///
    /// # Errors
    /// `Syscall` when the process or the system has no fd left.
    pub fn new() -> Result<Self> {
        Self::with_value(0)
    }

    /// A notifier whose counter starts at `value`.
    ///
    /// # Errors
    /// As [`EventNotifier::new`].
    pub fn with_value(value: u32) -> Result<Self> {
        #[cfg(wasi)]
        let fd = Counter::new(value);
        #[cfg(not(wasi))]
        let fd = eventfd(value, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|e| Error::syscall("eventfd2", e, "see eventfd(2)"))?;
        #[cfg(loom)]
        crate::monitor::model::create(fd.as_raw_fd(), value);
        Ok(Self(Arc::new(fd)))
    }

    /// Adds one to the counter, which makes the fd readable.
    ///
    /// # Errors
    /// `Syscall`; a full counter is not an error, since the fd is readable then anyway.
    pub fn set(&self) -> Result<()> {
        set(self.0.as_fd())
            .map_err(|e| Error::syscall("write", e, "check that the notifier is not closed"))
    }

    /// Sets the counter to 0; `true` if it was not 0.
    ///
    /// # Errors
    /// `Syscall`
    pub fn test_and_clear(&self) -> Result<bool> {
        test_and_clear(self.0.as_fd())
            .map_err(|e| Error::syscall("read", e, "check that the notifier is not closed"))
    }
}

impl AsFd for EventNotifier {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for EventNotifier {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(loom)]
pub(crate) use crate::monitor::model::{set, test_and_clear, wake};

#[cfg(wasi)]
pub(crate) use crate::bell::{set, test_and_clear, wake};

#[cfg(not(any(loom, wasi)))]
pub(crate) fn set(fd: BorrowedFd<'_>) -> std::result::Result<(), Errno> {
    loop {
        match rustix::io::write(fd, &1_u64.to_ne_bytes()) {
            Ok(_) | Err(Errno::AGAIN) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
}

/// Wakes who watches it, also where only a change of the counter is seen: one that is full does not
/// change, so it is emptied first.
#[cfg(not(any(loom, wasi)))]
pub(crate) fn wake(fd: BorrowedFd<'_>) {
    loop {
        match rustix::io::write(fd, &1_u64.to_ne_bytes()) {
            Err(Errno::AGAIN) if test_and_clear(fd).is_ok() => {}
            Err(Errno::INTR) => {}
            // Nothing else can happen to an eventfd that is open, and this one is.
            Ok(_) | Err(_) => return,
        }
    }
}

#[cfg(not(any(loom, wasi)))]
pub(crate) fn test_and_clear(fd: BorrowedFd<'_>) -> std::result::Result<bool, Errno> {
    let mut counter = [0_u8; 8];
    loop {
        match rustix::io::read(fd, &mut counter) {
            Ok(_) => return Ok(u64::from_ne_bytes(counter) != 0),
            Err(Errno::AGAIN) => return Ok(false),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
}
