//! The Node-API addon of fdmon: it validates, translates, calls and translates back, and decides
//! nothing.
//!
//! Everything here runs on the JavaScript thread that owns the environment. What the addon keeps
//! for an environment lies in that environment's instance data, never in process statics, so that a
//! worker may end at any moment; statics hold only what is the process's by nature: addresses,
//! numbers of descriptors, actions of signals. No panic leaves this crate: `error::guard` turns it
//! into an error.
#![deny(unsafe_code)]
#![allow(
    unreachable_pub,
    reason = "what JavaScript reaches must be `pub` for #[napi], although no crate can import it"
)]
#![cfg_attr(
    test,
    allow(dead_code, unused_imports, reason = "#[napi] registers nothing in a test build")
)]

#[cfg(not(target_os = "wasi"))]
mod aio;
#[cfg_attr(target_os = "wasi", path = "wasi/attach.rs")]
mod attach;
mod batch;
#[cfg_attr(target_os = "wasi", path = "wasi/capabilities.rs")]
mod capabilities;
#[cfg(not(target_os = "wasi"))]
mod channel;
mod context;
mod core;
mod error;
#[cfg_attr(target_os = "wasi", path = "wasi/fd.rs")]
mod fd;
mod handler;
mod hot;
mod memory;
mod options;
mod remote;
#[cfg_attr(target_os = "wasi", path = "wasi/reservation.rs")]
mod reservation;
mod stats;
#[cfg(not(target_os = "wasi"))]
mod stats_page;
mod trace;
#[cfg(not(target_os = "wasi"))]
mod usage;
#[cfg(not(target_os = "wasi"))]
mod uv;
#[cfg_attr(target_os = "wasi", path = "wasi/word.rs")]
mod word;

/// The version of this build: the loader takes only the one that belongs to its package.
#[napi_derive::napi]
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
