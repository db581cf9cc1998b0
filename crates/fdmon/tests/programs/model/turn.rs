//! The model's turn: the search for what is due, and the callbacks.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{
    END, Handler, Life, Model, Source, Stray, Thrown, What, Which, Work, collect, take_place,
};
use crate::files::Readiness;

/// An idle bottom half limits a sleep to this.
const IDLE: u64 = 10_000_000;
/// A series of hits asks the kernel at least this often.
const LOOK: u64 = 50_000;

/// What can be seen from outside while a turn searches.
#[derive(Clone, Copy)]
pub struct Seen {
    pub now: u64,
    /// Statistics of the context.
    pub waits: u64,
    pub sleeps: u64,
    pub spin_hits: u64,
    pub files: Readiness,
}

/// How a turn ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    Progress(bool),
    /// Without an error; `poll_until` does not say more.
    Well,
    Errors(Vec<u32>),
    Panic(u32),
    Otherwise(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plan {
    /// It does not sleep: each member is asked once.
    Awake,
    /// Members are asked for the window.
    Spin,
    /// It sleeps, leaving spin mode before.
    Sleep,
}

/// A handler between two of its callbacks.
struct Rest {
    at: u8,
    life: Life,
    which: VecDeque<Which>,
    events: u32,
}

/// A turn.
pub struct Frame {
    blocking: bool,
    /// The spin window follows it.
    counted: bool,
    /// It is one of `poll_until`.
    looped: bool,
    begin: Seen,
    notified: bool,
    /// It searches; else it runs callbacks.
    finding: bool,
    plan: Option<Plan>,
    window: u64,
    /// What its predicates cost.
    cost: u64,
    hit: bool,
    failed: bool,
    /// Somebody notified in the last look before the sleep, which that ends.
    woken: bool,
    /// Who was asked since somebody notified in the spin.
    asked_on: Option<BTreeSet<Life>>,
    /// Files became ready in the spin, and may have been seen or not.
    changed: bool,
    left_spin_mode: bool,
    /// It is one of `poll_until` that failed, and spin mode is being left after it.
    over: bool,
    /// How often each member was asked, since spin mode was left if it was.
    asked: BTreeMap<Life, u32>,
    ran: BTreeSet<Life>,
    rest: Option<Rest>,
    progress: bool,
    errors: Vec<u32>,
    panics: Vec<u32>,
}

impl Frame {
    fn new(blocking: bool, begin: Seen) -> Self {
        Self {
            blocking,
            counted: false,
            looped: false,
            begin,
            notified: false,
            finding: true,
            plan: None,
            window: 0,
            cost: 0,
            hit: false,
            failed: false,
            woken: false,
            asked_on: None,
            changed: false,
            left_spin_mode: false,
            over: false,
            asked: BTreeMap::new(),
            ran: BTreeSet::new(),
            rest: None,
            progress: false,
            errors: Vec::new(),
            panics: Vec::new(),
        }
    }

    pub fn panics(&mut self, id: u32) {
        self.failed |= self.finding;
        self.panics.push(id);
    }

    pub fn runs_callbacks(&self) -> bool {
        !self.finding
    }

    pub fn is_over(&self) -> bool {
        self.over
    }

    pub fn forget_rest(&mut self) {
        self.rest = None;
    }
}

impl Model {
    // --- begin and end --------------------------------------------------------------------------

    pub fn begin_turn(&mut self, blocking: bool, looped: bool, begin: Seen) {
        self.turns += 1;
        self.phase += 1;
        for handler in self.live.values_mut() {
            handler.parked &= handler.running;
        }
        let mut frame = Frame { looped, notified: self.notified, ..Frame::new(blocking, begin) };
        self.adopt_stray(&mut frame);
        self.frames.push(frame);
        if let Some(spin) = self.wanted_spin.take() {
            self.set_spin(spin);
        }
        let counted = blocking && self.max_spin() > 0;
        self.frames.last_mut().into_iter().for_each(|frame| frame.counted = counted);
    }

    /// `dispatch` reports what failed in `prepare` and `check`.
    fn give_back(&mut self, frame: &mut Frame) {
        self.stray.errors.append(&mut frame.errors);
        self.stray.panics.append(&mut frame.panics);
    }

    /// The outermost turn reports what failed since the last one.
    fn adopt_stray(&mut self, frame: &mut Frame) {
        if self.frames.is_empty() {
            let Stray { errors, panics, .. } = &mut self.stray;
            frame.failed |= !panics.is_empty() || !errors.is_empty();
            (frame.errors, frame.panics) = (std::mem::take(errors), std::mem::take(panics));
        }
    }

    pub fn is_finding(&self) -> bool {
        self.frames.last().is_some_and(|frame| frame.finding)
    }

    pub fn end_turn(&mut self, seen: Seen, ended: &Ended) {
        if self.is_finding() {
            self.settle(seen);
        }
        if matches!(ended, Ended::Errors(_) | Ended::Panic(_)) {
            self.loop_ends(); // and has left spin mode by now
        }
        self.sync();
        // Before spin mode was left, whose last look finds things for the next turn, all had run.
        let over = self.frames.last().is_some_and(|frame| frame.over);
        let left = if over { Vec::new() } else { self.due() };
        self.demand(left.is_empty(), || format!("the turn ended, and did not run {left:?}"));
        for handler in self.live.values_mut() {
            handler.may_hear.clear();
            handler.may_hit = false;
        }
        let Some(frame) = self.frames.pop() else { return self.wrong("there was no turn") };
        let due = match (frame.panics, frame.errors) {
            (panics, errors) if !panics.is_empty() => {
                // The turn around it reports them, or the next.
                match self.frames.last_mut() {
                    Some(outer) => outer.errors.extend(errors),
                    None => self.stray.errors.extend(errors),
                }
                // One of several; which, is not settled.
                match ended {
                    Ended::Panic(id) if panics.contains(id) => Ended::Panic(*id),
                    _ => Ended::Panic(panics[0]),
                }
            }
            (_, errors) if !errors.is_empty() => Ended::Errors(errors),
            _ if *ended == Ended::Well => Ended::Well,
            _ => Ended::Progress(frame.progress),
        };
        self.demand(*ended == due, || format!("the turn ended with {ended:?} instead of {due:?}"));
    }

    // --- the search -----------------------------------------------------------------------------

    /// The first looks are over: sleep, spin or stay awake?
    fn decide(&mut self) {
        let Some(mut frame) = self.frames.pop() else { return };
        if frame.plan.is_none() {
            self.left_spin_mode(); // if parameters from another thread had it left
            self.take_first_looks(&mut frame);
            let timed = self.deadline().is_some_and(|deadline| deadline <= frame.begin.now);
            let awake = !frame.blocking || frame.hit || frame.failed || timed;
            frame.window = self.window;
            frame.plan = Some(if awake || self.closed || self.is_due() || self.has_work() {
                Plan::Awake
            } else if self.may_spin() {
                self.enter_spin_mode();
                self.arm_early(); // so that what there is can be seen while spinning
                self.note_hints(&frame.begin.files);
                Plan::Spin
            } else {
                Plan::Sleep
            });
            self.phase += 1;
        }
        self.frames.push(frame);
    }

    /// Words are read in place; code has been asked by now.
    fn take_first_looks(&mut self, frame: &mut Frame) {
        let mut unasked = None;
        for handler in self.live.values_mut().filter(|h| h.look && !h.running) {
            handler.look = false;
            if handler.external && self.disabled > 0 {
                continue; // enabling asks again
            }
            if handler.source == Source::Code {
                unasked = Some(handler.life);
            } else if handler.says_yes() {
                collect(handler, self.phase, true, 0);
                frame.hit = true;
            }
        }
        self.demand(unasked.is_none(), || format!("handler {unasked:?} had no first look"));
    }

    /// Somebody's callback waits to be run.
    fn is_due(&self) -> bool {
        !self.halves_due.is_empty()
            || !self.timers_due.is_empty()
            || self.live.values().any(Handler::is_due)
    }

    /// A bottom half waits for the next turn that can run it.
    fn has_work(&self) -> bool {
        self.scheduled.iter().any(|(work, idle)| !idle && self.can_run(*work))
    }

    fn can_run(&self, work: Work) -> bool {
        !matches!(work, Work::Half(half) if self.running_halves.contains(&half))
    }

    fn has_idle_work(&self) -> bool {
        self.scheduled.iter().any(|(work, idle)| *idle && self.can_run(*work))
    }

    fn deadline(&self) -> Option<u64> {
        let can_run = |timer: &u32| !self.running_timers.contains(timer);
        self.armed.iter().find(|(.., timer)| can_run(timer)).map(|(deadline, ..)| *deadline)
    }

    /// A handler that no spin can serve stops it where the monitor cannot see its readiness.
    fn may_spin(&self) -> bool {
        let unserved = |h: &Handler| self.is_watched(h) && h.source == Source::No;
        self.window > 0 && self.max_spin() > 0 && (self.sees || !self.live.values().any(unserved))
    }

    fn enter_spin_mode(&mut self) {
        self.mode = true;
        self.covered.push("a spin");
        if self.live.values().any(|h| h.member && !h.running && !h.begun && h.suppress.is_some()) {
            self.covered.push("a handler begins with a suppress word");
        }
        for handler in self.live.values_mut().filter(|h| h.member && !h.running) {
            handler.begun = true;
        }
    }

    /// In a turn that is about to sleep.
    fn leave_before_sleep(&mut self) {
        if !self.mode || self.frames.last().is_none_or(|f| f.plan == Some(Plan::Awake)) {
            return self.wrong("spin mode was left by a turn that does not sleep");
        }
        self.covered.push("spin mode is left before a sleep");
        self.leave_spin_mode();
        self.last_looks.clear(); // these are counted below
        if let Some(frame) = self.frames.last_mut() {
            frame.left_spin_mode = true;
            frame.asked.clear();
        }
    }

    /// `poll_until` ends, after a turn that failed.
    fn loop_ends(&mut self) -> bool {
        let between = self.frames.last().is_some_and(|f| f.looped && !f.finding);
        let ends = between && self.due().is_empty() && self.mode;
        if ends {
            self.frames.last_mut().into_iter().for_each(|frame| frame.over = true);
            self.leave_spin_mode();
        }
        ends
    }

    fn find(&mut self, life: Life) -> Option<&mut Handler> {
        self.live.values_mut().find(|handler| handler.life == life)
    }

    /// A predicate was asked.
    pub fn asks(&mut self, life: Life, ns: u64, said: bool, panics: Option<u32>) {
        let disabled = self.disabled > 0;
        let Some(handler) = self.find(life) else {
            return self.wrong(format!("handler {life} is gone, and was asked"));
        };
        let held_back = handler.external && disabled;
        let (running, looks) = (handler.running, handler.look);
        self.demand(!running, || format!("handler {life} was asked inside its callback"));
        self.demand(!held_back, || format!("handler {life} is disabled, and was asked"));
        let finding = self.is_finding();
        let last = self.last_looks.remove(&life)
            || (!finding && self.loop_ends() && self.last_looks.remove(&life));
        if last {
            if let Some(frame) = self.frames.last_mut().filter(|_| finding) {
                frame.begin.now += ns; // before it has begun to count
            }
        } else if !finding {
            self.wrong(format!("handler {life} was asked for nothing"));
        } else if looks {
            self.find(life).into_iter().for_each(|handler| handler.look = false);
        } else {
            self.decide();
            self.asks_member(life);
        }
        if let Some(id) = panics {
            self.panics(id);
        }
        let phase = self.phase;
        if said && let Some(handler) = self.find(life) {
            collect(handler, phase, true, 0);
        }
        if let Some(frame) = self.frames.last_mut().filter(|_| finding && !last) {
            frame.cost += ns;
            frame.hit |= said;
        }
    }

    fn asks_member(&mut self, life: Life) {
        let Some((member, hit)) = self.find(life).map(|h| (h.member, h.hit)) else { return };
        self.demand(member, || format!("handler {life} is not on the spin list, and was asked"));
        let Some(frame) = self.frames.last() else { return };
        let (plan, left) = (frame.plan, frame.left_spin_mode);
        if plan == Some(Plan::Sleep) && !left {
            self.leave_before_sleep();
        }
        let Some(frame) = self.frames.last_mut() else { return };
        let times = frame.asked.entry(life).or_default();
        *times += 1;
        // The round goes on to its end, and is the last one.
        let on = !left && frame.asked_on.as_mut().is_some_and(|asked| !asked.insert(life));
        let spins = plan == Some(Plan::Spin) && !left && *times > 1;
        let once_more = *times > 1 && (plan == Some(Plan::Awake) || left);
        self.demand(!on, || format!("handler {life} was asked again, although notified"));
        self.demand(!once_more, || format!("handler {life} was asked twice"));
        if spins && self.find(life).is_some_and(|h| h.says_yes()) {
            self.covered.push("a predicate hits in a spin");
        }
        let spins_on = plan == Some(Plan::Spin) && hit;
        self.demand(!spins_on, || format!("handler {life} was asked again, having said yes"));
    }

    /// Members are being asked for the window.
    pub fn is_spinning(&self) -> bool {
        self.frames
            .last()
            .is_some_and(|f| f.finding && f.plan == Some(Plan::Spin) && !f.left_spin_mode)
    }

    /// Any handler's callback is running.
    pub fn is_any_running(&self) -> bool {
        !self.running.is_empty()
    }

    /// Somebody sets a word while this side spins.
    pub fn word_set_in_spin(&mut self, at: u8) {
        if let Some(handler) = self.live.get_mut(&at).filter(|h| h.member) {
            handler.fresh = true;
        }
    }

    pub fn files_changed_in_spin(&mut self) {
        self.frames.last_mut().into_iter().for_each(|frame| frame.changed = true);
    }

    pub fn notify_in_spin(&mut self) {
        self.notified = true;
        if let Some(frame) = self.frames.last_mut() {
            frame.notified = true;
            frame.asked_on.get_or_insert_default();
        }
    }

    pub fn begins(&mut self, life: Life) {
        if !self.is_finding() {
            return self.wrong(format!("handler {life} was told to begin outside of a search"));
        }
        self.decide();
        let begins = self.find(life).is_some_and(|h| h.begun && !h.running);
        self.demand(begins, || format!("handler {life} was told to begin, and is not spun on"));
        let first = self.told.insert(life);
        self.demand(first, || format!("handler {life} was told to begin twice"));
    }

    /// A turn that failed in its search does not sleep: whoever is told the end then hears of the
    /// end of `poll_until`, before which the search was over. Unless it failed as others were told
    /// the end, and this one's turn has come; or this one is being removed, by a hook of the search.
    pub fn has_failed_in_loop(&self, life: Life) -> bool {
        let failed = |f: &Frame| f.finding && f.looped && f.failed && !f.left_spin_mode;
        let spun_on = self.live.values().any(|handler| handler.life == life && handler.begun);
        spun_on && self.frames.last().is_some_and(failed)
    }

    pub fn ends(&mut self, life: Life, seen: Option<Seen>) {
        if let Some(seen) = seen {
            self.settle(seen);
        }
        let told = self.told.remove(&life);
        self.demand(told, || format!("handler {life} was told the end without a beginning"));
        if self.find(life).is_none_or(|handler| !handler.begun) {
            return;
        }
        if self.is_finding() {
            self.decide();
            self.leave_before_sleep();
        } else {
            let ends = self.loop_ends();
            self.demand(ends, || format!("handler {life} was told the end, and is spun on"));
        }
    }

    // --- the search is over ---------------------------------------------------------------------

    /// The kernel has been asked, or need not be.
    fn settle(&mut self, seen: Seen) {
        self.decide();
        let slept = self.frames.last().is_some_and(|f| seen.sleeps > f.begin.sleeps);
        self.take_round(seen, slept);
        self.take_files(seen);
        self.check_sleep(seen, slept);
        self.accept(seen.now, slept);
    }

    /// Words are read in place, by the same rules as code is asked.
    fn take_round(&mut self, seen: Seen, slept: bool) {
        let Some(frame) = self.frames.last() else { return };
        let still = self.mode && frame.plan == Some(Plan::Sleep) && !frame.left_spin_mode;
        let spun = seen.spin_hits > frame.begin.spin_hits;
        let asked_until = frame.begin.now + frame.cost;
        let timed = self.deadline().is_some_and(|deadline| deadline <= asked_until);
        let goes_to_sleep = still && !spun && !frame.notified && !timed;
        let asked = seen.waits > frame.begin.waits;
        let reported = self.ready_files(&seen.files).iter().any(|(at, _)| !self.live[at].running)
            || self.live.values().any(|handler| !handler.was_ready.is_empty());
        let others = self.has_ended_otherwise(seen) || frame.changed || (asked && reported);
        if self.mode && slept && !frame.left_spin_mode {
            self.leave_before_sleep();
        } else if goes_to_sleep && self.live.values().any(|h| is_asked(h) && h.says_yes()) {
            self.leave_before_sleep(); // the last look ended the sleep before it began
        }
        let Some(frame) = self.frames.last_mut() else { return };
        // A hit that is there at once may be taken although there is no window to spin for.
        if frame.plan == Some(Plan::Sleep) && !frame.left_spin_mode && !(still && spun) {
            return;
        }
        let asked = || self.live.values().filter(|h| is_asked(h));
        let words = || asked().filter(|h| h.source == Source::Word);
        let fresh = words().filter(|h| h.fresh).count();
        // A word that was set before ends the spin with its first round.
        let set = words().any(|h| !h.fresh && h.says_yes());
        let others = (others || set || fresh > 1) && frame.plan == Some(Plan::Spin);
        let mut unasked = None;
        for handler in self.live.values_mut().filter(|h| is_asked(h)) {
            match handler.source {
                // Set in the last round, it was asked after that or before.
                Source::Word if handler.fresh && others && !frame.left_spin_mode => {
                    take_place(handler, self.phase);
                    handler.may_hit = true;
                }
                Source::Word if handler.says_yes() => {
                    if handler.fresh {
                        self.covered.push("a word hits in a spin");
                    }
                    collect(handler, self.phase, true, 0);
                    frame.hit = true;
                }
                Source::Code if !frame.asked.contains_key(&handler.life) => {
                    unasked = Some(handler.life);
                }
                _ => {}
            }
        }
        self.demand(unasked.is_none(), || format!("handler {unasked:?} was not asked"));
    }

    /// A spin may have ended for another reason than this word or this file.
    fn has_ended_otherwise(&self, seen: Seen) -> bool {
        let timed = self.deadline().is_some_and(|deadline| deadline <= seen.now);
        let unsure = timed || self.has_work() || self.is_due();
        self.frames.last().is_none_or(|f| unsure || f.hit || f.failed || f.notified)
    }

    /// What the kernel reported: everything that was ready, if it was asked.
    fn take_files(&mut self, seen: Seen) {
        self.note_files(&seen.files);
        let Some(frame) = self.frames.last() else { return };
        let asked = seen.waits > frame.begin.waits;
        let (hit, blocking) = (frame.hit, frame.blocking);
        let found = self.ready_files(&seen.files);
        let running = |model: &Self, at: &u8| model.live.get(at).is_some_and(|h| h.running);
        let any = found.iter().any(|(at, _)| !running(self, at));
        if asked {
            self.last_asked = seen.now;
            self.signalled = false;
            self.phase += 1;
            let Some(frame) = self.frames.last() else { return };
            let (before, changed) = (self.ready_files(&frame.begin.files), frame.changed);
            let word = self.live.values().any(|handler| handler.may_hit);
            let free = changed && (word || self.has_ended_otherwise(seen));
            for (at, events) in found {
                let Some(handler) = self.live.get_mut(&at) else { continue };
                let before = before.iter().find(|(of, _)| *of == at).map_or(0, |(_, was)| *was);
                if handler.running {
                    handler.parked = true;
                } else if free && before != events {
                    // The kernel was asked before that, or after.
                    take_place(handler, self.phase);
                    handler.may_hear.push(events);
                    if before != 0 {
                        collect(handler, self.phase, false, before);
                    }
                } else {
                    collect(handler, self.phase, false, events);
                }
            }
            self.take_old_reports();
            self.armed_now(&seen.files);
            return;
        }
        let watched: Vec<&Handler> = self.live.values().filter(|h| self.is_watched(h)).collect();
        let unspun = watched.iter().any(|handler| !handler.member);
        let since = frame.begin.now.saturating_sub(self.last_asked);
        // A turn that found something in its spin looks at the kernel every 50 µs; any other that
        // does not sleep looks if there is a handler that no predicate speaks for.
        let must = if hit && blocking { !watched.is_empty() && since >= LOOK } else { unspun };
        let awake = frame.plan == Some(Plan::Awake) || hit;
        // What a ring has to say is seen without asking.
        let seen = self.sees && any;
        self.demand(!(must && awake && (seen || !self.sees)), || "the kernel was not asked".into());
    }

    /// A request on a ring completes once, for what its file was ready for at that moment. What
    /// somebody other than its handler took since is reported all the same, and what came since is
    /// not yet: to ask again would cost the system call that the ring saves. What is put in anew
    /// completes for all that is so then.
    fn take_old_reports(&mut self) {
        let phase = self.phase;
        for handler in self.live.values_mut() {
            let was = std::mem::take(&mut handler.was_ready);
            if !self.sees || handler.running || was.iter().all(|was| *was == handler.events) {
                continue;
            }
            take_place(handler, phase);
            handler.may_hear.extend(was);
        }
    }

    /// What a ring has been asked for, and has not said.
    fn armed_now(&mut self, files: &Readiness) {
        let ready = self.ready_files(files);
        let (disabled, sees) = (self.disabled > 0, self.sees);
        for (at, handler) in &mut self.live {
            let held_back = handler.running || handler.parked || (handler.external && disabled);
            let said = ready.iter().any(|(of, _)| of == at) || !handler.may_hear.is_empty();
            handler.armed = sees && !held_back && !said && !handler.wanted.is_empty();
            // One that is asked for in a turn within its callback.
            let held_back = handler.parked || (handler.external && disabled);
            let early = sees && handler.running && !held_back;
            handler.armed_early = early && !handler.wanted.is_empty();
            handler.hinted = false;
            handler.heard_end = handler.armed && files[usize::from(*at)] & END != 0;
        }
    }

    /// What was collected is not all known; it is when it runs.
    pub fn is_unsure(&self) -> bool {
        self.live.values().any(|handler| !handler.may_hear.is_empty() || handler.may_hit)
    }

    /// What was collected after all. A ring's request completes for what woke it, which may be a
    /// part of what is so then; the next one completes for the rest.
    fn hears(&mut self, life: Life, which: Which, events: u32) {
        let sees = self.sees;
        let Some(handler) = self.find(life) else { return };
        handler.hit |= std::mem::take(&mut handler.may_hit) && which == Which::Ready;
        let heard = std::mem::take(&mut handler.may_hear);
        if events == handler.events || events == 0 {
            return;
        }
        let old = handler.events;
        let parts = heard.iter().copied().chain([old]).filter(|part| sees || part & !events == 0);
        let all = parts.fold(0, |all, part| all | part);
        let fits = if sees { events & !all == 0 } else { events == all };
        if fits {
            handler.events = events;
            if events & old != old {
                self.covered.push("a ring reports a part");
            } else {
                self.covered.push("a ring reports what was");
            }
        }
    }

    /// It slept only with nothing to do, and exactly until there was.
    fn check_sleep(&mut self, seen: Seen, slept: bool) {
        let Some(frame) = self.frames.last() else { return };
        if !frame.blocking {
            let (spent, cost) = (seen.now - frame.begin.now, frame.cost);
            self.demand(!slept, || "a turn that does not block slept".into());
            self.demand(spent == cost, || format!("a turn that does not block took {spent} ns"));
            return;
        }
        let watched = self.ready_files(&seen.files);
        let ready = watched.iter().any(|(at, _)| !self.live[at].running);
        let asked = seen.waits > frame.begin.waits;
        let begun = frame.begin.now;
        let awake = frame.plan == Some(Plan::Awake);
        let found = awake || frame.hit || frame.failed || frame.notified || self.has_work();
        let unsure = self.is_unsure();
        let spin = if frame.plan == Some(Plan::Spin) { frame.window } else { 0 };
        let free = begun + frame.cost + spin;
        let notified = frame.notified && frame.plan == Some(Plan::Spin);
        let spun = begun + frame.cost;
        let deadline = self.deadline();
        let idle = self.has_idle_work();
        let timed = deadline.is_some_and(|deadline| deadline <= seen.now)
            || (idle && begun + IDLE <= seen.now);
        let now = seen.now;
        let ended = found || timed || (asked && ready) || unsure || frame.woken;
        self.demand(ended, || "nothing ended the turn".into());
        self.demand(!(slept && found), || "the turn slept, with something to do".into());
        self.demand(!notified || now <= spun, || {
            format!("the spin went on until {now}, although notified by {spun}")
        });
        if now > free {
            self.demand(!ready, || "the turn slept on, with a file ready".into());
            // Who was told that spinning has begun need not signal, so the last look asks for it.
            let word = self.live.values().any(|h| is_asked(h) && h.has_poll() && h.says_yes());
            self.demand(!word || spin == 0, || "the turn slept on, with a word set".into());
            let by_timer = deadline == Some(now);
            let by_idle = idle
                && (begun + IDLE..=free + IDLE).contains(&now)
                && deadline.is_none_or(|deadline| deadline >= now);
            self.demand(by_timer || by_idle, || {
                format!("the turn began at {begun} and slept until {now}, not until {deadline:?}")
            });
        }
    }

    /// What is due from here on is due in this turn.
    fn accept(&mut self, now: u64, slept: bool) {
        let Some(frame) = self.frames.last_mut() else { return };
        frame.finding = false;
        if frame.left_spin_mode && frame.hit {
            self.covered.push("the last look cancels a sleep");
        }
        if slept {
            self.covered.push("a turn sleeps");
            if frame.plan == Some(Plan::Spin) {
                self.covered.push("a turn spins in vain, and then sleeps");
            }
        }
        let spun_only = frame.plan == Some(Plan::Spin) && !frame.left_spin_mode;
        if spun_only && frame.notified && !frame.hit {
            self.covered.push("a notification ends a spin");
        } else if spun_only && !frame.hit && self.live.values().any(|h| h.events != 0) {
            self.covered.push("a file ends a spin");
        }
        self.live.values_mut().for_each(|handler| handler.fresh = false);
        let Some(frame) = self.frames.last_mut() else { return };
        let (counted, block) = (frame.counted, now - frame.begin.now);
        self.notified = false;
        if counted {
            self.adapt_window(block);
        }
        let scheduled = std::mem::take(&mut self.scheduled);
        for (work, idle) in scheduled {
            if self.can_run(work) {
                self.halves_due.push_back((work, idle));
            } else {
                self.scheduled.push((work, idle));
            }
        }
        let expired: Vec<_> = self
            .armed
            .iter()
            .filter(|(deadline, _, timer)| *deadline <= now && !self.running_timers.contains(timer))
            .copied()
            .collect();
        for timer in expired {
            self.armed.remove(&timer);
            self.timers_due.push_back(timer.2);
        }
    }

    // --- for an outer loop ----------------------------------------------------------------------

    /// `prepare` has returned; `readable` = what the outer loop watches is; `unwatched` = there is
    /// a file that it cannot watch.
    pub fn prepared(&mut self, seen: Seen, ns: Option<u64>, readable: bool, unwatched: bool) {
        self.decide();
        self.take_round(seen, false);
        let Some(frame) = self.frames.last() else { return };
        let watched = self.ready_files(&seen.files);
        let ready = watched.iter().any(|(at, _)| !self.live[at].running);
        let asked = seen.waits > frame.begin.waits;
        let timed = self.deadline().is_some_and(|deadline| deadline <= seen.now);
        let awake = frame.plan == Some(Plan::Awake) || frame.notified || timed || self.has_work();
        let found = frame.hit || frame.failed || (asked && ready);
        // What a ring told ended the spin, although it is so no more.
        let told = asked && self.live.values().any(|handler| !handler.was_ready.is_empty());
        let told = self.sees && told && seen.spin_hits > frame.begin.spin_hits;
        let may_have_found = ns == Some(0) && (self.is_unsure() || told);
        if self.mode && !frame.left_spin_mode && !awake && !found && !may_have_found {
            self.leave_before_sleep();
            self.take_round(seen, false);
        }
        if asked {
            self.take_files(seen);
        }
        let Some(mut frame) = self.frames.pop() else { return };
        let left = self.deadline().map(|deadline| deadline.saturating_sub(seen.now));
        let idle = self.has_idle_work();
        let fits = match ns {
            _ if awake || found || frame.hit || frame.failed => ns == Some(0),
            // A ring sees that something was ready, and asks for it in `check`.
            Some(0) => {
                // …also if that was before its last callback had returned.
                let told = |h: &Handler| !h.was_ready.is_empty() || h.hinted;
                let was = self.sees && self.live.values().any(told);
                let was = was || self.may_hear_end(&seen.files);
                ready || unwatched || was || (self.sees && self.signalled) || self.is_unsure()
            }
            Some(ns) if idle => ns <= IDLE && left.is_none_or(|left| ns <= left),
            ns => ns == left,
        };
        self.demand(fits, || format!("prepare says {ns:?}, with {left:?} left"));
        self.demand(!ready || readable || ns == Some(0), || {
            "a file is ready, and the outer loop would sleep".into()
        });
        self.give_back(&mut frame);
        self.outer = Some((frame, self.turns));
    }

    /// An outer loop would sleep: there is nothing that wakes it.
    pub fn is_idle(&self, files: &Readiness) -> bool {
        let found = self.ready_files(files);
        !self.notified && !found.iter().any(|(at, _)| !self.live[at].running)
    }

    /// No turn has run since `prepare`.
    pub fn is_prepared(&self) -> bool {
        self.outer.as_ref().is_some_and(|(_, turns)| *turns == self.turns)
    }

    /// `check` is called.
    pub fn checks(&mut self, begin: Seen) {
        let prepared = self.outer.take().filter(|(_, turns)| *turns == self.turns);
        let frame = match prepared {
            Some((mut frame, _)) => {
                (frame.begin.waits, frame.begin.sleeps) = (begin.waits, begin.sleeps);
                frame
            }
            None => {
                self.begin_turn(false, false, begin);
                let frame = self.frames.pop();
                let Some(mut frame) = frame else { return };
                self.give_back(&mut frame);
                frame
            }
        };
        self.frames.push(frame);
    }

    /// `check` has returned.
    pub fn checked(&mut self, seen: Seen, due: bool) {
        let Some(frame) = self.frames.last() else { return };
        let asked = seen.waits > frame.begin.waits;
        let found = self.ready_files(&seen.files);
        if asked {
            self.take_files(seen);
        } else {
            self.arm_early(); // the next turn may be one that does not sleep
            self.note_hints(&seen.files);
            let collected = |(at, _): &(u8, u32)| {
                let handler = &self.live[at];
                handler.running || handler.is_due() || !handler.may_hear.is_empty()
            };
            let missed = !found.iter().all(collected) && !self.is_due();
            self.demand(!missed, || "check did not look".into());
        }
        self.accept(seen.now, false);
        if let Some(mut frame) = self.frames.pop() {
            self.give_back(&mut frame);
        }
        let stray = !self.stray.panics.is_empty() || !self.stray.errors.is_empty();
        let is_due = self.is_due() || stray;
        self.demand(due == is_due || self.is_unsure(), || {
            format!("check says {due} instead of {is_due}")
        });
    }

    /// `dispatch` is called.
    pub fn dispatches(&mut self, begin: Seen) {
        let mut frame = Frame { finding: false, ..Frame::new(false, begin) };
        self.adopt_stray(&mut frame);
        self.frames.push(frame);
    }

    // --- the callbacks --------------------------------------------------------------------------

    /// Whose callback may be next: one, except among handlers that one phase detected.
    fn due(&self) -> Vec<What> {
        let Some(frame) = self.frames.last() else { return Vec::new() };
        if let Some(rest) = &frame.rest {
            let which = rest.which.front().copied();
            return which.map(|w| What::Handler(rest.life, w, rest.events)).into_iter().collect();
        }
        if let Some((work, _)) = self.halves_due.front() {
            return vec![What::Work(*work)];
        }
        let due = || self.live.values().filter(|handler| handler.is_due());
        let first = due().map(|handler| handler.latest).min();
        let handlers: Vec<What> = due()
            .filter(|handler| Some(handler.since) <= first)
            .filter_map(|h| h.actions().front().map(|w| What::Handler(h.life, *w, h.events)))
            .collect();
        if !handlers.is_empty() {
            return handlers;
        }
        self.timers_due.front().map(|timer| What::Timer(*timer)).into_iter().collect()
    }

    /// A callback is entered. `seen` is needed where it ends a search.
    pub fn enter(&mut self, what: What, seen: Option<Seen>) {
        if let Some(seen) = seen {
            self.settle(seen);
        }
        self.sync();
        if let What::Handler(life, which, events) = what {
            self.hears(life, which, events);
        }
        let due = self.due();
        if !due.contains(&what) {
            return self.wrong(format!("{what:?} ran, instead of one of {due:?}"));
        }
        let mut progress = true;
        match what {
            What::Work(work) => {
                self.covered.push("work");
                progress = self.halves_due.pop_front().is_some_and(|(_, idle)| !idle);
                if let Work::Half(half) = work {
                    self.running_halves.insert(half);
                }
            }
            What::Timer(timer) => {
                self.covered.push("timer");
                self.timers_due.pop_front();
                self.running_timers.insert(timer);
            }
            What::Handler(life, ..) => self.enter_handler(life),
        }
        if let Some(frame) = self.frames.last_mut() {
            frame.progress |= progress;
        }
    }

    fn enter_handler(&mut self, life: Life) {
        let spins = self.max_spin() > 0;
        let Some(frame) = self.frames.last_mut() else { return };
        if frame.rest.is_some() {
            return; // its next callback
        }
        let once = frame.ran.insert(life);
        let Some((&at, handler)) = self.live.iter_mut().find(|(_, h)| h.life == life) else {
            return;
        };
        frame.rest = Some(Rest { at, life, which: handler.actions(), events: handler.events });
        handler.drop_collected();
        handler.running = true; // a report that is older than its callback is asked for again
        handler.member |= handler.has_poll() && spins;
        self.running.insert(life);
        self.demand(once, || format!("handler {life} ran twice in one turn"));
    }

    /// …and has returned.
    pub fn leave(&mut self, what: What, thrown: Option<Thrown>) {
        match thrown {
            Some(Thrown::Panic(id)) => self.panics(id),
            Some(Thrown::Error(id)) => {
                self.frames.last_mut().into_iter().for_each(|frame| frame.errors.push(id));
            }
            None => {}
        }
        match what {
            What::Work(Work::Half(half)) => drop(self.running_halves.remove(&half)),
            What::Work(_) => {}
            What::Timer(timer) => drop(self.running_timers.remove(&timer)),
            What::Handler(life, ..) => self.leave_handler(life),
        }
    }

    fn leave_handler(&mut self, life: Life) {
        let disabled = self.disabled > 0;
        let Some(frame) = self.frames.last_mut() else { return };
        let Some(rest) = &mut frame.rest else { return self.return_handler(life) };
        rest.which.pop_front();
        // An earlier callback may have removed the handler, lost its interest, or disabled it.
        let handler = self.live.get(&rest.at).filter(|handler| handler.life == life);
        let wanted = handler.filter(|h| !(h.external && disabled)).map(|handler| handler.wanted);
        rest.which.retain(|which| {
            let interest = match which {
                Which::Write => fdmon::Interest::WRITE,
                _ => fdmon::Interest::PRIORITY,
            };
            wanted.is_some_and(|wanted| wanted.contains(interest))
        });
        if rest.which.is_empty() {
            frame.rest = None;
            self.return_handler(life);
        }
    }

    /// The last of its callbacks has returned.
    fn return_handler(&mut self, life: Life) {
        self.running.remove(&life);
        if let Some(handler) = self.find(life) {
            handler.running = false;
            handler.look |= std::mem::take(&mut handler.owed);
        }
    }
}

/// A round asks it.
fn is_asked(handler: &Handler) -> bool {
    handler.member && !handler.running
}
