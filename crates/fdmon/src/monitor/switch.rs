//! ② The one place that chooses a monitor and moves a context from one to another.
//!
//! A monitor only reports that the kernel refused something. Moving re-arms every watched fd on
//! the new monitor; since readiness is level-triggered, nothing is lost, and since what was
//! collected stays in the pending words, nothing is doubled.

use rustix::io::Errno;

use super::busy_poll::BUSY_POLL_REASON;
use super::epoll::EpollMonitor;
use super::io_uring::UringMonitor;
#[cfg(loom)]
use super::model::ModelMonitor;
#[cfg(not(wasi))]
use super::poll::PollMonitor;
use super::refusal::Refusal;
use super::ring_features::RingFeatures;
#[cfg(wasi)]
use super::wasi::WasiMonitor;
use super::{FdMonitor, Monitor, MonitorToken};
use crate::config::{MonitorKind, RingMode, RingParams};
use crate::context::State;
use crate::embed::EMBEDDED_REASON;
use crate::error::{Error, ErrorCode, Result, errno_name};
use crate::handler::Handler;
use crate::interest::Interest;
use crate::notifier;
use crate::registry::{is_unspun, needs_wait};
use crate::remote::{Shared, lock};

use rustix::fd::{AsFd, AsRawFd};

/// Watched fds at which `auto` moves from poll to epoll.
pub(crate) const EPOLL_AT: u32 = 64;

/// The monitor of a new context.
pub(crate) struct Chosen {
    pub monitor: Monitor,
    /// Why it is that one, in words.
    pub reason: String,
    /// Another may take its place later.
    pub auto: bool,
    /// Why `auto` has no ring.
    pub ring_refused: String,
}

impl Chosen {
    fn asked_for(monitor: Monitor, reason: String) -> Self {
        Self { monitor, reason, auto: false, ring_refused: String::new() }
    }
}

/// Makes the monitor of a new context.
pub(crate) fn choose(
    kind: MonitorKind,
    by_environment: bool,
    ring: &RingParams,
    shared: &Shared,
) -> Result<Chosen> {
    let asked_by_environment = |kind| format!("asked for by FDMON_MONITOR={kind}");
    let (kind, reason) = match kind {
        MonitorKind::Auto => match std::env::var("FDMON_MONITOR") {
            Err(_) => (MonitorKind::Auto, String::new()),
            Ok(name) if name.is_empty() => (MonitorKind::Auto, String::new()),
            Ok(name) => {
                let kind: MonitorKind = name.parse().map_err(|_: Error| {
                    Error::invalid_arg(
                        "FDMON_MONITOR",
                        format_args!("'{name}'"),
                        "'auto', 'poll', 'epoll', 'io_uring' or 'wasi', or unset it",
                    )
                })?;
                (kind, asked_by_environment(kind))
            }
        },
        kind if by_environment => (kind, asked_by_environment(kind)),
        kind => (kind, String::from("asked for")),
    };
    #[cfg(loom)]
    if cfg!(loom) {
        let monitor = Monitor::Model(ModelMonitor::new(kind, shared.notifier.as_raw_fd()));
        return Ok(Chosen::asked_for(monitor, reason));
    }
    #[cfg(wasi)]
    if cfg!(wasi) {
        return match kind {
            MonitorKind::Auto => Ok(Chosen::asked_for(
                last_resort(shared),
                "auto: the one of a WebAssembly build".into(),
            )),
            MonitorKind::Wasi => Ok(Chosen::asked_for(last_resort(shared), reason)),
            kind => Err(not_here(option(&reason), kind)),
        };
    }
    match kind {
        MonitorKind::Auto => Ok(choose_best(ring, shared)),
        MonitorKind::Wasi => Err(not_here(option(&reason), kind)),
        MonitorKind::IoUring if ring.mode == RingMode::Off => Err(turned_off(option(&reason))),
        MonitorKind::Poll => Ok(Chosen::asked_for(last_resort(shared), reason)),
        MonitorKind::Epoll => {
            let monitor = epoll(shared)
                .map_err(|refusal| refusal.to_error(option(&reason), "epoll", ring))?;
            Ok(Chosen::asked_for(Monitor::Epoll(monitor), reason))
        }
        MonitorKind::IoUring => {
            let monitor = uring(ring, shared)
                .map_err(|refusal| refusal.to_error(option(&reason), "io_uring", ring))?;
            Ok(Chosen::asked_for(monitor, reason))
        }
    }
}

/// A ring where there is one, else poll, which moves to epoll when that is cheaper.
fn choose_best(ring: &RingParams, shared: &Shared) -> Chosen {
    let ring_refused = match ring.mode {
        RingMode::Off => String::from("io_uring is turned off by ring.mode"),
        _ => match uring(ring, shared) {
            Ok(monitor) => {
                return Chosen {
                    monitor,
                    reason: "auto: io_uring works here".into(),
                    auto: true,
                    ring_refused: String::new(),
                };
            }
            Err(refusal) => format!("io_uring refused: {refusal}"),
        },
    };
    Chosen {
        monitor: last_resort(shared),
        reason: format!("auto: {ring_refused}; poll below {EPOLL_AT} fds"),
        auto: true,
        ring_refused,
    }
}

/// Where the request came from.
fn option(reason: &str) -> &'static str {
    if reason.contains("FDMON_MONITOR") { "FDMON_MONITOR" } else { "monitor" }
}

fn turned_off(option: &str) -> Error {
    let message = format!(
        "{option} = 'io_uring' is refused: ring.mode = 'off' turns it off; pass another \
         ring.mode, or use 'auto'"
    );
    Error::new(ErrorCode::InvalidArg, message)
}

/// What the rings of this kernel can do, for this process: makes one and tries it.
///
/// # Errors
/// `Unsupported`, with the errno, when there is no ring to be had.
pub fn probe_io_uring() -> Result<RingFeatures> {
    if cfg!(wasi) {
        return Err(not_here("monitor", MonitorKind::IoUring));
    }
    let eventfd = crate::EventNotifier::new()?;
    super::io_uring::probe(eventfd.as_fd().as_raw_fd())
        .map_err(|refusal| refusal.to_error("monitor", "io_uring", &RingParams::default()))
}

/// The monitor of another build.
fn not_here(option: &str, kind: MonitorKind) -> Error {
    let why = if cfg!(wasi) {
        "a WebAssembly build waits by poll_oneoff alone; use 'auto' or 'wasi'"
    } else {
        "it is for WebAssembly builds, and this is a native one; use 'auto'"
    };
    Error::unsupported(format!("{option} = '{kind}' is refused: {why}"))
}

/// The monitor that can always be had.
fn last_resort(shared: &Shared) -> Monitor {
    #[cfg(wasi)]
    let mut monitor = WasiMonitor::default();
    #[cfg(not(wasi))]
    let mut monitor = PollMonitor::default();
    let _never_refused = monitor.update(
        MonitorToken::NOTIFIER,
        shared.notifier.as_raw_fd(),
        Interest::empty(),
        Interest::READ,
    );
    #[cfg(wasi)]
    return Monitor::Wasi(monitor);
    #[cfg(not(wasi))]
    Monitor::Poll(monitor)
}

pub(super) fn epoll(shared: &Shared) -> std::result::Result<EpollMonitor, Refusal> {
    let mut monitor = EpollMonitor::new().map_err(Refusal::of("epoll_create1"))?;
    monitor.watch_notifier(shared.notifier.as_fd()).map_err(Refusal::of("epoll_ctl"))?;
    Ok(monitor)
}

fn uring(params: &RingParams, shared: &Shared) -> std::result::Result<Monitor, Refusal> {
    let monitor = UringMonitor::new(params, shared.notifier.as_raw_fd())?;
    Ok(Monitor::IoUring(Box::new(monitor)))
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
        // A ring is only told of fds: what it cannot do concerns itself.
        let is_closed =
            refusal == Some(Errno::BADF) && !matches!(self.monitor, Monitor::IoUring(_));
        let armed = if is_closed { Interest::empty() } else { new };
        self.tally(slot, |handler| handler.armed = armed);
        self.watch_from_outside(shared, token, fd, old, armed);
        match refusal {
            None => Ok(()),
            Some(Errno::BADF) if is_closed => Err(Errno::BADF),
            Some(errno) => {
                self.refused_fd(shared, errno);
                Ok(())
            }
        }
    }

    /// As [`State::sync`], where nobody is there to be told: a handler whose fd is closed is removed
    /// by the next turn, and reported.
    pub(crate) fn sync_or_report(&mut self, shared: &Shared, slot: u32) {
        if self.sync(shared, slot) == Err(Errno::BADF) {
            self.reg.report_bad(slot);
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

    /// Moves `auto` to epoll when there is a reason to. Not to be called while a nested turn runs.
    #[inline]
    pub(crate) fn maybe_move_up(&mut self, shared: &Shared) {
        if !self.may_move_up {
            return;
        }
        if self.outer.is_some() {
            self.move_to_epoll(shared, EMBEDDED_REASON);
        } else if self.spin.params.kernel_busy_poll.is_some() {
            self.move_to_epoll(shared, BUSY_POLL_REASON);
        } else if self.reg.armed >= self.move_up_at {
            let reason = format!("auto: {}; epoll from {EPOLL_AT} fds on", self.ring_refused);
            self.move_to_epoll(shared, &reason);
        }
    }

    #[cold]
    pub(crate) fn move_to_epoll(&mut self, shared: &Shared, reason: &str) {
        self.may_move_up = false;
        match epoll(shared).and_then(|m| self.fill(Monitor::Epoll(m))) {
            Ok(monitor) => {
                self.monitor = monitor;
                self.fill_outer(shared);
                self.set_monitor_reason(shared, MonitorKind::Epoll, reason.into());
            }
            Err(refusal) => {
                // What is short now may not be so later: it tries again when there are many more.
                self.move_up_at = self.reg.armed.max(EPOLL_AT).saturating_mul(2);
                self.may_move_up = matches!(self.monitor, Monitor::Poll(_));
                let reason = format!("auto: epoll refused: {refusal}");
                self.set_monitor_reason(shared, self.monitor.kind(), reason);
            }
        }
        self.renew_busy_poll(shared);
    }

    /// The monitor cannot take this change of an fd.
    #[cold]
    pub(crate) fn refused_fd(&mut self, shared: &Shared, errno: Errno) {
        if matches!(self.monitor, Monitor::IoUring(_)) {
            self.move_down(shared, errno);
        } else {
            let reason = format!("epoll refused an fd: {}", errno_name(errno));
            self.move_to_poll(shared, &reason);
        }
    }

    /// The kernel refuses to wait. `true` = there is another monitor now.
    #[cold]
    pub(crate) fn move_down(&mut self, shared: &Shared, errno: Errno) -> bool {
        match self.monitor {
            Monitor::Poll(_) => return false,
            Monitor::Epoll(_) => {
                self.leave_epoll(shared, Refusal { call: "epoll_wait", errno });
                return true;
            }
            Monitor::IoUring(_) => {}
            #[cfg(wasi)]
            Monitor::Wasi(_) => return false,
            #[cfg(loom)]
            Monitor::Model(_) => return false,
        }
        let why = Refusal { call: "io_uring_enter", errno };
        self.ring_refused = format!("io_uring refused: {why}");
        match epoll(shared).and_then(|m| self.fill(Monitor::Epoll(m))) {
            Ok(monitor) => {
                self.monitor = monitor;
                self.fill_outer(shared);
                shared.stats.fallbacks.bump();
                self.set_monitor_reason(shared, MonitorKind::Epoll, self.ring_refused.clone());
                self.renew_busy_poll(shared);
            }
            Err(also) => {
                let reason = format!("{}; epoll refused: {also}", self.ring_refused);
                self.move_to_poll(shared, &reason);
            }
        }
        true
    }

    fn leave_epoll(&mut self, shared: &Shared, why: Refusal) {
        if why.call == "epoll_ctl" {
            return self.refused_fd(shared, why.errno);
        }
        self.move_to_poll(shared, &format!("epoll refused: {why}"));
    }

    /// A ring that can wake an outer loop. The old one's completions come again from the new one,
    /// since readiness is level-triggered.
    pub(crate) fn make_ring_cooperative(&mut self, shared: &Shared) -> Result<()> {
        let Monitor::IoUring(monitor) = &self.monitor else { return Ok(()) };
        if monitor.mode() != RingMode::Deferred {
            return Ok(());
        }
        let params = RingParams { mode: RingMode::Cooperative, ..self.ring.clone() };
        match uring(&params, shared).and_then(|ring| self.fill(ring)) {
            Ok(ring) => self.monitor = ring,
            Err(_) if self.auto => {
                let reason = lock(&shared.monitor).1.clone(); // why it is not on epoll
                self.move_to_poll(shared, &reason);
            }
            Err(why) => return Err(why.to_error("monitor", "io_uring", &params)),
        }
        self.renew_busy_poll(shared);
        Ok(())
    }

    #[cold]
    fn move_to_poll(&mut self, shared: &Shared, reason: &str) {
        self.may_move_up = false;
        shared.stats.fallbacks.bump();
        self.set_monitor_reason(shared, MonitorKind::Poll, reason.into());
        if let Ok(monitor) = self.fill(last_resort(shared)) {
            self.monitor = monitor;
        }
        self.fill_outer(shared);
        self.renew_busy_poll(shared);
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
                self.renew_busy_poll(shared);
            }
            Err(refusal) => self.leave_epoll(shared, refusal),
        }
    }

    /// Arms every watched fd on a monitor that is about to take over. Those that turn out to be
    /// closed are removed by the next turn, and reported.
    pub(super) fn fill(&mut self, mut monitor: Monitor) -> std::result::Result<Monitor, Refusal> {
        let slots: Vec<u32> = self.reg.handler_slots().collect();
        let mut closed = Vec::new();
        for slot in slots {
            let generation = self.reg.generation(slot);
            let Some(handler) = self.reg.handler(slot) else { continue };
            let (fd, armed) = (handler.fd, handler.armed);
            let token = MonitorToken::new(slot, generation);
            match monitor.update(token, fd, Interest::empty(), armed) {
                Ok(()) => {}
                Err(Errno::BADF) => closed.push(slot),
                Err(errno) => return Err(Refusal { call: monitor.call_of_update(), errno }),
            }
        }
        for slot in closed {
            self.tally(slot, |handler| handler.armed = Interest::empty());
            self.reg.report_bad(slot);
        }
        Ok(monitor)
    }

    /// After a wait that the notifier ended.
    #[cold]
    pub(crate) fn clear_notifier(&mut self, shared: &Shared) {
        self.reg.notifier_signalled = false;
        // Elsewhere it is edge-triggered and keeps its count.
        let must_be_read = match &self.monitor {
            Monitor::Poll(_) => true,
            Monitor::Epoll(_) => false,
            Monitor::IoUring(monitor) => monitor.notifier_must_be_read(),
            #[cfg(wasi)]
            Monitor::Wasi(_) => true,
            #[cfg(loom)]
            Monitor::Model(monitor) => monitor.notifier_must_be_read(),
        };
        if must_be_read {
            let _ = notifier::test_and_clear(shared.notifier.as_fd());
        }
        shared.signal_taken();
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
