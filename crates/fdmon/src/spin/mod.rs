//! ②′ Spin: asking the handlers' predicates instead of the kernel, for a window that follows the
//! traffic.

mod budget;
mod classic;
mod cost;
pub(crate) mod guards;
mod idle;
mod per_handler;
mod policy;
#[cfg(test)]
mod tests;
mod trial;
mod wake_up;

use crate::clock::Clock;
use crate::config::{PolicyKind, PollParams};
use crate::context::{AioContext, Inner, State};
use crate::handler::{Handler, NOWHERE, Probe};
use crate::interest::word;
use crate::registry::Hints;
use crate::remote::Shared;
use crate::stats::Guard;
use crate::sync::{Arc, Ordering, fence, in_order, kept, spin_loop};
use crate::turn::{Held, Plan};
use crate::wait::{Arming, Quick};
use crate::word_source::WordSource;
use policy::{Policy, Seen};

/// While it spins and hits, the kernel is asked at least this often, so that what no predicate
/// covers is not starved.
const LOOK_NS: u64 = 50_000;
/// …and this often where a source spins on the kernel's readiness itself.
const KERNEL_LOOK_NS: u64 = 1_500;
/// Fruitless spinning yields the CPU about this often.
const YIELD_NS: u64 = 2_000;
/// A spin within an outer loop looks this often whether that has something to do.
const OUTER_LOOK_NS: u64 = 5_000;
/// So many non-blocking turns in a row that found nothing are a series, which must look too.
const SERIES: u32 = 32;

/// A handler on the spin list.
#[derive(Clone)]
struct Member {
    slot: u32,
    /// Its predicate, if that is a word in memory: asked without a look at the handler.
    word: Option<Arc<WordSource>>,
    /// Of the per-handler policy: how often it has events.
    estimate: per_handler::Estimate,
}

/// The spin parameters and everything that follows from them.
pub(crate) struct SpinState {
    pub params: PollParams,
    /// The handlers that take part.
    members: Vec<Member>,
    /// Handlers whose predicate runs once in the next turn.
    pub looks: Vec<u32>,
    /// `poll_begin` was called for members; `poll_end` is owed before any sleep.
    pub mode: bool,
    /// Some member has not begun.
    unbegun: bool,
    policy: Policy,
    wake_up: wake_up::Estimate,
    guards: guards::Guards,
    budget: budget::Budget,
    sweep: idle::Sweep,
    /// When the kernel was asked last, while spinning is on.
    pub last_look: u64,
    /// Non-blocking turns in a row that neither found nor asked anything.
    quiet: u32,
    /// Hits that the policy has heard of. It hears of those of short turns when the next one may
    /// spin.
    hits_told: u64,
    /// When this turn stopped waiting, if that was read from the clock.
    pub turn_now: u64,
    /// Time that went by without an event of this context, while its outer loop had events.
    carried: u64,
    /// Takes idle members off although the monitor cannot see readiness: for tests.
    #[cfg(test)]
    pub sweep_anyway: bool,
}

impl Policy {
    pub fn new(kind: PolicyKind) -> Self {
        match kind {
            PolicyKind::Classic => Self::Classic(classic::Classic::default()),
            PolicyKind::PerHandler => Self::PerHandler(per_handler::PerHandler::default()),
            PolicyKind::Cost => Self::Cost(Box::default()),
            PolicyKind::Fixed => Self::Fixed,
        }
    }
}

impl SpinState {
    pub fn new(params: PollParams) -> Self {
        Self {
            policy: Policy::new(params.policy),
            wake_up: wake_up::Estimate::default(),
            params,
            members: Vec::new(),
            looks: Vec::new(),
            mode: false,
            unbegun: false,
            guards: guards::Guards::default(),
            budget: budget::Budget::default(),
            sweep: idle::Sweep::default(),
            last_look: 0,
            quiet: 0,
            hits_told: 0,
            turn_now: idle::UNKNOWN,
            carried: 0,
            #[cfg(test)]
            sweep_anyway: false,
        }
    }

    fn slots(&self) -> Vec<u32> {
        self.members.iter().map(|member| member.slot).collect()
    }

    /// The context is closed, and its handlers are gone.
    pub fn forget_members(&mut self) {
        self.members.clear();
        self.looks.clear();
    }

    /// New parameters: the spin state starts anew.
    pub fn set_params(&mut self, params: PollParams) {
        self.policy = Policy::new(params.policy);
        if !self.members.is_empty() && params.max_ns != 0 {
            self.policy.try_once();
        }
        for member in &mut self.members {
            member.estimate = per_handler::Estimate::default();
        }
        self.params = params;
        self.budget.reset();
        self.guards = guards::Guards::default();
    }

    /// Hits so far are none of the policy's.
    pub fn forget_hits(&mut self, shared: &Shared) {
        self.hits_told = shared.stats.spin_hits.get();
    }

    /// The window that the parameters give before anything is known of the traffic.
    pub fn first_window(&self) -> u64 {
        self.policy.window(&self.params)
    }

    /// Before the first turn that may spin: what a wake-up takes here.
    #[inline]
    pub fn get_ready(&mut self, clock: &Clock) {
        let needs = matches!(self.policy, Policy::PerHandler(_) | Policy::Cost(_));
        if needs && clock.manual().is_none() {
            self.wake_up.calibrate();
        }
    }

    /// A turn that does not sleep, and would starve nobody but by never asking, asks now and then.
    pub fn look_is_due(&mut self, plan: &Plan, clock: &Clock) -> bool {
        if !plan.hit && !plan.blocking {
            self.quiet += 1;
            if self.quiet < SERIES {
                return false;
            }
        }
        let now = clock.now();
        if now.saturating_sub(self.last_look) < LOOK_NS {
            return false;
        }
        self.quiet = 0;
        self.last_look = now;
        true
    }
}

impl AioContext {
    /// The user-space half of a turn: first looks, then one round or a whole window of rounds.
    #[inline]
    pub(crate) fn spin<'a>(&'a self, st: Held<'a>, plan: &mut Plan) -> Held<'a> {
        let hints = st.reg.hints;
        if plan.counted || hints.any(Hints::LOOKS | Hints::MEMBERS) {
            self.ask_predicates(st, plan)
        } else {
            st
        }
    }

    fn ask_predicates<'a>(&'a self, mut st: Held<'a>, plan: &mut Plan) -> Held<'a> {
        if st.reg.hints.any(Hints::LOOKS) {
            drop(st);
            self.first_looks(plan);
            st = self.0.state();
        }
        if plan.awake {
            self.round(st, plan)
        } else if plan.counted {
            self.spin_window(st, plan)
        } else {
            st
        }
    }

    /// Each handler that was added or enabled since is asked once.
    #[cold]
    fn first_looks(&self, plan: &mut Plan) {
        let looks = {
            let mut st = self.0.state();
            st.reg.hints.clear(Hints::LOOKS);
            std::mem::take(&mut st.spin.looks)
        };
        for slot in looks {
            {
                let mut st = self.0.state();
                let disabled = st.reg.external_disabled > 0;
                let Some(handler) = st.reg.handler(slot).filter(|h| h.look) else { continue };
                if handler.running != 0 {
                    st.spin.looks.push(slot);
                    st.reg.hints.set(Hints::LOOKS);
                    continue;
                }
                handler.look = false;
                if handler.external && disabled {
                    continue; // enabling asks again
                }
            }
            self.probe(slot, plan);
        }
    }

    /// Asks one handler's predicate and collects a hit.
    fn probe(&self, slot: u32, plan: &mut Plan) {
        let (generation, native) = {
            let mut st = self.0.state();
            let generation = st.reg.generation(slot);
            let Some(handler) = st.reg.handler(slot).filter(|h| h.running == 0) else { return };
            (generation, handler.word.as_ref().map(|word| word.is_ready()))
        };
        let probe = native.map_or_else(
            || self.probe_body(slot, generation, plan),
            |ready| if ready { Probe::Hit } else { Probe::Miss },
        );
        match probe {
            Probe::Hit => self.collect_hit(slot, generation, plan),
            Probe::Miss => {}
            Probe::Failed => plan.awake = true,
        }
    }

    fn probe_body(&self, slot: u32, generation: u32, plan: &mut Plan) -> Probe {
        let Some(mut body) = self.take_body(slot, generation) else { return Probe::Miss };
        plan.stale = true;
        let probe = self.0.guarded(|| body.poll()).unwrap_or(Probe::Failed);
        drop(self.put_back(slot, generation, body));
        probe
    }

    fn collect_hit(&self, slot: u32, generation: u32, plan: &mut Plan) {
        let mut st = self.0.state();
        if let Some(handler) = st.reg.live_handler(slot, generation) {
            handler.last_hit = plan.start;
            st.reg.collect(slot, word::HIT);
            plan.hit = true;
            plan.awake = true;
        }
    }

    /// One round: every member is asked, every hit is collected.
    fn round<'a>(&'a self, mut held: Held<'a>, plan: &mut Plan) -> Held<'a> {
        let mut at = 0;
        loop {
            let st = &mut *held;
            let slot = loop {
                let Some(member) = st.spin.members.get(at) else { return held };
                let slot = member.slot;
                at += 1;
                match &member.word {
                    None => break slot,
                    Some(word) if word.is_ready() => {
                        let Some(handler) = st.reg.handler(slot) else { continue };
                        if handler.running == 0 {
                            handler.last_hit = plan.start;
                            st.reg.collect(slot, word::HIT);
                            plan.hit = true;
                            plan.awake = true;
                        }
                    }
                    Some(_) => {}
                }
            };
            drop(held);
            self.probe(slot, plan);
            held = self.0.state();
        }
    }

    /// Rounds until something is found, at most for the window.
    fn spin_window<'a>(&'a self, mut st: Held<'a>, plan: &mut Plan) -> Held<'a> {
        let shared = &*self.0.shared;
        let Some(window) = st.window(shared, plan) else { return st };
        if st.is_traced() {
            self.spin_traced(st, plan, window)
        } else {
            self.spin_for::<false>(st, plan, window)
        }
    }

    /// …for this long. `COUNTS` = somebody wants to know the number of rounds.
    pub(crate) fn spin_for<'a, const COUNTS: bool>(
        &'a self,
        mut st: Held<'a>,
        plan: &mut Plan,
        window: u64,
    ) -> Held<'a> {
        let shared = &*self.0.shared;
        st.submit_due(shared);
        st.spin.mode = true;
        if st.spin.unbegun {
            drop(st);
            self.begin_members();
            plan.stale = true;
            st = self.0.state();
        }
        st = self.round(st, plan);
        if COUNTS {
            plan.rounds = 1;
        }
        st.look_at_io(&self.0.shared, plan);
        if plan.awake {
            st.spin.hits_told += 1;
            shared.stats.spin_hits.bump(); // at the first look: no time went by
            return st;
        }
        let now;
        (st, now) = self.spin_on::<COUNTS>(st, plan, window);
        let spent = now.saturating_sub(plan.start);
        plan.spun = spent;
        shared.stats.spin_ns.add(spent);
        let found = plan.awake;
        if plan.stale && !found {
            st.set_deadline_again(&self.0, plan); // a hook or predicate may have put it off
        }
        plan.awake |= plan.interrupted;
        // The deadline came while it spun: the turn is over without a sleep.
        plan.awake |= plan.deadline.is_some_and(|deadline| now >= deadline);
        if found {
            st.spin.hits_told += 1;
            shared.stats.spin_hits.bump();
        } else {
            shared.stats.spin_misses.bump();
            shared.stats.spin_wasted_ns.add(spent);
            st.spin.budget.pay(spent);
        }
        if st.may_sweep() {
            drop(st);
            self.remove_idle(plan, now);
            st = self.0.state();
        }
        st
    }

    /// The rounds after the first. Also tells when it ended.
    fn spin_on<'a, const COUNTS: bool>(
        &'a self,
        mut st: Held<'a>,
        plan: &mut Plan,
        window: u64,
    ) -> (Held<'a>, u64) {
        let clock = &self.0.clock;
        let shared = &*self.0.shared;
        let guards = st.spin.params.guards;
        let look_every = if st.reg.kernel_spinners > 0 { KERNEL_LOOK_NS } else { LOOK_NS };
        let until = plan.start.saturating_add(window);
        let mut looked_outside_at = plan.start;
        let mut yielded_at = plan.start;
        let mut yielded = false; // just before
        let mut before = plan.start;
        loop {
            plan.awake |= shared.is_notified() && kept("spin: notified");
            let mut now = clock.now();
            if plan.awake {
                return (st, now);
            }
            if let Some(manual) = clock.manual().filter(|_| now == before) {
                manual.at_least(until); // it stands still: no round would end the window
                now = until;
            }
            before = now;
            if st.look_while_spinning(&self.0, plan, now, look_every) {
                if guards {
                    st.spin.guards.found(yielded, yielded_at);
                }
                return (st, now);
            }
            if now >= until {
                return (st, now);
            }
            if let Some(outer) = &st.outer
                && now.saturating_sub(looked_outside_at) >= OUTER_LOOK_NS
            {
                looked_outside_at = now;
                plan.interrupted = outer.has_other_work();
                if plan.interrupted {
                    // It may be ready for this context's sake alone.
                    if st.reg.armed != 0 {
                        st.look_now(&self.0, plan, now);
                    }
                    return (st, now);
                }
            }
            yielded = guards && now.saturating_sub(yielded_at) >= YIELD_NS;
            if yielded {
                rustix::thread::sched_yield();
                yielded_at = clock.now();
            } else {
                spin_loop();
            }
            st = self.round(st, plan);
            if COUNTS {
                plan.rounds += 1;
            }
            st.look_at_io(&self.0.shared, plan);
            let found = plan.awake || shared.is_notified();
            if found && guards {
                st.spin.guards.found(yielded, yielded_at);
            }
            if plan.awake {
                return (st, clock.now());
            }
        }
    }

    /// `poll_begin` for every member that spin mode meets for the first time.
    #[cold]
    fn begin_members(&self) {
        let members = {
            let mut st = self.0.state();
            st.spin.unbegun = false;
            st.spin.slots()
        };
        for slot in members {
            let generation = {
                let mut st = self.0.state();
                st.spin.mode = true; // a hook may have left it
                let generation = st.reg.generation(slot);
                let waits = |h: &&mut Handler| !h.begun && h.member != NOWHERE;
                let Some(handler) = st.reg.handler(slot).filter(waits) else { continue };
                if handler.running != 0 {
                    st.spin.unbegun = true;
                    continue;
                }
                handler.begun = true;
                if let Some(word) = &handler.word {
                    word.begin();
                }
                generation
            };
            if let Some(mut body) = self.take_body(slot, generation) {
                self.0.guarded(|| body.poll_begin());
                drop(self.put_back(slot, generation, body));
            }
        }
    }

    /// `poll_end` for every handler that has begun, then each predicate once more. `true` = a
    /// predicate said yes, so there must be no sleep.
    pub(crate) fn leave_spin_mode(&self) -> bool {
        self.leave_spin_mode_looking(|ctx, members| ctx.last_look(members))
    }

    /// …because a call says so. In a callback the look is left to the next turn, which owes it
    /// before it sleeps: this one may have run the handler already, and runs it once.
    pub(crate) fn leave_spin_mode_by_call(&self) {
        let in_turn = self.0.state().depth > 0;
        self.leave_spin_mode_looking(|ctx, members| {
            if !in_turn {
                return ctx.last_look(members);
            }
            let mut st = ctx.0.state();
            members.iter().for_each(|&slot| st.want_look(slot));
            false
        });
    }

    fn leave_spin_mode_looking(&self, last_look: impl FnOnce(&Self, &[u32]) -> bool) -> bool {
        let members = {
            let mut st = self.0.state();
            if !st.spin.mode {
                return false;
            }
            st.spin.mode = false;
            st.spin.slots()
        };
        let end = || {
            for &slot in &members {
                self.end_one(slot);
            }
            // The producers' half of this barrier stands between their data and their look at the
            // suppress word.
            if kept("leave: barrier") {
                fence(Ordering::SeqCst);
            }
        };
        let look = || kept("leave: look") && last_look(self, &members);
        let ((), hit) = in_order("leave: order", end, look);
        hit
    }

    /// Each predicate once more. `true` = one of them said yes.
    fn last_look(&self, members: &[u32]) -> bool {
        let mut plan = Plan::new(false);
        for &slot in members {
            // A hook may have silenced it, and with that taken it off the list. One that is off the
            // list because the parameters have changed is asked: nobody else does.
            {
                let mut st = self.0.state();
                let disabled = st.reg.external_disabled > 0;
                if st.reg.handler(slot).is_none_or(|h| !h.has_poll || (h.external && disabled)) {
                    continue;
                }
            }
            self.probe(slot, &mut plan);
            let mut st = self.0.state();
            if st.reg.handler(slot).is_some_and(|handler| handler.running != 0) {
                st.want_look(slot); // when its callback has returned
            }
        }
        plan.hit
    }

    /// `poll_end` of one handler, if it has begun.
    pub(crate) fn end_one(&self, slot: u32) {
        let generation = {
            let mut st = self.0.state();
            let generation = st.reg.generation(slot);
            let Some(handler) = st.reg.handler(slot).filter(|h| h.begun) else { return };
            handler.begun = false;
            if let Some(word) = &handler.word {
                word.end();
            }
            // Its body is out: the hook follows when the callback returns, and a look after it.
            let out = handler.body.is_none() && (handler.hooked || !handler.foreign);
            handler.end_owed = handler.running != 0 && out;
            st.spin.unbegun = true;
            generation
        };
        if let Some(mut body) = self.take_body(slot, generation) {
            self.0.guarded(|| body.poll_end());
            drop(self.put_back(slot, generation, body));
        }
    }

    /// Members without a hit for too long leave, where that starves nobody.
    fn remove_idle(&self, plan: &mut Plan, now: u64) {
        let idle: Vec<u32> = {
            let mut st = self.0.state();
            let st = &mut *st;
            if !st.spin.sweep.is_due(now, st.spin.params.idle_ns) {
                return;
            }
            let idle_ns = st.spin.params.idle_ns;
            let reg = &mut st.reg;
            st.spin
                .slots()
                .into_iter()
                .filter(|&slot| {
                    reg.handler(slot).is_some_and(|h| idle::is_idle(&mut h.last_hit, now, idle_ns))
                })
                .collect()
        };
        for slot in idle {
            self.end_one(slot);
            self.0.state().leave_spin_list(slot);
            let mut last = Plan::new(false);
            if kept("idle: look") {
                self.probe(slot, &mut last);
            }
            if let Some(handler) = self.0.state().reg.handler(slot) {
                handler.leaving = last.hit;
            }
            plan.hit |= last.hit;
            plan.awake |= last.hit;
            plan.stale = true;
        }
    }
}

impl State {
    /// A counted turn is over: moves the window.
    pub(crate) fn count_turn(&mut self, shared: &Shared, plan: &Plan, now: u64) {
        let Self { spin, reg, outer, .. } = self;
        spin.turn_now = now;
        if plan.asked {
            spin.last_look = now;
        }
        let spent = now.saturating_sub(plan.start);
        shared.stats.settled_ns.set(now);
        shared.stats.waited_ns.add(spent);
        let block_ns = spent.saturating_add(spin.carried);
        // A wake-up of somebody else's is no event: its time belongs to the wait for the next one.
        // That this wait is a long one is known before it ends.
        // A timer of its own is an event, also after a sleep that was to be a short look.
        let timed_out = plan.own.filter(|&deadline| deadline <= now);
        spin.carried = if plan.foreign && timed_out.is_none() { block_ns } else { 0 };
        if spin.carried != 0 && block_ns <= spin.params.max_ns {
            return;
        }
        let events = reg.due_count();
        if let Some(deadline) = timed_out.filter(|_| plan.slept && events == 0 && outer.is_none()) {
            let planned = deadline.saturating_sub(plan.start);
            spin.wake_up.overslept(planned, now.saturating_sub(deadline));
        }
        let wake_up = spin.wake_up.get();
        shared.stats.wake_up_ns.set(wake_up.latency_ns);
        let seen = Seen { block_ns, spun_ns: plan.spun, slept: plan.slept, events };
        let words = &reg.words;
        let sources = spin.members.iter_mut().map(|Member { slot, estimate, .. }| {
            (estimate, words.get(*slot) & (word::EVENTS | word::HIT) != 0)
        });
        spin.policy.on_turn(&seen, wake_up, &spin.params, sources);
        shared.stats.window_ns.set(spin.policy.window(&spin.params));
        if spin.policy.counts_every_turn() {
            for Member { slot, estimate, .. } in &spin.members {
                if let Some(handler) = reg.handler(*slot) {
                    handler.counters.estimate_ns.set(estimate.ns());
                }
            }
        }
    }

    /// Tells the turn whether it may have to spin.
    pub(crate) fn note_spinning(&mut self) {
        self.reg.hints.clear(Hints::SPINS | Hints::COUNTS_ALL);
        if self.spin.params.max_ns != 0 {
            let all = if self.spin.policy.counts_every_turn() { Hints::COUNTS_ALL } else { 0 };
            self.reg.hints.set(Hints::SPINS | all);
        }
    }

    /// The first member of the spin list that has something, all of them being words in memory.
    #[inline(always)]
    pub(crate) fn first_ready(&self) -> Option<usize> {
        let ready = |member: &Member| member.word.as_ref().is_some_and(|word| word.is_ready());
        self.spin.members.iter().position(ready)
    }

    /// No member has anything: that is all for a turn that does not block, if it starves nobody.
    #[inline(always)]
    pub(crate) fn may_end_here(&mut self, shared: &Shared) -> bool {
        if self.reg.armed != 0 {
            self.spin.quiet += 1;
            if self.reg.unspun != 0 || self.spin.quiet >= SERIES || self.monitor.need_wait() {
                return false;
            }
        }
        shared.stats.turns.bump();
        shared.accept();
        true
    }

    /// Collects the hits of one round, from the first on, for a turn in which nothing else can be
    /// due.
    #[inline(always)]
    pub(crate) fn look_quickly(
        &mut self,
        inner: &Inner,
        first: Option<usize>,
        blocking: bool,
    ) -> Quick {
        let Some(at) = first else { return Quick::NeedsAll };
        if blocking && (!self.spin.mode || self.spin.unbegun) {
            return Quick::NeedsAll;
        }
        if !blocking && self.reg.unspun != 0 {
            return Quick::NeedsAll; // it asks the kernel as well
        }
        let first = self.spin.members[at].slot;
        let Some(handler) = self.reg.handler(first) else { return Quick::NeedsAll };
        if handler.running != 0 {
            return Quick::NeedsAll;
        }
        handler.last_hit = idle::UNKNOWN;
        let now = inner.clock.now();
        if self.reg.armed != 0 && now.wrapping_sub(self.spin.last_look) >= LOOK_NS {
            return Quick::NeedsAll; // it looks at the kernel as well
        }
        let several = at + 1 < self.spin.members.len() && self.collect_after(at, first);
        let shared = &*inner.shared;
        if blocking {
            // No time went by, so the window stays as it is.
            self.spin.turn_now = now;
            shared.stats.settled_ns.set(now);
            shared.stats.spin_hits.bump();
        }
        shared.stats.turns.bump();
        shared.accept();
        if several { Quick::Due } else { Quick::One(first, word::HIT) }
    }

    /// Collects the hits of the members after this one, and its own before them. `true` = there
    /// are any.
    #[inline(never)]
    fn collect_after(&mut self, at: usize, first: u32) -> bool {
        let mut any = false;
        for Member { slot, word, .. } in self.spin.members.iter().skip(at + 1) {
            if word.as_ref().is_some_and(|word| word.is_ready()) {
                let slot = *slot;
                let Some(handler) = self.reg.handler(slot) else { continue };
                if handler.running == 0 {
                    handler.last_hit = idle::UNKNOWN;
                    self.reg.collect(first, word::HIT);
                    self.reg.collect(slot, word::HIT);
                    any = true;
                }
            }
        }
        any
    }

    /// Asks the kernel from within the spin when it is time to. `true` = it found something.
    fn look_while_spinning(
        &mut self,
        inner: &Inner,
        plan: &mut Plan,
        now: u64,
        every: u64,
    ) -> bool {
        let is_due = if self.monitor.sees_readiness() {
            self.monitor.need_wait()
        } else {
            self.reg.armed != 0 && now.saturating_sub(self.spin.last_look) >= every
        };
        is_due && self.look_now(inner, plan, now)
    }

    /// …now. `true` = it found something.
    fn look_now(&mut self, inner: &Inner, plan: &mut Plan, now: u64) -> bool {
        self.spin.last_look = now;
        inner.shared.stats.looks.bump();
        let found = self.ask_kernel(inner, Some(0)).unwrap_or(false);
        plan.asked = found;
        plan.awake |= found;
        found
    }

    /// Lets the kernel know everything, so that what it finds can be seen without asking it.
    pub(crate) fn submit_due(&mut self, shared: &Shared) {
        let callbacks_run =
            self.depth > 1 || self.outer.is_some() || self.reg.hints.any(Hints::DUE);
        let mut sink = Arming { reg: callbacks_run.then_some(&mut self.reg) };
        if let Err(refusal) = self.monitor.submit_due(&mut sink) {
            self.move_down(shared, refusal);
        }
    }

    /// How long this turn may spin; `None` = not at all.
    fn window(&mut self, shared: &Shared, plan: &Plan) -> Option<u64> {
        let Self { spin, .. } = self;
        let hits = shared.stats.spin_hits.get();
        let untold = hits.wrapping_sub(std::mem::replace(&mut spin.hits_told, hits));
        if untold != 0 {
            spin.policy.on_hits(untold.try_into().unwrap_or(u32::MAX));
        }
        spin.policy.prepare(spin.wake_up.get(), &spin.params);
        if let Some(took) = spin.policy.take_wake_up() {
            spin.wake_up.woken(took);
        }
        let mut window = spin.policy.window(&spin.params);
        shared.stats.window_ns.set(window);
        if window == 0 {
            return None;
        }
        let params = &self.spin.params;
        let mut guard = None;
        if self.reg.poll_disable_count > 0 && !self.monitor.sees_readiness() {
            guard = Some(Guard::HandlerWithoutPoll);
        } else if params.guards {
            guard = self.spin.guards.check(plan.start);
        }
        if guard.is_none() && params.cpu_budget < 1.0 {
            let allowed = self.spin.budget.allows(plan.start, params.cpu_budget);
            guard = (allowed < window).then_some(Guard::Budget);
            window = window.min(allowed);
        }
        shared.guard.store(Guard::to_u8(guard), Ordering::Relaxed);
        if window == 0 || guard.is_some_and(|guard| guard != Guard::Budget) {
            return None;
        }
        let left = plan.deadline.map_or(u64::MAX, |d| d.saturating_sub(plan.start));
        Some(window.min(left))
    }

    /// A handler waits for its first look, and can be asked.
    #[cold]
    pub(crate) fn owes_look(&mut self) -> bool {
        let disabled = self.reg.external_disabled > 0;
        let Self { spin, reg, .. } = self;
        spin.looks.iter().any(|&slot| {
            let asked = |h: &mut Handler| h.look && h.running == 0 && !(h.external && disabled);
            reg.handler(slot).is_some_and(asked)
        })
    }

    fn may_sweep(&self) -> bool {
        #[cfg(test)]
        if self.spin.sweep_anyway {
            return true;
        }
        self.monitor.sees_readiness()
    }

    /// Dispatched, so worth asking from now on.
    #[inline(never)]
    pub(crate) fn join_spin_list(&mut self, slot: u32) {
        let now = self.spin.turn_now;
        let place = u32::try_from(self.spin.members.len()).unwrap_or(NOWHERE);
        let mut joined = false;
        let mut word = None;
        self.tally(slot, |handler| {
            if std::mem::take(&mut handler.leaving) {
                return; // its last hit on the way out
            }
            handler.member = place;
            handler.simple_hit = !handler.foreign;
            word.clone_from(&handler.word);
            handler.last_hit = now;
            handler.counters.polling.store(true, Ordering::Relaxed);
            joined = true;
        });
        if joined {
            let code = if word.is_none() { Hints::CODE_MEMBERS } else { 0 };
            self.reg.hints.set(Hints::MEMBERS | code);
            if self.spin.members.is_empty() {
                self.spin.policy.try_once();
            }
            self.spin.members.push(Member {
                slot,
                word,
                estimate: per_handler::Estimate::default(),
            });
            self.spin.unbegun = true;
            self.note_member(slot, true);
        }
    }

    /// The caller has called `poll_end` if it was due.
    pub(crate) fn leave_spin_list(&mut self, slot: u32) {
        let mut place = NOWHERE;
        self.tally(slot, |handler| {
            place = std::mem::replace(&mut handler.member, NOWHERE);
            handler.simple_hit = false;
            handler.counters.polling.store(false, Ordering::Relaxed);
        });
        let at = place as usize;
        if place == NOWHERE || at >= self.spin.members.len() {
            return;
        }
        self.note_member(slot, false);
        self.spin.members.swap_remove(at);
        if self.spin.members.is_empty() {
            self.reg.hints.clear(Hints::MEMBERS | Hints::CODE_MEMBERS);
        }
        if let Some(moved) = self.spin.members.get(at)
            && let Some(handler) = self.reg.handler(moved.slot)
        {
            handler.member = place;
        }
    }

    pub(crate) fn empty_spin_list(&mut self) {
        for slot in self.spin.slots() {
            self.leave_spin_list(slot);
        }
    }
}
