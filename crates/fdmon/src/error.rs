//! The one error type: opaque, with a stable code, and a message that says what to do.

use std::any::Any;
use std::fmt;

/// What a callback returns. An error does not stop the other callbacks of the turn; it is
/// reported by the turn once they have run.
pub type Outcome = std::result::Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// The result of every fallible call of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Stable codes, the same words as in the npm package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorCode {
    /// An option or argument is out of its range.
    InvalidArg,
    /// A file descriptor is negative, closed, or was closed while it was registered.
    BadFd,
    /// This kernel, container or build cannot do it.
    Unsupported,
    /// The context was closed, or belongs to the parent of this forked process.
    Closed,
    /// Called from a thread that is not the context's home thread.
    WrongThread,
    /// A system call failed; `errno()` and `syscall()` say which and why.
    Syscall,
    /// The native binding could not be loaded.
    Binding,
    /// The context is attached to another loop, or is not.
    Attached,
    /// The thing belongs to somebody else already.
    InUse,
    /// A defect of fdmon itself.
    Internal,
    /// Callbacks of this turn failed; `callback_errors()` has them.
    Callback,
}

impl ErrorCode {
    /// The code as the npm package spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidArg => "ERR_FDMON_INVALID_ARG",
            Self::BadFd => "ERR_FDMON_BAD_FD",
            Self::Unsupported => "ERR_FDMON_UNSUPPORTED",
            Self::Closed => "ERR_FDMON_CLOSED",
            Self::WrongThread => "ERR_FDMON_WRONG_THREAD",
            Self::Syscall => "ERR_FDMON_SYSCALL",
            Self::Binding => "ERR_FDMON_BINDING",
            Self::Attached => "ERR_FDMON_ATTACHED",
            Self::InUse => "ERR_FDMON_IN_USE",
            Self::Internal => "ERR_FDMON_INTERNAL",
            Self::Callback => "ERR_FDMON_CALLBACK",
        }
    }
}

/// An error of fdmon.
///
/// Opaque, so that it can grow: ask it with the `is_*` predicates.
///
/// ```
/// let error = fdmon::AioContext::builder()
///     .poll(fdmon::PollParams { cpu_budget: 7.0, ..Default::default() })
///     .build()
///     .unwrap_err();
/// assert!(error.is_invalid_arg());
/// assert!(error.to_string().contains("cpu_budget"));
/// ```
pub struct Error(Box<Repr>);

struct Repr {
    code: ErrorCode,
    message: String,
    errno: Option<i32>,
    syscall: Option<&'static str>,
    callbacks: Vec<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self(Box::new(Repr {
            code,
            message: message.into(),
            errno: None,
            syscall: None,
            callbacks: Vec::new(),
        }))
    }

    pub(crate) fn invalid_arg(
        name: &str,
        value: impl fmt::Display,
        expected: impl fmt::Display,
    ) -> Self {
        Self::new(
            ErrorCode::InvalidArg,
            format!("{name} = {value} is out of range; pass {expected}"),
        )
    }

    pub(crate) fn bad_fd(fd: i32, what_to_do: &str) -> Self {
        let mut error = Self::new(
            ErrorCode::BadFd,
            format!("fd = {fd} is not an open file descriptor; {what_to_do}"),
        );
        error.0.errno = Some(rustix::io::Errno::BADF.raw_os_error());
        error
    }

    pub(crate) fn closed() -> Self {
        Self::new(ErrorCode::Closed, "the context is closed; create a new AioContext")
    }

    /// `what_to_do` is for what this call is refused alone; what any call may lack says so itself.
    pub(crate) fn syscall(
        syscall: &'static str,
        errno: rustix::io::Errno,
        what_to_do: &str,
    ) -> Self {
        let what_to_do = remedy(errno).unwrap_or(what_to_do);
        let mut error =
            Self::new(ErrorCode::Syscall, format!("{syscall} failed: {errno}; {what_to_do}"));
        error.0.errno = Some(errno.raw_os_error());
        error.0.syscall = Some(syscall);
        error
    }

    /// What the kernel or a sandbox does not let this process have.
    pub(crate) fn refused(
        message: impl Into<String>,
        syscall: &'static str,
        errno: rustix::io::Errno,
    ) -> Self {
        let mut error = Self::new(ErrorCode::Unsupported, message);
        error.0.errno = Some(errno.raw_os_error());
        error.0.syscall = Some(syscall);
        error
    }

    /// A system call that the standard library has made.
    pub(crate) fn of_io(
        message: impl Into<String>,
        syscall: &'static str,
        cause: &std::io::Error,
    ) -> Self {
        let mut error = Self::new(ErrorCode::Syscall, message);
        error.0.errno = cause.raw_os_error();
        error.0.syscall = Some(syscall);
        error
    }

    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Unsupported, message)
    }

    pub(crate) fn callbacks(callbacks: Vec<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        let message = match callbacks.as_slice() {
            [one] => format!("a callback failed: {one}; handle the error inside the callback"),
            many => format!(
                "{} callbacks of this turn failed, the first with: {}; see callback_errors()",
                many.len(),
                many.first().map(ToString::to_string).unwrap_or_default()
            ),
        };
        let mut error = Self::new(ErrorCode::Callback, message);
        error.0.callbacks = callbacks;
        error
    }

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        self.0.code
    }

    /// The errno of the system call that failed, if one did.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        self.0.errno
    }

    /// The name of the system call that failed, if one did.
    #[must_use]
    pub fn syscall_name(&self) -> Option<&'static str> {
        self.0.syscall
    }

    /// The errors that callbacks returned in the turn that is reporting, in the order in which
    /// they ran. A handler that was removed because its fd is closed is among them as an
    /// [`Error`] with code `BadFd`.
    #[must_use]
    pub fn callback_errors(&self) -> &[Box<dyn std::error::Error + Send + Sync>] {
        &self.0.callbacks
    }

    /// Takes the callback errors out.
    #[must_use]
    pub fn into_callback_errors(self) -> Vec<Box<dyn std::error::Error + Send + Sync>> {
        self.0.callbacks
    }

    /// An option or argument is out of its range.
    #[must_use]
    pub fn is_invalid_arg(&self) -> bool {
        self.0.code == ErrorCode::InvalidArg
    }

    /// A file descriptor is negative or closed.
    #[must_use]
    pub fn is_bad_fd(&self) -> bool {
        self.0.code == ErrorCode::BadFd
    }

    /// This kernel, container or build cannot do it.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        self.0.code == ErrorCode::Unsupported
    }

    /// The context is closed, or was inherited over a fork.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.code == ErrorCode::Closed
    }

    /// A system call failed.
    #[must_use]
    pub fn is_syscall(&self) -> bool {
        self.0.code == ErrorCode::Syscall
    }

    /// The thing belongs to somebody else already.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        self.0.code == ErrorCode::InUse
    }

    /// One or more callbacks of the turn failed.
    #[must_use]
    pub fn is_callback(&self) -> bool {
        self.0.code == ErrorCode::Callback
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("code", &self.0.code)
            .field("message", &self.0.message)
            .field("errno", &self.0.errno)
            .field("callbacks", &self.0.callbacks)
            .finish_non_exhaustive()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.callbacks.first().map(|e| &**e as &(dyn std::error::Error + 'static))
    }
}

/// What to do about what any call may be refused.
pub(crate) fn remedy(errno: rustix::io::Errno) -> Option<&'static str> {
    use rustix::io::Errno;
    Some(match errno {
        Errno::MFILE => "close what is no longer used, or raise the limit (ulimit -n)",
        Errno::NFILE => "raise the sysctl fs.file-max",
        Errno::NODEV => "free memory: the kernel could not make an anonymous inode",
        Errno::NOMEM => "free memory, or raise the limits on memory, such as the cgroup's",
        Errno::NOSPC => "raise the sysctl fs.epoll.max_user_watches",
        Errno::PERM | Errno::ACCESS | Errno::NOSYS => "allow it in the sandbox",
        _ => return None,
    })
}

/// `EPERM` and its like: what people search for.
pub(crate) fn errno_name(errno: rustix::io::Errno) -> std::borrow::Cow<'static, str> {
    use rustix::io::Errno;
    match errno {
        Errno::ACCESS => "EACCES",
        Errno::AGAIN => "EAGAIN",
        Errno::BADF => "EBADF",
        #[cfg(not(wasi))]
        Errno::BADR => "EBADR",
        Errno::BUSY => "EBUSY",
        Errno::EXIST => "EEXIST",
        Errno::INTR => "EINTR",
        Errno::INVAL => "EINVAL",
        Errno::LOOP => "ELOOP",
        Errno::MFILE => "EMFILE",
        Errno::NFILE => "ENFILE",
        Errno::NODEV => "ENODEV",
        Errno::NOMEM => "ENOMEM",
        Errno::NOSPC => "ENOSPC",
        Errno::NOSYS => "ENOSYS",
        Errno::NOTTY => "ENOTTY",
        Errno::OPNOTSUPP => "EOPNOTSUPP",
        Errno::PERM => "EPERM",
        other => return other.to_string().into(),
    }
    .into()
}

/// What a turn could not hand on at once: kept until its callbacks have run.
#[derive(Default)]
pub(crate) struct Failures {
    pub errors: Vec<(Option<u32>, Box<dyn std::error::Error + Send + Sync>)>,
    /// The first panic of each turn, with the number of turns that ran, outermost first; it
    /// resumes when its turn has run its other callbacks. 0 = between turns: in the next one.
    pub panics: Vec<(u32, Box<dyn Any + Send>)>,
}

impl Failures {
    pub fn is_empty(&self) -> bool {
        self.errors.is_empty() && self.panics.is_empty()
    }

    pub fn panicked(&mut self, depth: u32, payload: Box<dyn Any + Send>) {
        if !self.panicked_in(depth) {
            self.panics.push((depth, payload));
        }
    }

    /// A panic is to resume at the end of the turn of this depth. The outermost reports what came
    /// between turns as well.
    pub fn panicked_in(&self, depth: u32) -> bool {
        self.panics.last().is_some_and(|(of, _)| *of >= depth || depth == 1)
    }

    pub fn take_panic(&mut self, depth: u32) -> Option<Box<dyn Any + Send>> {
        if self.panicked_in(depth) { self.panics.pop().map(|(_, payload)| payload) } else { None }
    }

    /// The errors that the turn of this depth does not report: those of the turns around it.
    pub fn of_others(&self, depth: u32) -> usize {
        if depth == 1 { 0 } else { self.errors.len() }
    }
}
