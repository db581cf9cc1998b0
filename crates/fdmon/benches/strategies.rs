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
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::{Errno, read, write};
use rustix::io_uring::IoringPollFlags;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};

#[path = "strategies/ring.rs"]
mod ring;
use ring::{CQ_ENTRIES, Ring, SQ_ENTRIES};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

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
    fn wait(&mut self, block: bool, fds: &[OwnedFd], ready: &mut Vec<u64>) -> Outcome<u32>;
    /// The handler of that entry has run.
    fn dispatched(&mut self, entry: u64, fds: &[OwnedFd]) -> Outcome<()>;
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
) -> Outcome<Counted> {
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

fn write_all(fds: &[OwnedFd], value: u64) -> Outcome<()> {
    for fd in fds {
        write(fd, &value.to_ne_bytes())?;
    }
    Ok(())
}

/// Reads an eventfd; false when there was nothing in it.
fn clear(fd: &OwnedFd) -> Outcome<bool> {
    match read(fd, &mut [0_u8; 8]) {
        Ok(_) => Ok(true),
        Err(Errno::AGAIN) => Ok(false),
        Err(error) => Err(error.into()),
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

/// Knows what was written without asking: the cost of the rounds themselves.
struct Nothing {
    ready: usize,
    live: usize,
    next: usize,
}

impl Wait for Nothing {
    fn wait(&mut self, _: bool, _: &[OwnedFd], ready: &mut Vec<u64>) -> Outcome<u32> {
        for _ in 0..self.ready {
            ready.push(self.next as u64);
            self.next = if self.next + 1 == self.live { 0 } else { self.next + 1 };
        }
        Ok(0)
    }

    fn dispatched(&mut self, _: u64, _: &[OwnedFd]) -> Outcome<()> {
        Ok(())
    }
}

/// `epoll_wait`, level-triggered.
struct Epoll {
    set: OwnedFd,
    events: Vec<epoll::Event>,
}

impl Epoll {
    fn new(fds: &[OwnedFd]) -> Outcome<Self> {
        let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for (index, fd) in fds.iter().enumerate() {
            epoll::add(&set, fd, EventData::new_u64(index as u64), EventFlags::IN)?;
        }
        Ok(Self { set, events: Vec::with_capacity(CQ_ENTRIES as usize) })
    }
}

impl Wait for Epoll {
    fn wait(&mut self, block: bool, _: &[OwnedFd], ready: &mut Vec<u64>) -> Outcome<u32> {
        self.events.clear();
        let timeout = if block { None } else { Some(&NOW) };
        epoll::wait(&self.set, rustix::buffer::spare_capacity(&mut self.events), timeout)?;
        ready.extend(self.events.iter().map(|event| event.data.u64()));
        Ok(1)
    }

    fn dispatched(&mut self, _: u64, _: &[OwnedFd]) -> Outcome<()> {
        Ok(())
    }
}

/// How an fd is watched on a ring.
#[derive(Clone, Copy)]
enum Kind {
    /// One-shot, armed again after each dispatch.
    OneShot,
    /// Multishot and nothing more.
    Edge,
    /// Multishot, and after each dispatch a one-shot poll that looks again.
    Checked,
    /// The one-shot poll of `Checked`.
    Check,
    /// Multishot, and after each batch one `ppoll` that looks again.
    PollChecked,
}

const KINDS: [Kind; 5] = [Kind::OneShot, Kind::Edge, Kind::Checked, Kind::Check, Kind::PollChecked];

fn entry(kind: Kind, index: usize) -> u64 {
    (kind as u64) << 32 | index as u64
}

fn kind(entry: u64) -> Kind {
    KINDS[(entry >> 32) as usize]
}

fn index(entry: u64) -> usize {
    entry as u32 as usize
}

/// All that watch on a ring.
struct RingWait {
    ring: Ring,
    keep_head: bool,
    /// The turn in which an fd was last put on the ready list, so that nothing is put there twice.
    reported: Vec<u32>,
    /// Whether its check is still armed, which makes another one needless.
    checking: Vec<bool>,
    /// What `ppoll` has to look at.
    look: Vec<u64>,
    turn: u32,
}

impl RingWait {
    fn new(args: &Args, fds: &[OwnedFd], kinds: &[Kind]) -> Outcome<Self> {
        let ring = Ring::new(&args.mode)?;
        let (reported, checking) = (vec![0; fds.len()], vec![false; fds.len()]);
        let (keep_head, look) = (args.keep_head, Vec::new());
        let mut wait = Self { ring, keep_head, reported, checking, look, turn: 0 };
        for (index, fd) in fds.iter().enumerate() {
            wait.arm(entry(kinds[index % kinds.len()], index), fd)?;
        }
        wait.ring.submit()?;
        Ok(wait)
    }

    fn arm(&mut self, entry: u64, fd: &OwnedFd) -> Outcome<()> {
        let flags = match kind(entry) {
            Kind::OneShot | Kind::Check => IoringPollFlags::empty(),
            Kind::Edge | Kind::Checked | Kind::PollChecked => IoringPollFlags::ADD_MULTI,
        };
        self.ring.poll(entry, fd, flags)
    }

    /// Takes what the completion queue has; returns how many entries that were.
    fn take(&mut self, fds: &[OwnedFd], ready: &mut Vec<u64>) -> Outcome<u32> {
        let before = self.ring.kept();
        while let Some((found, more)) = self.ring.next() {
            let index = index(found);
            match kind(found) {
                Kind::OneShot => ready.push(found),
                Kind::Edge => ready.push(found),
                Kind::Checked | Kind::PollChecked => self.report(found, ready),
                Kind::Check => {
                    self.checking[index] = false;
                    self.report(entry(Kind::Checked, index), ready);
                    continue;
                }
            }
            if !more && !matches!(kind(found), Kind::OneShot) {
                self.arm(found, &fds[index])?;
            }
        }
        Ok(self.ring.kept() - before)
    }

    fn report(&mut self, found: u64, ready: &mut Vec<u64>) {
        let reported = &mut self.reported[index(found)];
        if *reported != self.turn {
            *reported = self.turn;
            ready.push(found);
        }
    }

    /// Takes completions as long as the kernel has some; returns the entries taken and the calls.
    fn flush(&mut self, fds: &[OwnedFd], ready: &mut Vec<u64>) -> Outcome<(u32, u32)> {
        let (mut taken, mut calls) = (self.take(fds, ready)?, 0);
        while self.ring.has_more() {
            // Kept entries count as completions that are there: as many are looked for, without a sleep.
            self.ring.release(if self.keep_head { self.ring.kept() } else { 0 });
            self.ring.wait(self.ring.kept())?;
            calls += 1;
            taken += self.take(fds, ready)?;
        }
        Ok((taken, calls))
    }

    /// What `ppoll` says of the fds of the last batch. Their completions that are there by now may be
    /// older than their dispatch, so they are taken first and do not count; later ones are news.
    fn look_again(&mut self, fds: &[OwnedFd], ready: &mut Vec<u64>) -> Outcome<(u32, u32)> {
        for &found in &self.look {
            self.reported[index(found)] = self.turn;
        }
        let (taken, calls) = self.flush(fds, ready)?;
        let ask = |&found: &u64| PollFd::new(&fds[index(found)], PollFlags::IN);
        let mut asked = self.look.iter().map(ask).collect::<Vec<_>>();
        if poll(&mut asked, Some(&NOW))? > 0 {
            let said_yes = asked.iter().zip(&self.look).filter(|(fd, _)| !fd.revents().is_empty());
            ready.extend(said_yes.map(|(_, found)| found));
        }
        self.look.clear();
        self.turn += 1;
        Ok((taken, calls + 1))
    }
}

impl Wait for RingWait {
    fn wait(&mut self, block: bool, fds: &[OwnedFd], ready: &mut Vec<u64>) -> Outcome<u32> {
        self.turn += 1;
        let (mut taken, mut calls) = (0, 0);
        if !self.look.is_empty() {
            (taken, calls) = self.look_again(fds, ready)?;
        }
        if ready.is_empty() {
            if self.ring.has_queued() || self.ring.is_empty() {
                self.ring.wait(self.ring.kept() + u32::from(block))?;
                calls += 1;
            }
            let more = self.flush(fds, ready)?;
            (taken, calls) = (taken + more.0, calls + more.1);
        }
        self.ring.release(if self.keep_head { taken } else { 0 });
        Ok(calls)
    }

    fn dispatched(&mut self, found: u64, fds: &[OwnedFd]) -> Outcome<()> {
        let index = index(found);
        match kind(found) {
            Kind::OneShot => self.arm(found, &fds[index])?,
            Kind::Checked if !self.checking[index] => {
                self.checking[index] = true;
                self.arm(entry(Kind::Check, index), &fds[index])?;
            }
            Kind::PollChecked => self.look.push(found),
            Kind::Checked | Kind::Check | Kind::Edge => {}
        }
        Ok(())
    }
}
