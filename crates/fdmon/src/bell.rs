//! Notifiers of a WebAssembly build: counters in memory, and what a context sleeps on that watches
//! them. WASI has no eventfd, and nothing else that could be made ready from another thread.
//!
//! A notifier has a number, so that it is registered as an fd is. No host gives such numbers; as an
//! fd the number answers EBADF.
//!
//! ```text
//! set                                   loop
//! count + 1                             alarm: not rung
//! full barrier                          full barrier
//! ring the alarm of each watcher        count? then no sleep
//!                                       sleep until the alarm is rung
//! ```
//!
//! Whichever comes second of the two barriers sees the other side's word: either the loop sees the
//! count, or the alarm is rung after it was cleared, and ends the sleep.
#![allow(unsafe_code)] // borrows a number that is no fd

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
#[cfg(threads)]
use std::sync::{Condvar, Mutex};
#[cfg(threads)]
use std::time::Duration;

use rustix::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use rustix::io::Errno;

/// The first number of a notifier.
pub(crate) const FIRST: RawFd = 1 << 30;

/// The most that a counter holds, as an eventfd's.
const FULL: u64 = u64::MAX - 1;

/// All notifiers by number, and who watches each.
static BELLS: RwLock<BTreeMap<RawFd, Arc<Bell>>> = RwLock::new(BTreeMap::new());

/// Asks for the counter of a notifier outside: [`OUTSIDE_SET`], [`OUTSIDE_SHARED`].
type Outside = fn(RawFd) -> u32;

/// The counter is not 0.
const OUTSIDE_SET: u32 = 1;
/// Others than this thread can set it.
const OUTSIDE_SHARED: u32 = 2;

static OUTSIDE: OnceLock<Outside> = OnceLock::new();

/// A notifier whose counter lies outside of this memory, for bindings: nothing rings when it is
/// set, so who waits for one that others can set looks at it now and then.
#[doc(hidden)]
#[derive(Debug)]
pub struct OutsideNotifier(Counter);

impl OutsideNotifier {
    /// `ask` answers for all of them, by number, on the thread that waits: bit 0, it is set; bit 1,
    /// others can set it.
    #[must_use]
    pub fn new(ask: fn(RawFd) -> u32) -> Self {
        OUTSIDE.get_or_init(|| ask);
        Self(Counter::with(0, true))
    }
}

impl AsRawFd for OutsideNotifier {
    fn as_raw_fd(&self) -> RawFd {
        self.0.0
    }
}

/// What is to be seen of a notifier.
#[derive(Clone, Copy, Debug)]
pub(crate) struct State {
    pub set: bool,
    pub full: bool,
    /// It may be set without an alarm.
    pub silent: bool,
}

/// The counter of one notifier.
pub(crate) struct Bell {
    number: RawFd,
    count: AtomicU64,
    /// Where the counter is not here.
    outside: bool,
    /// Its notifier is gone.
    closed: AtomicBool,
    watchers: RwLock<Vec<Arc<Alarm>>>,
}

impl Bell {
    pub fn state(&self) -> State {
        if self.outside {
            let bits = OUTSIDE.get().map_or(0, |ask| ask(self.number));
            let silent = bits & OUTSIDE_SHARED != 0;
            return State { set: bits & OUTSIDE_SET != 0, full: false, silent };
        }
        let count = self.count.load(Ordering::Acquire);
        State { set: count != 0, full: count >= FULL, silent: false }
    }

    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    fn set(&self) {
        let add = |count: u64| Some(count.saturating_add(1).min(FULL));
        // It cannot fail: there is always a next value.
        let _ = self.count.fetch_update(Ordering::AcqRel, Ordering::Relaxed, add);
        self.ring();
    }

    fn ring(&self) {
        fence(Ordering::SeqCst);
        let watchers = self.watchers.read().unwrap_or_else(PoisonError::into_inner);
        for alarm in &*watchers {
            alarm.ring();
        }
    }

    /// From here on each set rings this alarm.
    pub fn watch(&self, alarm: &Arc<Alarm>) {
        let mut watchers = self.watchers.write().unwrap_or_else(PoisonError::into_inner);
        watchers.push(Arc::clone(alarm));
    }

    /// Undoes one [`Bell::watch`].
    pub fn unwatch(&self, alarm: &Arc<Alarm>) {
        let mut watchers = self.watchers.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = watchers.iter().position(|known| Arc::ptr_eq(known, alarm)) {
            watchers.swap_remove(at);
        }
    }
}

/// Who owns a bell; in place of an fd.
pub(crate) struct Counter(RawFd);

impl Counter {
    /// A bell with the lowest number that is free.
    pub fn new(value: u32) -> Self {
        Self::with(value, false)
    }

    fn with(value: u32, outside: bool) -> Self {
        let mut bells = BELLS.write().unwrap_or_else(PoisonError::into_inner);
        let taken = (FIRST..).zip(bells.keys()).take_while(|(free, number)| free == *number);
        let number = taken.last().map_or(FIRST, |(last, _)| last + 1);
        let bell = Bell {
            number,
            count: AtomicU64::new(value.into()),
            outside,
            closed: AtomicBool::new(false),
            watchers: RwLock::default(),
        };
        bells.insert(number, Arc::new(bell));
        Self(number)
    }
}

impl AsRawFd for Counter {
    fn as_raw_fd(&self) -> RawFd {
        self.0
    }
}

impl AsFd for Counter {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the number is not -1. It is no fd of the host's and never becomes one, so calls on
        // it answer EBADF; no memory depends on it.
        unsafe { BorrowedFd::borrow_raw(self.0) }
    }
}

impl fmt::Debug for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Counter").field(&self.0).finish()
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        let bell = BELLS.write().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
        if let Some(bell) = bell {
            bell.closed.store(true, Ordering::Release);
            bell.ring(); // who watches it by its number alone is to hear of it
        }
    }
}

/// The bell of this number.
pub(crate) fn find(fd: RawFd) -> Option<Arc<Bell>> {
    if fd < FIRST {
        return None;
    }
    BELLS.read().unwrap_or_else(PoisonError::into_inner).get(&fd).map(Arc::clone)
}

pub(crate) fn is_open(fd: RawFd) -> bool {
    find(fd).is_some()
}

pub(crate) fn set(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    find(fd.as_raw_fd()).ok_or(Errno::BADF)?.set();
    Ok(())
}

/// Wakes who watches it.
pub(crate) fn wake(fd: BorrowedFd<'_>) {
    let _lives_as_long_as_its_context = set(fd);
}

pub(crate) fn test_and_clear(fd: BorrowedFd<'_>) -> Result<bool, Errno> {
    let bell = find(fd.as_raw_fd()).ok_or(Errno::BADF)?;
    Ok(bell.count.swap(0, Ordering::AcqRel) != 0)
}

/// What one context sleeps on.
#[derive(Default)]
pub(crate) struct Alarm {
    rung: AtomicBool,
    #[cfg(threads)]
    lock: Mutex<()>,
    #[cfg(threads)]
    condition: Condvar,
}

impl Alarm {
    fn ring(&self) {
        if self.rung.swap(true, Ordering::AcqRel) {
            return; // whoever rang it wakes the sleeper, which looks at everything
        }
        #[cfg(threads)]
        {
            // The sleeper has looked at `rung` and sleeps, or looks later.
            drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner));
            self.condition.notify_one();
        }
    }

    /// What is set from here on rings it; what was set before is seen by a look that follows.
    pub fn clear(&self) {
        self.rung.store(false, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    pub fn has_rung(&self) -> bool {
        self.rung.load(Ordering::Acquire)
    }

    /// Sleeps until it is rung, for at most so many nanoseconds; `None` = for ever.
    #[cfg(threads)]
    pub fn sleep(&self, timeout: Option<u64>) {
        let guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let quiet = |_: &mut ()| !self.has_rung();
        match timeout {
            None => drop(self.condition.wait_while(guard, quiet)),
            Some(ns) => {
                drop(self.condition.wait_timeout_while(guard, Duration::from_nanos(ns), quiet));
            }
        }
    }
}
