//! What programs have exercised, and what they must: a generator that reaches nothing proves
//! nothing.

use std::collections::BTreeMap;

use fdmon::MonitorKind;

use crate::program::Step;
use crate::world::On;

/// How often each thing happened.
pub type Tally = BTreeMap<&'static str, u32>;

/// Whatever the monitor is.
const EVERYWHERE: &[&str] = &[
    "a call panics",
    "a callback fails",
    "a callback panics",
    "a file becomes ready in a spin",
    "a file ends a spin",
    "a handler begins with a suppress word",
    "a hook panics",
    "a job comes in a spin",
    "a move arrives",
    "a move returns",
    "a nested turn",
    "a notification comes in a spin",
    "a notification ends a spin",
    "a predicate hits in a spin",
    "a predicate panics",
    "a spin",
    "a turn sleeps",
    "a turn spins in vain, and then sleeps",
    "a word hits in a spin",
    "a word is set in a spin",
    "an outer loop's turn",
    "poll_begin",
    "poll_end",
    "poll_ready",
    "priority",
    "read",
    "the last look cancels a sleep",
    "timer",
    "work",
    "write",
];

/// Where a request completes once.
const ON_RINGS: &[&str] = &["a ring reports a part", "a ring reports what was"];

/// What must happen on this monitor.
pub fn expected(on: On) -> impl Iterator<Item = &'static str> {
    let rings = if on.monitor == MonitorKind::IoUring { ON_RINGS } else { &[] };
    EVERYWHERE.iter().chain(rings).chain(Step::NAMES).copied()
}
