//! Stress: promises that break under load and with bad luck, if they do.
//!
//! Each test runs in a process of its own, for `FDMON_STRESS_SECONDS` seconds (3); those that count
//! to ten million do so in 30 seconds' worth and in fewer to their share. `FDMON_STRESS_SEED` sets
//! where the dice begin; a failure names it.
//!
//! ```text
//! cargo test -p fdmon --test stress
//! FDMON_STRESS_SECONDS=30 cargo test --release -p fdmon --test stress -- epoll::
//! ```
#![allow(clippy::duplicate_mod, reason = "that is the point: each monitor gets its own copy")]

mod support;

#[path = "suite/mod.rs"]
mod epoll;
#[path = "suite/mod.rs"]
mod io_uring;
#[path = "suite/mod.rs"]
mod poll;
