//! What went wrong in an I/O thread.

use std::any::Any;
use std::fmt;

use crate::context::LeakReport;
use crate::error::Error;

/// A turn of an I/O thread failed.
///
/// ```
/// use fdmon::{Failure, IoThread};
/// let thread = IoThread::builder().spawn()?;
/// thread.remote().run(|_ops| panic!("no such device"))?;
/// match thread.stop().unwrap_err().failure {
///     Failure::Panic(payload) => assert_eq!(payload.downcast_ref(), Some(&"no such device")),
///     other => panic!("{other}"),
/// }
/// # Ok::<(), fdmon::Error>(())
/// ```
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
    pub(super) fn is_of_callbacks(&self) -> bool {
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
///
/// ```
/// let thread = fdmon::IoThread::builder().spawn()?;
/// thread.remote().run(|ops| {
///     let last = |ops: &mut fdmon::Ops<'_>| {
///         ops.stop();
///         Err("no such device".into())
///     };
///     ops.schedule(last).expect("it is open");
/// })?;
/// let error: fdmon::IoThreadError = thread.join().unwrap_err();
/// assert_eq!((error.failures, error.leaks.handlers), (1, 0));
/// assert!(error.to_string().contains("no such device"));
/// # Ok::<(), fdmon::Error>(())
/// ```
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
