//! Embedding: the same turn in three steps, for an outer loop that does the sleeping.
//!
//! `prepare` is everything up to the sleep, `check` what follows it, `dispatch` the callbacks.
//! The outer loop watches one fd, an epoll set that the context owns: under epoll it holds the
//! monitor's own epoll fd, under poll every fd that epoll accepts, and a timerfd for deadlines
//! that an outer loop counting in milliseconds would miss, or for all of them where the outer loop
//! keeps no time for the context ([`OuterLoop`]).

use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use crate::config::RingMode;
use crate::context::{AioContext, State};
use crate::error::{Error, ErrorCode, Result};
use crate::interest::Interest;
use crate::monitor::{Monitor, MonitorToken, borrow};
use crate::outer::Outer;
use crate::record::Kind;
use crate::registry::Hints;
use crate::remote::Shared;
use crate::sync::kept;
use crate::turn::Plan;

pub(crate) const EMBEDDED_REASON: &str = "auto: epoll, since it is embedded in an outer loop";

/// What a context may know of the loop around it; see [`AioContext::set_outer_loop`].
#[derive(Debug, Default)]
pub struct OuterLoop {
    /// Readable when the outer loop has something to do. A spin looks at it every 5 µs and ends
    /// when it is, so that nothing else in that loop is kept waiting.
    pub fd: Option<OwnedFd>,
    /// It sleeps until an fd is readable and keeps no time for the context: deadlines make
    /// [`AioContext::backend_fd`] readable, however far away they are.
    pub keeps_no_time: bool,
}

/// What is behind [`AioContext::backend_fd`], for an outer loop that can watch two fds and follow
/// when one changes: an event passes through one set of epoll less.
#[derive(Clone, Copy, Debug)]
pub struct WakeFds<'ctx> {
    /// Readable when an fd of the context is, or somebody notified.
    pub events: BorrowedFd<'ctx>,
    /// Readable when a deadline has come; there is nothing to ask the kernel for then.
    pub timer: BorrowedFd<'ctx>,
    /// Another number = `events` is another file. To be looked at after each `prepare`.
    pub version: u64,
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
            st.embed(&self.0.shared)?;
            st.make_whole()?;
            st.embed(&self.0.shared)?.fd().as_raw_fd()
        };
        Ok(borrow(fd))
    }

    /// The first third of a turn: how many nanoseconds the outer loop may sleep (`None` = for
    /// ever, 0 = not at all). Spins if the context does. Calling it twice is harmless, and is owed
    /// by whoever, between it and the sleep, runs a turn or gives the context something new to do.
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
        self.prepare_until(outer_ns.map(|ns| self.0.clock.now().saturating_add(ns)))
    }

    /// [`AioContext::prepare`] when the outer loop will be awake at this time on the context's
    /// clock ([`AioContext::now_ns`]) anyway.
    ///
    /// # Errors
    /// As [`AioContext::prepare`].
    pub fn prepare_until(&self, limit: Option<u64>) -> Result<Option<u64>> {
        if !self.0.recording.get() {
            return self.prepare_steps(limit);
        }
        self.0.state().step_begins(Kind::Prepare, [0; 3]);
        let ns = self.prepare_steps(limit);
        let mut st = self.0.state();
        st.step_ends(|_| ());
        if let Ok(ns) = ns {
            st.outer_loop_may_sleep(ns);
        }
        ns
    }

    fn prepare_steps(&self, limit: Option<u64>) -> Result<Option<u64>> {
        self.0.open_state()?.embed(&self.0.shared)?;
        let (turn, st) = self.enter()?;
        let mut plan = Plan::new(true);
        let st = self.plan(st, &mut plan);
        if let Some(limit) = limit {
            plan.start = if plan.start == 0 { self.0.clock.now() } else { plan.start };
            plan.limit = Some(limit);
            plan.deadline = Some(plan.deadline.map_or(limit, |d| d.min(limit)));
            plan.awake |= limit <= plan.start;
        }
        let mut st = self.spin(st, &mut plan);
        if plan.stale {
            st.set_deadline_again(&self.0, &mut plan);
        }
        let in_spin_mode = st.spin.mode;
        drop(st);
        if !plan.awake {
            if !self.0.shared.outer_about_to_sleep() && kept("prepare: re-check") {
                plan.awake = true;
            } else if in_spin_mode && kept("prepare: leave") {
                self.leave_spin_mode_before_sleep(&mut plan);
            }
        }
        if !plan.awake {
            let mut st = self.0.state();
            plan.awake = !st.io_lets_sleep(&self.0.shared);
            st.submit_due(&self.0.shared);
        }
        let ns = self.timeout_of(&mut plan)?;
        drop(turn);
        Ok(ns)
    }

    /// Closes the first third: how long the outer loop may sleep, and how it will be woken.
    fn timeout_of(&self, plan: &mut Plan) -> Result<Option<u64>> {
        let mut st = self.0.open_state()?;
        plan.awake |= st.ready_unseen();
        let shared = &self.0.shared;
        let Some(outer) = &mut st.outer else { return Ok(Some(0)) };
        let timed = plan.deadline.is_some() || outer.timer_at.is_some();
        let now = if timed { self.0.clock.now() } else { 0 };
        let mut left = Some(0);
        if !plan.awake {
            left = plan.deadline.map(|deadline| deadline.saturating_sub(now));
            // The outer loop wakes by itself at its own limit; but one that keeps no time may
            // change its mind about that before it sleeps.
            let limit = plan.limit.unwrap_or(u64::MAX);
            let outer_wakes = |deadline: &u64| *deadline >= limit && !outer.around.keeps_no_time;
            let own = plan.own.filter(|deadline| !outer_wakes(deadline));
            outer.set_timer(own, now).map_err(|errno| {
                Error::syscall("timerfd_settime", errno, "see timerfd_settime(2)")
            })?;
        } else if outer.timer_at.is_some_and(|at| at <= now) {
            let _never_fails = outer.set_timer(None, now); // it goes on waking
        }
        outer.plan = Some((std::mem::replace(plan, Plan::new(false)), shared.stats.turns.get()));
        Ok(left)
    }

    /// The second third: takes what happened. `true` = [`AioContext::dispatch`] has something to
    /// run.
    ///
    /// # Errors
    /// `Closed`; `Syscall` when the kernel refuses to wait.
    pub fn check(&self) -> Result<bool> {
        self.check_if(true)
    }

    /// [`AioContext::check`] for an outer loop that knows whether [`AioContext::backend_fd`] was
    /// readable when it woke. If it was not, the kernel is not asked, and the wake-up counts as no
    /// event for the spin policy unless there is something to run all the same.
    ///
    /// # Errors
    /// As [`AioContext::check`].
    pub fn check_if(&self, readable: bool) -> Result<bool> {
        if !self.0.recording.get() {
            return self.check_steps(readable);
        }
        let slept = {
            let mut st = self.0.state();
            let slept = st.outer_loop_has_slept();
            st.step_begins(Kind::Check, [0; 3]);
            slept
        };
        let due = self.check_steps(readable);
        let mut st = self.0.state();
        let ready = st.reg.due_count();
        st.step_ends(|args| args[1] = ready);
        if let Some(slept) = slept {
            st.record_outer_sleep(slept, ready);
        }
        due
    }

    fn check_steps(&self, readable: bool) -> Result<bool> {
        let (turn, mut st) = self.enter()?;
        let shared = &*self.0.shared;
        shared.outer_has_slept();
        // A turn of its own since then has taken what this one was about.
        let turns = shared.stats.turns.get();
        let plan = st.outer.as_mut().and_then(|outer| outer.plan.take());
        let mut plan = match plan.filter(|(_, then)| *then == turns) {
            Some((plan, _)) => plan,
            None => {
                let mut plan = Plan::new(false);
                st = self.plan(st, &mut plan);
                plan
            }
        };
        st.io_has_slept();
        if st.reg.hints.any(Hints::DUE) {
            st.reg.forget_stale(); // of handlers that were removed since `prepare` found them
        }
        plan.slept |= !plan.awake;
        let found = readable || plan.hit || plan.asked || shared.is_notified() || st.io_is_ready();
        // What the spin of `prepare` found may have been removed since, and another be there.
        let asked = plan.asked && st.reg.has_due();
        plan.asked = false; // when the kernel was, the spin has noted
        if !asked && (readable || st.ready_unseen()) {
            plan.awake = true;
            st.ask(&self.0, &mut plan)?;
        } else if !asked {
            // A turn that was not to sleep has not done it, and another such may follow.
            st.submit_due(shared);
        }
        plan.awake = true;
        plan.foreign = !found;
        if let Some(outer) = st.outer.as_mut().filter(|outer| !outer.around.keeps_no_time) {
            let _never_fails = outer.set_timer(None, u64::MAX);
        }
        let st = self.settle(st, &plan);
        let due = st.reg.has_due() || st.reg.hints.any(Hints::FAILURES);
        drop(st);
        drop(turn);
        Ok(due)
    }

    /// The last third: runs what is due. `true` = something visible ran.
    ///
    /// # Errors
    /// As [`AioContext::poll`].
    pub fn dispatch(&self) -> Result<bool> {
        if self.0.recording.get() {
            self.foreign_dispatch_begins();
            return self.turn_ends_with(|| self.dispatch_steps());
        }
        self.dispatch_steps()
    }

    fn dispatch_steps(&self) -> Result<bool> {
        let (mut turn, st) = self.enter()?;
        drop(st);
        turn.adopt_failures();
        turn.run_all()
    }

    /// Says what the loop around this context is like. To be told before the first `prepare`; by
    /// default it is one that keeps time and has nothing else to do.
    ///
    /// # Errors
    /// As [`AioContext::backend_fd`].
    pub fn set_outer_loop(&self, around: OuterLoop) -> Result<()> {
        self.0.open_state()?.embed(&self.0.shared)?.around = around;
        Ok(())
    }

    /// The fds that make [`AioContext::backend_fd`] readable, and a number by which their change is
    /// seen.
    ///
    /// # Errors
    /// As [`AioContext::backend_fd`].
    pub fn wake_fds(&self) -> Result<WakeFds<'_>> {
        let mut st = self.0.open_state()?;
        st.embed(&self.0.shared)?;
        let outer = st.outer.as_ref().ok_or_else(Error::closed)?;
        Ok(WakeFds {
            events: borrow(outer.events(&st.monitor).as_raw_fd()),
            timer: borrow(outer.timer().as_raw_fd()),
            version: outer.version,
        })
    }

    /// [`WakeFds::version`] now.
    #[must_use]
    pub fn wake_version(&self) -> u64 {
        self.0.state().outer.as_ref().map_or(0, |outer| outer.version)
    }

    /// Its parameters let it spin.
    #[must_use]
    pub fn spins(&self) -> bool {
        self.0.state().spin.params.max_ns != 0
    }

    /// Something will run without an fd becoming ready: a timer is armed, or a bottom half
    /// scheduled.
    #[must_use]
    pub fn has_pending_work(&self) -> bool {
        let st = self.0.state();
        !st.closed
            && (st.timers.deadline().is_some()
                || !st.scheduled.is_empty()
                || !self.0.shared.inbox.is_empty()
                || st.reg.hints.any(Hints::DUE | Hints::IO))
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
    /// There is readiness that the fd for the outer loop does not show.
    fn ready_unseen(&self) -> bool {
        let always = matches!(&self.monitor, Monitor::Epoll(m) if m.has_always_ready());
        let unwatched =
            self.outer.as_ref().is_some_and(|outer| outer.unseen || !outer.unwatched.is_empty());
        always || unwatched || self.monitor.need_wait()
    }

    /// Makes the side for an outer loop at its first use.
    fn embed(&mut self, shared: &Shared) -> Result<&mut Outer> {
        if self.outer.is_none() {
            self.make_wakeable(shared)?;
            self.outer = Some(Outer::new()?);
            self.fill_outer(shared);
            self.reg.hints.set(Hints::MOVE_UP); // when no turn runs any more
        } else if self.outer.as_ref().is_some_and(|outer| outer.unseen) {
            self.fill_outer(shared);
        }
        self.outer.as_mut().ok_or_else(Error::closed)
    }

    /// From now on the set of the context's own shows everything.
    fn make_whole(&mut self) -> Result<()> {
        let Some(outer) = self.outer.as_mut().filter(|outer| !outer.whole) else { return Ok(()) };
        let cannot = |errno| {
            let what_to_do = "watch it in fewer sets of epoll that are nested";
            Error::syscall("epoll_ctl", errno, what_to_do)
        };
        outer.watch(outer.timer()).map_err(cannot)?;
        if !outer.unseen {
            outer.watch(outer.events(&self.monitor)).map_err(cannot)?;
        }
        outer.whole = true;
        Ok(())
    }

    /// A monitor whose fd wakes who waits for it.
    fn make_wakeable(&mut self, shared: &Shared) -> Result<()> {
        let on_ring = matches!(self.monitor, Monitor::IoUring(_));
        if self.auto && (on_ring || (self.may_move_up && self.depth == 0)) {
            self.move_to_epoll(shared, EMBEDDED_REASON);
        }
        let deferred =
            matches!(&self.monitor, Monitor::IoUring(m) if m.mode() == RingMode::Deferred);
        if deferred && self.depth == 0 {
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
        if !outer.begin_anew(self.monitor.fd(), shared.notifier.as_fd()) {
            return;
        }
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
