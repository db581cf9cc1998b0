//! What is said of a program that fails: a test to be pasted, what the program did, and what other
//! monitors make of it.

use std::fmt::Write;

use crate::program::Program;
use crate::world::{Failure, On, run};

/// `which` = where the program comes from.
pub fn report(which: &str, program: &Program, failure: &Failure) -> String {
    let mut text = format!(
        "program {which}; as a test for suite/pasted.rs, to be given the rules that it proves:\n\n\
         /// SPEC 46\n#[test]\nfn a_program_that_failed() {{\n    \
         holds(&{program:#?});\n}}\n\nwhat it does:\n\n{}\n\n{}\n\n",
        failure.trace.join("\n"),
        failure.what
    );
    for other in On::ALL {
        let how = run(program, other).err().map_or("holds".into(), |failure| failure.what);
        let _ = writeln!(text, "{other}: {how}");
    }
    text
}
