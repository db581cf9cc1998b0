//! A context before it has a home: its id, its parameters, and what other threads hold of it.

use std::fmt;

use crate::config::{AioParams, PollParams};
use crate::cpu_clock::CpuClock;
use crate::error::{Error, Result};
use crate::remote::{Remote, Shared, Wanted, lock};
use crate::sync::Arc;

/// The remote side of a context that some thread builds later, with
/// [`Builder::reserved`](crate::Builder::reserved): for bindings whose threads take long to start. What is asked
/// of it until then is kept. Dropped without that it is closed, like a context.
pub struct Reserved {
    shared: Arc<Shared>,
    built: bool,
}

impl Reserved {
    /// An id that is never used again, for a context with this name and these parameters.
    ///
    /// # Errors
    /// `InvalidArg` for a parameter out of range, `Syscall` when there is no fd left.
    pub fn new(name: impl Into<String>, poll: PollParams, aio: AioParams) -> Result<Self> {
        poll.validate()?;
        aio.validate()?;
        Ok(Self { shared: Shared::new(name.into(), poll, aio)?, built: false })
    }

    /// What other threads hold.
    #[must_use]
    pub fn remote(&self) -> Remote {
        Remote(Arc::clone(&self.shared))
    }

    /// The calling thread becomes its home, with the parameters as they are now: later ones are for
    /// its turns.
    pub(crate) fn move_in(&self) -> Result<(Arc<Shared>, PollParams, AioParams)> {
        if !self.shared.home.is_here() {
            return Err(Error::closed());
        }
        let _ = self.shared.cpu_clock.set(CpuClock::here());
        let mut wanted = lock(&self.shared.wanted);
        wanted.poll_changed = false;
        let Wanted { poll, aio, .. } = wanted.clone();
        Ok((Arc::clone(&self.shared), poll, aio))
    }

    /// The context is there, and closes it from now on.
    pub(crate) fn built(mut self) {
        self.built = true;
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if !self.built {
            self.shared.close();
            self.shared.inbox.drain(drop);
        }
    }
}

impl fmt::Debug for Reserved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reserved").field("id", &self.shared.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::config::{MonitorKind, RingMode, RingParams};
    use crate::context::AioContext;

    fn reserved() -> Reserved {
        Reserved::new("soon", PollParams::default(), AioParams::default()).unwrap()
    }

    /// SPEC 4, 52
    #[test]
    fn what_is_asked_of_a_context_before_it_is_built_is_kept_for_it() {
        let reserved = reserved();
        let remote = reserved.remote();
        let order = Arc::new(AtomicU32::new(0));
        for expected in 0..3 {
            let order = Arc::clone(&order);
            let job = move |_: &mut crate::Ops<'_>| {
                assert_eq!(order.fetch_add(1, Ordering::Relaxed), expected);
            };
            remote.run(job).unwrap();
        }
        let poll = PollParams { max_ns: 7, ..remote.poll_params() };
        remote.set_poll_params(PollParams { max_ns: 5, ..poll.clone() }).unwrap();
        remote.set_poll_params(poll).unwrap();
        remote.set_aio_params(AioParams { max_batch: 3, ..remote.aio_params() }).unwrap();
        assert_eq!((remote.stats().turns, remote.stats().cpu_ns), (0, 0));
        let id = remote.id();
        let thread = std::thread::spawn(move || {
            let ctx = AioContext::builder().name("ignored").reserved(reserved).build().unwrap();
            assert_eq!((ctx.id(), ctx.name()), (id, "soon"));
            assert_eq!((ctx.poll_params().max_ns, ctx.aio_params().max_batch), (7, 3));
            while order.load(Ordering::Relaxed) < 3 {
                ctx.poll(true).unwrap();
            }
            assert_eq!(ctx.poll_params().max_ns, 7);
            assert!(ctx.stats().cpu_ns > 0);
            ctx.remote().stop().unwrap();
            ctx.run().unwrap(); // not for ever
        });
        thread.join().unwrap();
        assert!(remote.notify().unwrap_err().is_closed());
    }

    /// SPEC 4
    #[test]
    fn a_reservation_that_is_dropped_closes_its_context_and_drops_what_was_asked_of_it() {
        let reserved = reserved();
        let remote = reserved.remote();
        let held = Arc::new(());
        let job = Arc::clone(&held);
        remote.run(move |_| drop(job)).unwrap();
        drop(reserved);
        assert_eq!(Arc::strong_count(&held), 1);
        assert!(remote.run(|_| ()).unwrap_err().is_closed());
        assert!(Remote::from_id(remote.id()).unwrap_err().is_closed());
    }

    /// SPEC 45
    #[test]
    fn a_context_that_cannot_be_built_closes_what_was_promised() {
        let reserved = reserved();
        let remote = reserved.remote();
        let builder = AioContext::builder().monitor(MonitorKind::IoUring);
        let builder = builder.ring(RingParams { mode: RingMode::Off, ..RingParams::default() });
        assert!(builder.reserved(reserved).build().unwrap_err().is_invalid_arg());
        assert!(remote.notify().unwrap_err().is_closed());
    }

    /// SPEC 53
    #[test]
    fn the_cpu_time_of_a_thread_is_read_from_outside_until_its_context_closes() {
        let reserved = reserved();
        let remote = reserved.remote();
        let home = std::thread::spawn(move || {
            let ctx = AioContext::builder().reserved(reserved).build().unwrap();
            let seen = ctx.stats().cpu_ns;
            let mut burnt = 0_u64;
            while ctx.stats().cpu_ns < seen + 1_000_000 {
                burnt = burnt.wrapping_add(1);
            }
            ctx.run().unwrap();
            burnt
        });
        while remote.stats().cpu_ns < 1_000_000 {
            std::thread::yield_now();
        }
        remote.stop().unwrap();
        home.join().unwrap();
        let last = remote.stats().cpu_ns;
        assert!(last >= 1_000_000);
        assert_eq!(remote.stats().cpu_ns, last);
    }
}
