//! ① The registry: slots for handlers, bottom halves and timers; fd → handler in O(1).
//!
//! One index space serves all three kinds, so that one pending word names whatever is due. A slot
//! carries a generation; a freed slot is used again only when no turn can still see its number.

use std::collections::VecDeque;

use rustix::fd::RawFd;

use crate::aio::Request;
use crate::error::{Error, ErrorCode, Outcome, Result};
use crate::handler::{Handler, NOWHERE};
use crate::inbox::Node;
use crate::interest::{Events, word};
use crate::monitor::MonitorToken;
use crate::ops::Ops;
use crate::sync::Arc;
use crate::words::Words;

/// Slots at most: bottom-half numbers spend 21 bits on them.
const MOST_SLOTS: u32 = 1 << 21;

pub(crate) type Repeating = Box<dyn FnMut(&mut Ops<'_>) -> Outcome>;
pub(crate) type Once = Box<dyn FnOnce(&mut Ops<'_>) -> Outcome>;

/// What a bottom half runs.
pub(crate) enum Callback {
    Repeating(Repeating),
    Once(Once),
    /// Lives in another language.
    Foreign,
    /// Out: it runs right now.
    Running,
}

pub(crate) struct Half {
    pub node: Arc<Node>,
    pub callback: Callback,
    /// Its handle is gone: delete it once it has run.
    pub orphan: bool,
}

pub(crate) struct TimerEntry {
    pub callback: Callback,
    pub orphan: bool,
    /// Armed by its own callback, from whose return on it counts: when, and its place in the order
    /// of arming.
    pub rearmed: Option<(u64, u64)>,
}

pub(crate) enum Entry {
    Free,
    Handler(Box<Handler>),
    Half(Half),
    Timer(TimerEntry),
    /// Of file I/O.
    Io(Box<Request>),
}

pub(crate) struct Slot {
    pub generation: u32,
    pub entry: Entry,
}

/// A slot that was given up while a turn may still see its number.
pub(crate) struct Grave {
    pub slot: u32,
    pub generation: u32,
    /// The handler had begun and its body was out: `poll_end` is owed to it when it returns.
    pub end_owed: bool,
}

/// A queue that never moves its items: taken from the front by a cursor, and emptied for good
/// when the cursor reaches the end.
#[derive(Default)]
pub(crate) struct Fifo {
    slots: Vec<u32>,
    taken: usize,
}

impl Fifo {
    #[inline]
    pub fn push(&mut self, slot: u32) {
        self.slots.push(slot);
    }

    #[inline]
    pub fn first(&self) -> Option<u32> {
        self.slots.get(self.taken).copied()
    }

    /// The first has been taken.
    #[inline]
    pub fn advance(&mut self) {
        self.taken += 1;
    }

    #[inline]
    pub fn pop(&mut self) -> Option<u32> {
        let slot = self.first();
        if slot.is_some() {
            self.advance();
        } else {
            self.clear();
        }
        slot
    }

    /// Keeps what this holds for, of what has not been taken yet.
    pub fn retain(&mut self, keep: impl FnMut(&u32) -> bool) {
        self.slots.drain(..std::mem::take(&mut self.taken));
        self.slots.retain(keep);
    }

    /// What has not been taken yet.
    pub fn rest(&self) -> &[u32] {
        &self.slots[self.taken..]
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.taken == self.slots.len()
    }

    #[inline]
    pub fn clear(&mut self) {
        self.slots.clear();
        self.taken = 0;
    }
}

/// One entry of the list of due bottom halves, and of completions of file I/O before them.
pub(crate) enum DueHalf {
    Slot(u32),
    Job(Arc<Node>),
}

/// What may need attention, in one word, so that a turn with nothing special asks once instead of
/// looking at every list: a clear bit says that there is nothing, a set one that it may be.
#[derive(Clone, Copy)]
pub(crate) struct Hints(u32);

impl Hints {
    /// Something is on a list of what is due.
    pub const DUE: u32 = 1;
    /// A predicate is to run once.
    pub const LOOKS: u32 = 1 << 1;
    /// The spin list has members.
    pub const MEMBERS: u32 = 1 << 2;
    /// A running handler was taken off the monitor.
    pub const PARKED: u32 = 1 << 3;
    /// Bottom halves or jobs arrived.
    pub const SCHEDULED: u32 = 1 << 4;
    /// Timers are armed.
    pub const TIMERS: u32 = 1 << 5;
    /// Slots wait for the outermost turn to end.
    pub const GRAVES: u32 = 1 << 6;
    /// A callback, predicate or hook failed.
    pub const FAILURES: u32 = 1 << 7;
    /// The wait reported more than ready handlers.
    pub const ODD_REPORT: u32 = 1 << 8;
    /// There are enough fds for epoll.
    pub const MOVE_UP: u32 = 1 << 9;
    pub const CLOSED: u32 = 1 << 10;
    /// Blocking turns may spin.
    pub const SPINS: u32 = 1 << 11;
    /// Another thread changed the parameters.
    pub const CHANGED: u32 = 1 << 13;
    /// Some member of the spin list is not a word in memory, but somebody's code.
    pub const CODE_MEMBERS: u32 = 1 << 12;
    /// Somebody wants to know of spins, which are whole only on the full way.
    pub const TRACED: u32 = 1 << 14;
    /// Points were noted that a subscriber was not told yet.
    pub const UNTOLD: u32 = 1 << 15;

    /// The policy counts every turn, also a hit at once.
    pub const COUNTS_ALL: u32 = 1 << 16;
    /// Requests of file I/O have not ended.
    pub const IO: u32 = 1 << 17;

    /// With nothing but these set, a turn has nothing more to run or to tidy up.
    pub const QUIET: u32 = Self::SPINS
        | Self::MEMBERS
        | Self::CODE_MEMBERS
        | Self::LOOKS
        | Self::COUNTS_ALL
        | Self::IO
        | Self::TRACED;

    #[inline]
    pub fn any(self, bits: u32) -> bool {
        self.0 & bits != 0
    }

    /// Nothing but these.
    #[inline]
    pub fn only(self, bits: u32) -> bool {
        self.0 & !bits == 0
    }

    #[inline]
    pub fn set(&mut self, bits: u32) {
        self.0 |= bits;
    }

    #[inline]
    pub fn clear(&mut self, bits: u32) {
        self.0 &= !bits;
    }
}

pub(crate) struct Registry {
    pub hints: Hints,
    pub slots: Vec<Slot>,
    free: Vec<u32>,
    pub graves: Vec<Grave>,
    /// fd → slot + 1
    fds: Vec<u32>,
    pub words: Words,
    /// ③ Handlers that are due, in the order of detection. An entry whose word is 0 is stale.
    pub ready: Fifo,
    pub halves_due: VecDeque<DueHalf>,
    pub timers_due: Fifo,
    /// Handlers that no spin can serve: no `poll`, yet something to wait for.
    pub poll_disable_count: u32,
    /// Handlers that the kernel watches…
    pub armed: u32,
    /// …and of these, the ones that are not on the spin list.
    pub unspun: u32,
    /// Handlers that spin on the kernel's readiness.
    pub kernel_spinners: u32,
    /// `disable_external` minus `enable_external`.
    pub external_disabled: u32,
    /// Reported while their callback runs in a turn around this one.
    pub parked: Vec<u32>,
    /// Reported as not open.
    pub bad: Vec<MonitorToken>,
    /// An event came for a registration that is gone: the kernel still watches it.
    pub orphaned: bool,
    pub notifier_signalled: bool,
    pub handlers: u32,
    pub halves: u32,
    pub timers: u32,
}

impl Registry {
    pub fn new() -> Self {
        Self {
            hints: Hints(0),
            slots: Vec::new(),
            free: Vec::new(),
            graves: Vec::new(),
            fds: Vec::new(),
            words: Words::new(),
            ready: Fifo::default(),
            halves_due: VecDeque::new(),
            timers_due: Fifo::default(),
            poll_disable_count: 0,
            armed: 0,
            unspun: 0,
            kernel_spinners: 0,
            external_disabled: 0,
            parked: Vec::new(),
            bad: Vec::new(),
            orphaned: false,
            notifier_signalled: false,
            handlers: 0,
            halves: 0,
            timers: 0,
        }
    }

    /// The next slot to be used, and whether the words reach that far; `None` = the embedder
    /// must supply more words first.
    pub fn reserve(&mut self) -> Result<Option<u32>> {
        let slot = match self.free.last() {
            Some(&slot) => slot,
            None => u32::try_from(self.slots.len()).unwrap_or(MOST_SLOTS),
        };
        if slot >= MOST_SLOTS {
            return Err(Error::new(
                ErrorCode::InvalidArg,
                format!("slots = {MOST_SLOTS} are all in use; use several contexts"),
            ));
        }
        Ok(self.words.reserve(slot).then_some(slot))
    }

    /// Fills the slot that [`Registry::reserve`] named.
    pub fn fill(&mut self, slot: u32, entry: Entry) -> u32 {
        match &entry {
            Entry::Handler(_) => self.handlers += 1,
            Entry::Half(_) => self.halves += 1,
            Entry::Timer(_) => self.timers += 1,
            Entry::Io(_) | Entry::Free => {}
        }
        self.words.set(slot, 0);
        if self.free.last() == Some(&slot) {
            self.free.pop();
            let place = &mut self.slots[slot as usize];
            place.entry = entry;
            place.generation
        } else {
            self.slots.push(Slot { generation: 0, entry });
            0
        }
    }

    /// Empties the slot; its number rests until [`Registry::bury`].
    pub fn vacate(&mut self, slot: u32, end_owed: bool) -> Entry {
        let place = &mut self.slots[slot as usize];
        let entry = std::mem::replace(&mut place.entry, Entry::Free);
        match &entry {
            Entry::Handler(_) => self.handlers -= 1,
            Entry::Half(_) => self.halves -= 1,
            Entry::Timer(_) => self.timers -= 1,
            Entry::Io(_) => {}
            Entry::Free => return entry,
        }
        self.hints.set(Hints::GRAVES);
        self.graves.push(Grave { slot, generation: place.generation, end_owed });
        place.generation = place.generation.wrapping_add(1);
        self.words.set(slot, 0);
        entry
    }

    /// Gives the resting numbers back: no turn runs.
    pub fn bury(&mut self) {
        self.hints.clear(Hints::GRAVES);
        self.free.extend(self.graves.drain(..).map(|grave| grave.slot));
    }

    #[inline]
    pub fn entry(&mut self, slot: u32, generation: u32) -> Option<&mut Entry> {
        let place = self.slots.get_mut(slot as usize)?;
        (place.generation == generation).then_some(&mut place.entry)
    }

    #[inline]
    pub fn handler(&mut self, slot: u32) -> Option<&mut Handler> {
        match self.slots.get_mut(slot as usize) {
            Some(Slot { entry: Entry::Handler(handler), .. }) => Some(handler),
            _ => None,
        }
    }

    #[inline]
    pub fn live_handler(&mut self, slot: u32, generation: u32) -> Option<&mut Handler> {
        match self.slots.get_mut(slot as usize) {
            Some(Slot { generation: g, entry: Entry::Handler(h) }) if *g == generation => Some(h),
            _ => None,
        }
    }

    #[inline]
    pub fn half(&mut self, slot: u32) -> Option<&mut Half> {
        match self.slots.get_mut(slot as usize) {
            Some(Slot { entry: Entry::Half(half), .. }) => Some(half),
            _ => None,
        }
    }

    /// This bottom half is still there.
    #[inline]
    pub fn has_half(&self, node: &Arc<Node>) -> bool {
        matches!(
            self.slots.get(node.slot as usize),
            Some(Slot { entry: Entry::Half(half), .. }) if Arc::ptr_eq(&half.node, node)
        )
    }

    /// It is scheduled, and need not wait for the end of its own callback in a turn around this one.
    pub fn is_to_run(&self, node: &Node) -> bool {
        node.is_scheduled() && !self.runs(node)
    }

    /// This bottom half's callback runs now.
    pub fn runs(&self, node: &Node) -> bool {
        matches!(
            self.slots.get(node.slot as usize),
            Some(Slot { generation, entry: Entry::Half(Half { callback: Callback::Running, .. }) })
                if *generation == node.generation
        )
    }

    #[inline]
    pub fn timer(&mut self, slot: u32) -> Option<&mut TimerEntry> {
        match self.slots.get_mut(slot as usize) {
            Some(Slot { entry: Entry::Timer(timer), .. }) => Some(timer),
            _ => None,
        }
    }

    /// The generation that [`Registry::fill`] will give this slot.
    pub fn next_generation(&self, slot: u32) -> u32 {
        self.slots.get(slot as usize).map_or(0, |place| place.generation)
    }

    pub fn generation(&self, slot: u32) -> u32 {
        self.slots[slot as usize].generation
    }

    /// The slot of the handler of this fd.
    #[inline]
    pub fn slot_of(&self, fd: RawFd) -> Option<u32> {
        self.fds.get(index_of(fd)?)?.checked_sub(1)
    }

    pub fn set_fd(&mut self, fd: RawFd, slot: Option<u32>) {
        let Some(index) = index_of(fd) else { return };
        if index >= self.fds.len() {
            self.fds.resize(index + 1, 0);
        }
        self.fds[index] = slot.map_or(0, |slot| slot + 1);
    }

    /// Who one report of the monitor is for, and the pending bits that it raises. `None` = nobody's
    /// callback is to run for it.
    #[inline(always)] // the body of every monitor's loop
    pub fn examine(&mut self, token: MonitorToken, events: Events) -> Option<(u32, u32)> {
        let slot = token.slot();
        let Some(Slot { generation, entry: Entry::Handler(handler) }) =
            self.slots.get_mut(slot as usize)
        else {
            self.report_other(token);
            return None;
        };
        if *generation != token.generation() || events.contains(Events::NVAL) {
            self.report_other(token);
            return None;
        }
        if handler.running != 0 {
            if !handler.parked {
                handler.parked = true;
                self.parked.push(slot);
                self.hints.set(Hints::PARKED);
            }
            return None;
        }
        Some((slot, events.bits() & word::EVENTS))
    }

    /// Is this report, which may be older than the handler's last callback, to be asked for again?
    #[cold]
    pub fn doubts(&mut self, token: MonitorToken) -> bool {
        self.live_handler(token.slot(), token.generation())
            .is_some_and(|handler| std::mem::take(&mut handler.ran_while_armed))
    }

    /// The kernel watches this handler's fd for one report from now on. What it reports before a
    /// callback that runs now, or is due already, has returned, that callback may have taken.
    #[cold]
    pub fn arming(&mut self, token: MonitorToken) {
        let due = self.words.get(token.slot()) != 0;
        if let Some(handler) = self.handler(token.slot())
            && (due || handler.running != 0)
        {
            handler.ran_while_armed = true;
        }
    }

    /// Puts a handler on the ready list.
    #[inline]
    pub fn collect(&mut self, slot: u32, pending: u32) {
        if self.words.raise(slot, pending) {
            self.ready.push(slot);
            self.hints.set(Hints::DUE);
        }
    }

    /// Before a turn that runs the rest of the lists, because it is nested or `prepare` filled them:
    /// what it finds anew comes behind what was found before, although a stale entry of the same
    /// slot may stand there.
    #[cold]
    pub fn forget_stale(&mut self) {
        let words = &self.words;
        self.ready.retain(|slot| words.get(*slot) != 0);
        self.timers_due.retain(|slot| words.get(*slot) != 0);
    }

    #[cold]
    fn report_other(&mut self, token: MonitorToken) {
        self.hints.set(Hints::ODD_REPORT);
        if token == MonitorToken::NOTIFIER {
            self.notifier_signalled = true;
        } else if self.live_handler(token.slot(), token.generation()).is_some() {
            self.bad.push(token);
        } else {
            self.orphaned = true;
        }
    }

    /// The handler's fd is not open: the next turn removes it and says so.
    #[cold]
    pub fn report_bad(&mut self, slot: u32) {
        self.bad.push(MonitorToken::new(slot, self.generation(slot)));
        self.hints.set(Hints::ODD_REPORT);
    }

    /// Something waits to be run, and has not been taken or dropped meanwhile.
    pub fn has_due(&self) -> bool {
        let pending = |slot: &u32| self.words.get(*slot) != 0;
        self.ready.rest().iter().any(pending)
            || self.timers_due.rest().iter().any(pending)
            || self.halves_due.iter().any(|half| match half {
                DueHalf::Slot(slot) => pending(slot),
                DueHalf::Job(_) => true,
            })
    }

    /// How many callbacks wait to be run.
    pub fn due_count(&self) -> u64 {
        let lists = self.ready.rest().len() + self.timers_due.rest().len() + self.halves_due.len();
        lists as u64
    }

    /// Every live handler's slot.
    pub fn handler_slots(&self) -> impl Iterator<Item = u32> + use<'_> {
        (0_u32..)
            .zip(&self.slots)
            .filter_map(|(slot, s)| matches!(s.entry, Entry::Handler(_)).then_some(slot))
    }
}

/// The handler counts among those for which spinning gives way to a wait.
pub(crate) fn needs_wait(handler: &Handler) -> bool {
    !handler.armed.is_empty() && !handler.has_poll && !handler.kernel
}

/// The handler counts among those that a purely spinning loop would starve.
pub(crate) fn is_unspun(handler: &Handler) -> bool {
    !handler.armed.is_empty() && handler.member == NOWHERE
}
/// Where the slot of this fd is.
#[cfg(not(wasi))]
#[inline]
fn index_of(fd: RawFd) -> Option<usize> {
    usize::try_from(fd).ok()
}

/// …the numbers of notifiers, which are high, between those of files.
#[cfg(wasi)]
fn index_of(fd: RawFd) -> Option<usize> {
    let place = |fd: RawFd| usize::try_from(fd).ok();
    match fd.checked_sub(crate::bell::FIRST).filter(|bell| *bell >= 0) {
        Some(bell) => place(bell)?.checked_mul(2)?.checked_add(1),
        None => place(fd)?.checked_mul(2),
    }
}
