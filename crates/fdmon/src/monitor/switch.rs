//! ② The one place that chooses a monitor and moves a context from one to another.
//!
//! A monitor only reports that the kernel refused something. Moving re-arms every watched fd on
//! the new monitor; since readiness is level-triggered, nothing is lost, and since what was
//! collected stays in the pending words, nothing is doubled.

use rustix::io::Errno;

use super::epoll::EpollMonitor;
use super::poll::PollMonitor;
use super::{FdMonitor, Monitor, MonitorToken};
use crate::config::MonitorKind;
use crate::context::State;
use crate::embed::EMBEDDED_REASON;
use crate::error::{Error, Result};
use crate::handler::Handler;
use crate::interest::Interest;
use crate::notifier;
use crate::registry::{is_unspun, needs_wait};
use crate::remote::Shared;

use rustix::fd::{AsFd, AsRawFd};

/// Watched fds at which `auto` moves from poll to epoll.
pub(crate) const EPOLL_AT: u32 = 64;

const NO_RING: &str = "io_uring is not part of this build";

/// The monitor of a new context, why, and whether it may move up by itself later.
pub(crate) fn choose(kind: MonitorKind, shared: &Shared) -> Result<(Monitor, String, bool)> {
    let (kind, reason) = match kind {
        MonitorKind::Auto => match std::env::var("FDMON_MONITOR") {
            Err(_) => (MonitorKind::Auto, String::new()),
            Ok(name) if name.is_empty() => (MonitorKind::Auto, String::new()),
            Ok(name) => {
                let kind: MonitorKind = name.parse().map_err(|_: Error| {
                    Error::invalid_arg(
                        "FDMON_MONITOR",
                        format_args!("'{name}'"),
                        "'auto', 'poll', 'epoll' or 'io_uring', or unset it",
                    )
                })?;
                (kind, format!("asked for by FDMON_MONITOR={name}"))
            }
        },
        kind => (kind, String::from("asked for")),
    };
    match kind {
        MonitorKind::Auto => Ok((
            Monitor::Poll(poll(shared)),
            format!("auto: {NO_RING}; poll below {EPOLL_AT} fds"),
            true,
        )),
        MonitorKind::Poll => Ok((Monitor::Poll(poll(shared)), reason, false)),
        MonitorKind::Epoll => {
            let monitor = epoll(shared).map_err(|e| refused(&reason, "epoll", &e.to_string()))?;
            Ok((Monitor::Epoll(monitor), reason, false))
        }
        MonitorKind::IoUring => Err(refused(&reason, "io_uring", NO_RING)),
    }
}

/// Names where the request came from.
fn refused(reason: &str, monitor: &str, why: &str) -> Error {
    let option = if reason.contains("FDMON_MONITOR") { "FDMON_MONITOR" } else { "monitor" };
    Error::unsupported(format!("{option} = '{monitor}' is refused: {why}; use 'auto' or 'poll'"))
}

fn poll(shared: &Shared) -> PollMonitor {
    let mut monitor = PollMonitor::default();
    let _never_refused = monitor.update(
        MonitorToken::NOTIFIER,
        shared.notifier.as_raw_fd(),
        Interest::empty(),
        Interest::READ,
    );
    monitor
}

fn epoll(shared: &Shared) -> std::result::Result<EpollMonitor, Errno> {
    let mut monitor = EpollMonitor::new()?;
    monitor.watch_notifier(shared.notifier.as_fd())?;
    Ok(monitor)
}

impl State {
    /// Tells the monitor what this handler should hear now, and keeps the tallies.
    pub(crate) fn sync(&mut self, shared: &Shared, slot: u32) -> std::result::Result<(), Errno> {
        let generation = self.reg.generation(slot);
        let Some(handler) = self.reg.handler(slot) else { return Ok(()) };
        let (fd, old) = (handler.fd, handler.armed);
        let new = self.effective(slot);
        if new == old || !self.home.is_here() {
            return Ok(()); // in a forked child the kernel's set is the parent's
        }
        let token = MonitorToken::new(slot, generation);
        let refusal = self.monitor.update(token, fd, old, new).err();
        let armed = if refusal == Some(Errno::BADF) { Interest::empty() } else { new };
        self.tally(slot, |handler| handler.armed = armed);
        self.watch_from_outside(shared, token, fd, old, armed);
        match refusal {
            None => Ok(()),
            Some(Errno::BADF) => Err(Errno::BADF),
            Some(refusal) => {
                self.move_to_poll(shared, &format!("epoll refused an fd: {refusal}"));
                Ok(())
            }
        }
    }

    fn effective(&mut self, slot: u32) -> Interest {
        let disabled = self.reg.external_disabled > 0;
        self.reg.handler(slot).map_or(Interest::empty(), |handler| {
            if handler.parked || (handler.external && disabled) {
                Interest::empty()
            } else {
                handler.wanted
            }
        })
    }

    /// Changes a handler and keeps count of what the loop must know without looking at them all.
    pub(crate) fn tally(&mut self, slot: u32, change: impl FnOnce(&mut Handler)) {
        let Some(handler) = self.reg.handler(slot) else { return };
        let before = Tally::of(handler);
        change(handler);
        let after = Tally::of(handler);
        let reg = &mut self.reg;
        let shift = |count: &mut u32, was: bool, is: bool| {
            *count = *count + u32::from(is) - u32::from(was);
        };
        shift(&mut reg.armed, before.armed, after.armed);
        shift(&mut reg.unspun, before.unspun, after.unspun);
        shift(&mut reg.poll_disable_count, before.needs_wait, after.needs_wait);
        shift(&mut reg.kernel_spinners, before.kernel, after.kernel);
    }

    /// Moves `auto` to epoll when there are enough fds. Not to be called while a nested turn runs.
    #[inline]
    pub(crate) fn maybe_move_up(&mut self, shared: &Shared) {
        if !self.may_move_up {
            return;
        }
        if self.outer.is_some() {
            self.move_to_epoll(shared, EMBEDDED_REASON);
        } else if self.reg.armed >= EPOLL_AT {
            self.move_to_epoll(shared, &format!("auto: {NO_RING}; epoll from {EPOLL_AT} fds on"));
        }
    }

    #[cold]
    pub(crate) fn move_to_epoll(&mut self, shared: &Shared, reason: &str) {
        self.may_move_up = false;
        match epoll(shared).and_then(|m| self.fill(Monitor::Epoll(m))) {
            Ok(monitor) => {
                self.monitor = monitor;
                self.fill_outer(shared);
                shared.set_monitor(MonitorKind::Epoll, reason.into());
            }
            Err(refusal) => {
                shared.set_monitor(MonitorKind::Poll, format!("auto: epoll refused: {refusal}"));
            }
        }
    }

    #[cold]
    fn move_to_poll(&mut self, shared: &Shared, reason: &str) {
        self.may_move_up = false;
        shared.stats.fallbacks.bump();
        shared.set_monitor(MonitorKind::Poll, reason.into());
        if let Ok(monitor) = self.fill(Monitor::Poll(poll(shared))) {
            self.monitor = monitor;
        }
        self.fill_outer(shared);
    }

    /// The kernel still reports a registration that is gone: its fd was closed while registered
    /// and a duplicate keeps the file open, so nothing can take it out of the set. A new set can.
    #[cold]
    pub(crate) fn shed_orphans(&mut self, shared: &Shared) {
        self.reg.orphaned = false;
        if !matches!(self.monitor, Monitor::Epoll(_)) {
            return;
        }
        match epoll(shared).and_then(|m| self.fill(Monitor::Epoll(m))) {
            Ok(monitor) => {
                self.monitor = monitor;
                self.fill_outer(shared);
            }
            Err(refusal) => self.move_to_poll(shared, &format!("epoll refused an fd: {refusal}")),
        }
    }

    /// Arms every watched fd on a monitor that is about to take over.
    fn fill(&mut self, mut monitor: Monitor) -> std::result::Result<Monitor, Errno> {
        let slots: Vec<u32> = self.reg.handler_slots().collect();
        for slot in slots {
            let generation = self.reg.generation(slot);
            let Some(handler) = self.reg.handler(slot) else { continue };
            let (fd, armed) = (handler.fd, handler.armed);
            let token = MonitorToken::new(slot, generation);
            match monitor.update(token, fd, Interest::empty(), armed) {
                // Closed while registered: poll reports it, epoll forgets it.
                Ok(()) | Err(Errno::BADF) => {}
                Err(refusal) => return Err(refusal),
            }
        }
        Ok(monitor)
    }

    /// After a wait that the notifier ended.
    #[cold]
    pub(crate) fn clear_notifier(&mut self, shared: &Shared) {
        self.reg.notifier_signalled = false;
        // On epoll it is edge-triggered and keeps its count.
        if matches!(self.monitor, Monitor::Poll(_)) {
            let _ = notifier::test_and_clear(shared.notifier.as_fd());
        }
    }
}

/// What the registry counts of a handler.
struct Tally {
    armed: bool,
    unspun: bool,
    needs_wait: bool,
    kernel: bool,
}

impl Tally {
    fn of(handler: &Handler) -> Self {
        let armed = !handler.armed.is_empty();
        Self {
            armed,
            unspun: is_unspun(handler),
            needs_wait: needs_wait(handler),
            kernel: armed && handler.kernel,
        }
    }
}
