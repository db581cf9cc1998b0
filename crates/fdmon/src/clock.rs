//! Time: monotonic nanoseconds, or a clock that a test turns by hand.

use std::cell::Cell;
use std::rc::Rc;

#[cfg(not(wasi))]
use rustix::time::{ClockId, clock_gettime};

/// A clock that moves only when told to.
///
/// A context built on one sleeps by moving it: a wait that nothing ends before its deadline puts
/// the clock at that deadline at once. With a step, each reading moves it on, so that a spin has
/// a length.
///
/// ```
/// # use std::{cell::Cell, rc::Rc, time::Duration};
/// let clock = fdmon::ManualClock::new();
/// let ctx = fdmon::AioContext::builder().manual_clock(clock.clone()).build()?;
/// let fired = Rc::new(Cell::new(false));
/// let flag = fired.clone();
/// let timer = ctx.timer(move |_| { flag.set(true); Ok(()) })?;
/// timer.arm(Duration::from_secs(3600))?;
/// ctx.poll(true)?; // an hour passes at once
/// assert!(fired.get());
/// assert_eq!(clock.now_ns(), 3_600_000_000_000);
/// # Ok::<(), fdmon::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct ManualClock(Rc<Hands>);

#[derive(Debug, Default)]
struct Hands {
    now: Cell<u64>,
    step: Cell<u64>,
}

impl ManualClock {
    /// A clock at 0 that stands still.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Each reading from now on moves the clock by this many nanoseconds first.
    pub fn set_step_ns(&self, step: u64) {
        self.0.step.set(step);
    }

    /// Moves the clock on.
    pub fn advance_ns(&self, by: u64) {
        self.0.now.set(self.0.now.get().saturating_add(by));
    }

    /// The time, without moving the clock.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        self.0.now.get()
    }

    fn read(&self) -> u64 {
        let now = self.0.now.get().saturating_add(self.0.step.get());
        self.0.now.set(now);
        now
    }

    pub(crate) fn at_least(&self, deadline: u64) {
        self.0.now.set(self.0.now.get().max(deadline));
    }
}

/// Where a context reads the time.
#[derive(Clone)]
pub(crate) enum Clock {
    Monotonic,
    Manual(ManualClock),
}

impl Clock {
    /// Nanoseconds; only differences mean anything.
    #[inline]
    pub fn now(&self) -> u64 {
        match self {
            Self::Monotonic => monotonic_ns(),
            Self::Manual(clock) => clock.read(),
        }
    }

    /// [`Clock::now`] without moving a manual clock: for who only watches.
    pub fn glance(&self) -> u64 {
        match self {
            Self::Monotonic => monotonic_ns(),
            Self::Manual(clock) => clock.now_ns(),
        }
    }

    pub fn manual(&self) -> Option<&ManualClock> {
        match self {
            Self::Monotonic => None,
            Self::Manual(clock) => Some(clock),
        }
    }
}

/// CLOCK_MONOTONIC, the clock of `process.hrtime.bigint()` as well.
#[cfg(not(wasi))]
#[inline]
pub(crate) fn monotonic_ns() -> u64 {
    read_ns(ClockId::Monotonic)
}

/// CPU time of the calling thread.
#[cfg(not(wasi))]
pub(crate) fn thread_cpu_ns() -> u64 {
    read_ns(ClockId::ThreadCPUTime)
}

#[cfg(wasi)]
pub(crate) use crate::wasi::monotonic_ns;

#[cfg(not(wasi))]
#[inline]
#[allow(clippy::cast_sign_loss, reason = "these clocks are never negative")]
fn read_ns(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    (now.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec as u64)
}
