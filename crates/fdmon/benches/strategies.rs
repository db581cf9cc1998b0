//! Ways to get level-triggered readiness out of a ring, as bare loops without the crate's own API:
//! `npm run bench:strategies` measures them and writes the table in DESIGN.md.
//!
//! ```text
//! strategies --strategy NAME [--mode deferred|cooperative] [--keep-head]
//!            [--live N] [--ready K] [--rounds R] [--level]
//! ```
//!
//! A round writes K of N eventfds (the next K each time), waits until all K were reported and reads
//! each of them. A wait takes all that is ready before anything is dispatched. `--level` looks at one fd
//! of each kind instead: is it reported while there is something to read, only then, and does a wait sleep
//! when there is nothing. Prints one line of `name=value` pairs.
#![allow(clippy::print_stdout, reason = "a program for scripts, which read its output")]

use std::os::fd::OwnedFd;
use std::thread;
use std::time::Duration;

use lexopt::ValueExt;
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{self, Errno, read, write};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};

#[path = "strategies/ring.rs"]
mod ring;
#[path = "strategies/waits.rs"]
mod waits;
use ring::{CQ_ENTRIES, SQ_ENTRIES};
use waits::{Epoll, Kind, Nothing, RingWait, index};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// What the command line asks for.
struct Args {
    strategy: String,
    mode: String,
    keep_head: bool,
    live: usize,
    ready: usize,
    rounds: usize,
    level: bool,
}

impl Args {
    fn parse() -> Outcome<Self> {
        let mut args = Self {
            strategy: String::new(),
            mode: "deferred".into(),
            keep_head: false,
            live: 256,
            ready: 1,
            rounds: 1000,
            level: false,
        };
        let mut parser = lexopt::Parser::from_env();
        while let Some(arg) = parser.next()? {
            match arg {
                lexopt::Arg::Long("strategy") => args.strategy = parser.value()?.string()?,
                lexopt::Arg::Long("mode") => args.mode = parser.value()?.string()?,
                lexopt::Arg::Long("keep-head") => args.keep_head = true,
                lexopt::Arg::Long("live") => args.live = parser.value()?.parse()?,
                lexopt::Arg::Long("ready") => args.ready = parser.value()?.parse()?,
                lexopt::Arg::Long("rounds") => args.rounds = parser.value()?.parse()?,
                lexopt::Arg::Long("level") => args.level = true,
                lexopt::Arg::Long("bench") => {} // cargo bench says so
                other => return Err(other.unexpected().into()),
            }
        }
        if args.ready > args.live || args.ready > SQ_ENTRIES as usize {
            return Err(format!("--ready {}: at most --live and {SQ_ENTRIES}", args.ready).into());
        }
        Ok(args)
    }
}

fn main() -> Outcome<()> {
    let args = Args::parse()?;
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    let kinds: &[Kind] = match args.strategy.as_str() {
        "" => return Ok(()), // cargo bench runs it without a word
        "none" | "epoll" => &[Kind::OneShot],
        "one-shot" => &[Kind::OneShot],
        "multishot" => &[Kind::Checked],
        "multishot-ppoll" => &[Kind::PollChecked],
        "multishot-edge" => &[Kind::Edge],
        "by-kind" => &[Kind::Edge, Kind::OneShot],
        other => {
            return Err(format!(
                "--strategy {other}: use none, epoll, one-shot, multishot, multishot-ppoll, \
                 multishot-edge or by-kind"
            )
            .into());
        }
    };
    let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
    let flags = if args.level { flags | EventfdFlags::SEMAPHORE } else { flags };
    let live = if args.level { kinds.len() } else { args.live };
    let fds = (0..live).map(|_| eventfd(0, flags)).collect::<Result<Vec<_>, _>>()?;
    let line = match args.strategy.as_str() {
        "none" => run(&args, &fds, Nothing { ready: args.ready, live, next: 0 })?,
        "epoll" => run(&args, &fds, Epoll::new(&fds)?)?,
        _ => run(&args, &fds, RingWait::new(&args, &fds, kinds)?)?,
    };
    println!("{line}");
    Ok(())
}

/// A way to wait. An entry of a ready list is the fd's index, with the kind above it.
trait Wait {
    /// Collects what is ready; sleeps for it if `block`. Returns how many system calls that took.
    fn wait(&mut self, block: bool, fds: &[OwnedFd], ready: &mut Vec<u64>) -> io::Result<u32>;
    /// The handler of that entry has run.
    fn dispatched(&mut self, entry: u64, fds: &[OwnedFd]) -> io::Result<()>;
}

fn run(args: &Args, fds: &[OwnedFd], mut wait: impl Wait) -> Outcome<String> {
    if args.level {
        return level(fds, &mut wait);
    }
    let mut from = 0;
    // Every fd has been ready once before anything is measured.
    rounds(args, fds, &mut wait, &mut from, args.live.div_ceil(args.ready) + 8)?;
    let since = cpu_ns();
    let counted = rounds(args, fds, &mut wait, &mut from, args.rounds)?;
    let ns = cpu_ns() - since;
    let Counted { events, stale, waits, calls } = counted;
    Ok(format!(
        "rounds={} events={events} stale={stale} waits={waits} calls={calls} ns={ns}",
        args.rounds
    ))
}

#[derive(Default)]
struct Counted {
    events: u64,
    stale: u64,
    waits: u64,
    calls: u64,
}

#[inline(never)]
fn rounds(
    args: &Args,
    fds: &[OwnedFd],
    wait: &mut impl Wait,
    from: &mut usize,
    rounds: usize,
) -> io::Result<Counted> {
    let mut counted = Counted::default();
    let mut ready = Vec::with_capacity(2 * CQ_ENTRIES as usize);
    for _ in 0..rounds {
        for _ in 0..args.ready {
            write(&fds[*from], &1_u64.to_ne_bytes())?;
            *from = if *from + 1 == fds.len() { 0 } else { *from + 1 };
        }
        let mut seen = 0;
        while seen < args.ready {
            counted.calls += u64::from(wait.wait(true, fds, &mut ready)?);
            counted.waits += 1;
            for entry in ready.drain(..) {
                if clear(&fds[index(entry)])? {
                    seen += 1;
                } else {
                    counted.stale += 1;
                }
                wait.dispatched(entry, fds)?;
            }
        }
        counted.events += seen as u64;
    }
    Ok(counted)
}

/// What a level-triggered wait must do, with eventfds of which a read takes 1.
fn level(fds: &[OwnedFd], wait: &mut impl Wait) -> Outcome<String> {
    let mut ready = Vec::new();
    wait.wait(false, fds, &mut ready)?; // arms them
    // 3 written, 1 read in each dispatch: three reports, or one where only edges count.
    write_all(fds, 3)?;
    let mut reports = vec![0; fds.len()];
    for _ in 0..8 {
        wait.wait(false, fds, &mut ready)?;
        for entry in ready.drain(..) {
            clear(&fds[index(entry)])?;
            reports[index(entry)] += 1;
            wait.dispatched(entry, fds)?;
        }
    }
    // Written again between the report and the dispatch that reads it all: nothing is left to report.
    while fds.iter().try_fold(false, |any, fd| clear(fd).map(|one| one | any))? {}
    write_all(fds, 1)?;
    wait.wait(false, fds, &mut ready)?;
    write_all(fds, 1)?;
    for entry in ready.drain(..) {
        while clear(&fds[index(entry)])? {}
        wait.dispatched(entry, fds)?;
    }
    let mut stale = vec![0; fds.len()];
    for _ in 0..4 {
        wait.wait(false, fds, &mut ready)?;
        for entry in ready.drain(..) {
            stale[index(entry)] += 1;
            wait.dispatched(entry, fds)?;
        }
    }
    // Nothing is ready until another thread writes, so a wait must sleep until then.
    let since = ns(ClockId::Monotonic);
    let late = Duration::from_millis(20);
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(late);
            write_all(fds, 1)
        });
        wait.wait(true, fds, &mut ready)
    })?;
    let slept = ns(ClockId::Monotonic) - since >= late.as_nanos() as u64 && !ready.is_empty();
    let list = |counts: &[i32]| counts.iter().map(i32::to_string).collect::<Vec<_>>().join(",");
    Ok(format!("reports={} of=3 stale={} slept={slept}", list(&reports), list(&stale)))
}

fn write_all(fds: &[OwnedFd], value: u64) -> io::Result<()> {
    for fd in fds {
        write(fd, &value.to_ne_bytes())?;
    }
    Ok(())
}

/// Reads an eventfd; false when there was nothing in it.
fn clear(fd: &OwnedFd) -> io::Result<bool> {
    match read(fd, &mut [0_u8; 8]) {
        Ok(_) => Ok(true),
        Err(Errno::AGAIN) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The time this thread ran: nothing here sleeps, and what else the machine does is left out.
fn cpu_ns() -> u64 {
    ns(ClockId::ThreadCPUTime)
}

fn ns(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
