//! ③ The pending words: one 32-bit word a slot, the only truth about what is due.
//!
//! A batch that was handed to another language carries slot numbers only; whoever runs a
//! callback first takes the word (reads it, sets 0), and whoever finds 0 has nothing to do. So a
//! removal is one store, and a nested turn and the turn around it never run one event twice.
//!
//! The memory is the context's own, or the embedder's, so that the other side can read it
//! without a call.
#![allow(unsafe_code)] // shared with the embedder's language: see `Words::adopt`

use std::any::Any;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

pub(crate) struct Words {
    /// Points at `len` words that `_owner` keeps alive and in place.
    base: NonNull<AtomicU32>,
    len: usize,
    _owner: Box<dyn Any>,
    /// The embedder supplies the memory and must be asked for more.
    foreign: bool,
}

impl Words {
    pub fn new() -> Self {
        Self::owned(16)
    }

    fn owned(len: usize) -> Self {
        // Not a box: its memory would stay in place too, but to move one asserts that nothing else points there.
        let memory: Rc<[AtomicU32]> = (0..len).map(|_| AtomicU32::new(0)).collect();
        let base = NonNull::from(&*memory).cast();
        Self { base, len, _owner: Box::new(memory), foreign: false }
    }

    /// Moves to memory that the embedder owns. What is pending is copied; the new memory must
    /// not be shorter.
    ///
    /// # Safety
    /// `base` points at `len` aligned 32-bit words that live and stay in place until `owner` is
    /// dropped, and that only this thread writes.
    pub unsafe fn adopt(&mut self, base: NonNull<AtomicU32>, len: usize, owner: Box<dyn Any>) {
        let new = Self { base, len, _owner: owner, foreign: true };
        self.copy_to(&new);
        *self = new;
    }

    fn copy_to(&self, new: &Self) {
        for slot in 0..self.len.min(new.len) {
            new.at(slot).store(self.at(slot).load(Relaxed), Relaxed);
        }
    }

    /// Makes room for `slot`. `false` = the embedder must supply more memory first.
    pub fn reserve(&mut self, slot: u32) -> bool {
        let slot = slot as usize;
        if slot < self.len {
            return true;
        }
        if self.foreign {
            return false;
        }
        let new = Self::owned((slot + 1).next_power_of_two());
        self.copy_to(&new);
        *self = new;
        true
    }

    #[inline]
    fn at(&self, slot: usize) -> &AtomicU32 {
        assert!(slot < self.len);
        // SAFETY: `slot` is below `len`, the number of words that `_owner` keeps at `base`.
        let word = unsafe { self.base.add(slot) };
        // SAFETY: as above.
        unsafe { word.as_ref() }
    }

    #[inline]
    pub fn get(&self, slot: u32) -> u32 {
        self.at(slot as usize).load(Relaxed)
    }

    #[inline]
    pub fn set(&self, slot: u32, word: u32) {
        self.at(slot as usize).store(word, Relaxed);
    }

    /// Adds bits. `true` = nothing was pending before, so the slot must be put on its list.
    #[inline]
    pub fn raise(&self, slot: u32, bits: u32) -> bool {
        let word = self.at(slot as usize);
        let old = word.load(Relaxed);
        word.store(old | bits, Relaxed);
        old == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growing_keeps_what_is_pending() {
        let mut words = Words::new();
        assert!(words.raise(3, 5));
        assert!(!words.raise(3, 8));
        assert!(words.reserve(4000));
        assert_eq!(words.get(3), 13);
        words.set(4000, 1);
        assert_eq!(words.get(4000), 1);
    }
}
