//! Runs a command to which the kernel refuses single system calls, or memory; for tests alone.
//!
//! ```text
//! cargo run --example refuse -- io_uring_setup=EPERM -- npx fdmon probe
//! cargo run --example refuse -- --address-space 100000000 io_uring_enter=ENOSYS -- COMMAND
//! ```
#![allow(clippy::print_stderr, reason = "a program")]

#[path = "mod.rs"]
mod sandbox;

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use rustix::process::{Resource, Rlimit, setrlimit};
use sandbox::Refused;

const USAGE: &str =
    "usage: refuse [--address-space BYTES] [CALL=ERRNO]... -- COMMAND [ARGUMENT]...";

fn main() -> ExitCode {
    let error = match run() {
        Ok(never) => match never {},
        Err(error) => error,
    };
    eprintln!("refuse: {error}\n{USAGE}");
    ExitCode::from(2)
}

fn run() -> Result<std::convert::Infallible, String> {
    let mut arguments = std::env::args().skip(1);
    let mut refused: Vec<Refused> = Vec::new();
    while let Some(argument) = arguments.next().filter(|argument| argument != "--") {
        match argument.as_str() {
            "--address-space" => limit_memory(&arguments.next().unwrap_or_default())?,
            pair => refused.push(pair.parse()?),
        }
    }
    let command = arguments.next().ok_or("there is no command after --")?;
    sandbox::refuse(&refused)?;
    let error = Command::new(&command).args(arguments).exec();
    Err(format!("cannot run {command}: {error}"))
}

/// RLIMIT_AS, of the command too.
fn limit_memory(bytes: &str) -> Result<(), String> {
    let limit = bytes.parse().map_err(|_| format!("--address-space '{bytes}' is no number"))?;
    let limit = Rlimit { current: Some(limit), maximum: Some(limit) };
    setrlimit(Resource::As, limit).map_err(|error| format!("setrlimit: {error}"))
}
