//! The model: what the loop promises, at its plainest. It knows no fd, no kernel and no clock; it
//! is told what a program does and what the loop calls, and says what is wrong with that.
//!
//! It follows the loop step by step instead of predicting a whole run, because one thing is free:
//! in which order handlers are detected that are ready at the same time. Everything else is
//! settled, and everything else it demands: who is due in this turn and who is not, with which
//! callbacks and events; bottom halves in order, then handlers by the phase that detected them,
//! then timers by expiry; what a turn returns; what predicates are asked, and when a handler has
//! begun; how far time went; what is left at the end.
//!
//! It takes two things from the context's statistics, which are cost and not behaviour: that the
//! kernel was asked in a turn (a turn that found something need not), and that the turn slept.
//! `turn.rs` has the turn, this file what a program does to a context.

mod turn;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use fdmon::{Events, Interest, LeakReport};
use rustix::event::PollFlags;

use crate::files::Readiness;
use crate::program::{Spin, WINDOW};
use turn::Frame;
pub use turn::{Ended, Seen};

/// One registration.
pub type Life = u32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    Ready,
    Read,
    Write,
    Priority,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    Half(u8),
    Once(u32),
    Job(u32),
    /// A handler that comes from the other context.
    Arrival(u32),
}

/// A callback that the loop runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Work(Work),
    /// With the event mask.
    Handler(Life, Which, u32),
    Timer(u32),
}

/// How a callback ended, when not well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thrown {
    Error(u32),
    Panic(u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    No,
    Kernel,
    Word,
    Code,
}

/// A live handler.
pub struct Handler {
    pub life: Life,
    /// What it has callbacks for.
    pub has: Interest,
    pub wanted: Interest,
    pub source: Source,
    pub external: bool,
    /// What `Source::Word` and `Source::Code` say yes to.
    pub word: Arc<AtomicU32>,
    /// 1 while the producer need not signal.
    pub suppress: Option<Arc<AtomicU32>>,
    /// Its predicate is to be asked once in the next turn.
    look: bool,
    /// It is on the spin list.
    member: bool,
    /// `poll_begin` was called, or will have been before user code runs again.
    begun: bool,
    /// `poll_end` follows when its callback returns.
    owed: bool,
    /// One of its callbacks runs.
    running: bool,
    /// A ring has a request for it that has not completed.
    armed: bool,
    /// …that was put in before its last callback had returned: what completes it is a hint…
    armed_early: bool,
    /// …and there was something.
    hinted: bool,
    /// A ring has said that the other side writes no more, for which nobody waits, and says it once.
    heard_end: bool,
    /// It became ready while it ran, and is not watched until it has returned.
    parked: bool,
    /// What its file was ready for since the kernel was asked last, each time that it changed…
    was_ready: Vec<u32>,
    /// …and of that, what was collected for it, if not what it is ready for now.
    may_hear: Vec<u32>,
    /// Its word was set in this spin, and may have been seen or not.
    may_hit: bool,
    fresh: bool,
    /// What was collected for it…
    events: u32,
    hit: bool,
    /// …in this phase first, or in one of those up to the other, if it is not known.
    since: u64,
    latest: u64,
}

impl Handler {
    pub fn new(life: Life, source: Source, has: Interest) -> Self {
        Self {
            life,
            has,
            wanted: has,
            source,
            external: false,
            word: Arc::default(),
            suppress: None,
            look: false,
            member: false,
            begun: false,
            owed: false,
            running: false,
            armed: false,
            armed_early: false,
            hinted: false,
            heard_end: false,
            parked: false,
            was_ready: Vec::new(),
            may_hear: Vec::new(),
            may_hit: false,
            fresh: false,
            events: 0,
            hit: false,
            since: 0,
            latest: 0,
        }
    }

    /// As it is registered on another context.
    pub fn elsewhere(self) -> Self {
        let new = Self::new(self.life, self.source, self.has);
        let Self { wanted, external, word, suppress, .. } = self;
        Self { wanted, external, word, suppress, ..new }
    }

    fn has_poll(&self) -> bool {
        matches!(self.source, Source::Word | Source::Code)
    }

    fn says_yes(&self) -> bool {
        self.word.load(Ordering::Relaxed) != 0
    }

    fn is_due(&self) -> bool {
        self.hit || self.events != 0
    }

    fn drop_collected(&mut self) {
        (self.hit, self.events, self.may_hit) = (false, 0, false);
        self.may_hear.clear();
        self.was_ready.clear();
        self.armed = false;
    }

    /// Spin mode is left.
    fn end(&mut self) {
        self.owed |= self.begun && self.running;
        self.begun = false;
    }

    /// The callbacks that serve what was collected, in their order.
    fn actions(&self) -> VecDeque<Which> {
        let events = Events::from_bits_retain(self.events);
        let readable = events.intersects(Events::IN | Events::HUP | Events::ERR);
        let mut run = VecDeque::new();
        if readable && self.wanted.contains(Interest::READ) {
            run.push_back(Which::Read);
        } else if self.hit {
            run.push_back(Which::Ready);
        }
        if events.intersects(Events::OUT | Events::ERR) && self.wanted.contains(Interest::WRITE) {
            run.push_back(Which::Write);
        }
        if events.intersects(Events::PRI | Events::ERR) && self.wanted.contains(Interest::PRIORITY)
        {
            run.push_back(Which::Priority);
        }
        if run.is_empty() {
            // An event that no callback can take runs the one there is.
            let there_is = [
                (Interest::READ, Which::Read),
                (Interest::WRITE, Which::Write),
                (Interest::PRIORITY, Which::Priority),
            ];
            run.extend(there_is.iter().find(|(i, _)| self.wanted.contains(*i)).map(|(_, w)| *w));
        }
        run
    }
}

/// What was left to be reported by a turn that has not begun yet.
#[derive(Default)]
struct Stray {
    errors: Vec<u32>,
    panics: Vec<u32>,
    /// Which panics happened in a call between turns: the next such call resumes them, also one
    /// after a `prepare`, which reports nothing.
    between: BTreeSet<u32>,
}

pub struct Model {
    /// The monitor sees readiness in memory (io_uring): an unspun handler does not stop a spin.
    sees: bool,
    spin: Spin,
    window: u64,
    /// Spin parameters from another thread, in force from the next turn on.
    wanted_spin: Option<Spin>,
    /// Members have begun.
    mode: bool,
    notified: bool,
    /// …while an outer loop may have been asleep, and the kernel was not asked since.
    signalled: bool,
    pub closed: bool,
    disabled: u32,
    /// By file.
    pub live: BTreeMap<u8, Handler>,
    /// Told `poll_begin` and not `poll_end`.
    told: BTreeSet<Life>,
    /// Whose callbacks run, removed ones included.
    running: BTreeSet<Life>,
    running_halves: BTreeSet<u8>,
    running_timers: BTreeSet<u32>,
    /// Scheduled, and whether as idle ones.
    scheduled: Vec<(Work, bool)>,
    halves_due: VecDeque<(Work, bool)>,
    halves: BTreeSet<u8>,
    timers: BTreeSet<u32>,
    /// Armed: deadline, order of arming, which.
    armed: BTreeSet<(u64, u64, u32)>,
    arming: u64,
    timers_due: VecDeque<u32>,
    /// Handlers whose predicate the leaving of spin mode asks, outside of a search.
    last_looks: BTreeSet<Life>,
    phase: u64,
    frames: Vec<Frame>,
    stray: Stray,
    /// Between prepare and check.
    outer: Option<(Frame, u64)>,
    turns: u64,
    last_asked: u64,
    pub stop: bool,
    pub loops: u32,
    wrong: Option<String>,
    /// What was exercised since somebody asked.
    pub covered: Vec<&'static str>,
}

impl Model {
    pub fn new(sees: bool, spin: Spin) -> Self {
        Self {
            sees,
            spin,
            window: first_window(spin),
            wanted_spin: None,
            mode: false,
            notified: false,
            signalled: false,
            closed: false,
            disabled: 0,
            live: BTreeMap::new(),
            told: BTreeSet::new(),
            running: BTreeSet::new(),
            running_halves: BTreeSet::new(),
            running_timers: BTreeSet::new(),
            scheduled: Vec::new(),
            halves_due: VecDeque::new(),
            halves: BTreeSet::new(),
            timers: BTreeSet::new(),
            armed: BTreeSet::new(),
            arming: 0,
            timers_due: VecDeque::new(),
            last_looks: BTreeSet::new(),
            phase: 0,
            frames: Vec::new(),
            stray: Stray::default(),
            outer: None,
            turns: 0,
            last_asked: 0,
            stop: false,
            loops: 0,
            wrong: None,
            covered: Vec::new(),
        }
    }

    /// The first thing that was wrong.
    pub fn take_wrong(&mut self) -> Option<String> {
        self.wrong.take()
    }

    pub fn wrong(&mut self, what: impl Into<String>) {
        self.wrong.get_or_insert(what.into());
    }

    fn demand(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.wrong(what());
        }
    }

    // --- handlers -------------------------------------------------------------------------------

    pub fn add(&mut self, at: u8, mut handler: Handler) {
        handler.look = handler.has_poll();
        self.live.insert(at, handler);
    }

    /// Nothing of it runs any more but its `poll_end`. `false` = there was none.
    pub fn remove(&mut self, at: u8) -> bool {
        self.live.remove(&at).is_some()
    }

    /// …to be added elsewhere.
    pub fn take_away(&mut self, at: u8) -> Option<Handler> {
        self.live.remove(&at)
    }

    /// Somebody did something to a file.
    pub fn note_files(&mut self, files: &Readiness) {
        if self.outer.is_some() {
            self.arm_early();
        }
        self.note_hints(files);
        for (at, events) in self.ready_files(files) {
            if let Some(handler) = self.live.get_mut(&at).filter(|h| !h.running) {
                if !handler.armed {
                    handler.was_ready.clear(); // what is put in now completes for what is so now
                }
                if handler.was_ready.last() != Some(&events) {
                    handler.was_ready.push(events);
                }
            }
        }
        if self.outer.is_some() && self.sees {
            // What is new is put in at once then, for the outer loop may be about to sleep.
            for handler in self.live.values_mut().filter(|h| !h.running && !h.is_due()) {
                handler.armed = true;
            }
        }
    }

    /// A ring is asked for everything, and not for what it has to say.
    fn arm_early(&mut self) {
        let (sees, disabled) = (self.sees, self.disabled > 0);
        for handler in self.live.values_mut().filter(|h| h.running || h.is_due()) {
            let held_back = handler.parked || (handler.external && disabled);
            handler.armed_early |= sees && !held_back && !handler.wanted.is_empty();
        }
    }

    fn note_hints(&mut self, files: &Readiness) {
        for (at, _) in self.ready_files(files) {
            self.live.get_mut(&at).into_iter().for_each(|h| h.hinted |= h.armed_early);
        }
    }

    /// A ring may have something to say that is for nobody: the other side writes no more.
    fn may_hear_end(&self, files: &Readiness) -> bool {
        let has_end = |at: u8| files[usize::from(at)] & END != 0;
        let unheard = |(at, h): (&u8, &Handler)| has_end(*at) && self.is_watched(h) && !h.heard_end;
        self.sees && self.live.iter().any(unheard)
    }

    /// Another ring takes the place of the one that nothing can watch from outside, and is asked for
    /// everything anew.
    pub fn has_new_ring(&mut self) {
        for handler in self.live.values_mut() {
            (handler.armed_early, handler.hinted, handler.heard_end) = (false, false, false);
        }
    }

    /// This registration is the file's handler.
    pub fn is_live(&self, at: u8, life: Life) -> bool {
        self.live.get(&at).is_some_and(|handler| handler.life == life)
    }

    pub fn is_running(&self, life: Life) -> bool {
        self.running.contains(&life)
    }

    /// Only what it has callbacks for.
    pub fn set_interest(&mut self, at: u8, interest: Interest) -> bool {
        let Some(handler) = self.live.get_mut(&at) else { return false };
        if !handler.has.contains(interest) {
            return false;
        }
        handler.wanted = interest;
        handler.heard_end = false;
        let left = |events: u32| {
            // Without interest it is not handed to the kernel, and hears of nothing.
            if interest.is_empty() { 0 } else { events & !mask(Interest::all() - interest) }
        };
        handler.events = left(handler.events);
        for all in [&mut handler.may_hear, &mut handler.was_ready] {
            all.iter_mut().for_each(|events| *events = left(*events));
            all.retain(|events| *events != 0);
        }
        true
    }

    /// `false` = they were disabled before.
    pub fn disable_external(&mut self) -> bool {
        self.disabled += 1;
        let first = self.disabled == 1;
        if first {
            for handler in self.live.values_mut().filter(|h| h.external) {
                handler.end();
                handler.member = false;
                (handler.armed_early, handler.hinted, handler.heard_end) = (false, false, false);
                handler.drop_collected();
            }
        }
        first
    }

    pub fn enable_external(&mut self) {
        let was = self.disabled;
        self.disabled = was.saturating_sub(1);
        if was == 1 {
            for handler in self.live.values_mut().filter(|h| h.external) {
                handler.look = handler.has_poll();
            }
        }
    }

    // --- bottom halves and timers ---------------------------------------------------------------

    pub fn has_half(&mut self, half: u8) {
        self.halves.insert(half);
    }

    pub fn schedule(&mut self, work: Work, idle: bool) {
        let waiting = self.scheduled.iter_mut().chain(self.halves_due.iter_mut());
        match waiting.into_iter().find(|(other, _)| *other == work) {
            Some((_, is_idle)) => *is_idle &= idle,
            None => self.scheduled.push((work, idle)),
        }
    }

    pub fn cancel(&mut self, half: u8) {
        self.scheduled.retain(|(work, _)| *work != Work::Half(half));
        self.halves_due.retain(|(work, _)| *work != Work::Half(half));
    }

    pub fn delete_half(&mut self, half: u8) {
        self.cancel(half);
        self.halves.remove(&half);
        self.running_halves.remove(&half); // another one may take its number
    }

    pub fn has_timer(&mut self, timer: u32) {
        self.timers.insert(timer);
    }

    pub fn arm(&mut self, timer: u32, deadline: u64) {
        self.disarm(timer);
        self.arming += 1;
        self.armed.insert((deadline, self.arming, timer));
    }

    pub fn disarm(&mut self, timer: u32) {
        self.armed.retain(|(.., other)| *other != timer);
        self.timers_due.retain(|other| *other != timer);
    }

    pub fn delete_timer(&mut self, timer: u32) {
        self.disarm(timer);
        self.timers.remove(&timer);
    }

    // --- the context ----------------------------------------------------------------------------

    pub fn notify(&mut self) {
        self.notified = true;
        self.signalled |= self.outer.is_some();
    }

    /// To be followed by [`Model::left_spin_mode`] when the call has returned.
    pub fn set_spin(&mut self, spin: Spin) {
        (self.spin, self.window) = (spin, first_window(spin));
        self.wanted_spin = self.wanted_spin.map(|_| spin); // whoever came last
        if spin == Spin::Off {
            self.leave_spin_mode();
            for handler in self.live.values_mut() {
                handler.member = false;
            }
        }
    }

    pub fn set_spin_remotely(&mut self, spin: Spin) {
        self.wanted_spin = Some(spin);
        self.notify();
    }

    /// `poll_end` for all that have begun, then each member is asked once more: those whose
    /// callback runs when it has returned.
    pub fn leave_spin_mode(&mut self) {
        if !std::mem::take(&mut self.mode) {
            return;
        }
        self.phase += 1;
        // What a callback's last look finds is not for the turn that it runs in: that may have run
        // the handler already.
        let later = self.frames.iter().rfind(|frame| !frame.is_over());
        let later = later.is_some_and(Frame::runs_callbacks);
        for handler in self.live.values_mut() {
            handler.end();
            if handler.member && (handler.running || later) {
                handler.look = true;
            } else if handler.member {
                self.last_looks.insert(handler.life);
            }
        }
    }

    /// The call that left it has returned.
    pub fn left_spin_mode(&mut self) {
        let (phase, looks) = (self.phase, std::mem::take(&mut self.last_looks));
        self.phase += u64::from(!looks.is_empty());
        let mut unasked = None;
        for handler in self.live.values_mut().filter(|h| looks.contains(&h.life)) {
            if handler.source == Source::Code {
                unasked = Some(handler.life);
            } else if handler.says_yes() {
                collect(handler, phase, true, 0);
            }
        }
        self.demand(unasked.is_none(), || {
            format!("handler {unasked:?} was not asked once more when spin mode was left")
        });
    }

    /// Handlers that are on their way here, in the order in which they come.
    pub fn arrivals(&self) -> Vec<u32> {
        let works = self.halves_due.iter().chain(&self.scheduled);
        works
            .filter_map(|(work, _)| match work {
                Work::Arrival(number) => Some(*number),
                _ => None,
            })
            .collect()
    }

    /// To be followed by [`Model::close_reported`].
    pub fn close(&mut self) {
        self.leave_spin_mode();
    }

    pub fn close_reported(&mut self, report: Option<LeakReport>) {
        let once = |works: &mut dyn Iterator<Item = &(Work, bool)>| {
            works.filter(|(work, _)| matches!(work, Work::Once(_))).count()
        };
        let once = once(&mut self.scheduled.iter()) + once(&mut self.halves_due.iter());
        let left = (self.live.len(), self.halves.len() + once, self.timers.len());
        let due = if self.closed { (0, 0, 0) } else { left };
        // A panic of a hook that comes out of the call takes the report with it.
        let said = report.map_or(due, |report| {
            let LeakReport { handlers, bottom_halves, timers, .. } = report;
            (handlers as usize, bottom_halves as usize, timers as usize)
        });
        self.demand(said == due, || {
            format!("close reports {said:?} handlers, bottom halves and timers instead of {due:?}")
        });
        self.closed = true;
        self.mode = false;
        self.live.clear();
        self.scheduled.clear();
        self.halves_due.clear();
        self.halves.clear();
        self.armed.clear();
        self.timers.clear();
        self.timers_due.clear();
        self.last_looks.clear();
        for frame in &mut self.frames {
            frame.forget_rest();
        }
    }

    // --- what the loop tells producers ----------------------------------------------------------

    /// Between two steps: whoever was told that spinning has begun is spun on, and the other way
    /// round. A handler whose callback runs hears of the end when that has returned.
    pub fn sync(&mut self) {
        let mut wrong = Vec::new();
        for &life in self.told.difference(&self.running) {
            if !self.live.values().any(|h| h.life == life && h.begun) {
                wrong.push(format!("handler {life} was not told that spinning is over"));
            }
        }
        for handler in self.live.values() {
            let life = handler.life;
            if handler.source == Source::Code
                && handler.begun
                && !handler.running
                && !self.told.contains(&life)
            {
                wrong.push(format!("handler {life} was not told that spinning begins"));
            }
            if let Some(word) = &handler.suppress {
                let suppressed = word.load(Ordering::Relaxed) != 0;
                if suppressed != handler.begun {
                    wrong.push(format!("the suppress word of handler {life} is {suppressed}"));
                }
            }
        }
        if let Some(first) = wrong.into_iter().next() {
            self.wrong(first);
        }
    }

    /// A predicate, hook or callback panics; the turn around it reports that, or the next.
    pub fn panics(&mut self, id: u32) {
        match self.frames.iter_mut().rfind(|frame| !frame.is_over()) {
            Some(frame) => frame.panics(id),
            None => {
                self.stray.panics.push(id);
                self.stray.between.insert(id);
            }
        }
    }

    pub fn is_in_turn(&self) -> bool {
        !self.frames.is_empty()
    }

    /// A call between turns that may run hooks is over. The first panic comes out of it, unless
    /// `prepare` left one for `dispatch`.
    pub fn call_threw(&mut self, thrown: Option<u32>) {
        let first = self.stray.panics.first().copied();
        let due = first.filter(|id| self.stray.between.contains(id));
        self.demand(thrown == due, || {
            format!("the call ended with the panic {thrown:?} instead of {due:?}")
        });
        self.stray.panics.truncate(usize::from(due.is_none()));
    }

    // --- what follows from the state ------------------------------------------------------------

    /// The kernel watches it.
    fn is_watched(&self, handler: &Handler) -> bool {
        let held_back = handler.parked || (handler.external && self.disabled > 0);
        !handler.wanted.is_empty() && !held_back
    }

    fn max_spin(&self) -> u64 {
        if self.spin == Spin::Off { 0 } else { WINDOW }
    }

    /// A counted turn is over; so long went by.
    fn adapt_window(&mut self, block: u64) {
        if self.spin == Spin::Fixed {
            return;
        }
        let max = self.max_spin();
        let shrink = if self.spin == Spin::Jumping { 2 } else { 0 };
        if block <= self.window {
            return;
        }
        if block > max {
            self.window = self.window.checked_div(shrink).unwrap_or(0);
        } else if self.window < max && block < max {
            self.window = match (self.window, self.spin) {
                (0, _) => 4000,
                (_, Spin::Jumping) => max,
                (window, _) => (window * 2).min(max),
            };
        }
    }

    /// The spin window now.
    pub fn window(&self) -> u64 {
        self.window
    }

    /// Who is on the spin list.
    pub fn members(&self) -> impl Iterator<Item = (u8, bool)> + '_ {
        self.live.iter().map(|(at, handler)| (*at, handler.member))
    }

    /// Which files are ready for which handlers: the events of each.
    fn ready_files(&self, files: &Readiness) -> Vec<(u8, u32)> {
        let watched = self.live.iter().filter(|(_, handler)| self.is_watched(handler));
        watched
            .map(|(at, h)| (*at, files[usize::from(*at)] & (mask(h.wanted) | ALWAYS)))
            .filter(|(_, events)| *events != 0)
            .collect()
    }
}

/// The window before anything is known.
fn first_window(spin: Spin) -> u64 {
    if spin == Spin::Fixed { WINDOW } else { 0 }
}

/// Waited for by every request on a ring, and reported to nobody.
const END: u32 = PollFlags::RDHUP.bits() as u32;

/// Always reported.
const ALWAYS: u32 = Events::ERR.bits() | Events::HUP.bits();

fn mask(interest: Interest) -> u32 {
    let mut events = Events::empty();
    events.set(Events::IN, interest.contains(Interest::READ));
    events.set(Events::OUT, interest.contains(Interest::WRITE));
    events.set(Events::PRI, interest.contains(Interest::PRIORITY));
    events.bits()
}

fn collect(handler: &mut Handler, phase: u64, hit: bool, events: u32) {
    take_place(handler, phase);
    handler.hit |= hit;
    handler.events |= events;
}

/// This phase collects something for it, or may: that is its place in the order, unless it has one.
fn take_place(handler: &mut Handler, phase: u64) {
    if !handler.is_due() {
        handler.latest = phase;
        // What may have been collected before has its place, if it was.
        if handler.may_hear.is_empty() && !handler.may_hit {
            handler.since = phase;
        }
    }
}
