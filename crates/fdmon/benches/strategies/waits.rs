//! The ways to wait that are compared.

use std::os::fd::OwnedFd;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io;
use rustix::io_uring::IoringPollFlags;

use crate::ring::{CQ_ENTRIES, Ring};
use crate::{Args, Outcome, Wait};

const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// Knows what was written without asking: the cost of the rounds themselves.
pub struct Nothing {
    pub ready: usize,
    pub live: usize,
    pub next: usize,
}

impl Wait for Nothing {
    fn wait(&mut self, _: bool, _: &[OwnedFd], ready: &mut Vec<u64>) -> io::Result<u32> {
        let end = (self.next + self.ready).min(self.live);
        let wrapped = self.next + self.ready - end;
        ready.extend((self.next as u64..end as u64).chain(0..wrapped as u64));
        self.next = if wrapped > 0 { wrapped } else { end % self.live };
        Ok(0)
    }

    fn dispatched(&mut self, _: u64, _: &[OwnedFd]) -> io::Result<()> {
        Ok(())
    }
}

/// `epoll_wait`, level-triggered.
pub struct Epoll {
    set: OwnedFd,
    events: Vec<epoll::Event>,
}

impl Epoll {
    pub fn new(fds: &[OwnedFd]) -> Outcome<Self> {
        let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for (index, fd) in fds.iter().enumerate() {
            epoll::add(&set, fd, EventData::new_u64(index as u64), EventFlags::IN)?;
        }
        Ok(Self { set, events: Vec::with_capacity(CQ_ENTRIES as usize) })
    }
}

impl Wait for Epoll {
    fn wait(&mut self, block: bool, _: &[OwnedFd], ready: &mut Vec<u64>) -> io::Result<u32> {
        self.events.clear();
        let timeout = if block { None } else { Some(&NOW) };
        epoll::wait(&self.set, rustix::buffer::spare_capacity(&mut self.events), timeout)?;
        ready.extend(self.events.iter().map(|event| event.data.u64()));
        Ok(1)
    }

    fn dispatched(&mut self, _: u64, _: &[OwnedFd]) -> io::Result<()> {
        Ok(())
    }
}

/// How an fd is watched on a ring.
#[derive(Clone, Copy)]
pub enum Kind {
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

pub fn index(entry: u64) -> usize {
    entry as u32 as usize
}

/// All that watch on a ring.
pub struct RingWait {
    ring: Ring,
    keep_head: bool,
    /// The turn in which an fd was last put on the ready list, so that nothing is put there twice.
    reported: Vec<u32>,
    /// Whether its check is still armed, which makes another one needless.
    checking: Vec<bool>,
    /// What `ppoll` has to look at.
    look: Vec<u64>,
    turn: u32,
    /// Completions of this turn.
    taken: u32,
}

impl RingWait {
    pub fn new(args: &Args, fds: &[OwnedFd], kinds: &[Kind]) -> Outcome<Self> {
        let ring = Ring::new(&args.mode)?;
        let (reported, checking) = (vec![0; fds.len()], vec![false; fds.len()]);
        let (keep_head, look) = (args.keep_head, Vec::new());
        let mut wait = Self { ring, keep_head, reported, checking, look, turn: 0, taken: 0 };
        for (index, fd) in fds.iter().enumerate() {
            wait.arm(entry(kinds[index % kinds.len()], index), fd)?;
        }
        wait.ring.submit()?;
        Ok(wait)
    }

    #[inline(always)]
    fn arm(&mut self, entry: u64, fd: &OwnedFd) -> io::Result<()> {
        let flags = match kind(entry) {
            Kind::OneShot | Kind::Check => IoringPollFlags::empty(),
            Kind::Edge | Kind::Checked | Kind::PollChecked => IoringPollFlags::ADD_MULTI,
        };
        self.ring.poll(entry, fd, flags)
    }

    /// The kernel ended a multishot poll.
    #[cold]
    #[inline(never)]
    fn arm_again(&mut self, entry: u64, fd: &OwnedFd) -> io::Result<()> {
        self.arm(entry, fd)
    }

    /// Takes what the completion queue has.
    #[inline(always)]
    fn take(&mut self, fds: &[OwnedFd], ready: &mut Vec<u64>) -> io::Result<()> {
        while let Some((found, more)) = self.ring.next() {
            self.taken += 1;
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
                self.arm_again(found, &fds[index])?;
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

    /// Takes completions as long as the kernel has some; returns the calls.
    #[inline(always)]
    fn flush(&mut self, fds: &[OwnedFd], ready: &mut Vec<u64>) -> io::Result<u32> {
        self.take(fds, ready)?;
        let mut calls = 0;
        while self.ring.has_more() {
            // Kept entries count as completions that are there: as many are looked for, without a sleep.
            self.ring.release(if self.keep_head { self.ring.kept() } else { 0 });
            self.ring.wait(self.ring.kept())?;
            calls += 1;
            self.take(fds, ready)?;
        }
        Ok(calls)
    }

    /// What `ppoll` says of the fds of the last batch. Their completions that are there by now may be
    /// older than their dispatch, so they are taken first and do not count; later ones are news.
    #[inline(never)]
    fn look_again(&mut self, fds: &[OwnedFd], ready: &mut Vec<u64>) -> io::Result<u32> {
        for &found in &self.look {
            self.reported[index(found)] = self.turn;
        }
        let calls = self.flush(fds, ready)?;
        let ask = |&found: &u64| PollFd::new(&fds[index(found)], PollFlags::IN);
        let mut asked = self.look.iter().map(ask).collect::<Vec<_>>();
        if poll(&mut asked, Some(&NOW))? > 0 {
            let said_yes = asked.iter().zip(&self.look).filter(|(fd, _)| !fd.revents().is_empty());
            ready.extend(said_yes.map(|(_, found)| found));
        }
        self.look.clear();
        self.turn += 1;
        Ok(calls + 1)
    }
}

impl Wait for RingWait {
    #[inline(always)]
    fn wait(&mut self, block: bool, fds: &[OwnedFd], ready: &mut Vec<u64>) -> io::Result<u32> {
        self.turn += 1;
        self.taken = 0;
        let mut calls = if self.look.is_empty() { 0 } else { self.look_again(fds, ready)? };
        if ready.is_empty() {
            if self.ring.has_queued() || self.ring.is_empty() {
                self.ring.wait(self.ring.kept() + u32::from(block))?;
                calls += 1;
            }
            calls += self.flush(fds, ready)?;
        }
        self.ring.release(if self.keep_head { self.taken } else { 0 });
        Ok(calls)
    }

    #[inline(always)]
    fn dispatched(&mut self, found: u64, fds: &[OwnedFd]) -> io::Result<()> {
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
