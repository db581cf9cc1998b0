//! ② The wait: how long a turn may sleep, which way it takes to the kernel, and what it makes of
//! the reports.

use rustix::io::Errno;

use crate::context::{Inner, State};
use crate::error::{Error, Result};
use crate::interest::Events;
use crate::monitor::{MonitorToken, Sink};
use crate::record::wait_kind;
use crate::registry::{Hints, Registry};
use crate::remote::Shared;
use crate::sync::kept;
use crate::trace::has_subscriber;
use crate::turn::Plan;

/// An idle bottom half limits the sleep to this.
const IDLE_SLEEP_NS: u64 = 10_000_000;

/// Which way a turn takes.
pub(crate) enum Way {
    /// There is only the kernel to ask.
    Kernel,
    /// There is only the spin list to ask, all words in memory.
    SpinList,
    /// Something else may need attention.
    AllSteps,
}

/// What a quick turn found.
pub(crate) enum Quick {
    /// One handler's readiness, not yet on the ready list.
    One(u32, u32),
    /// Handlers are on the ready list.
    Due,
    Nothing,
    /// The turn with all its steps is needed.
    NeedsAll,
}

/// Takes a wait's reports into the registry.
struct Reports<'a> {
    reg: &'a mut Registry,
    /// Callbacks run in turns around this one, or are to run after the wait whatever it finds.
    nested: bool,
    /// Something is due now.
    found: bool,
}

impl Sink for Reports<'_> {
    #[inline(always)]
    fn ready(&mut self, token: MonitorToken, events: Events) {
        if let Some((slot, pending)) = self.reg.examine(token, events) {
            self.reg.collect(slot, pending);
            self.found = true;
        }
    }

    #[inline]
    fn doubts(&mut self, token: MonitorToken) -> bool {
        self.reg.doubts(token)
    }

    #[inline]
    fn arming(&mut self, token: MonitorToken) {
        if self.nested {
            self.reg.arming(token);
        }
    }
}

/// For a submission that is no wait: it notes what is armed while a callback runs or is to run.
/// Readiness is reported again by the wait that follows.
pub(crate) struct Arming<'a> {
    /// None = there is no such callback.
    pub reg: Option<&'a mut Registry>,
}

impl Sink for Arming<'_> {
    const HEARS: bool = false;

    fn ready(&mut self, _: MonitorToken, _: Events) {}

    #[inline]
    fn arming(&mut self, token: MonitorToken) {
        if let Some(reg) = &mut self.reg {
            reg.arming(token);
        }
    }
}

/// Takes a wait's reports, keeping the first one in hand: most of the time it stays alone.
struct FirstReport<'a> {
    reg: &'a mut Registry,
    nested: bool,
    first: Option<(u32, u32)>,
    several: bool,
}

impl Sink for FirstReport<'_> {
    #[inline(always)]
    fn ready(&mut self, token: MonitorToken, events: Events) {
        let Some((slot, pending)) = self.reg.examine(token, events) else { return };
        match self.first {
            None => self.first = Some((slot, pending)),
            Some((first, its)) => {
                self.reg.collect(first, its);
                self.reg.collect(slot, pending);
                self.several = true;
            }
        }
    }

    #[inline]
    fn doubts(&mut self, token: MonitorToken) -> bool {
        self.reg.doubts(token)
    }

    /// Only a turn with all its steps asks again at once.
    #[cold]
    fn trouble(&mut self) {
        self.reg.hints.set(Hints::ODD_REPORT);
    }

    #[inline]
    fn arming(&mut self, token: MonitorToken) {
        if self.nested {
            self.reg.arming(token);
        }
    }
}

/// Tells the compiler which branch is the rare one.
#[cold]
#[inline(always)]
fn unlikely() {}

/// The poll monitor is the last one, so this is for who runs the turn.
#[cold]
fn cannot_wait(errno: Errno) -> Error {
    let what_to_do = match errno {
        // More fds are registered than the limit allows, which was higher when they were opened.
        Errno::INVAL => "raise the limit of open files (ulimit -n), or remove handlers",
        _ => "close the context: the kernel refuses to wait for it",
    };
    Error::syscall(if cfg!(wasi) { "poll_oneoff" } else { "ppoll" }, errno, what_to_do)
}

impl State {
    /// The soonest of what is due, bottom halves and timers.
    #[inline]
    pub(crate) fn set_deadline(&mut self, inner: &Inner, plan: &mut Plan) {
        if plan.awake {
            return;
        }
        self.drain_inbox(&inner.shared);
        let hints = self.reg.hints;
        let suspects = Hints::DUE | Hints::FAILURES | Hints::CLOSED | Hints::ODD_REPORT;
        if hints.any(suspects) && self.must_stay_awake(plan) {
            plan.awake = true;
        } else if hints.any(Hints::SCHEDULED | Hints::TIMERS) {
            self.find_deadline(inner, plan);
        } else {
            plan.deadline = None;
        }
        plan.own = plan.deadline;
        if let Some(limit) = plan.limit {
            plan.deadline = Some(plan.deadline.map_or(limit, |d| d.min(limit)));
        }
    }

    /// …anew, when hooks and predicates have run: they may have registered or enabled a handler,
    /// which is asked once before any sleep; and a nested turn may have taken a notification, which
    /// was meant for the turns around it as well.
    pub(crate) fn set_deadline_again(&mut self, inner: &Inner, plan: &mut Plan) {
        self.set_deadline(inner, plan);
        if !plan.awake && plan.deadline.is_some_and(|deadline| deadline <= inner.clock.now()) {
            plan.awake = true; // it has come meanwhile: spin mode is not left for a look
        }
        let taken = inner.shared.stats.accepted.get() != plan.accepted;
        plan.awake |= taken && kept("nested: re-check");
        plan.awake |= !plan.awake && self.reg.hints.any(Hints::LOOKS) && self.owes_look();
    }

    /// What the hints only suspect: in a nested turn, the lists and failures may be those of the
    /// turns around it.
    #[cold]
    pub(crate) fn must_stay_awake(&self, plan: &Plan) -> bool {
        self.closed
            || self.failures.panicked_in(self.depth)
            || self.failures.errors.len() > plan.failures_before
            || self.reg.has_due()
            || !self.reg.bad.is_empty()
    }

    #[inline(never)]
    pub(crate) fn find_deadline(&mut self, inner: &Inner, plan: &mut Plan) {
        let mut deadline = self.timers.deadline();
        let Self { scheduled, reg, .. } = self;
        // One that runs now, in a turn around this one, waits for its return.
        let mut waiting = scheduled.iter().filter(|node| reg.is_to_run(node));
        if let Some(first) = waiting.next() {
            if !first.is_idle() || waiting.any(|node| !node.is_idle()) {
                plan.awake = true;
                return;
            }
            let limit = inner.clock.now().saturating_add(IDLE_SLEEP_NS);
            deadline = Some(deadline.map_or(limit, |d| d.min(limit)));
        }
        if deadline.is_some_and(|d| d <= plan.start) {
            plan.awake = true;
        }
        plan.deadline = deadline;
    }

    /// Nearly all turns have nothing but handlers that can be due: they take a short way. It has
    /// the same steps in the same order as [`AioContext::find`], less those with nothing to do.
    #[inline]
    pub(crate) fn way(&self, shared: &Shared) -> Way {
        let hints = self.reg.hints;
        if (!shared.inbox.is_empty() && kept("way: inbox")) || has_subscriber() {
            Way::AllSteps
        } else if hints.only(0) {
            Way::Kernel
        } else if hints.only(Hints::SPINS | Hints::MEMBERS) {
            Way::SpinList
        } else {
            Way::AllSteps
        }
    }

    /// The short way, for who runs the callbacks himself.
    pub(crate) fn find_quickly(&mut self, inner: &Inner, blocking: bool) -> Result<Quick> {
        match self.way(&inner.shared) {
            Way::Kernel if blocking => self.sleep_quickly(inner),
            Way::Kernel => self.glance(inner),
            Way::SpinList => Ok(match self.first_ready() {
                None if !blocking && self.may_end_here(&inner.shared) => Quick::Nothing,
                first => self.look_quickly(inner, first, blocking),
            }),
            Way::AllSteps => Ok(Quick::NeedsAll),
        }
    }

    /// There are only the inbox to empty and the kernel to ask.
    #[inline]
    pub(crate) fn has_only_inbox(&self) -> bool {
        self.reg.hints.only(0) && !has_subscriber()
    }

    /// A turn that has bottom halves to run, so that it does not sleep, and but for them only the
    /// kernel to ask. They are not on the list of what is due yet.
    #[inline(always)]
    pub(crate) fn take_in(&mut self, inner: &Inner, blocking: bool) -> Result<Quick> {
        self.drain_inbox(&inner.shared);
        if !self.reg.hints.only(Hints::SCHEDULED) || (blocking && !self.has_half_to_run()) {
            return Ok(Quick::NeedsAll);
        }
        self.glance(inner)
    }

    /// One that was told to run now comes first.
    fn has_half_to_run(&self) -> bool {
        let first = self.scheduled.front();
        first.is_some_and(|node| !node.is_idle() && self.reg.is_to_run(node))
    }

    /// A blocking turn that has nothing but the kernel to ask.
    #[inline(always)]
    pub(crate) fn sleep_quickly(&mut self, inner: &Inner) -> Result<Quick> {
        let shared = &*inner.shared;
        let quick = if shared.about_to_sleep() || !kept("quick turn: re-check") {
            shared.lower_early("quick turn: lower");
            self.wait_once(shared)
        } else {
            unlikely();
            Ok(Quick::NeedsAll)
        };
        shared.has_slept();
        quick
    }

    /// A turn that does not block and has nothing but the kernel to ask.
    #[inline(always)]
    pub(crate) fn glance(&mut self, inner: &Inner) -> Result<Quick> {
        let shared = &*inner.shared;
        let mut quick = Quick::Nothing;
        if self.reg.armed != 0 {
            shared.stats.looks.bump();
            let nested = self.depth != 0;
            let mut sink = Reports { reg: &mut self.reg, nested, found: false };
            match self.monitor.wait(Some(0), &mut sink) {
                Ok(()) if sink.found => quick = Quick::Due,
                Ok(()) => {}
                Err(errno) => {
                    return self.wait_failed(shared, errno).map_or(Ok(Quick::NeedsAll), Err);
                }
            }
            if !self.reg.hints.only(Hints::DUE | Hints::SCHEDULED) {
                return Ok(Quick::NeedsAll);
            }
        }
        shared.stats.turns.bump();
        shared.accept();
        Ok(quick)
    }

    /// The kernel, once and for as long as it takes. Whatever ends the wait but a handler's
    /// readiness is left to the turn with all its steps.
    #[inline(always)]
    pub(crate) fn wait_once(&mut self, shared: &Shared) -> Result<Quick> {
        shared.stats.sleeps.bump();
        let nested = self.depth != 0;
        let mut sink = FirstReport { reg: &mut self.reg, nested, first: None, several: false };
        let result = self.monitor.wait(None, &mut sink);
        let FirstReport { first, several, .. } = sink;
        if self.reg.hints.any(Hints::PARKED) {
            self.park(shared);
        }
        let Some((slot, pending)) = first else {
            return match result {
                Ok(()) => Ok(Quick::NeedsAll),
                Err(errno) => self.wait_failed(shared, errno).map_or(Ok(Quick::NeedsAll), Err),
            };
        };
        if several || !self.reg.hints.only(0) {
            self.reg.collect(slot, pending);
            return Ok(if several && self.reg.hints.only(Hints::DUE) {
                shared.stats.turns.bump();
                Quick::Due
            } else {
                Quick::NeedsAll
            });
        }
        shared.stats.turns.bump();
        Ok(Quick::One(slot, pending))
    }

    /// A signal came, or there is another monitor to turn to: both is for the turn in full. An
    /// error alone comes back, so that the caller's result stays in registers.
    #[cold]
    #[inline(never)]
    fn wait_failed(&mut self, shared: &Shared, errno: Errno) -> Option<Error> {
        let goes_on = errno == Errno::INTR || self.move_down(shared, errno);
        (!goes_on).then(|| cannot_wait(errno))
    }

    /// A turn that does not sleep skips the kernel where that starves nobody.
    pub(crate) fn kernel_is_due(&mut self, inner: &Inner, plan: &Plan) -> bool {
        if self.monitor.sees_readiness() {
            self.spin.last_look = plan.start;
            return self.monitor.need_wait() || self.monitor.has_due();
        }
        if self.reg.armed == 0 {
            return false;
        }
        if self.reg.unspun > 0 && !(plan.hit && plan.blocking && self.spin.mode) {
            return true;
        }
        self.spin.look_is_due(plan, &inner.clock)
    }

    /// Asks the kernel until something is due, the deadline has come or somebody notified.
    #[inline]
    pub(crate) fn ask(&mut self, inner: &Inner, plan: &mut Plan) -> Result<()> {
        let shared = &*inner.shared;
        loop {
            let mut timeout = plan.deadline;
            if plan.awake {
                timeout = Some(0);
            } else if let Some(deadline) = plan.deadline {
                let left = deadline.saturating_sub(inner.clock.now());
                plan.awake = left == 0;
                timeout = Some(left);
            }
            if plan.awake {
                shared.stats.looks.bump();
            } else {
                shared.stats.sleeps.bump();
                plan.slept = true;
            }
            let asked = if inner.recording.get() {
                self.ask_recorded(inner, timeout, plan)
            } else {
                self.ask_kernel(inner, timeout)
            };
            let found = match asked {
                Ok(found) => found,
                Err(Errno::INTR) => false,
                // What was found without asking is run all the same; the next turn asks again.
                Err(_) if plan.hit => false,
                Err(errno) => return Err(cannot_wait(errno)),
            };
            // Anything else that ended the wait means nothing: go on with the time that is left.
            let notified = shared.is_notified() && kept("ask: re-check");
            if found || plan.awake || notified || self.io_ends_sleep(inner, plan) {
                plan.asked = true;
                return Ok(());
            }
        }
    }

    /// …as a step that somebody writes down.
    #[cold]
    fn ask_recorded(
        &mut self,
        inner: &Inner,
        timeout: Option<u64>,
        plan: &Plan,
    ) -> std::result::Result<bool, Errno> {
        let before = self.reg.due_count();
        let (kind, args) = wait_kind(timeout, plan.awake);
        self.step_begins(kind, args);
        let result = self.ask_kernel(inner, timeout);
        let ready = self.reg.due_count() - before;
        self.step_ends(|args| args[1] = ready);
        result
    }

    /// Asks the kernel once. `true` = something is due now.
    #[inline(never)]
    pub(crate) fn ask_kernel(
        &mut self,
        inner: &Inner,
        timeout: Option<u64>,
    ) -> std::result::Result<bool, Errno> {
        let wanted = timeout;
        let mut timeout = timeout;
        // On a manual clock, time passes when nothing else happens.
        let leap = inner.clock.manual().zip(timeout);
        if leap.is_some() {
            timeout = Some(0);
        }
        let nested = self.depth > 1 || self.reg.hints.any(Hints::DUE);
        let mut sink = Reports { reg: &mut self.reg, nested, found: false };
        let result = self.monitor.wait(timeout, &mut sink);
        let found = sink.found || !self.reg.bad.is_empty();
        if let Err(errno) = result
            && errno != Errno::INTR
            && self.move_down(&inner.shared, errno)
        {
            return self.ask_kernel(inner, if found { Some(0) } else { wanted }).map(|f| f | found);
        }
        let signalled = self.reg.notifier_signalled;
        if self.reg.hints.any(Hints::PARKED) {
            self.park(&inner.shared);
        }
        if self.reg.hints.any(Hints::ODD_REPORT) {
            self.take_odd_report(&inner.shared);
        }
        if let Some((clock, ns)) = leap.filter(|(_, ns)| *ns != 0)
            && !found
            && !signalled
            && result.is_ok()
        {
            clock.at_least(clock.now_ns().saturating_add(ns));
        }
        result.map(|()| found)
    }

    #[inline]
    pub(crate) fn drain_inbox(&mut self, shared: &Shared) {
        if shared.inbox.is_empty() {
            return;
        }
        let scheduled = &mut self.scheduled;
        let mut changed = false;
        shared.inbox.drain(|node| {
            if node.is_change() {
                changed = true;
            } else if node.unlink() {
                scheduled.push_back(node);
            }
        });
        self.reg.hints.set(if changed {
            Hints::SCHEDULED | Hints::CHANGED
        } else {
            Hints::SCHEDULED
        });
    }

    /// Takes the reported handlers off the monitor whose callback runs in a turn around this one.
    #[cold]
    pub(crate) fn park(&mut self, shared: &Shared) {
        for slot in self.reg.parked.clone() {
            let _ = self.sync(shared, slot);
        }
    }

    /// What would end the next wait again if it stayed as it is.
    #[cold]
    pub(crate) fn take_odd_report(&mut self, shared: &Shared) {
        if self.reg.notifier_signalled {
            self.clear_notifier(shared);
        }
        if self.reg.orphaned {
            self.shed_orphans(shared);
        }
        if self.reg.bad.is_empty() {
            self.reg.hints.clear(Hints::ODD_REPORT);
        }
    }

    /// Between waits: puts those back whose callback has returned, and moves up to epoll.
    #[cold]
    pub(crate) fn rearrange(&mut self, shared: &Shared) {
        self.begin_noting(shared);
        if self.depth == 1 {
            self.reg.hints.clear(Hints::MOVE_UP);
            self.maybe_move_up(shared);
        }
        self.reg.hints.clear(Hints::PARKED);
        for slot in std::mem::take(&mut self.reg.parked) {
            let Some(handler) = self.reg.handler(slot) else { continue };
            if handler.running != 0 {
                self.reg.parked.push(slot);
                self.reg.hints.set(Hints::PARKED);
            } else if handler.parked {
                handler.parked = false;
                self.sync_or_report(shared, slot);
            }
        }
    }
}
