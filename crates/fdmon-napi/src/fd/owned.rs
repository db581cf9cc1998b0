//! What an environment was given and has not closed, so that it can be closed when a worker ends:
//! its process lives on.
//!
//! Of the main thread nothing is noted: its descriptors end with the process. The claims are
//! process-wide, because numbers are: one that is handed out in any environment was free, so what
//! another one claims there is void.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use napi::Env;
use rustix::fs::{CWD, fstat, readlinkat};
use rustix::process::getpid;
use rustix::thread::gettid;

use super::signal::SignalPipe;
use super::{eventfd, raw};
use crate::error::with_descriptors;

/// By number.
static CLAIMS: Mutex<BTreeMap<i32, Claim>> = Mutex::new(BTreeMap::new());
static NEXT: AtomicU64 = AtomicU64::new(0);

fn claims() -> MutexGuard<'static, BTreeMap<i32, Claim>> {
    // Changed by single insertions and removals only: a panic elsewhere leaves it whole.
    CLAIMS.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Claim {
    environment: u64,
    /// None where the kernel does not say: then it is not closed for the worker.
    file: Option<Identity>,
}

/// Which file a number leads to. Files of `anon_inode` share their inode, and only an eventfd tells
/// its number (Linux 5.2): two timerfds look alike.
#[derive(PartialEq, Eq)]
struct Identity {
    target: CString,
    device: u64,
    inode: u64,
    eventfd: Option<i32>,
}

impl Identity {
    #[allow(
        clippy::useless_conversion,
        clippy::unnecessary_cast,
        reason = "the width of these fields differs between targets"
    )]
    fn of(fd: i32) -> Option<Self> {
        let target = readlinkat(CWD, format!("/proc/self/fd/{fd}"), Vec::new()).ok()?;
        let stat = fstat(raw::borrow(fd)?).ok()?;
        let eventfd =
            if target.as_bytes() == b"anon_inode:[eventfd]" { eventfd::identity(fd) } else { None };
        Some(Self { target, device: stat.st_dev as u64, inode: stat.st_ino as u64, eventfd })
    }
}

/// The descriptors of one environment. Dropped when it ends: signals get their old actions back,
/// and what a worker left open is closed.
pub(crate) struct Descriptors {
    environment: u64,
    worker: bool,
    /// By the number of the end that JavaScript reads.
    signals: RefCell<BTreeMap<i32, SignalPipe>>,
    /// For what may outlive the environment: from then on Node-API must not be called.
    over: Arc<AtomicBool>,
}

impl Default for Descriptors {
    fn default() -> Self {
        Self {
            environment: NEXT.fetch_add(1, Ordering::Relaxed),
            // The first thread of a process has the number of the process.
            worker: gettid() != getpid(),
            signals: RefCell::default(),
            over: Arc::default(),
        }
    }
}

impl Descriptors {
    fn claim(&self, fd: i32) {
        if self.worker {
            let claim = Claim { environment: self.environment, file: Identity::of(fd) };
            claims().insert(fd, claim);
        } else {
            claims().remove(&fd);
        }
    }

    /// Becomes true when the environment ends.
    pub(super) fn over(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.over)
    }

    /// Keeps the handlers of signals until `fd`, the end that is read, is closed.
    pub(super) fn keep_signals(&self, fd: i32, pipe: SignalPipe) {
        // One that was there belonged to a number that somebody else has closed.
        let stale = self.signals.borrow_mut().insert(fd, pipe);
        drop(stale);
    }

    /// What `look` finds in the signals of `fd`; None when it has none.
    pub(super) fn signals<T>(&self, fd: i32, look: impl FnOnce(&SignalPipe) -> T) -> Option<T> {
        self.signals.borrow().get(&fd).map(look)
    }

    fn release(&self, fd: i32) {
        claims().remove(&fd);
        let pipe = self.signals.borrow_mut().remove(&fd);
        drop(pipe);
    }
}

impl Drop for Descriptors {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // First, while the end that is read is open: no handler meets a broken pipe.
        self.signals.get_mut().clear();
        let mut claims = claims();
        let left: Vec<i32> = claims
            .iter()
            .filter(|(_, claim)| claim.environment == self.environment)
            .map(|(&fd, _)| fd)
            .collect();
        for fd in left {
            // The number may have been closed by others and lead to another file by now.
            if let Some(Claim { file: Some(file), .. }) = claims.remove(&fd)
                && Identity::of(fd).is_some_and(|now| now == file)
            {
                // Nobody is left to be told of a failure.
                let _ = raw::close(fd);
            }
        }
    }
}

/// Hands an owned descriptor to JavaScript, which closes it; or the end of a worker does.
pub(super) fn give(env: &Env, fd: OwnedFd) -> i32 {
    // The claim comes first: whoever takes the number afterwards makes it void.
    with_descriptors(env, |descriptors| descriptors.claim(fd.as_raw_fd()));
    fd.into_raw_fd()
}

/// JavaScript is about to close the number.
pub(super) fn release(env: &Env, fd: i32) {
    with_descriptors(env, |descriptors| descriptors.release(fd));
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{EventfdFlags, eventfd};

    fn number() -> i32 {
        eventfd(0, EventfdFlags::CLOEXEC).unwrap().into_raw_fd()
    }

    fn open(fd: i32) -> bool {
        rustix::io::fcntl_getfd(raw::borrow(fd).unwrap()).is_ok()
    }

    fn worker() -> Descriptors {
        let mut descriptors = Descriptors::default();
        descriptors.worker = true;
        descriptors
    }

    #[test]
    fn the_end_of_a_worker_closes_what_it_claimed_and_nothing_else() {
        let (own, released, of_others) = (number(), number(), number());
        let (descriptors, others) = (worker(), worker());
        descriptors.claim(own);
        descriptors.claim(released);
        descriptors.release(released);
        others.claim(of_others);
        drop(descriptors);
        assert!(!open(own));
        assert!(open(released));
        assert!(open(of_others));
        drop(others);
        assert!(!open(of_others));
        raw::close(released).unwrap();
    }

    #[test]
    fn a_number_that_is_another_file_by_now_stays_open() {
        let descriptors = worker();
        let fd = number();
        descriptors.claim(fd);
        raw::close(fd).unwrap();
        // Tests run in several threads, so the number is asked for, not hoped for.
        let other = std::fs::File::open("/dev/null").unwrap();
        let again = rustix::io::fcntl_dupfd_cloexec(&other, fd).unwrap().into_raw_fd();
        drop(descriptors);
        assert!(open(again));
        raw::close(again).unwrap();
    }

    #[test]
    fn a_number_that_was_handed_out_again_is_not_the_first_ones_any_more() {
        let (first, second) = (worker(), worker());
        let fd = number();
        first.claim(fd);
        second.claim(fd);
        drop(first);
        assert!(open(fd));
        drop(second);
        assert!(!open(fd));
    }
}
