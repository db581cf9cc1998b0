//! Ways to get level-triggered readiness out of a ring, as bare loops without the crate's own API:
//! `npm run bench:strategies` measures them and writes the table in DESIGN.md.
//!
//! ```text
//! strategies --strategy NAME [--mode deferred|cooperative] [--keep-head]
//!            [--live N] [--ready K] [--rounds R] [--level]
//! ```
//!
//! A round writes K of N eventfds (the next K each time), waits until all K were reported and reads
//! each of them. A wait takes all that is ready before anything is dispatched. `--level` instead leaves
//! one fd of each kind half read and counts how often it is reported. Prints one line of `name=value` pairs.
#![allow(clippy::print_stdout, reason = "a program for scripts, which read its output")]

use std::ffi::c_void;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr::{from_mut, null_mut, without_provenance_mut};
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};

use lexopt::ValueExt;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::{Errno, read, write};
use rustix::io_uring::{
    IORING_OFF_SQ_RING, IORING_OFF_SQES, IoringCqeFlags, IoringEnterFlags, IoringFeatureFlags,
    IoringOp, IoringPollFlags, IoringRegisterOp, IoringSetupFlags, IoringSqFlags, io_uring_enter,
    io_uring_params, io_uring_register, io_uring_rsrc_update, io_uring_setup, io_uring_sqe,
};
use rustix::mm::{MapFlags, ProtFlags, mmap};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

const SQ_ENTRIES: u32 = 512;
const CQ_ENTRIES: u32 = 1024;
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

/// Each fd is a semaphore of 3 of which a dispatch takes 1: a level-triggered wait reports it three
/// times, an edge-triggered one once.
fn level(fds: &[OwnedFd], wait: &mut impl Wait) -> Outcome<String> {
    let mut reports = vec![0; fds.len()];
    let (mut ready, mut stale) = (Vec::new(), 0);
    wait.wait(false, fds, &mut ready)?; // arms them
    for fd in fds {
        write(fd, &3_u64.to_ne_bytes())?;
    }
    for _ in 0..8 {
        wait.wait(false, fds, &mut ready)?;
        for entry in ready.drain(..) {
            if clear(&fds[index(entry)])? {
                reports[index(entry)] += 1;
            } else {
                stale += 1;
            }
            wait.dispatched(entry, fds)?;
        }
    }
    let reports = reports.iter().map(i32::to_string).collect::<Vec<_>>().join(",");
    Ok(format!("reports={reports} of=3 stale={stale}"))
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
    let time = clock_gettime(ClockId::ThreadCPUTime);
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
            wait.ring.poll(entry(kinds[index % kinds.len()], index), fd)?;
        }
        wait.ring.enter(0, IoringEnterFlags::empty())?;
        Ok(wait)
    }

    fn take(&mut self, fds: &[OwnedFd], ready: &mut Vec<u64>) -> Outcome<()> {
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
                self.ring.poll(found, &fds[index])?;
            }
        }
        Ok(())
    }

    fn report(&mut self, found: u64, ready: &mut Vec<u64>) {
        let reported = &mut self.reported[index(found)];
        if *reported != self.turn {
            *reported = self.turn;
            ready.push(found);
        }
    }

    fn look_again(&mut self, fds: &[OwnedFd], ready: &mut Vec<u64>) -> Outcome<()> {
        let ask = |&found: &u64| PollFd::new(&fds[index(found)], PollFlags::IN);
        let mut asked = self.look.iter().map(ask).collect::<Vec<_>>();
        if poll(&mut asked, Some(&NOW))? > 0 {
            for (at, _) in asked.iter().enumerate().filter(|(_, fd)| !fd.revents().is_empty()) {
                self.report(self.look[at], ready);
            }
        }
        self.look.clear();
        Ok(())
    }
}

impl Wait for RingWait {
    fn wait(&mut self, block: bool, fds: &[OwnedFd], ready: &mut Vec<u64>) -> Outcome<u32> {
        self.turn += 1;
        let mut calls = 0;
        if !self.look.is_empty() {
            self.look_again(fds, ready)?;
            calls += 1;
        }
        let kept = self.ring.kept();
        if self.ring.unsubmitted > 0 || self.ring.is_empty() {
            let sleep = block && ready.is_empty();
            self.ring.enter(kept + u32::from(sleep), IoringEnterFlags::GETEVENTS)?;
            calls += 1;
        }
        self.take(fds, ready)?;
        while self.ring.has_more() {
            if !self.keep_head {
                self.ring.release(0);
            }
            // Entries that were not released count as completions that are there: no sleep.
            self.ring.enter(self.ring.kept(), IoringEnterFlags::GETEVENTS)?;
            calls += 1;
            self.take(fds, ready)?;
        }
        self.ring.release(if self.keep_head { self.ring.kept() - kept } else { 0 });
        Ok(calls)
    }

    fn dispatched(&mut self, found: u64, fds: &[OwnedFd]) -> Outcome<()> {
        let index = index(found);
        match kind(found) {
            Kind::OneShot => self.ring.poll(found, &fds[index])?,
            Kind::Checked if !self.checking[index] => {
                self.checking[index] = true;
                self.ring.poll(entry(Kind::Check, index), &fds[index])?;
            }
            Kind::PollChecked => self.look.push(found),
            Kind::Checked | Kind::Check | Kind::Edge => {}
        }
        Ok(())
    }
}

/// A ring and its memory, which stays mapped until the process ends.
struct Ring {
    fd: BorrowedFd<'static>,
    enter_flags: IoringEnterFlags,
    sq_flags: &'static AtomicU32,
    sq_tail: &'static AtomicU32,
    sqes: &'static mut [io_uring_sqe],
    tail: u32,
    unsubmitted: u32,
    cq_head: &'static AtomicU32,
    cq_tail: &'static AtomicU32,
    cqes: &'static [Cqe],
    /// What was read; the head that the kernel sees lies behind it when entries are kept.
    head: u32,
    released: u32,
}

#[repr(C)]
struct Cqe {
    user_data: AtomicU64,
    _result: AtomicI32,
    flags: AtomicU32,
}

impl Ring {
    fn new(mode: &str) -> Outcome<Self> {
        let flags = IoringSetupFlags::CQSIZE | IoringSetupFlags::TASKRUN_FLAG;
        let flags = match mode {
            "deferred" => flags | IoringSetupFlags::SINGLE_ISSUER | IoringSetupFlags::DEFER_TASKRUN,
            "cooperative" => flags | IoringSetupFlags::COOP_TASKRUN,
            other => return Err(format!("--mode {other}: use deferred or cooperative").into()),
        };
        let (fd, params) = setup(flags | IoringSetupFlags::NO_SQARRAY) // 6.6
            .or_else(|_| setup(flags))
            .map_err(|error| format!("this kernel refuses a {mode} ring: {error}"))?;
        if !params.features.contains(IoringFeatureFlags::SINGLE_MMAP) {
            return Err("this kernel maps the two queues apart; use 5.4 or newer".into());
        }
        let (sq, cq) = (params.sq_off, params.cq_off);
        let (sq_entries, cq_entries) = (params.sq_entries as usize, params.cq_entries as usize);
        let queues = (cq.cqes as usize + cq_entries * size_of::<Cqe>())
            .max(sq.array as usize + sq_entries * size_of::<u32>());
        let queues = Mapping::new(&fd, queues, IORING_OFF_SQ_RING)?;
        let sqes = Mapping::new(&fd, sq_entries * size_of::<io_uring_sqe>(), IORING_OFF_SQES)?;
        if !params.flags.contains(IoringSetupFlags::NO_SQARRAY) {
            let array: &[AtomicU32] = queues.slice(sq.array, sq_entries);
            for (slot, at) in array.iter().zip(0..) {
                slot.store(at, Ordering::Relaxed);
            }
        }
        let word = |offset| &queues.slice::<AtomicU32>(offset, 1)[0];
        let (index, registered) = register(&fd);
        // The ring is open until the process ends, as is its memory.
        std::mem::forget(fd);
        Ok(Self {
            // SAFETY: a number that stays in use until the process ends: the ring's or its place.
            fd: unsafe { BorrowedFd::borrow_raw(index) },
            enter_flags: registered,
            sq_flags: word(sq.flags),
            sq_tail: word(sq.tail),
            sqes: sqes.slice_mut(sq_entries),
            tail: 0,
            unsubmitted: 0,
            cq_head: word(cq.head),
            cq_tail: word(cq.tail),
            cqes: queues.slice(cq.cqes, cq_entries),
            head: 0,
            released: 0,
        })
    }

    /// Queues a poll, one-shot or multishot by the entry's kind.
    #[inline]
    fn poll(&mut self, user_data: u64, fd: &OwnedFd) -> Outcome<()> {
        if self.unsubmitted as usize == self.sqes.len() {
            self.enter(0, IoringEnterFlags::empty())?;
        }
        let mut sqe = io_uring_sqe::default();
        sqe.opcode = IoringOp::PollAdd;
        sqe.fd = fd.as_raw_fd();
        sqe.len.poll_flags = match kind(user_data) {
            Kind::OneShot | Kind::Check => IoringPollFlags::empty(),
            Kind::Edge | Kind::Checked | Kind::PollChecked => IoringPollFlags::ADD_MULTI,
        };
        sqe.op_flags.poll32_events = u32::from(PollFlags::IN.bits());
        sqe.user_data = user_data.into();
        let at = self.tail as usize & (self.sqes.len() - 1);
        self.sqes[at] = sqe;
        self.tail = self.tail.wrapping_add(1);
        self.unsubmitted += 1;
        Ok(())
    }

    #[inline]
    fn enter(&mut self, min_complete: u32, flags: IoringEnterFlags) -> Outcome<()> {
        self.sq_tail.store(self.tail, Ordering::Release);
        // SAFETY: the entries are polls of open fds; they point to no memory.
        let taken = unsafe {
            io_uring_enter(self.fd, self.unsubmitted, min_complete, flags | self.enter_flags)
        }?;
        self.unsubmitted -= taken;
        Ok(())
    }

    /// The next completion, and whether more will come from its poll.
    #[inline]
    fn next(&mut self) -> Option<(u64, bool)> {
        if self.is_empty() {
            return None;
        }
        let cqe = &self.cqes[self.head as usize & (self.cqes.len() - 1)];
        let flags = IoringCqeFlags::from_bits_retain(cqe.flags.load(Ordering::Relaxed));
        self.head = self.head.wrapping_add(1);
        Some((cqe.user_data.load(Ordering::Relaxed), flags.contains(IoringCqeFlags::MORE)))
    }

    #[inline]
    fn is_empty(&self) -> bool {
        self.cq_tail.load(Ordering::Acquire) == self.head
    }

    /// Whether the kernel has completions that an enter would post.
    #[inline]
    fn has_more(&self) -> bool {
        let flags = IoringSqFlags::from_bits_retain(self.sq_flags.load(Ordering::Relaxed));
        flags.intersects(IoringSqFlags::TASKRUN | IoringSqFlags::CQ_OVERFLOW)
    }

    /// Entries that were read and not given back.
    #[inline]
    fn kept(&self) -> u32 {
        self.head.wrapping_sub(self.released)
    }

    /// Gives all but the last `keep` entries back, and half of the queue in any case.
    #[inline]
    fn release(&mut self, keep: u32) {
        self.released = self.head.wrapping_sub(keep.min(self.cqes.len() as u32 / 2));
        self.cq_head.store(self.released, Ordering::Release);
    }
}

fn setup(flags: IoringSetupFlags) -> Result<(OwnedFd, io_uring_params), Errno> {
    let mut params = io_uring_params::default();
    (params.flags, params.cq_entries) = (flags, CQ_ENTRIES);
    // SAFETY: no flag in use makes the kernel look at memory of ours besides the parameters.
    let fd = unsafe { io_uring_setup(SQ_ENTRIES, &mut params) }?;
    Ok((fd, params))
}

/// The number to enter by: the ring's place in the table of this thread, or its fd before 5.18.
fn register(fd: &OwnedFd) -> (RawFd, IoringEnterFlags) {
    let mut place = io_uring_rsrc_update::default();
    place.offset = u32::MAX; // any
    place.data = without_provenance_mut::<c_void>(fd.as_raw_fd() as usize).into();
    // SAFETY: the argument is one update, which lives over the call.
    let done = unsafe {
        io_uring_register(
            fd.as_fd(),
            IoringRegisterOp::RegisterRingFds,
            from_mut(&mut place).cast(),
            1,
        )
    };
    match done {
        Ok(1) => (place.offset as RawFd, IoringEnterFlags::REGISTERED_RING),
        _ => (fd.as_raw_fd(), IoringEnterFlags::empty()),
    }
}

/// Memory shared with the kernel, never unmapped.
struct Mapping {
    start: *mut u8,
    length: usize,
}

impl Mapping {
    fn new(fd: &OwnedFd, length: usize, offset: u64) -> Outcome<Self> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED | MapFlags::POPULATE;
        // SAFETY: a new mapping of the ring, at a place the kernel chooses.
        let start = unsafe { mmap(null_mut(), length, access, flags, fd, offset) }?;
        Ok(Self { start: start.cast(), length })
    }

    /// Atomics, or a struct of them, at an offset that the kernel gave.
    fn slice<T>(&self, offset: u32, length: usize) -> &'static [T] {
        let offset = offset as usize;
        assert!(offset + length * size_of::<T>() <= self.length, "the ring is too short");
        let start = self.start.wrapping_add(offset).cast::<T>();
        // SAFETY: inside the mapping, which stays; what the kernel writes is read by atomics only.
        unsafe { std::slice::from_raw_parts(start, length) }
    }

    fn slice_mut(&self, length: usize) -> &'static mut [io_uring_sqe] {
        assert!(length * size_of::<io_uring_sqe>() <= self.length, "the ring is too short");
        // SAFETY: the mapping is the entries, stays, is asked for once, and the kernel only reads it.
        unsafe { std::slice::from_raw_parts_mut(self.start.cast(), length) }
    }
}
