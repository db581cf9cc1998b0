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
/// The first and the longest slice of a sleep that nobody can end.
const FIRST_SLICE_NS: u64 = 250_000;
const LONGEST_SLICE_NS: u64 = 8_000_000;
/// A host may count in whole milliseconds, and report no stream within less than one, ready or not:
/// node:wasi does. So long takes a look at streams that have nothing.
const LEAST_NS: u64 = 1_000_000;

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
    /// Some notifier may be set without an alarm.
    silent: bool,
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
        self.streams += usize::from(matches!(behind, Behind::Stream));
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
        match gone.behind {
            Behind::Bell(bell) => bell.unwatch(&self.alarm),
            Behind::Stream => self.streams -= 1,
            Behind::File => {}
        }
    }

    /// What can be seen without asking the host. A closed file is noticed here as well, since
    /// nothing waits for it.
    fn look(&mut self, sink: &mut impl Sink) -> bool {
        let mut found = false;
        let mut silent = false;
        for watched in &self.watched {
            let events = match &watched.behind {
                Behind::Stream => continue,
                Behind::Bell(bell) if bell.is_closed() => Events::NVAL,
                Behind::Bell(bell) => {
                    let state = bell.state();
                    silent |= state.silent;
                    let mut events = Events::empty();
                    events.set(Events::IN, state.set);
                    events.set(Events::OUT, !state.full);
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
        self.silent = silent;
        found
    }

    /// Asks the host about the streams, for at most so long. `true` = something has come.
    fn ask(&mut self, ns: u64, sink: &mut impl Sink) -> Result<bool, Errno> {
        match self.call(Some(ns.max(LEAST_NS))) {
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

    /// The host refuses to wait for one of them, and does not say which: that is always ready.
    #[cold]
    fn ask_each(&mut self) -> Result<(), Errno> {
        let Self { watched, poller, streams, .. } = self;
        for one in watched.iter_mut().filter(|one| matches!(one.behind, Behind::Stream)) {
            for wait in waits_of(one).into_iter().flatten() {
                let mut came = None;
                let waits = [wait, Wait::Clock(LEAST_NS)].into_iter();
                match poller
                    .wait(waits, |report| came = came.or((report.at == 0).then_some(report)))
                {
                    Ok(()) => came.into_iter().for_each(|report| note(one, wait, report)),
                    Err(Errno::BADF) => one.found |= Events::NVAL,
                    Err(Errno::PERM) => {
                        one.found |= ready(wait);
                        one.behind = Behind::File;
                    }
                    Err(errno) => return Err(errno),
                }
            }
            *streams -= usize::from(matches!(one.behind, Behind::File));
        }
        Ok(())
    }

    /// Sleeps while nothing is there to be seen.
    fn sleep(&mut self, timeout: Option<u64>, sink: &mut impl Sink) -> Result<(), Errno> {
        if self.streams == 0 && !self.silent {
            self.rest(timeout);
            self.alarm.clear();
            self.look(sink);
            return Ok(());
        }
        let deadline = timeout.map(|ns| monotonic_ns().saturating_add(ns));
        // Without threads nobody rings meanwhile.
        let sliced = self.silent || cfg!(threads);
        let mut slice = if sliced { FIRST_SLICE_NS } else { LONGEST_NS };
        loop {
            let left = deadline.map_or(u64::MAX, |at| at.saturating_sub(monotonic_ns()));
            let mut found = false;
            if self.streams == 0 {
                self.rest(Some(left.min(slice)));
            } else {
                found = self.ask(left.min(slice), sink)?;
            }
            let look = found || self.silent || self.alarm.has_rung();
            if look {
                self.alarm.clear();
                found |= self.look(sink);
            }
            // What has rung may be nothing that is reported: the caller looks for himself.
            if found || (look && !self.silent) || left <= slice {
                return Ok(());
            }
            slice = if sliced { (slice * 2).min(LONGEST_SLICE_NS) } else { LONGEST_NS };
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
