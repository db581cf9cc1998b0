//! Descriptors of a WebAssembly build: none but the numbers of notifiers, whose counters are
//! TypeScript's, in memory that workers can share (`ts/wasi`).
#![allow(unsafe_code, reason = "one function that the loader supplies")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::os::fd::AsRawFd;

use fdmon::OutsideNotifier;
use napi_derive::napi;

#[link(wasm_import_module = "fdmon")]
unsafe extern "C" {
    /// Of the notifier with this number: bit 0, it is set; bit 1, other threads can set it.
    safe fn notifier_state(number: i32) -> u32;
}

thread_local! {
    static NOTIFIERS: RefCell<BTreeMap<i32, OutsideNotifier>> = const { RefCell::new(BTreeMap::new()) };
}

fn state(number: i32) -> u32 {
    notifier_state(number)
}

/// The number of a new notifier.
#[napi]
pub fn notifier_create() -> i32 {
    let notifier = OutsideNotifier::new(state);
    let number = notifier.as_raw_fd();
    NOTIFIERS.with_borrow_mut(|all| all.insert(number, notifier));
    number
}

/// The number is free again. `false` = it was no notifier's.
#[napi]
pub fn notifier_close(number: i32) -> bool {
    NOTIFIERS.with_borrow_mut(|all| all.remove(&number)).is_some()
}
