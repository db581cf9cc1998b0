//! What the loop promises, on every monitor: one set of files, once for each of them.
//!
//! Each module below is the whole suite on the monitor it is named after, for the ring once for
//! each kind of ring; `suite/mod.rs` reads the monitor from the module's name. `kernel` holds the
//! tests that must also pass on other kernels, in slow guests: `cargo test --test conformance
//! kernel`. With `--cfg brief` there are two instances, for what takes long (`scripts/asan.mjs`).
#![allow(clippy::duplicate_mod, reason = "that is the point: each monitor gets its own copy")]

#[path = "../sandbox/mod.rs"]
mod sandbox;
mod support;

#[path = "suite/mod.rs"]
mod epoll;
#[path = "suite/mod.rs"]
mod io_uring;
#[cfg(not(brief))]
#[path = "suite/mod.rs"]
mod io_uring_cooperative;
#[cfg(not(brief))]
#[path = "suite/mod.rs"]
mod io_uring_plain;
#[cfg(not(brief))]
#[path = "suite/mod.rs"]
mod poll;
