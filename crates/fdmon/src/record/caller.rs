//! Who wakes a context that is traced: any thread notes it in the context's memory, in two words,
//! and the context takes it when it accepts the notification.

use std::cell::Cell;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::clock::monotonic_ns;
use crate::sync::lock_std;

/// Tracks of threads that run no context begin here, far behind the ids of contexts.
const THREADS: u64 = 1 << 30;

thread_local! {
    /// The traced context whose turn this thread runs; 0 = none.
    static CONTEXT: Cell<u64> = const { Cell::new(0) };
    /// The track of the thread itself; 0 = it has none yet.
    static THREAD: Cell<u64> = const { Cell::new(0) };
}

/// By track, from [`THREADS`] on: what the threads are called.
static NAMES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// From here on this thread runs a turn of this context; the one before.
pub(crate) fn enter(context: u64) -> u64 {
    CONTEXT.replace(context)
}

/// The track of the calling thread.
fn track() -> u64 {
    match (CONTEXT.get(), THREAD.get()) {
        (0, 0) => new_thread(),
        (0, thread) => thread,
        (context, _) => context,
    }
}

#[cold]
fn new_thread() -> u64 {
    let current = std::thread::current();
    #[cfg(not(wasi))]
    let number = rustix::thread::gettid().as_raw_nonzero().get();
    #[cfg(wasi)]
    let number = 0;
    let name = match current.name() {
        Some(name) => format!("{name} {number}"),
        None => format!("thread {number}"),
    };
    let mut names = lock_std(&NAMES);
    let track = THREADS + names.len() as u64;
    names.push(name);
    THREAD.set(track);
    track
}

/// What a track is called that is no context of the same file.
pub(crate) fn name_of(track: u64) -> String {
    let names = lock_std(&NAMES);
    let at = track.checked_sub(THREADS).and_then(|at| usize::try_from(at).ok());
    let name = at.and_then(|at| names.get(at)).cloned();
    name.unwrap_or_else(|| format!("context {track}, which another file has"))
}

/// The first who notified since the context last took it.
#[derive(Default)]
pub(crate) struct Caller {
    claimed: AtomicBool,
    by: AtomicU64,
    /// When; 0 = nobody.
    at: AtomicU64,
}

impl Caller {
    /// Any thread, before it signals.
    #[cold]
    pub fn note(&self) {
        if !self.claimed.swap(true, Ordering::Acquire) {
            self.by.store(track(), Ordering::Relaxed);
            self.at.store(monotonic_ns(), Ordering::Release);
        }
    }

    /// The home thread: when and by whom.
    pub fn take(&self) -> Option<(u64, u64)> {
        let at = self.at.load(Ordering::Acquire);
        if at == 0 {
            return None; // nobody, or it is being noted
        }
        let by = self.by.load(Ordering::Relaxed);
        self.at.store(0, Ordering::Relaxed);
        self.claimed.store(false, Ordering::Release);
        Some((at, by))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_who_notifies_is_remembered_until_he_is_taken() {
        let caller = Caller::default();
        assert_eq!(caller.take(), None);
        let before = enter(7);
        caller.note();
        enter(8);
        caller.note();
        enter(before);
        assert_eq!(caller.take().map(|(_, by)| by), Some(7));
        assert_eq!(caller.take(), None);
        caller.note();
        let (_, by) = caller.take().unwrap();
        assert!(by >= THREADS && !name_of(by).is_empty());
        assert_eq!(track(), by, "a thread keeps its track");
        assert_ne!(std::thread::spawn(track).join().unwrap(), by);
    }
}
