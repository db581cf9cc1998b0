//! The options that both programs have: which monitor, and for how long to spin.

use std::time::Duration;

use fdmon::{AioContext, MonitorKind, PollParams};
use lexopt::{Parser, ValueExt};

use crate::Failure;

/// `--spin MICROSECONDS` and `--monitor NAME`.
#[derive(Clone, Debug, Default)]
pub struct LoopOptions {
    /// Longest spin; zero = never.
    pub spin: Duration,
    /// What waits for fds.
    pub monitor: MonitorKind,
}

impl LoopOptions {
    /// What a usage text says of them.
    pub const USAGE: &'static str = "\
  --spin MICROSECONDS  spin for at most this long before sleeping (0: never)
  --monitor NAME       auto, poll, epoll or io_uring (auto)";

    /// Takes the value of one of these options; `false` = it is none of them.
    ///
    /// # Errors
    /// The value is missing, or is none.
    pub fn take(&mut self, name: &str, parser: &mut Parser) -> Result<bool, Failure> {
        match name {
            "spin" => self.spin = Duration::from_micros(parser.value()?.parse()?),
            "monitor" => self.monitor = parser.value()?.parse()?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// A context with these options.
    ///
    /// # Errors
    /// The monitor cannot be had here.
    pub fn build(&self) -> fdmon::Result<AioContext> {
        AioContext::builder().monitor(self.monitor).poll(PollParams::spin(self.spin)).build()
    }
}

/// Ends a program: 0, or 1 and the reason on standard error.
pub fn exit(program: &str, result: Result<(), Failure>) -> std::process::ExitCode {
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{program}: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}
