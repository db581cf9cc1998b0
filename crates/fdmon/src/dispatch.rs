//! ④ Dispatch: from the ready list to the callback.

use crate::context::{AioContext, State};
use crate::error::{Error, Outcome};
use crate::handler::{Body, NOWHERE};
use crate::interest::{Callbacks, Events, Interest, actions, word};
use crate::ops::Ops;
use crate::registry::{Callback, DueHalf, Entry, Hints, Registry, Repeating, Slot};
use crate::remote::Shared;
use crate::turn::{Due, Held, events_of};

/// The order in which the callbacks of one handler run, and the interest each one needs by then.
const IN_ORDER: [(u32, Interest); 4] = [
    (word::RUN_READY, Interest::empty()),
    (word::RUN_READ, Interest::empty()),
    (word::RUN_WRITE, Interest::WRITE),
    (word::RUN_PRIORITY, Interest::PRIORITY),
];

/// A handler with one callback to run, with its body taken out for the call.
pub(crate) struct Simple {
    slot: u32,
    generation: u32,
    pending: u32,
    body: Box<dyn Body>,
}

/// A bottom half that may run again, with its callback taken out for the call.
pub(crate) struct SimpleHalf {
    slot: u32,
    generation: u32,
    pub idle: bool,
    callback: Repeating,
}

/// A simple handler while its callback runs. It costs nothing unless the callback panics: then it
/// puts the handler back and runs the rest of the turn, before the panic goes on to the caller.
struct Running<'a> {
    ctx: &'a AioContext,
    slot: u32,
    generation: u32,
    /// `None` = the callback has returned.
    body: Option<Box<dyn Body>>,
}

impl Drop for Running<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(body) = self.body.take() {
            self.ctx.finish_panicked(self.slot, self.generation, body);
        }
    }
}

impl State {
    /// The next handler, if nothing goes before it and it is simple: native, one callback, and
    /// nothing about it to change. Else it stays where it is.
    #[inline(always)] // the common way of an event
    pub(crate) fn next_simple(&mut self, shared: &Shared) -> Option<Simple> {
        let Registry { words, ready, halves_due, timers_due, hints, .. } = &mut self.reg;
        if !halves_due.is_empty() {
            return None;
        }
        let Some(slot) = ready.first() else {
            ready.clear();
            if timers_due.is_empty() {
                hints.clear(Hints::DUE);
            }
            return None;
        };
        let pending = words.get(slot);
        if pending == 0 {
            return None; // stale
        }
        let simple = self.take_simple(shared, slot, pending)?;
        self.reg.ready.advance();
        self.reg.words.set(slot, 0);
        Some(simple)
    }

    /// The next bottom half, if it is simple. Else it stays where it is.
    #[inline(always)]
    pub(crate) fn next_simple_half(&mut self, shared: &Shared) -> Option<SimpleHalf> {
        let &DueHalf::Slot(slot) = self.reg.halves_due.front()? else { return None };
        if self.reg.words.get(slot) != word::BOTTOM_HALF {
            return None;
        }
        let half = self.take_simple_half(shared, slot)?;
        self.reg.halves_due.pop_front();
        self.reg.words.set(slot, 0);
        Some(half)
    }

    /// The bottom half that was scheduled, if it is the only one, simple, and nothing is due.
    #[inline(always)]
    pub(crate) fn only_half(&mut self, shared: &Shared) -> Option<SimpleHalf> {
        if self.scheduled.len() != 1 {
            return None;
        }
        let slot = self.scheduled.front()?.slot;
        if !self.reg.has_half(self.scheduled.front()?) || self.reg.words.get(slot) != 0 {
            return None;
        }
        let half = self.take_simple_half(shared, slot)?;
        self.scheduled.pop_front();
        self.reg.hints.clear(Hints::SCHEDULED);
        Some(half)
    }

    /// Takes a bottom half's callback out for a call, if it is simple to call: native, there to run
    /// again, and not cancelled.
    #[inline(always)]
    fn take_simple_half(&mut self, shared: &Shared, slot: u32) -> Option<SimpleHalf> {
        let Some(Slot { generation, entry: Entry::Half(half) }) =
            self.reg.slots.get_mut(slot as usize)
        else {
            return None;
        };
        if !matches!(half.callback, Callback::Repeating(_)) {
            return None;
        }
        let idle = half.node.begin_run()?;
        let taken = std::mem::replace(&mut half.callback, Callback::Running);
        let Callback::Repeating(callback) = taken else { unreachable!("seen just above") };
        if !idle {
            shared.stats.events.bump();
        }
        Some(SimpleHalf { slot, generation: *generation, idle, callback })
    }

    /// Takes a handler's body out for a call, if it is simple to call.
    #[inline(always)]
    pub(crate) fn take_simple(
        &mut self,
        shared: &Shared,
        slot: u32,
        pending: u32,
    ) -> Option<Simple> {
        let Some(Slot { generation, entry: Entry::Handler(handler) }) =
            self.reg.slots.get_mut(slot as usize)
        else {
            return None;
        };
        let is_hit = pending == word::HIT;
        let is_simple = if is_hit {
            handler.simple_hit
        } else {
            pending & !word::EVENTS == 0 && handler.only_reads
        };
        if !is_simple {
            return None;
        }
        let body = handler.body.take()?;
        handler.running += 1;
        if is_hit {
            handler.ran_while_armed = true;
            handler.counters.poll_hits.bump();
        } else {
            handler.counters.reads.bump();
        }
        shared.stats.events.bump();
        Some(Simple { slot, generation: *generation, pending, body })
    }

    /// Names the callbacks that this handler's readiness asks for. `None` = nothing is due.
    #[inline(always)]
    pub(crate) fn issue_handler(&mut self, shared: &Shared, slot: u32) -> Option<Due> {
        let pending = self.reg.words.get(slot);
        if pending == 0 {
            return None;
        }
        let spinning = self.spin.params.max_ns != 0;
        let Registry { slots, words, .. } = &mut self.reg;
        let Some(Slot { generation, entry: Entry::Handler(handler) }) =
            slots.get_mut(slot as usize)
        else {
            return None;
        };
        if handler.running != 0 {
            // Readiness is level-triggered and predicates are asked again: both come back.
            words.set(slot, 0);
            self.want_look(slot);
            return None;
        }
        let run = if pending == word::HIT {
            word::RUN_READY
        } else if pending & word::HIT == 0 && handler.callbacks == Callbacks::READ {
            word::RUN_READ
        } else {
            actions(pending, handler.wanted)
        };
        if pending & word::ISSUED == 0 {
            let counters = &handler.counters;
            shared.stats.events.bump();
            if run & word::RUN_READ != 0 {
                counters.reads.bump();
            }
            if run & word::RUN_WRITE != 0 {
                counters.writes.bump();
            }
            if pending & word::HIT != 0 {
                counters.poll_hits.bump();
            }
        }
        handler.ran_while_armed |= pending & word::HIT != 0;
        let joins = handler.has_poll && spinning && handler.member == NOWHERE;
        let issued = (pending & !word::RUN) | run;
        let due = if handler.foreign {
            words.set(slot, issued | word::ISSUED);
            Due::Foreign(slot)
        } else {
            words.set(slot, 0);
            let body = handler.body.take()?;
            handler.running += 1;
            Due::Handler { slot, generation: *generation, word: issued, body }
        };
        if joins {
            self.join_spin_list(slot);
        }
        Some(due)
    }

    pub(crate) fn issue_half(&mut self, shared: &Shared, slot: u32) -> Option<Due> {
        let pending = self.reg.words.get(slot);
        if pending & word::BOTTOM_HALF == 0 {
            return if pending & word::IO != 0 {
                self.issue_io(shared, slot, pending)
            } else {
                None
            };
        }
        let half = self.reg.half(slot)?;
        if !matches!(half.callback, Callback::Foreign) {
            self.reg.words.set(slot, 0);
            return Some(Due::Half(slot));
        }
        // Later schedules, from other threads, count as new ones.
        let idle = half.node.begin_run();
        let before = self.reg.words.get(slot);
        if idle.is_none() && before & word::ISSUED == 0 {
            self.reg.words.set(slot, 0);
            return None;
        }
        let idle = if idle == Some(true) { word::IDLE } else { before & word::IDLE };
        if before & word::ISSUED == 0 && idle == 0 {
            shared.stats.events.bump();
        }
        self.reg.words.set(slot, word::BOTTOM_HALF | word::ISSUED | idle);
        Some(Due::Foreign(slot))
    }

    pub(crate) fn issue_timer(&mut self, shared: &Shared, slot: u32) -> Option<Due> {
        let pending = self.reg.words.get(slot);
        if pending & word::TIMER == 0 {
            return None;
        }
        if matches!(self.reg.timer(slot)?.callback, Callback::Foreign) {
            if pending & word::ISSUED == 0 {
                shared.stats.events.bump();
            }
            self.reg.words.set(slot, pending | word::ISSUED);
            Some(Due::Foreign(slot))
        } else {
            self.reg.words.set(slot, 0);
            Some(Due::Timer(slot))
        }
    }

    /// Bottom halves that were scheduled before now are due; those scheduled from here on wait
    /// for the next turn.
    #[inline]
    pub(crate) fn collect_halves(&mut self) {
        self.reg.hints.clear(Hints::SCHEDULED);
        for _ in 0..self.scheduled.len() {
            let Some(node) = self.scheduled.pop_front() else { return };
            if node.slot == u32::MAX {
                self.reg.halves_due.push_back(DueHalf::Job(node));
                self.reg.hints.set(Hints::DUE);
                continue;
            }
            if self.reg.runs(&node) {
                self.scheduled.push_back(node); // in a turn around this one: when it has returned
                self.reg.hints.set(Hints::SCHEDULED);
                continue;
            }
            if self.reg.has_half(&node)
                && node.is_scheduled()
                && self.reg.words.raise(node.slot, word::BOTTOM_HALF)
            {
                self.reg.halves_due.push_back(DueHalf::Slot(node.slot));
                self.reg.hints.set(Hints::DUE);
            }
        }
    }

    /// Timers that have expired, in the order in which they did.
    #[inline]
    pub(crate) fn collect_timers(&mut self, now: u64) {
        while let Some(slot) = self.timers.pop_due(now) {
            if self.reg.words.raise(slot, word::TIMER) {
                self.reg.timers_due.push(slot);
                self.reg.hints.set(Hints::DUE);
            }
        }
        if self.timers.is_empty() {
            self.reg.hints.clear(Hints::TIMERS);
        }
    }
}

impl AioContext {
    /// Runs one callback that is not foreign. `true` = progress.
    pub(crate) fn dispatch_one(&self, due: Due) -> bool {
        if self.0.recording.get() {
            return self.dispatch_recorded(due);
        }
        self.run_due(due)
    }

    /// …as a step that somebody writes down.
    #[cold]
    fn dispatch_recorded(&self, due: Due) -> bool {
        self.0.state().callback_begins(&due);
        let progress = self.run_due(due);
        self.0.state().step_ends(|_| ());
        progress
    }

    fn run_due(&self, due: Due) -> bool {
        match due {
            Due::Handler { slot, generation, word, body } => {
                self.run_handler(slot, generation, word, body);
                true
            }
            Due::Half(slot) => self.run_half(slot),
            Due::Io(slot) => {
                self.run_completion(slot);
                true
            }
            Due::Job(node) => {
                if let Some(job) = node.take_job() {
                    self.0.guarded(|| job(&mut self.ops()));
                }
                self.0.shared.stats.events.bump();
                true
            }
            Due::Timer(slot) => self.run_timer(slot),
            Due::Foreign(_) => false,
        }
    }

    pub(crate) fn ops(&self) -> Ops<'_> {
        Ops { ctx: self, fd: None, events: Events::empty() }
    }

    /// Runs it and puts it back.
    #[inline(always)]
    pub(crate) fn run_simple(&self, simple: Simple) -> Held<'_> {
        let Simple { slot, generation, pending, body } = simple;
        let mut running = Running { ctx: self, slot, generation, body: Some(body) };
        let Some(body) = &mut running.body else { unreachable!("set just above") };
        let outcome = if pending == word::HIT {
            body.ready(self, Events::empty())
        } else {
            body.read(self, events_of(pending))
        };
        let Some(body) = running.body.take() else { unreachable!("taken by nobody else") };
        if let Err(error) = outcome {
            self.failed(slot, error);
        }
        self.put_back(slot, generation, body)
    }

    /// The rest of a turn of which a callback panicked. A second panic gives way to the first;
    /// errors are reported by the turn around this one, or by the next.
    #[cold]
    fn finish_panicked(&self, slot: u32, generation: u32, body: Box<dyn Body>) {
        drop(self.put_back(slot, generation, body));
        loop {
            let due = self.0.state().next_due(&self.0.shared);
            let Some(due) = due else { break };
            self.dispatch_one(due);
        }
        let mut st = self.0.state();
        let depth = st.depth;
        st.failures.take_panic(depth);
    }

    #[cold]
    fn failed(&self, slot: u32, error: Box<dyn std::error::Error + Send + Sync>) {
        self.0.state().fail(Some(slot), error);
    }

    fn run_handler(&self, slot: u32, generation: u32, pending: u32, mut body: Box<dyn Body>) {
        let run = pending & word::RUN;
        if run.is_power_of_two() {
            self.run_callback_of(slot, run, pending, &mut body);
        } else {
            self.run_several(slot, generation, pending, &mut body);
        }
        drop(self.put_back(slot, generation, body));
    }

    #[cold]
    fn run_several(&self, slot: u32, generation: u32, pending: u32, body: &mut Box<dyn Body>) {
        let mut first = true;
        for (bit, interest) in IN_ORDER {
            // An earlier callback may have removed or replaced the handler, or lost interest.
            if pending & bit != 0
                && (std::mem::take(&mut first) || self.still_wants(slot, generation, interest))
            {
                self.run_callback_of(slot, bit, pending, body);
            }
        }
    }

    #[inline(always)]
    fn run_callback_of(&self, slot: u32, bit: u32, pending: u32, body: &mut Box<dyn Body>) {
        let events = events_of(pending);
        self.0.guarded(|| {
            let outcome = match bit {
                word::RUN_READ => body.read(self, events),
                word::RUN_WRITE => body.write(self, events),
                word::RUN_PRIORITY => body.priority(self, events),
                _ => body.ready(self, events),
            };
            if let Err(error) = outcome {
                self.failed(slot, error);
            }
        });
    }

    fn still_wants(&self, slot: u32, generation: u32, interest: Interest) -> bool {
        let mut st = self.0.state();
        let disabled = st.reg.external_disabled > 0;
        st.reg.live_handler(slot, generation).is_some_and(|handler| {
            handler.wanted.contains(interest) && !(handler.external && disabled)
        })
    }

    /// Takes the body out for a call into user code.
    #[inline]
    pub(crate) fn take_body(&self, slot: u32, generation: u32) -> Option<Box<dyn Body>> {
        let mut st = self.0.state();
        let handler = st.reg.live_handler(slot, generation)?;
        let body = handler.body.take()?;
        handler.running += 1;
        Some(body)
    }

    /// Puts it back, or lets it go if its handler is gone.
    #[inline(always)]
    pub(crate) fn put_back(&self, slot: u32, generation: u32, body: Box<dyn Body>) -> Held<'_> {
        let mut st = self.0.state();
        match st.reg.live_handler(slot, generation) {
            Some(handler) if !handler.end_owed => {
                handler.running -= 1;
                handler.body = Some(body);
                st
            }
            _ => {
                self.put_back_late(st, slot, generation, body);
                self.0.state()
            }
        }
    }

    /// Spin mode was left, or the handler removed, while the body was out.
    #[cold]
    fn put_back_late(&self, mut st: Held<'_>, slot: u32, generation: u32, mut body: Box<dyn Body>) {
        if let Some(handler) = st.reg.live_handler(slot, generation) {
            handler.running -= 1;
            handler.end_owed = false;
            st.want_look(slot);
            drop(st);
            self.0.guarded(|| body.poll_end());
            if let Some(handler) = self.0.state().reg.live_handler(slot, generation) {
                handler.body = Some(body);
                return;
            }
        } else {
            let grave = |g: &crate::registry::Grave| g.slot == slot && g.generation == generation;
            let owed = st.reg.graves.iter().any(|g| grave(g) && g.end_owed);
            drop(st);
            if owed {
                self.0.guarded(|| body.poll_end());
            }
        }
        let claim = self.0.state().take_claim(slot, generation);
        // Users' drop code runs here, outside any borrow.
        self.0.guarded(|| match claim {
            Some(take) => take(self, body),
            None => drop(body),
        });
    }

    fn run_half(&self, slot: u32) -> bool {
        let mut st = self.0.state();
        let generation = st.reg.generation(slot);
        let Some(half) = st.reg.half(slot) else { return false };
        let Some(idle) = half.node.begin_run() else { return false };
        if !idle {
            self.0.shared.stats.events.bump();
        }
        let callback = std::mem::replace(&mut half.callback, Callback::Running);
        if matches!(callback, Callback::Once(_)) {
            st.delete_half(&self.0.shared, slot);
        }
        drop(st);
        let callback = self.run_callback(callback);
        self.put_half_back(slot, generation, callback);
        !idle
    }

    /// Puts a bottom half's callback back, or lets it go with its bottom half.
    fn put_half_back(&self, slot: u32, generation: u32, callback: Callback) {
        let mut st = self.0.state();
        let mut rest = None;
        if st.reg.generation(slot) == generation
            && let Some(half) = st.reg.half(slot)
        {
            half.callback = callback;
            if half.orphan && !half.node.is_scheduled() {
                rest = st.delete_half(&self.0.shared, slot);
            }
        }
        drop(st);
        drop(rest);
    }

    /// Runs it and puts it back.
    #[inline(always)]
    pub(crate) fn run_simple_half(&self, half: SimpleHalf) -> Held<'_> {
        let SimpleHalf { slot, generation, mut callback, .. } = half;
        if let Some(Err(error)) = self.0.guarded(|| callback(&mut self.ops())) {
            self.half_failed(error);
        }
        let callback = Callback::Repeating(callback);
        let mut st = self.0.state();
        if let Some(Slot { generation: now, entry: Entry::Half(half) }) =
            st.reg.slots.get_mut(slot as usize)
            && *now == generation
            && !half.orphan
        {
            half.callback = callback;
            return st;
        }
        drop(st);
        self.put_half_back(slot, generation, callback);
        self.0.state()
    }

    #[cold]
    fn half_failed(&self, error: Box<dyn std::error::Error + Send + Sync>) {
        self.0.state().fail(None, error);
    }

    fn run_timer(&self, slot: u32) -> bool {
        let mut st = self.0.state();
        let generation = st.reg.generation(slot);
        let Some(timer) = st.reg.timer(slot) else { return false };
        self.0.shared.stats.events.bump();
        let callback = std::mem::replace(&mut timer.callback, Callback::Running);
        drop(st);
        let callback = self.run_callback(callback);
        let mut st = self.0.state();
        let mut rest = None;
        if st.reg.generation(slot) == generation
            && let Some(timer) = st.reg.timer(slot)
        {
            timer.callback = callback;
            if let Some((deadline, order)) = timer.rearmed.take() {
                st.timers.arm(slot, deadline, order);
                st.reg.hints.set(Hints::TIMERS);
            } else if timer.orphan {
                rest = Some(st.reg.vacate(slot, false));
            }
        }
        drop(st);
        drop(rest);
        true
    }

    /// Runs the callback and hands it back if it can run again.
    fn run_callback(&self, callback: Callback) -> Callback {
        let run = |f: &mut dyn FnMut() -> Outcome| {
            if let Some(Err(error)) = self.0.guarded(f) {
                self.0.state().fail(None, error);
            }
        };
        match callback {
            Callback::Once(once) => {
                let mut once = Some(once);
                run(&mut || once.take().map_or(Ok(()), |once| once(&mut self.ops())));
                Callback::Running
            }
            Callback::Repeating(mut repeating) => {
                run(&mut || repeating(&mut self.ops()));
                Callback::Repeating(repeating)
            }
            other => other,
        }
    }

    /// Removes the handlers whose fd turned out to be closed, and reports each once.
    #[cold]
    pub(crate) fn remove_bad(&self) {
        let bad = std::mem::take(&mut self.0.state().reg.bad);
        for token in bad {
            let slot = token.slot();
            let fd = match self.0.state().reg.live_handler(slot, token.generation()) {
                Some(handler) => handler.fd,
                None => continue,
            };
            self.remove_slot(slot);
            let error =
                Error::bad_fd(fd, "it was closed while registered: remove its handler first");
            self.0.state().fail(Some(slot), Box::new(error));
        }
    }
}
