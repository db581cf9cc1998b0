//! The two rings, seen from the side that pushes and from the side that takes.
//!
//! No event is lost between a side that stops spinning and one that pushes, because both do two
//! things in opposite order with a full barrier between: the producer stores the index and then loads
//! the suppress word; the consumer clears the suppress word and then loads the index. One of them sees
//! what the other did. fdmon asks the predicate once more after `poll_end`, which is that last load.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering, fence};

use rustix::io::Errno;

use super::memory::Memory;

/// Entries of a ring, and descriptors.
pub const ENTRIES: usize = 256;
/// Word that the device sets when it has given up on this driver.
pub const BROKEN: usize = 0;
/// Word at which the descriptors begin: offset, length, flags, next.
pub const DESCRIPTORS: usize = 1024;
/// Byte at which the data begins.
pub const DATA: usize = 8192;

/// Where a ring lies, in words. Each word that one side writes often has a cache line of its own.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Set by the consumer: it looks by itself, and need not be signalled.
    pub suppress: usize,
    /// Counts all entries that were ever pushed, modulo 2^32.
    pub index: usize,
    /// The entries.
    pub entries: usize,
    /// Words of an entry.
    pub width: usize,
}

/// Driver to device: the head of a chain.
pub const AVAIL: Layout = Layout { suppress: 16, index: 32, entries: 80, width: 1 };
/// Device to driver: the head, and how many bytes were written to the chain.
pub const USED: Layout = Layout { suppress: 48, index: 64, entries: 80 + ENTRIES, width: 2 };

/// The ring's other side broke its rules: it pushed more than there is room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overrun;

/// The side that pushes.
#[derive(Debug)]
pub struct Producer {
    memory: Rc<Memory>,
    layout: Layout,
    next: Cell<u32>,
    bell: OwnedFd,
}

impl Producer {
    /// Of a ring that nothing was pushed to yet. The bell is the other side's eventfd.
    #[must_use]
    pub fn new(memory: Rc<Memory>, layout: Layout, bell: OwnedFd) -> Self {
        Self { memory, layout, next: Cell::new(0), bell }
    }

    /// Pushes an entry, and signals unless the other side looks by itself. There is room, because
    /// no more entries are in flight than a ring has.
    ///
    /// # Errors
    /// The bell cannot be rung.
    pub fn push(&self, entry: &[u32]) -> io::Result<()> {
        let (words, next) = (self.memory.words(), self.next.get());
        let at = self.layout.entries + next as usize % ENTRIES * self.layout.width;
        for (word, &value) in words[at..at + self.layout.width].iter().zip(entry) {
            word.store(value, Ordering::Relaxed);
        }
        self.next.set(next.wrapping_add(1));
        words[self.layout.index].store(self.next.get(), Ordering::Release);
        fence(Ordering::SeqCst); // see above
        if words[self.layout.suppress].load(Ordering::Relaxed) == 0 { self.ring() } else { Ok(()) }
    }

    /// Signals whatever the other side said.
    ///
    /// # Errors
    /// As [`Producer::push`].
    pub fn ring(&self) -> io::Result<()> {
        match rustix::io::write(&self.bell, &1_u64.to_ne_bytes()) {
            Ok(_) | Err(Errno::AGAIN) => Ok(()), // full: it is readable anyway
            Err(errno) => Err(errno.into()),
        }
    }
}

/// The side that takes.
#[derive(Debug)]
pub struct Consumer {
    memory: Rc<Memory>,
    layout: Layout,
    next: Cell<u32>,
    bell: OwnedFd,
}

impl Consumer {
    /// Of a ring that nothing was taken from yet. The bell is this side's eventfd.
    #[must_use]
    pub fn new(memory: Rc<Memory>, layout: Layout, bell: OwnedFd) -> Self {
        Self { memory, layout, next: Cell::new(0), bell }
    }

    fn index(&self) -> &AtomicU32 {
        &self.memory.words()[self.layout.index]
    }

    /// Something was pushed: the predicate that spinning asks.
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.index().load(Ordering::Acquire) != self.next.get()
    }

    /// The oldest entry.
    ///
    /// # Errors
    /// The other side broke the ring's rules.
    pub fn pop(&self) -> Result<Option<[u32; 2]>, Overrun> {
        let next = self.next.get();
        match self.index().load(Ordering::Acquire).wrapping_sub(next) as usize {
            0 => return Ok(None),
            1..=ENTRIES => {}
            _ => return Err(Overrun),
        }
        let at = self.layout.entries + next as usize % ENTRIES * self.layout.width;
        let words = &self.memory.words()[at..at + self.layout.width];
        let mut entry = [0; 2];
        for (value, word) in entry.iter_mut().zip(words) {
            *value = word.load(Ordering::Relaxed);
        }
        self.next.set(next.wrapping_add(1));
        Ok(Some(entry))
    }

    /// Asks the other side not to signal, or to signal again.
    pub fn suppress(&self, on: bool) {
        self.memory.words()[self.layout.suppress].store(on.into(), Ordering::Relaxed);
        fence(Ordering::SeqCst); // see above
    }

    /// Makes the bell silent. What was pushed before is seen by whoever looks afterwards.
    ///
    /// # Errors
    /// The bell cannot be read.
    pub fn silence(&self) -> io::Result<()> {
        match rustix::io::read(&self.bell, &mut [0_u8; 8]) {
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl AsFd for Consumer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}
