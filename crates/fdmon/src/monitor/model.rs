//! ② The kernel of the models: a counter a notifier, and one condition variable for who sleeps.
//!
//! A context asks this monitor whatever kind it was built with; the kind says what the real one's
//! notifier is like. Time does not pass: a sleep with a deadline lasts until something is ready.

use std::collections::BTreeMap;

use loom::sync::{Condvar, Mutex, MutexGuard};
use rustix::fd::{AsRawFd, BorrowedFd, RawFd};
use rustix::io::Errno;

use super::{FdMonitor, MonitorToken, Sink};
use crate::config::MonitorKind;
use crate::interest::{Events, Interest};

/// An eventfd: its number is real, its counter is here.
#[derive(Clone, Copy, Default)]
struct Counter {
    value: u64,
    /// How often it was written: what an edge-triggered watcher looks at.
    writes: u64,
}

#[derive(Default)]
struct Kernel {
    counters: Mutex<BTreeMap<RawFd, Counter>>,
    written: Condvar,
}

loom::lazy_static! {
    static ref KERNEL: Kernel = Kernel { counters: Mutex::default(), written: Condvar::new() };
}

fn counters() -> MutexGuard<'static, BTreeMap<RawFd, Counter>> {
    KERNEL.counters.lock().expect("loom's locks are never poisoned")
}

/// A new eventfd, with a number that may have been another's.
pub(crate) fn create(fd: RawFd, value: u32) {
    let writes = u64::from(value != 0);
    counters().insert(fd, Counter { value: value.into(), writes });
}

/// In place of write(2).
pub(crate) fn set(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut counters = counters();
    let counter = counters.entry(fd.as_raw_fd()).or_default();
    counter.value += 1;
    counter.writes += 1;
    KERNEL.written.notify_all();
    Ok(())
}

/// …where the counter is never full.
pub(crate) fn wake(fd: BorrowedFd<'_>) {
    let _ = set(fd);
}

/// In place of read(2).
pub(crate) fn test_and_clear(fd: BorrowedFd<'_>) -> Result<bool, Errno> {
    let mut counters = counters();
    let counter = counters.entry(fd.as_raw_fd()).or_default();
    Ok(std::mem::take(&mut counter.value) != 0)
}

/// In place of poll(2) without a timeout, on one fd.
#[cfg(feature = "channel")]
pub(crate) fn wait_for(fd: RawFd) {
    let mut counters = counters();
    while counters.get(&fd).is_none_or(|counter| counter.value == 0) {
        counters = KERNEL.written.wait(counters).expect("as above");
    }
}

/// An fd that is watched for reading.
struct Watch {
    token: MonitorToken,
    fd: RawFd,
    /// Reported at each write, and not as long as it is not read.
    edges: bool,
    /// How many writes were reported.
    reported: u64,
}

impl Watch {
    fn is_ready(&self, counters: &BTreeMap<RawFd, Counter>) -> bool {
        let counter = counters.get(&self.fd).copied().unwrap_or_default();
        if self.edges { counter.writes != self.reported } else { counter.value != 0 }
    }
}

pub(crate) struct ModelMonitor {
    kind: MonitorKind,
    watches: Vec<Watch>,
}

impl ModelMonitor {
    pub fn new(kind: MonitorKind, notifier: RawFd) -> Self {
        let edges = kind != MonitorKind::Poll;
        let watch = Watch { token: MonitorToken::NOTIFIER, fd: notifier, edges, reported: 0 };
        Self { kind, watches: vec![watch] }
    }

    pub fn kind(&self) -> MonitorKind {
        self.kind
    }

    pub fn sees_readiness(&self) -> bool {
        self.kind == MonitorKind::IoUring
    }

    pub fn notifier_must_be_read(&self) -> bool {
        self.kind == MonitorKind::Poll
    }

    /// What an outer loop does between prepare and check: sleeps until an fd is ready, and takes
    /// nothing.
    #[cfg(test)]
    pub fn sleep(&self) {
        let mut counters = counters();
        while !self.watches.iter().any(|watch| watch.is_ready(&counters)) {
            counters = KERNEL.written.wait(counters).expect("as above");
        }
    }
}

impl FdMonitor for ModelMonitor {
    /// That of the kind is asked instead.
    const SEES_READINESS: bool = false;

    fn update(
        &mut self,
        token: MonitorToken,
        fd: RawFd,
        old: Interest,
        new: Interest,
    ) -> Result<(), Errno> {
        if !old.is_empty() {
            self.watches.retain(|watch| watch.token != token);
        }
        if !new.is_empty() {
            self.watches.push(Watch { token, fd, edges: false, reported: 0 });
        }
        Ok(())
    }

    fn wait(&mut self, timeout: Option<u64>, sink: &mut impl Sink) -> Result<(), Errno> {
        let mut counters = counters();
        loop {
            let ready = self.watches.iter_mut().filter(|watch| watch.is_ready(&counters));
            let tokens: Vec<MonitorToken> = ready
                .map(|watch| {
                    watch.reported = counters.get(&watch.fd).map_or(0, |counter| counter.writes);
                    watch.token
                })
                .collect();
            if !tokens.is_empty() || timeout == Some(0) {
                drop(counters);
                tokens.into_iter().for_each(|token| sink.ready(token, Events::IN));
                return Ok(());
            }
            counters = KERNEL.written.wait(counters).expect("as above");
        }
    }
}
