//! A word of shared memory as an event source: ready when it differs from a value or from
//! another word; read natively while spinning, with no call into anybody's code.
#![allow(unsafe_code)] // words in memory that another process or language also writes

use std::any::Any;
use std::collections::BTreeSet;
use std::ptr::NonNull;
use std::sync::Mutex;

use crate::error::{Error, ErrorCode, Result};
use crate::sync::{Arc, AtomicU32, AtomicU64, Ordering, fence, kept, lock_std, ordered};

/// A predicate that spinning asks, with its hooks.
///
/// Any `Fn() -> bool` is one. The predicate must have no side effects and must not take long: it
/// runs over and over.
pub trait PollSource: 'static {
    /// Is there something to do?
    fn poll(&self) -> bool;
    /// Spinning begins: the producer may stop signalling the fd.
    fn poll_begin(&mut self) {}
    /// Spinning ends: the producer must signal again.
    fn poll_end(&mut self) {}
}

impl<F: Fn() -> bool + 'static> PollSource for F {
    fn poll(&self) -> bool {
        self()
    }
}

/// Suppress words in use in this process: each belongs to one handler of one context.
static SUPPRESS_WORDS: Mutex<BTreeSet<usize>> = Mutex::new(BTreeSet::new());

/// A word in memory that others write; 32 or 64 bits.
#[derive(Clone, Copy, Debug)]
pub enum RawWord {
    /// 32 bits
    U32(NonNull<AtomicU32>),
    /// 64 bits
    U64(NonNull<AtomicU64>),
}

impl RawWord {
    /// # Safety
    /// The pointer is valid, which [`WordSource::raw`]'s caller promised.
    unsafe fn store(self, value: u32) {
        match self {
            // SAFETY: by this function's contract.
            Self::U32(word) => unsafe { word.as_ref() }.store(value, Ordering::Relaxed),
            // SAFETY: by this function's contract.
            Self::U64(word) => unsafe { word.as_ref() }.store(value.into(), Ordering::Relaxed),
        }
    }

    fn address(self) -> usize {
        match self {
            Self::U32(word) => word.as_ptr() as usize,
            Self::U64(word) => word.as_ptr() as usize,
        }
    }
}

/// What a word is compared with.
#[derive(Clone, Copy, Debug)]
pub enum Differs {
    /// Ready when the word is not this value.
    FromValue(u64),
    /// Ready when the word is not what this other word holds.
    FromWord(RawWord),
}

/// Ready when a word of memory differs from a value or from another word.
///
/// ```
/// use std::sync::{Arc, atomic::{AtomicU32, Ordering}};
/// use fdmon::{PollSource, WordSource};
/// let head = Arc::new(AtomicU32::new(0));
/// let source = WordSource::differs_from(head.clone(), 0);
/// assert!(!source.poll());
/// head.store(1, Ordering::Release);
/// assert!(source.poll());
/// ```
pub struct WordSource {
    words: Pair,
    suppress: Option<RawWord>,
    /// Keeps all the words alive and in place.
    _owner: Box<dyn Any>,
}

// SAFETY: the words are atomics in memory that `_owner` keeps in place, wherever that is. The owner
// is `Send`, or the caller of `raw` promised that the source stays in its thread.
unsafe impl Send for WordSource {}
// SAFETY: all that a shared reference gives access to are the atomics; nothing reads the owner.
unsafe impl Sync for WordSource {}

/// Two words of one width that are ready when they differ. A value to differ from is a word of
/// the source's own, so that asking is two loads and a comparison.
#[derive(Clone, Copy, Debug)]
enum Pair {
    U32(NonNull<AtomicU32>, NonNull<AtomicU32>),
    U64(NonNull<AtomicU64>, NonNull<AtomicU64>),
}

/// The predicate as the one or the other: a word is read in place, without a call.
pub(crate) fn word_or_code<P: PollSource>(source: P) -> (Option<WordSource>, Option<P>) {
    let mut source = Some(source);
    let word = (&mut source as &mut dyn Any).downcast_mut::<Option<WordSource>>();
    let word = word.and_then(Option::take); // out of `source`, which is empty then
    (word, source)
}

impl WordSource {
    /// Ready when `word` is not `value`.
    #[must_use]
    pub fn differs_from(word: Arc<AtomicU32>, value: u32) -> Self {
        let value = Box::new(AtomicU32::new(value));
        Self {
            words: Pair::U32(NonNull::from(&*word), NonNull::from(&*value)),
            suppress: None,
            _owner: Box::new((word, value)),
        }
    }

    /// Ready when `head` and `tail` differ: the test of a ring.
    #[must_use]
    pub fn words_differ(head: Arc<AtomicU32>, tail: Arc<AtomicU32>) -> Self {
        Self {
            words: Pair::U32(NonNull::from(&*head), NonNull::from(&*tail)),
            suppress: None,
            _owner: Box::new((head, tail)),
        }
    }

    /// Sets `word` to 1 while spinning: the producer need not signal then.
    ///
    /// # Errors
    /// `InUse` when the word suppresses another handler already.
    pub fn suppress(mut self, word: Arc<AtomicU32>) -> Result<Self> {
        let raw = RawWord::U32(NonNull::from(&*word));
        claim(raw)?;
        self.suppress = Some(raw);
        self._owner = Box::new((std::mem::replace(&mut self._owner, Box::new(())), word));
        Ok(self)
    }

    /// A source over memory that belongs to somebody else.
    ///
    /// # Safety
    /// All words are aligned, and stay alive and in place until `owner` is dropped; whoever else
    /// writes them does it atomically. A source whose `owner` is not `Send` stays in the thread
    /// that made it: it is not sent to another, nor is a handler that has it.
    ///
    /// # Errors
    /// `InUse` when the suppress word suppresses another handler already; `InvalidArg` when the
    /// widths do not match.
    pub unsafe fn raw(
        word: RawWord,
        differs: Differs,
        suppress: Option<RawWord>,
        owner: Box<dyn Any>,
    ) -> Result<Self> {
        let (words, owner): (_, Box<dyn Any>) = match (word, differs) {
            (RawWord::U32(word), Differs::FromWord(RawWord::U32(other))) => {
                (Pair::U32(word, other), owner)
            }
            (RawWord::U64(word), Differs::FromWord(RawWord::U64(other))) => {
                (Pair::U64(word, other), owner)
            }
            (RawWord::U32(word), Differs::FromValue(value)) => {
                let value = u32::try_from(value).map_err(|_| {
                    Error::invalid_arg("notEqual", value, "a value that fits the word's 32 bits")
                })?;
                let value = Box::new(AtomicU32::new(value));
                (Pair::U32(word, NonNull::from(&*value)), Box::new((owner, value)))
            }
            (RawWord::U64(word), Differs::FromValue(value)) => {
                let value = Box::new(AtomicU64::new(value));
                (Pair::U64(word, NonNull::from(&*value)), Box::new((owner, value)))
            }
            _ => {
                return Err(Error::invalid_arg(
                    "notEqual",
                    "a word of another width",
                    "two words of one width",
                ));
            }
        };
        if let Some(word) = suppress {
            claim(word)?;
        }
        Ok(Self { words, suppress, _owner: owner })
    }

    /// Ready when the first word differs from the second; the third is the suppress word.
    ///
    /// # Safety
    /// All words stay alive and in place until `owner` is dropped, and whoever else writes them does
    /// it atomically. No other source has this suppress word.
    #[cfg(feature = "channel")]
    pub(crate) unsafe fn owned(
        [word, other, suppress]: [NonNull<AtomicU32>; 3],
        owner: Box<dyn Any + Send>,
    ) -> Self {
        Self {
            words: Pair::U32(word, other),
            suppress: Some(RawWord::U32(suppress)),
            _owner: owner,
        }
    }

    #[inline]
    pub(crate) fn is_ready(&self) -> bool {
        // What was written before the word is seen by the callback.
        let order = ordered("look: acquire", Ordering::Acquire);
        match self.words {
            Pair::U32(word, other) => {
                // SAFETY: the constructors' callers promised that it lives as long as `_owner`.
                let word = unsafe { word.as_ref() };
                // SAFETY: as above.
                let other = unsafe { other.as_ref() };
                word.load(order) != other.load(order)
            }
            Pair::U64(word, other) => {
                // SAFETY: as above.
                let word = unsafe { word.as_ref() };
                // SAFETY: as above.
                let other = unsafe { other.as_ref() };
                word.load(order) != other.load(order)
            }
        }
    }

    pub(crate) fn begin(&self) {
        if let Some(word) = self.suppress {
            // SAFETY: as in `is_ready`.
            unsafe { word.store(1) };
        }
    }

    /// The store is followed by a full barrier: the predicate that is asked next must not be
    /// answered from before it, or the producer's last event is lost.
    pub(crate) fn end(&self) {
        if let Some(word) = self.suppress {
            // SAFETY: as in `is_ready`.
            unsafe { word.store(0) };
            if kept("end: barrier") {
                fence(Ordering::SeqCst);
            }
        }
    }
}

impl PollSource for WordSource {
    fn poll(&self) -> bool {
        self.is_ready()
    }

    fn poll_begin(&mut self) {
        self.begin();
    }

    fn poll_end(&mut self) {
        self.end();
    }
}

impl Drop for WordSource {
    fn drop(&mut self) {
        if let Some(word) = self.suppress {
            self.end();
            let mut words = lock_std(&SUPPRESS_WORDS);
            words.remove(&word.address());
        }
    }
}

impl std::fmt::Debug for WordSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WordSource")
            .field("words", &self.words)
            .field("suppress", &self.suppress)
            .finish_non_exhaustive()
    }
}

fn claim(word: RawWord) -> Result<()> {
    let mut words = lock_std(&SUPPRESS_WORDS);
    if words.insert(word.address()) {
        return Ok(());
    }
    Err(Error::new(
        ErrorCode::InUse,
        format!(
            "suppress = the word at address {:#x} suppresses another handler already; give each \
             handler a suppress word of its own",
            word.address()
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SPEC 25
    #[test]
    fn a_suppress_word_belongs_to_one_source() {
        let suppress = Arc::new(AtomicU32::new(0));
        let word = Arc::new(AtomicU32::new(0));
        let first = WordSource::differs_from(word.clone(), 0).suppress(suppress.clone()).unwrap();
        first.begin();
        assert_eq!(suppress.load(Ordering::Relaxed), 1);
        let error =
            WordSource::differs_from(word.clone(), 0).suppress(suppress.clone()).unwrap_err();
        assert_eq!(error.code(), ErrorCode::InUse);
        drop(first);
        assert_eq!(suppress.load(Ordering::Relaxed), 0, "a dropped source suppresses nothing");
        assert!(WordSource::differs_from(word, 0).suppress(suppress).is_ok());
    }

    #[test]
    fn two_words_that_differ_are_ready() {
        let head = Arc::new(AtomicU32::new(7));
        let tail = Arc::new(AtomicU32::new(7));
        let source = WordSource::words_differ(head.clone(), tail.clone());
        assert!(!source.poll());
        head.store(8, Ordering::Release);
        assert!(source.poll());
        tail.store(8, Ordering::Release);
        assert!(!source.poll());
    }
}
