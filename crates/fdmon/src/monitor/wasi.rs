//! ② The WASI monitor: poll_oneoff over the live handlers, and a look at the notifiers.
//!
//! A notifier is a counter in memory ([`crate::bell`]). Without files the loop sleeps on its alarm,
//! which other threads ring. poll_oneoff cannot be ended by another thread: with files, and where
//! there are threads, it sleeps in slices and looks at the alarm between them. The first is a
//! quarter of a millisecond and each of the next twice as long, up to 8 ms. So late at most comes
//! what another thread says to a context that waits for files as well; a file ends a slice at once.
//!
//! Regular files are always ready. So is what the host refuses to wait for (Node: EPERM, as of
//! /dev/null). There is no priority data in WASI.

use std::collections::HashMap;
use std::sync::Arc;

use rustix::fd::RawFd;
use rustix::io::Errno;

use super::{FdMonitor, MonitorToken, Sink};
use crate::bell::{self, Alarm, Bell};
use crate::interest::{Events, Interest};
use crate::wasi::{Kind, Poller, Report, Wait, kind_of, monotonic_ns};

/// The longest that a host is told to wait: a day. The caller goes on with what is left.
const LONGEST_NS: u64 = 86_400_000_000_000;
/// The first and the longest slice of a sleep; without threads nobody rings meanwhile.
const FIRST_SLICE_NS: u64 = if cfg!(threads) { 250_000 } else { LONGEST_NS };
const LONGEST_SLICE_NS: u64 = if cfg!(threads) { 8_000_000 } else { LONGEST_NS };

/// What is behind a number.
enum Behind {
    Bell(Arc<Bell>),
    Stream,
    /// Always ready.
    File,
}

struct Watched {
    token: MonitorToken,
    fd: RawFd,
    interest: Interest,
    behind: Behind,
    /// What one wait found.
    found: Events,
}

#[derive(Default)]
pub(crate) struct WasiMonitor {
    watched: Vec<Watched>,
    /// Where in it, by token.
    places: HashMap<u64, usize>,
    streams: usize,
    files: usize,
    poller: Poller,
    alarm: Arc<Alarm>,
    /// Reports of one call.
    reports: Vec<Report>,
}

impl WasiMonitor {
    fn add(&mut self, token: MonitorToken, fd: RawFd, interest: Interest) -> Result<(), Errno> {
        let behind = match bell::find(fd) {
            Some(bell) => {
                bell.watch(&self.alarm);
                Behind::Bell(bell)
            }
            None => match kind_of(fd)? {
                Kind::File => Behind::File,
                Kind::Stream => Behind::Stream,
            },
        };
        self.count(&behind, 1);
        self.places.insert(token.0, self.watched.len());
        self.watched.push(Watched { token, fd, interest, behind, found: Events::empty() });
        Ok(())
    }

    fn remove(&mut self, at: usize) {
        let gone = self.watched.swap_remove(at);
        self.places.remove(&gone.token.0);
        if let Some(moved) = self.watched.get(at) {
            self.places.insert(moved.token.0, at);
        }
        self.count(&gone.behind, usize::MAX);
        if let Behind::Bell(bell) = gone.behind {
            bell.unwatch(&self.alarm);
        }
    }

    fn count(&mut self, behind: &Behind, by: usize) {
        match behind {
            Behind::Bell(_) => {}
            Behind::Stream => self.streams = self.streams.wrapping_add(by),
            Behind::File => self.files = self.files.wrapping_add(by),
        }
    }

    /// What can be seen without asking the host. A closed file is noticed here as well, since
    /// nothing waits for it.
    fn look(&self, sink: &mut impl Sink) -> bool {
        let mut found = false;
        for watched in &self.watched {
            let events = match &watched.behind {
                Behind::Stream => continue,
                Behind::Bell(bell) if bell.is_closed() => Events::NVAL,
                Behind::Bell(bell) => {
                    let mut events = Events::empty();
                    events.set(Events::IN, bell.is_set());
                    events.set(Events::OUT, !bell.is_full());
                    events & watched.interest.to_events()
                }
                Behind::File if kind_of(watched.fd) == Err(Errno::BADF) => Events::NVAL,
                Behind::File => watched.interest.to_events() & (Events::IN | Events::OUT),
            };
            if !events.is_empty() {
                sink.ready(watched.token, events);
                found = true;
            }
        }
        found
    }

    /// Asks the host about the streams, for at most so long. `true` = something has come.
    fn ask(&mut self, ns: u64, sink: &mut impl Sink) -> Result<bool, Errno> {
        match self.call(Some(ns)) {
            Ok(()) => {}
            // It does not say which one it refuses.
            Err(Errno::INTR) => return Err(Errno::INTR),
            Err(_) => self.ask_each()?,
        }
        let mut found = false;
        for watched in &mut self.watched {
            let events = std::mem::take(&mut watched.found);
            if !events.is_empty() {
                sink.ready(watched.token, events);
                found = true;
            }
        }
        Ok(found)
    }

    /// One call over all streams; what has come is noted.
    fn call(&mut self, ns: Option<u64>) -> Result<(), Errno> {
        let Self { watched, poller, reports, .. } = self;
        let streams = || {
            (0..).zip(watched.iter()).flat_map(|(at, watched)| {
                let is_stream = matches!(watched.behind, Behind::Stream);
                waits_of(watched)
                    .into_iter()
                    .flatten()
                    .filter(move |_| is_stream)
                    .map(move |wait| (at, wait))
            })
        };
        reports.clear();
        let waits = streams().map(|(_, wait)| wait).chain(ns.map(Wait::Clock));
        poller.wait(waits, |report| reports.push(report))?;
        let asked: Vec<(usize, Wait)> = streams().collect();
        for report in &*reports {
            let Some(&(at, wait)) = asked.get(report.at) else { continue }; // the clock
            note(&mut watched[at], wait, *report);
        }
        Ok(())
    }

    /// The host refuses to wait for one of them: those are always ready.
    #[cold]
    fn ask_each(&mut self) -> Result<(), Errno> {
        let mut refused = false;
        for at in 0..self.watched.len() {
            let Self { watched, poller, .. } = self;
            let one = &mut watched[at];
            if !matches!(one.behind, Behind::Stream) {
                continue;
            }
            for wait in waits_of(one).into_iter().flatten() {
                let mut reports = Vec::new();
                let waits = [wait, Wait::Clock(0)].into_iter();
                match poller.wait(waits, |report| reports.push(report)) {
                    Ok(()) => {
                        for report in reports.iter().filter(|report| report.at == 0) {
                            note(one, wait, *report);
                        }
                    }
                    Err(Errno::BADF) => one.found |= Events::NVAL,
                    Err(_) => one.found |= ready(wait),
                }
            }
            refused |= self.settle(at);
        }
        // Or the host cannot wait at all.
        if refused || self.watched.iter().any(|one| !one.found.is_empty()) {
            Ok(())
        } else {
            self.call(Some(0))
        }
    }

    /// From now on it is always ready, if the host does not wait for it.
    fn settle(&mut self, at: usize) -> bool {
        let one = &mut self.watched[at];
        let waits = waits_of(one).into_iter().flatten();
        let poller = &mut self.poller;
        let refuses = |wait| {
            let waits = [wait, Wait::Clock(0)].into_iter();
            poller.wait(waits, |_| ()).is_err_and(|errno| errno != Errno::BADF)
        };
        if !waits.map(refuses).fold(false, |any, one| any | one) {
            return false;
        }
        one.behind = Behind::File;
        self.streams -= 1;
        self.files += 1;
        true
    }

    /// Sleeps while nothing is there to be seen.
    fn sleep(&mut self, timeout: Option<u64>, sink: &mut impl Sink) -> Result<(), Errno> {
        if self.streams == 0 {
            self.rest(timeout);
            self.alarm.clear();
            self.look(sink);
            return Ok(());
        }
        let deadline = timeout.map(|ns| monotonic_ns().saturating_add(ns));
        let mut slice = FIRST_SLICE_NS;
        loop {
            let left = deadline.map_or(u64::MAX, |at| at.saturating_sub(monotonic_ns()));
            if self.ask(left.min(slice), sink)? {
                self.look(sink);
                return Ok(());
            }
            if self.alarm.has_rung() {
                self.alarm.clear();
                self.look(sink);
                return Ok(());
            }
            if left == 0 || deadline.is_some_and(|at| at <= monotonic_ns()) || self.streams == 0 {
                return Ok(());
            }
            slice = (slice * 2).min(LONGEST_SLICE_NS);
        }
    }

    /// There is no file to wait for.
    #[cfg(threads)]
    fn rest(&mut self, timeout: Option<u64>) {
        self.alarm.sleep(timeout);
    }

    /// …and nobody who could ring.
    #[cfg(not(threads))]
    fn rest(&mut self, timeout: Option<u64>) {
        let clock = Wait::Clock(timeout.unwrap_or(u64::MAX).min(LONGEST_NS));
        let _comes_early_at_worst = self.poller.wait([clock].into_iter(), |_| ());
    }
}

fn waits_of(watched: &Watched) -> [Option<Wait>; 2] {
    let fd = watched.fd;
    let wants = |interest| watched.interest.contains(interest);
    [
        wants(Interest::READ).then_some(Wait::Read(fd)),
        wants(Interest::WRITE).then_some(Wait::Write(fd)),
    ]
}

fn ready(wait: Wait) -> Events {
    match wait {
        Wait::Read(_) => Events::IN,
        Wait::Write(_) => Events::OUT,
        Wait::Clock(_) => Events::empty(),
    }
}

/// Takes one report.
fn note(watched: &mut Watched, wait: Wait, report: Report) {
    watched.found |= match report.error {
        None => ready(wait),
        Some(Errno::BADF) => Events::NVAL,
        Some(_) => Events::ERR,
    };
    if report.hung_up {
        watched.found |= Events::HUP;
    }
}

impl FdMonitor for WasiMonitor {
    const SEES_READINESS: bool = false;

    fn update(
        &mut self,
        token: MonitorToken,
        fd: RawFd,
        old: Interest,
        new: Interest,
    ) -> Result<(), Errno> {
        match (self.places.get(&token.0).copied(), new.is_empty()) {
            (None, true) => Ok(()),
            (None, false) => {
                debug_assert!(old.is_empty());
                self.add(token, fd, new)
            }
            (Some(at), true) => {
                self.remove(at);
                Ok(())
            }
            (Some(at), false) => {
                self.watched[at].interest = new;
                Ok(())
            }
        }
    }

    fn wait(&mut self, timeout: Option<u64>, sink: &mut impl Sink) -> Result<(), Errno> {
        self.alarm.clear();
        let found = self.look(sink);
        if found || timeout == Some(0) {
            return if self.streams == 0 { Ok(()) } else { self.ask(0, sink).map(drop) };
        }
        self.sleep(timeout, sink)
    }
}

impl Drop for WasiMonitor {
    fn drop(&mut self) {
        for watched in &self.watched {
            if let Behind::Bell(bell) = &watched.behind {
                bell.unwatch(&self.alarm);
            }
        }
    }
}
