//! The suite on one monitor: the one this module is named after.

use fdmon::{AioContext, Builder, ManualClock, MonitorKind, PollParams};

mod bad_input;
mod bottom_half;
mod close;
mod external;
mod failures;
mod hooks;
mod interest;
mod kernel;
mod nested;
mod random;
mod registering;
mod removing;
mod series;
mod spin;
mod stats;
mod timers;
mod turn;
mod wakeup;

/// The monitor under test.
fn monitor() -> MonitorKind {
    let name = module_path!().rsplit("::").next().unwrap_or_default();
    name.parse().unwrap()
}

/// The monitor knows of readiness without a system call.
fn sees_readiness() -> bool {
    monitor() == MonitorKind::IoUring
}

fn builder() -> Builder {
    AioContext::builder().monitor(monitor())
}

/// A context in real time.
fn context() -> AioContext {
    builder().build().unwrap()
}

/// A context on a clock that the test turns.
fn manual() -> (AioContext, ManualClock) {
    manual_with(PollParams::default())
}

fn manual_with(params: PollParams) -> (AioContext, ManualClock) {
    let clock = ManualClock::new();
    let ctx = builder().poll(params).manual_clock(clock.clone()).build().unwrap();
    (ctx, clock)
}

/// …that spins, with the window open.
fn spinning() -> (AioContext, ManualClock) {
    let (ctx, clock) = manual_with(crate::support::spin());
    crate::support::warm(&ctx);
    (ctx, clock)
}
