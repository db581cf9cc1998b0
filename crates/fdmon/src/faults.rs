//! For tests alone: makes rings of this thread small, and changes what completes on them.
//!
//! It is there only with the feature `faults`, and nothing that is released has that.

use std::cell::{Cell, RefCell};

/// What kind of request completes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completed {
    /// The poll of a handler's fd.
    Poll,
    /// The poll of the notifier.
    Notifier,
    /// A poll was to wait for something else.
    Change,
    /// A poll was to be taken back.
    Cancel,
    /// A request of file I/O.
    Io,
}

/// What rings are like that are made from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Entries of the submission queue.
    pub submissions: u32,
    /// Entries of the completion queue.
    pub completions: u32,
    /// Requests always say that they succeeded, as before Linux 5.17.
    pub noisy: bool,
}

/// How often a queue was too small.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shortages {
    /// A request found the submission queue full.
    pub full: u64,
    /// The kernel kept completions aside.
    pub overflows: u64,
}

/// From what completes and its result, another result; `None` = as it is.
pub type Rewrite = Box<dyn FnMut(Completed, i32) -> Option<i32>>;

thread_local! {
    static REWRITE: RefCell<Option<Rewrite>> = const { RefCell::new(None) };
    static SHAPE: Cell<Option<Shape>> = const { Cell::new(None) };
    static SHORTAGES: Cell<Shortages> = const { Cell::new(Shortages { full: 0, overflows: 0 }) };
}

/// Changes results from now on.
pub fn rewrite_completions(rewrite: Option<Rewrite>) {
    REWRITE.set(rewrite);
}

/// Makes rings like this from now on.
pub fn shape_rings(shape: Option<Shape>) {
    SHAPE.set(shape);
}

/// The shortages of this thread so far.
#[must_use]
pub fn shortages() -> Shortages {
    SHORTAGES.get()
}

pub(crate) fn shape() -> Option<Shape> {
    SHAPE.get()
}

pub(crate) fn rewritten(kind: Completed, result: i32) -> Option<i32> {
    REWRITE.with_borrow_mut(|rewrite| rewrite.as_mut().and_then(|rewrite| rewrite(kind, result)))
}

pub(crate) fn note(full: bool, overflow: bool) {
    let mut shortages = SHORTAGES.get();
    shortages.full += u64::from(full);
    shortages.overflows += u64::from(overflow);
    SHORTAGES.set(shortages);
}
