//! The suite on one monitor: the one this module is named after.

use fdmon::{
    AioContext, Builder, IoThread, IoThreadBuilder, ManualClock, MonitorKind, PollParams, RingMode,
    RingParams,
};

mod acks;
mod bad_input;
mod bottom_half;
#[cfg(feature = "channel")]
mod channel;
mod close;
mod external;
mod failures;
#[cfg(not(wasi))] // memfds and pipes; see `on_wasi`
mod file_io;
#[cfg(not(wasi))]
mod file_io_users;
mod hooks;
#[cfg(not(wasi))] // sockets and pipes
mod interest;
#[cfg(not(wasi))] // by the CPU time of threads, which WASI does not tell
mod io_threads;
#[cfg(not(wasi))]
mod kernel;
mod migrate;
mod nested;
#[cfg(wasi)]
mod on_wasi;
mod policies;
mod random;
mod random_moves;
mod registering;
mod remote_handlers;
mod removing;
mod series;
mod spin;
mod stats;
mod timers;
#[cfg(not(wasi))]
mod traces;
mod tracing;
mod turn;
mod wakeup;

/// The name of this instance of the suite.
fn instance() -> &'static str {
    module_path!().rsplit("::").next().unwrap_or_default()
}

/// The monitor under test.
fn monitor() -> MonitorKind {
    let kind = instance().strip_suffix("_cooperative").or(instance().strip_suffix("_plain"));
    kind.unwrap_or(instance()).parse().unwrap()
}

/// The kind of ring under test; elsewhere it means nothing.
fn ring_params() -> RingParams {
    let mode = match instance() {
        "io_uring_cooperative" => RingMode::Cooperative,
        "io_uring_plain" => RingMode::Plain,
        _ => RingMode::Auto,
    };
    RingParams { mode, ..RingParams::default() }
}

/// The monitor knows of readiness without a system call.
fn sees_readiness() -> bool {
    monitor() == MonitorKind::IoUring
}

fn builder() -> Builder {
    AioContext::builder().monitor(monitor()).ring(ring_params())
}

/// A thread with a context on the monitor under test, that does not spin.
fn io_thread() -> IoThreadBuilder {
    IoThread::builder().monitor(monitor()).ring(ring_params()).poll(PollParams::default())
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
