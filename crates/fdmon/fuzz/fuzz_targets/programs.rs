//! The programs of `tests/programs`, made of a fuzzer's bytes, on each monitor beside the model.
//!
//! What fails is reduced and printed as a test for `tests/programs/suite/pasted.rs`.
#![no_main]
#![allow(dead_code, reason = "what the tests alone need, such as what must be exercised")]

#[path = "../../tests/programs/coverage.rs"]
mod coverage;
#[path = "../../tests/programs/files.rs"]
mod files;
#[path = "../../tests/programs/model/mod.rs"]
mod model;
#[path = "../../tests/programs/program.rs"]
mod program;
#[path = "../../tests/programs/reduce.rs"]
mod reduce;
#[path = "../../tests/programs/report.rs"]
mod report;
#[path = "../../tests/programs/world.rs"]
mod world;

use libfuzzer_sys::fuzz_target;

use crate::program::Program;
use crate::reduce::reduce;
use crate::report::report;
use crate::world::{On, fails, run};

fuzz_target!(
    // A panic that the loop catches is a failure of nobody; libfuzzer's own hook would end the
    // process at the first.
    init: std::panic::set_hook(Box::new(|_| ())),
    |program: Program| {
        for on in On::ALL {
            if fails(&program, on) {
                let program = reduce(program.clone(), |program| fails(program, on));
                match run(&program, on) {
                    Ok(_) => eprintln!("on {on}, and not when it runs again:\n{program:#?}"),
                    Err(failure) => eprintln!("{}", report("of the fuzzer", &program, &failure)),
                }
                std::process::abort();
            }
        }
    }
);
