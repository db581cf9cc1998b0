//! The stress tests on one monitor: the one this module is named after.

use fdmon::{AioContext, Builder, MonitorKind, PolicyKind, PollParams};

mod events;
mod exhaustion;
mod forks;
mod notifications;
mod reuse;

fn monitor() -> MonitorKind {
    module_path!().rsplit("::").next().unwrap_or_default().parse().unwrap()
}

fn builder() -> Builder {
    AioContext::builder().monitor(monitor())
}

fn context() -> AioContext {
    builder().build().unwrap()
}

/// Spins for as long as this without an event, whatever came before.
fn spin(max_ns: u64) -> PollParams {
    PollParams {
        max_ns,
        grow: u32::MAX,
        policy: PolicyKind::Classic,
        guards: false,
        ..PollParams::default()
    }
}
