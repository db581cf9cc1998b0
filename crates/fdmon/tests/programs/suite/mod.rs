//! The programs on one monitor: the one this module is named after.

use crate::program::Program;
use crate::world::{On, run};

mod pasted;
mod random;

/// The monitor under test.
fn on() -> On {
    let name = module_path!().rsplit("::").next().unwrap_or_default();
    On::ALL.into_iter().find(|on| on.to_string() == name).unwrap()
}

/// Runs a program that must hold.
#[track_caller]
fn holds(program: &Program) {
    if let Err(failure) = run(program, on()) {
        panic!("{}\n{}", failure.trace.join("\n"), failure.what);
    }
}
