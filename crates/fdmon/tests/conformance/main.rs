//! What the loop promises, on every monitor: one set of files, once for each of them.
//!
//! Each module below is the whole suite on the monitor it is named after, for the ring once for
//! each kind of ring; `suite/mod.rs` reads the monitor from the module's name. `kernel` holds the
//! tests that must also pass on other kernels, in slow guests: `cargo test --test conformance
//! kernel`. With `--cfg brief` there are two instances, for what takes long (`scripts/asan.mjs`).
#![allow(clippy::duplicate_mod, reason = "that is the point: each monitor gets its own copy")]

#[cfg(not(wasi))]
#[path = "../sandbox/mod.rs"]
mod sandbox;
mod support;

#[cfg(not(wasi))]
#[path = "suite/mod.rs"]
mod epoll;
#[cfg(not(wasi))]
#[path = "suite/mod.rs"]
mod io_uring;
#[cfg(not(any(wasi, brief)))]
#[path = "suite/mod.rs"]
mod io_uring_cooperative;
#[cfg(not(any(wasi, brief)))]
#[path = "suite/mod.rs"]
mod io_uring_plain;
#[cfg(not(any(wasi, brief)))]
#[path = "suite/mod.rs"]
mod poll;
#[cfg(wasi)]
#[path = "suite/mod.rs"]
mod wasi;
