//! Embedding: the same turn in three steps, for an outer loop that does the sleeping.
//!
//! `prepare` is everything up to the sleep, `check` what follows it, `dispatch` the callbacks.
//! The outer loop watches one fd, an epoll set that the context owns: under epoll it holds the
//! monitor's own epoll fd, under poll every fd that epoll accepts, and a timerfd for deadlines
//! that an outer loop counting in milliseconds would miss.

use std::sync::atomic::{Ordering, fence};

use rustix::event::epoll;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use crate::config::RingMode;
use crate::context::{AioContext, State};
use crate::error::{Error, ErrorCode, Result};
use crate::interest::Interest;
use crate::monitor::{Monitor, MonitorToken, borrow, timespec};
use crate::registry::Hints;
use crate::remote::{EMBEDDED, Shared};
use crate::turn::Plan;

pub(crate) const EMBEDDED_REASON: &str = "auto: epoll, since it is embedded in an outer loop";

/// Deadlines closer than this are met by the timerfd.
const MILLISECOND: u64 = 1_000_000;

/// The side for an outer loop.
pub(crate) struct Outer {
    /// What the outer loop watches, the same for ever.
    epoll: OwnedFd,
    /// Under poll, a set within that set that holds the fds; it can be replaced.
    fds: Option<OwnedFd>,
    timer: OwnedFd,
    timer_is_set: bool,
    /// Fds that epoll does not take: as long as there are any, `prepare` returns 0.
    unwatched: Vec<MonitorToken>,
    /// Between prepare and check: the turn that is going on.
    plan: Option<Plan>,
}

impl Outer {
    fn new() -> std::result::Result<Self, Errno> {
        let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let outer = Self {
            epoll: set,
            fds: None,
            timer,
            timer_is_set: false,
            unwatched: Vec::new(),
            plan: None,
        };
        outer.watch(outer.timer.as_fd())?;
        Ok(outer)
    }

    fn watch(&self, fd: BorrowedFd<'_>) -> std::result::Result<(), Errno> {
        epoll::add(&self.epoll, fd, epoll::EventData::new_u64(0), epoll::EventFlags::IN)
    }

    fn set_timer(&mut self, ns: Option<u64>) {
        if ns.is_none() && !self.timer_is_set {
            return;
        }
        self.timer_is_set = ns.is_some();
        let spec = Itimerspec {
            it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: timespec(ns.unwrap_or(0)),
        };
        // Also takes back an expiry that nobody has read.
        let _ = timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &spec);
    }

    /// `false` = the set holds something that cannot be taken out: a closed fd of which a
    /// duplicate lives.
    #[must_use]
    fn update(&mut self, token: MonitorToken, fd: RawFd, old: Interest, new: Interest) -> bool {
        let Some(set) = &self.fds else { return true };
        let events = epoll::EventFlags::from_bits_retain(new.to_events().bits());
        let data = epoll::EventData::new_u64(0);
        if let Some(at) = self.unwatched.iter().position(|t| *t == token) {
            if new.is_empty() {
                self.unwatched.swap_remove(at);
            }
        } else if new.is_empty() {
            return epoll::delete(set, borrow(fd)).is_ok();
        } else if !old.is_empty() {
            return epoll::modify(set, borrow(fd), data, events).is_ok();
        } else if let Err(errno) = epoll::add(set, borrow(fd), data, events)
            && errno != Errno::EXIST
        {
            self.unwatched.push(token);
        }
        true
    }
}

impl AioContext {
    /// An fd that an outer loop watches for reading; stable from first use. The outer loop calls
    /// [`AioContext::prepare`] before it sleeps and [`AioContext::check`] afterwards.
    ///
    /// # Errors
    /// `Closed`; `Syscall` when there is no fd left.
    pub fn backend_fd(&self) -> Result<BorrowedFd<'_>> {
        let fd = {
            let mut st = self.0.open_state()?;
            st.embed(&self.0.shared)?.epoll.as_raw_fd()
        };
        Ok(borrow(fd))
    }

    /// The first third of a turn: how many nanoseconds the outer loop may sleep (`None` = for
    /// ever, 0 = not at all). Spins if the context does. Calling it twice is harmless.
    ///
    /// ```
    /// let ctx = fdmon::AioContext::builder().build()?;
    /// assert_eq!(ctx.prepare()?, None); // nothing to wait for: sleep until the fd is readable
    /// assert!(!ctx.check()?);
    /// ctx.schedule(|_| Ok(()))?;
    /// assert_eq!(ctx.prepare()?, Some(0));
    /// assert!(ctx.check()?);
    /// assert!(ctx.dispatch()?);
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Closed`; `Syscall` when there is no fd left.
    pub fn prepare(&self) -> Result<Option<u64>> {
        self.prepare_within(None)
    }

    /// [`AioContext::prepare`] when the outer loop will not sleep longer than this many
    /// nanoseconds anyway, so that spinning does not either.
    ///
    /// # Errors
    /// As [`AioContext::prepare`].
    pub fn prepare_within(&self, outer_ns: Option<u64>) -> Result<Option<u64>> {
        self.0.open_state()?.embed(&self.0.shared)?;
        let (turn, st) = self.enter()?;
        let mut plan = Plan::new(true);
        let st = self.plan(st, &mut plan);
        if let Some(ns) = outer_ns {
            plan.start = if plan.start == 0 { self.0.clock.now() } else { plan.start };
            let limit = plan.start.saturating_add(ns);
            plan.limit = Some(limit);
            plan.deadline = Some(plan.deadline.map_or(limit, |d| d.min(limit)));
            plan.awake |= ns == 0;
        }
        let mut st = self.spin(st, &mut plan);
        if plan.stale {
            st.set_deadline(&self.0, &mut plan);
        }
        let in_spin_mode = st.spin.mode;
        drop(st);
        if !plan.awake {
            let word = &self.0.shared.notify_me;
            word.store(word.load(Ordering::Relaxed) | EMBEDDED, Ordering::Relaxed);
            // The other half of `notify`: one of the two sees the other's word.
            fence(Ordering::SeqCst);
            if self.0.shared.notified.load(Ordering::Relaxed) {
                plan.awake = true;
            } else if in_spin_mode {
                self.leave_spin_mode_before_sleep(&mut plan);
            }
        }
        if !plan.awake {
            self.0.state().submit_due(&self.0.shared);
        }
        let ns = self.timeout_of(&mut plan);
        let mut st = self.0.open_state()?;
        if let Some(outer) = &mut st.outer {
            let short = ns.filter(|ns| (1..MILLISECOND).contains(ns));
            outer.set_timer(short);
            outer.plan = Some(plan);
        }
        drop(st);
        drop(turn);
        Ok(ns)
    }

    fn timeout_of(&self, plan: &mut Plan) -> Option<u64> {
        let st = self.0.state();
        let always = matches!(&st.monitor, Monitor::Epoll(m) if m.has_always_ready());
        let unwatched = st.outer.as_ref().is_some_and(|outer| !outer.unwatched.is_empty());
        if always || unwatched || st.monitor.need_wait() {
            plan.awake = true;
        }
        if plan.awake {
            return Some(0);
        }
        plan.deadline.map(|deadline| deadline.saturating_sub(self.0.clock.now()))
    }

    /// The second third: takes what happened. `true` = [`AioContext::dispatch`] has something to
    /// run.
    ///
    /// # Errors
    /// `Closed`; `Syscall` when the kernel refuses to wait.
    pub fn check(&self) -> Result<bool> {
        let (turn, mut st) = self.enter()?;
        let word = &self.0.shared.notify_me;
        word.store(word.load(Ordering::Relaxed) & !EMBEDDED, Ordering::Relaxed);
        let plan = st.outer.as_mut().and_then(|outer| {
            outer.set_timer(None);
            outer.plan.take()
        });
        let mut plan = match plan {
            Some(plan) => plan,
            None => {
                let mut plan = Plan::new(false);
                st = self.plan(st, &mut plan);
                plan
            }
        };
        plan.awake = true;
        if !plan.asked {
            st.ask(&self.0, &mut plan)?;
        }
        let st = self.settle(st, &plan);
        let due = st.reg.hints.any(Hints::DUE | Hints::FAILURES);
        drop(st);
        drop(turn);
        Ok(due)
    }

    /// The last third: runs what is due. `true` = something visible ran.
    ///
    /// # Errors
    /// As [`AioContext::poll`].
    pub fn dispatch(&self) -> Result<bool> {
        let (mut turn, st) = self.enter()?;
        drop(st);
        turn.adopt_failures();
        turn.run_all()
    }
}

impl AsFd for AioContext {
    /// The fd for an outer loop, as [`AioContext::backend_fd`].
    ///
    /// # Panics
    /// When the context is closed or no fd is left; `backend_fd` reports it instead.
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self.backend_fd() {
            Ok(fd) => fd,
            Err(error) => panic!("{error}"),
        }
    }
}

impl State {
    /// Makes the side for an outer loop at its first use.
    fn embed(&mut self, shared: &Shared) -> Result<&mut Outer> {
        if self.outer.is_none() {
            self.make_wakeable(shared)?;
            let outer = Outer::new().map_err(|e| {
                Error::syscall("epoll_create1", e, "raise the limit of open files (ulimit -n)")
            })?;
            self.outer = Some(outer);
            self.fill_outer(shared);
            self.reg.hints.set(Hints::MOVE_UP); // when no turn runs any more
        }
        self.outer.as_mut().ok_or_else(Error::closed)
    }

    /// A monitor whose fd wakes who waits for it.
    fn make_wakeable(&mut self, shared: &Shared) -> Result<()> {
        let deferred =
            matches!(&self.monitor, Monitor::IoUring(m) if m.mode() == RingMode::Deferred);
        let on_ring = matches!(self.monitor, Monitor::IoUring(_));
        if self.auto && (on_ring || (self.may_move_up && self.depth == 0)) {
            self.move_to_epoll(shared, EMBEDDED_REASON);
        } else if deferred && self.depth == 0 {
            self.make_ring_cooperative(shared)?;
        } else if deferred {
            return Err(Error::new(
                ErrorCode::InUse,
                "the ring cannot be made fit for an outer loop inside a callback; \
                 call backend_fd or prepare once before the first turn",
            ));
        }
        Ok(())
    }

    /// Fills the outer set anew with what the monitor that runs needs.
    pub(crate) fn fill_outer(&mut self, shared: &Shared) {
        let Some(outer) = &mut self.outer else { return };
        outer.unwatched.clear();
        outer.fds = None; // closing a set takes it out of the outer one
        let own = match &self.monitor {
            Monitor::Poll(_) => None,
            Monitor::Epoll(monitor) => Some(monitor.fd()),
            Monitor::IoUring(monitor) => Some(monitor.fd()),
        };
        if let Some(own) = own {
            let _ = outer.watch(own);
            return;
        }
        let Ok(set) = epoll::create(epoll::CreateFlags::CLOEXEC) else {
            outer.unwatched.push(MonitorToken::NOTIFIER); // no fd is left: `prepare` returns 0
            return;
        };
        let _ = outer.watch(set.as_fd());
        let data = epoll::EventData::new_u64(0);
        let _ = epoll::add(&set, shared.notifier.as_fd(), data, epoll::EventFlags::IN);
        outer.fds = Some(set);
        let slots: Vec<u32> = self.reg.handler_slots().collect();
        for slot in slots {
            let token = MonitorToken::new(slot, self.reg.generation(slot));
            let Some(handler) = self.reg.handler(slot) else { continue };
            let (fd, armed) = (handler.fd, handler.armed);
            if let Some(outer) = self.outer.as_mut().filter(|_| !armed.is_empty()) {
                let _always_added = outer.update(token, fd, Interest::empty(), armed);
            }
        }
    }

    /// Under poll the outer set holds every fd itself.
    #[inline]
    pub(crate) fn watch_from_outside(
        &mut self,
        shared: &Shared,
        token: MonitorToken,
        fd: RawFd,
        old: Interest,
        new: Interest,
    ) {
        let Some(outer) = &mut self.outer else { return };
        if old != new && !outer.update(token, fd, old, new) {
            self.fill_outer(shared);
        } else if outer.plan.is_some() {
            self.submit_due(shared); // the outer loop may go to sleep next
        }
    }
}
