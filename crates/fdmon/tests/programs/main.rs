//! Random programs of everything that a user may do, on every monitor, beside a model of what the
//! loop promises: the same callbacks, in the same turns, as often.
//!
//! A program that fails is shrunk and printed as a test, which goes into `suite/pasted.rs`.
//! `FDMON_PROGRAMS=5000` runs more than 1,000 of them, `FDMON_SEED=7` others, `FDMON_SEED=1-4` those
//! of several seeds.
#![allow(clippy::duplicate_mod, reason = "that is the point: each monitor gets its own copy")]

mod coverage;
mod files;
mod model;
mod program;
mod reduce;
mod report;
mod strategy;
mod world;

#[path = "suite/mod.rs"]
mod epoll;
#[path = "suite/mod.rs"]
mod io_uring;
#[path = "suite/mod.rs"]
mod io_uring_cooperative;
#[path = "suite/mod.rs"]
mod io_uring_plain;
#[path = "suite/mod.rs"]
mod poll;
