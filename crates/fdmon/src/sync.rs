//! What threads share: the atomics, locks and barriers of the wake-up protocol, from `std`, or from
//! loom where its models are checked (`--cfg loom`; see `models`).
//!
//! Counters, and what is changed under a lock that nothing waits behind, take theirs from `std`
//! directly: no order depends on them. Nor does any on the fork page, or on the memory that is
//! shared with a ring, whose other side is the kernel.

use std::sync::{Mutex as StdMutex, MutexGuard as StdMutexGuard, PoisonError};

#[cfg(loom)]
pub(crate) use loom::{
    hint::spin_loop,
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
};
#[cfg(not(loom))]
pub(crate) use std::{
    hint::spin_loop,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, Weak,
        atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering, fence},
    },
};

/// A lock of `std`, which no model knows; whoever held it may have panicked.
pub(crate) fn lock_std<T>(mutex: &StdMutex<T>) -> StdMutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether this step of the protocol is taken. Always; but builds of the models with the feature
/// `mutations` leave out the one that the environment names, to see that a model notices.
#[cfg(not(all(loom, feature = "mutations")))]
#[inline(always)]
pub(crate) const fn kept(_step: &str) -> bool {
    true
}

#[cfg(all(loom, feature = "mutations"))]
pub(crate) fn kept(step: &str) -> bool {
    static LEFT_OUT: std::sync::LazyLock<Option<String>> =
        std::sync::LazyLock::new(|| std::env::var("FDMON_MUTATION").ok());
    LEFT_OUT.as_deref() != Some(step)
}

/// The ordering of an access, if this step is [`kept`]; else none.
#[cfg(not(all(loom, feature = "mutations")))]
#[inline(always)]
pub(crate) const fn ordered(_step: &str, ordering: Ordering) -> Ordering {
    ordering
}

#[cfg(all(loom, feature = "mutations"))]
pub(crate) fn ordered(step: &str, ordering: Ordering) -> Ordering {
    if kept(step) { ordering } else { Ordering::Relaxed }
}

/// Loom orders barriers as it runs them, but switches threads only at accesses; this one lets it run
/// them in any order.
#[cfg(loom)]
pub(crate) fn fence(ordering: Ordering) {
    loom::lazy_static! {
        static ref BARRIERS: AtomicU32 = AtomicU32::new(0);
    }
    BARRIERS.fetch_add(1, Ordering::Relaxed);
    loom::sync::atomic::fence(ordering);
}

#[cfg(not(loom))]
pub(crate) fn downgrade<T>(arc: &Arc<T>) -> Weak<T> {
    Arc::downgrade(arc)
}

/// Loom has none; no model looks a context up by its id.
#[cfg(loom)]
pub(crate) struct Weak<T>(std::marker::PhantomData<T>);

#[cfg(loom)]
impl<T> Weak<T> {
    pub fn upgrade(&self) -> Option<Arc<T>> {
        None
    }
}

#[cfg(loom)]
pub(crate) fn downgrade<T>(_: &Arc<T>) -> Weak<T> {
    Weak(std::marker::PhantomData)
}

/// Both steps, in this order; in the other where a mutation turns them round.
#[inline(always)]
pub(crate) fn in_order<A, B>(
    step: &str,
    first: impl FnOnce() -> A,
    second: impl FnOnce() -> B,
) -> (A, B) {
    if kept(step) {
        let first = first();
        (first, second())
    } else {
        let second = second();
        (first(), second)
    }
}
