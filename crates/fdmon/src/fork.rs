//! A forked child must not touch its parent's contexts: they share epoll sets, rings and eventfds.
//!
//! One page of memory that the kernel wipes at fork (MADV_WIPEONFORK, Linux 4.14) tells: a load a
//! call instead of a getpid(2).
#![allow(unsafe_code)] // an anonymous mapping with special fork behaviour

#[cfg(not(wasi))]
use std::ptr;
#[cfg(not(wasi))]
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(not(wasi))]
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};

#[cfg(not(wasi))]
const PAGE: usize = 4096;

/// Counts the processes on the way down from the first that used fdmon; a child inherits it.
static EPOCHS: AtomicU64 = AtomicU64::new(0);

/// WebAssembly does not fork.
#[cfg(wasi)]
fn word() -> &'static AtomicU64 {
    static WORD: AtomicU64 = AtomicU64::new(0);
    &WORD
}

/// The word on the page: 0 in a child until it builds a context of its own.
#[cfg(not(wasi))]
fn word() -> &'static AtomicU64 {
    static NO_GUARD: AtomicU64 = AtomicU64::new(0);
    static WORD: OnceLock<&'static AtomicU64> = OnceLock::new();
    WORD.get_or_init(|| {
        // SAFETY: a fresh private mapping that overlaps nothing.
        let page = unsafe {
            mmap_anonymous(
                ptr::null_mut(),
                PAGE,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        };
        let Ok(page) = page else { return &NO_GUARD };
        // SAFETY: the page was just mapped, is ours alone, and wiping it means zeroes, which is a
        // valid value. Where the kernel refuses, the word just never changes.
        let _ = unsafe { madvise(page, PAGE, Advice::LinuxWipeOnFork) };
        // SAFETY: the mapping is never removed, and zeroed memory is a valid, aligned AtomicU64.
        unsafe { &*page.cast::<AtomicU64>() }
    })
}

/// Which process a context belongs to.
#[derive(Clone, Copy)]
pub(crate) struct Home {
    word: &'static AtomicU64,
    epoch: u64,
}

impl Home {
    /// This process.
    pub fn here() -> Self {
        let word = word();
        let fresh = EPOCHS.load(Ordering::Relaxed) + 1;
        let epoch = match word.compare_exchange(0, fresh, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => {
                EPOCHS.store(fresh, Ordering::Relaxed);
                fresh
            }
            Err(epoch) => epoch,
        };
        Self { word, epoch }
    }

    /// Still the process that made this.
    #[inline]
    pub fn is_here(self) -> bool {
        self.word.load(Ordering::Relaxed) == self.epoch
    }
}
