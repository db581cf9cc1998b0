//! Runs a command to which the kernel refuses single system calls, or memory; for tests alone.
//!
//! ```text
//! cargo run --example refuse -- io_uring_setup=EPERM -- npx fdmon probe
//! cargo run --example refuse -- --address-space 100000000 io_uring_enter=ENOSYS -- COMMAND
//! cargo run --example refuse -- --hits FILE epoll_ctl:add@2=ENOMEM -- COMMAND
//! ```
//!
//! `CALL@N=ERRNO` fails the n-th such call of the thread that has done `kill(getpid(), 0)`, as
//! `process.kill(process.pid, 0)` does, counted from then on until it does so again; `CALL@N+=ERRNO`
//! that one and all that follow. A line `RULE HITS` for each goes to the file of `--hits`.
#![allow(clippy::print_stderr, reason = "a program")]

mod nth;
#[path = "mod.rs"]
mod sandbox;
mod supervise;

use std::fmt::Write as _;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitCode, ExitStatus};
use std::time::Duration;

use nth::Rules;
use rustix::process::{Resource, Rlimit, Signal, setrlimit};
use sandbox::Refused;
use supervise::{Asks, Heard, Listener};

const USAGE: &str = "usage: refuse [--address-space BYTES] [--hits FILE] \
                     [CALL=ERRNO | CALL[:KIND]@N[+]=ERRNO]... -- COMMAND [ARGUMENT]...";

fn main() -> ExitCode {
    run().unwrap_or_else(|error| {
        eprintln!("refuse: {error}\n{USAGE}");
        ExitCode::from(2)
    })
}

fn run() -> Result<ExitCode, String> {
    let mut arguments = std::env::args().skip(1);
    let mut refused: Vec<Refused> = Vec::new();
    let mut rules = Rules::default();
    let mut hits = None;
    while let Some(argument) = arguments.next().filter(|argument| argument != "--") {
        match argument.as_str() {
            "--address-space" => limit_memory(&arguments.next().unwrap_or_default())?,
            "--hits" => hits = arguments.next(),
            rule if rule.contains('@') => rules.all.push(rule.parse()?),
            pair => refused.push(pair.parse()?),
        }
    }
    let command = arguments.next().ok_or("there is no command after --")?;
    sandbox::refuse(&refused)?;
    let mut command = Command::new(command);
    command.args(arguments);
    if rules.all.is_empty() {
        return Err(format!("cannot run {command:?}: {}", command.exec()));
    }
    let status = supervised(&mut rules, command)?;
    if let Some(path) = hits {
        let mut text = String::new();
        for rule in &rules.all {
            let _ = writeln!(text, "{} {}", rule.text, rule.hits);
        }
        std::fs::write(&path, text).map_err(|error| format!("cannot write {path}: {error}"))?;
    }
    Ok(ended_like(status))
}

/// Runs the command in a thread whose calls this one decides about.
fn supervised(rules: &mut Rules, mut command: Command) -> Result<ExitStatus, String> {
    let numbers = rules.numbers();
    let (to, from) = std::sync::mpsc::sync_channel::<Result<Listener, String>>(1);
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            let listener =
                supervise::supervise(Asks::About(&numbers)).map_err(|error| error.to_string());
            let failed = listener.as_ref().err().cloned();
            to.send(listener).map_err(|error| error.to_string())?;
            if let Some(error) = failed {
                return Err(error);
            }
            // SAFETY: a single system call between fork and exec. Killed, this program takes the
            // command with it.
            unsafe {
                command.pre_exec(|| {
                    Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?)
                });
            }
            command.status().map_err(|error| format!("cannot run {command:?}: {error}"))
        });
        if let Ok(Ok(listener)) = from.recv() {
            listener.take_turns();
            while !thread.is_finished() {
                match listener.hear(Duration::from_millis(50)) {
                    Heard::Call(call) => {
                        let answer = rules.decide(&call);
                        listener.answer(&call, answer);
                    }
                    Heard::Nothing => {}
                    Heard::Over => break,
                }
            }
        }
        thread.join().map_err(|_| String::from("the thread of the command panicked"))?
    })
}

/// RLIMIT_AS, of the command too.
fn limit_memory(bytes: &str) -> Result<(), String> {
    let limit = bytes.parse().map_err(|_| format!("--address-space '{bytes}' is no number"))?;
    let limit = Rlimit { current: Some(limit), maximum: Some(limit) };
    setrlimit(Resource::As, limit).map_err(|error| format!("setrlimit: {error}"))
}

fn ended_like(status: ExitStatus) -> ExitCode {
    match (status.code(), status.signal()) {
        (Some(code), _) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        (None, signal) => {
            eprintln!("refuse: the command ended by signal {}", signal.unwrap_or_default());
            ExitCode::from(128_u8.wrapping_add(u8::try_from(signal.unwrap_or(0)).unwrap_or(0)))
        }
    }
}
