//! What a WebAssembly build can do; what it cannot, and what there is of CPUs, TypeScript says.

use fdmon::{AioContext, MonitorKind};
use napi::Env;
use napi_derive::napi;

use crate::error::guard;

/// Tries the monitor of this name: why it cannot be had.
#[napi]
pub fn monitor_refusal(env: Env, name: String) -> napi::Result<Option<String>> {
    guard(&env, || {
        let kind: MonitorKind = name.parse()?;
        let made = AioContext::builder().monitor(kind).build();
        Ok(made.err().map(|error| error.to_string()))
    })
}

/// The ids of contexts begin behind this: each thread has a memory, and contexts, of its own.
#[napi]
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a number of a thread, shifted"
)]
pub fn start_ids(at: f64) {
    fdmon::start_ids(at as u64);
}
