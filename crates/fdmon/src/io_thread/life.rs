//! The life of an I/O thread: turns until it is stopped, closed or given up.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Failure;
use crate::context::{AioContext, LeakReport};
use crate::error::Error;

pub(super) type Hook = Box<dyn FnMut(&Failure) -> ControlFlow<()> + Send>;

/// Raises a flag when it is dropped, which is last of all.
pub(super) struct RaisedAtEnd(pub Arc<AtomicBool>);

impl Drop for RaisedAtEnd {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// How a thread ended.
#[derive(Default)]
pub(super) struct Ended {
    pub leaks: LeakReport,
    pub failure: Option<Failure>,
    pub failures: u64,
}

/// Runs turns for good, and closes the context.
pub(super) fn run_turns(ctx: AioContext, mut hook: Option<Hook>) -> Ended {
    let mut ended = Ended::default();
    ctx.0.state().loops += 1;
    while !ctx.stop_requested() {
        let failure = match catch_unwind(AssertUnwindSafe(|| ctx.poll(true))) {
            Ok(Ok(_)) => continue,
            Ok(Err(error)) if error.is_closed() => break,
            Ok(Err(error)) => Failure::Error(error),
            Err(payload) => Failure::Panic(payload),
        };
        let goes_on = failure.is_of_callbacks();
        let answer = hook.as_mut().map(|hook| catch_unwind(AssertUnwindSafe(|| hook(&failure))));
        match answer {
            Some(Ok(ControlFlow::Continue(()))) if goes_on => {}
            None if goes_on => ended.note(failure),
            Some(Err(payload)) => {
                ended.give_up(Failure::Panic(payload));
                break;
            }
            _ => {
                ended.give_up(failure);
                break;
            }
        }
    }
    ctx.leave_loop();
    ended.leaks = ctx.release();
    // Hooks that failed as spin mode was left for good.
    if let Some(failure) = ctx.take_failure() {
        ended.note(failure);
    }
    ended
}

impl Ended {
    fn note(&mut self, failure: Failure) {
        self.failures += 1;
        self.failure.get_or_insert(failure);
    }

    fn give_up(&mut self, failure: Failure) {
        self.failures += 1;
        self.failure = Some(failure);
    }
}

impl AioContext {
    /// What no turn has reported.
    fn take_failure(&self) -> Option<Failure> {
        let mut failures = std::mem::take(&mut self.0.state().failures);
        if let Some((_, payload)) = failures.panics.pop() {
            return Some(Failure::Panic(payload));
        }
        let errors: Vec<_> = failures.errors.into_iter().map(|(_, error)| error).collect();
        (!errors.is_empty()).then(|| Failure::Error(Error::callbacks(errors)))
    }
}
