//! ② The io_uring monitor: one poll request an fd, and completions in shared memory.
//!
//! A poll request completes once. It is put in again by the next call that waits, or by one call
//! before a spin, and completes at once if the fd is still ready: so readiness is level-triggered,
//! an event costs one system call, and whether there is any can be seen in memory. The notifier
//! has a request that completes at each write, since nobody reads it.
//!
//! Some polls go apart from the common way. The kernel adds RDHUP to what a request waits for: once
//! a peer has ended its writing, a request for anything else would complete at once and for nothing,
//! for ever; it is put in as a multishot one, which says so once and goes on waiting, and is taken
//! back when it has found something. And urgent data wakes only who waits for any data, while any
//! data claims to be urgent (sockets, Linux 6.18): so PRI is waited for together with IN, and is
//! looked up before it is reported.
//!
//! A request holds its file: taking an fd out cancels the request before the caller closes the fd,
//! so that peers see the hang-up and ports are free at once.

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::{BorrowedFd, RawFd};
use rustix::io::Errno;
use rustix::io_uring::{
    IoringCqeFlags, IoringOp, IoringPollFlags, IoringSqeFlags, addr_or_splice_off_in_union,
    io_uring_sqe, io_uring_user_data, len_union, op_flags_union,
};

use super::refusal::Refusal;
use super::ring::{Completion, Ring};
use super::ring_features::RingFeatures;
use super::{FdMonitor, MonitorToken, Sink, borrow, timespec};
use crate::config::{BusyPoll, RingMode, RingParams};
use crate::interest::{Events, Interest};
use crate::notifier;

/// `user_data` of a poll: generation, 0, which poll of that handler it is, slot. The bit between
/// is set in the `user_data` of everything else.
const TURN_SHIFT: u32 = 21;
const TURN_MASK: u64 = 0x3ff << TURN_SHIFT;
const NOT_A_POLL: u64 = 1 << 31;
/// Requests that take polls back. One that changes a poll has that poll's, and this bit.
const CANCEL: u64 = u64::MAX - 1;

/// A wait asks at most once for so many watched fds…
const FDS_A_CALL: u32 = 16;

/// A call that fails for a reason that passes is made so often before the ring is given up.
const TRIES: u32 = 16;

/// A signal came, the kernel has no memory for requests just now, or it wants completions to be
/// taken first.
fn passes(errno: Errno) -> bool {
    matches!(errno, Errno::INTR | Errno::AGAIN | Errno::BUSY)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Not watched.
    Absent,
    /// On the list of what is to be put in.
    Due,
    /// The kernel has it.
    Armed,
    /// The same, apart from the common way.
    DueApart,
    ArmedApart,
}

impl Stage {
    fn is_armed(self) -> bool {
        matches!(self, Self::Armed | Self::ArmedApart)
    }
}

/// The poll request of one slot.
#[derive(Clone, Copy)]
struct Poll {
    user_data: u64,
    fd: RawFd,
    /// What it waits for and reports, ERR and HUP included.
    events: u16,
    stage: Stage,
    /// A request that completes once would complete for nothing.
    multishot: bool,
}

const ABSENT: Poll =
    Poll { user_data: 0, fd: -1, events: 0, stage: Stage::Absent, multishot: false };

impl Poll {
    fn goes_apart(&self) -> bool {
        self.multishot || u32::from(self.events) & Events::PRI.bits() != 0
    }

    /// Data that is not urgent would complete it for nothing.
    fn only_urgent(&self) -> bool {
        u32::from(self.events) & (Events::PRI | Events::IN).bits() == Events::PRI.bits()
    }

    fn becomes_due(&mut self) {
        self.stage = if self.goes_apart() { Stage::DueApart } else { Stage::Due };
    }

    /// It waits for both directions, and the one that was not reported may have become ready since.
    fn has_more_than(&self, result: i32) -> bool {
        let both = (Events::IN | Events::OUT).bits();
        u32::from(self.events) & both == both && result.cast_unsigned() & both != both
    }

    /// Which of these events, that a completion told of, are there now.
    fn look(&self, told: u32) -> u32 {
        // Signed with rustix's backend for libc, which another crate's features, or Miri, may choose.
        let wanted = PollFlags::from_bits_retain(self.events as _);
        let mut fds = [PollFd::from_borrowed_fd(borrow(self.fd), wanted)];
        loop {
            match poll(&mut fds, Some(&timespec(0))) {
                Ok(_) => return super::poll::bits(fds[0].revents()) & u32::from(self.events),
                Err(Errno::INTR) => {}
                // Nobody knows. A request that goes on does not tell of them again.
                Err(_) => return told,
            }
        }
    }
}

pub(crate) struct UringMonitor {
    pub(super) ring: Ring,
    /// By slot.
    polls: Vec<Poll>,
    /// Slots whose poll is to be put in by the next call.
    due: Vec<u32>,
    watched: u32,
    notifier: RawFd,
    notifier_due: bool,
    /// Multishot requests that have found something, to be taken back.
    superseded: Vec<u64>,
    /// There is something to be put in besides polls.
    others_due: bool,
    /// The notifier's request completes once, as on old kernels.
    notifier_once: bool,
    /// Requests may be silent about their success.
    skip_success: bool,
    /// Completions since the wait began.
    batch: u32,
    /// Some of them were not believed or are out of date, or a poll was refused for a reason other
    /// than its fd…
    odd: bool,
    /// …and these slots' polls are to be asked anew before the wait ends.
    again: Vec<u32>,
    /// What failed is asked for once more, and no more after that: the slots whose poll has failed
    /// in this wait.
    failed: Vec<u32>,
    /// Slots whose multishot poll has ended for nothing in this wait.
    for_nothing: Vec<u32>,
    refused: Option<Errno>,
}

impl UringMonitor {
    pub fn new(params: &RingParams, notifier: RawFd) -> Result<Self, Refusal> {
        let ring = Ring::new(params)?;
        let once = ring.mode() == RingMode::Plain;
        Self::on(ring, notifier, once)
    }

    fn on(ring: Ring, notifier: RawFd, notifier_once: bool) -> Result<Self, Refusal> {
        let mut monitor = Self {
            notifier_once,
            skip_success: ring.features().skip_success,
            ring,
            polls: Vec::new(),
            due: Vec::new(),
            watched: 0,
            notifier,
            notifier_due: true,
            superseded: Vec::new(),
            others_due: true,
            batch: 0,
            odd: false,
            again: Vec::new(),
            failed: Vec::new(),
            for_nothing: Vec::new(),
            refused: None,
        };
        // Tries the call as well: a sandbox may allow rings to be made, and nothing to be done
        // with them.
        monitor.look().map_err(|errno| Refusal { call: "io_uring_enter", errno })?;
        Ok(monitor)
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.ring.fd()
    }

    pub fn mode(&self) -> RingMode {
        self.ring.mode()
    }

    pub fn features(&self) -> RingFeatures {
        RingFeatures { multishot_poll: !self.notifier_once, ..self.ring.features() }
    }

    /// The notifier reports as long as nobody reads it.
    pub fn notifier_must_be_read(&self) -> bool {
        self.notifier_once
    }

    /// The first call: puts the notifier in.
    fn look(&mut self) -> Result<(), Errno> {
        for _ in 0..2 {
            let mut unheard = Unheard::default();
            self.push_due(&mut unheard)?;
            self.flush(&mut unheard, false)?;
            self.reap(&mut unheard, false);
            if !self.notifier_due {
                break; // else it was refused, and is put in again in another way
            }
        }
        self.failed.clear();
        self.for_nothing.clear();
        self.refused.map_or(Ok(()), Err)
    }

    /// Queues the polls that are due.
    #[inline(always)] // most of the time it is one
    fn push_due(&mut self, sink: &mut impl Sink) -> Result<(), Errno> {
        if self.others_due {
            self.push_others()?;
        }
        let (mut at, count) = (0, self.due.len());
        while at < count {
            let slot = self.due[at];
            at += 1;
            self.push_poll(slot, sink)?;
        }
        if self.due.len() == count {
            self.due.clear();
        } else {
            self.due.drain(..count); // some became due meanwhile
        }
        Ok(())
    }

    /// Queues what is to be asked anew. Not what was reported: its callbacks are still to run.
    #[cold]
    fn push_again(&mut self, sink: &mut impl Sink) -> Result<(), Errno> {
        if self.others_due {
            self.push_others()?;
        }
        let mut again = std::mem::take(&mut self.again);
        for &slot in &again {
            self.push_poll(slot, sink)?; // and it is passed over where it stands in `due`
        }
        if self.again.is_empty() {
            again.clear();
            self.again = again; // its memory is used again
        }
        Ok(())
    }

    /// Queues the poll of this slot, if it is due.
    #[inline(always)]
    fn push_poll(&mut self, slot: u32, sink: &mut impl Sink) -> Result<(), Errno> {
        let Some(poll) = self.polls.get_mut(slot as usize) else { return Ok(()) };
        if poll.stage != Stage::Due {
            return if poll.stage == Stage::DueApart {
                self.push_apart(slot, sink)
            } else {
                Ok(())
            };
        }
        poll.stage = Stage::Armed;
        let poll = *poll;
        sink.arming(token_of(poll.user_data));
        let entry = || poll_add(poll.fd, poll.events, poll.user_data);
        if !self.ring.push(entry) {
            self.make_room()?;
            self.ring.push(entry);
        }
        Ok(())
    }

    #[cold]
    fn push_apart(&mut self, slot: u32, sink: &mut impl Sink) -> Result<(), Errno> {
        let poll = &mut self.polls[slot as usize];
        poll.stage = Stage::ArmedApart;
        let mut entry = poll_add(poll.fd, waking(poll.events), poll.user_data);
        if poll.multishot || poll.only_urgent() {
            entry.len = len_union { poll_flags: IoringPollFlags::ADD_MULTI };
        }
        sink.arming(token_of(poll.user_data));
        self.push(entry)
    }

    #[cold]
    fn push_others(&mut self) -> Result<(), Errno> {
        self.others_due = false;
        for user_data in std::mem::take(&mut self.superseded) {
            self.push(cancel(user_data, self.skip_success))?;
        }
        if !std::mem::take(&mut self.notifier_due) {
            return Ok(());
        }
        let mut entry = poll_add(self.notifier, mask(Interest::READ), MonitorToken::NOTIFIER.0);
        if !self.notifier_once {
            entry.len = len_union { poll_flags: IoringPollFlags::ADD_MULTI };
        }
        self.push(entry)
    }

    /// The queue is full. What completes meanwhile is due again, and completes once more.
    #[cold]
    fn make_room(&mut self) -> Result<(), Errno> {
        let mut unheard = Unheard::default();
        let mut result = Ok(());
        for _ in 0..TRIES {
            if !self.ring.is_full() {
                break;
            }
            result = match self.ring.submit() {
                Err(errno) if passes(errno) => self.flush(&mut unheard, false),
                other => other,
            };
            if result.is_err() {
                break;
            }
        }
        self.heed(&unheard);
        result
    }

    /// Submits, and makes the completions appear that are ready; again while what is in the way
    /// passes.
    fn flush(&mut self, sink: &mut impl Sink, doubt: bool) -> Result<(), Errno> {
        match self.ring.flush() {
            Err(errno) if passes(errno) => self.flush_again(sink, doubt),
            other => other,
        }
    }

    #[cold]
    fn flush_again(&mut self, sink: &mut impl Sink, doubt: bool) -> Result<(), Errno> {
        let mut result = Ok(());
        for _ in 0..TRIES {
            self.reap(sink, doubt); // the kernel may need the room
            result = self.ring.flush();
            if !result.is_err_and(passes) {
                break;
            }
        }
        result
    }

    /// Nobody heard that the notifier was written, and it does not report again by itself.
    fn heed(&self, unheard: &Unheard) {
        if unheard.notified {
            notifier::wake(borrow(self.notifier));
        }
    }

    /// Takes the completions that are there. `doubt` = they may be older than the last callback of
    /// their handler.
    fn reap(&mut self, sink: &mut impl Sink, doubt: bool) {
        let mut batch = self.batch;
        let posted = self.ring.posted();
        while let Some(completion) = self.ring.next(posted) {
            batch += 1;
            self.take(completion, sink, doubt);
        }
        self.batch = batch;
        self.ring.release(batch);
    }

    #[inline(always)]
    fn take(&mut self, completion: Completion, sink: &mut impl Sink, doubt: bool) {
        let Completion { user_data, result, .. } = completion;
        let token = token_of(user_data);
        let poll = match self.polls.get_mut(token.slot() as usize) {
            Some(poll) if poll.user_data == user_data && poll.stage == Stage::Armed => poll,
            _ => return self.take_other(completion, sink, doubt),
        };
        poll.stage = Stage::Due;
        self.due.push(token.slot());
        if result < 0 {
            self.take_failure(token, result, sink);
        } else if doubt && (sink.doubts(token) || poll.has_more_than(result)) {
            self.ask_again(token);
        } else {
            #[allow(clippy::cast_sign_loss, reason = "it is not negative")]
            let events = result as u32 & u32::from(poll.events);
            if events != 0 {
                sink.ready(token, Events::from_bits_retain(events));
            } else {
                // It completed before the interest was changed, or for RDHUP, as it would again.
                poll.multishot = true;
                poll.stage = Stage::DueApart;
                self.ask_again(token);
            }
        }
    }

    #[cold]
    fn ask_again(&mut self, token: MonitorToken) {
        self.odd = true;
        self.again.push(token.slot());
    }

    #[cold]
    fn take_apart(&mut self, completion: Completion, sink: &mut impl Sink, doubt: bool) {
        let Completion { user_data, result, flags } = completion;
        let token = token_of(user_data);
        let poll = &mut self.polls[token.slot() as usize];
        let mut events = u32::try_from(result).unwrap_or(0) & u32::from(poll.events);
        if events & Events::PRI.bits() != 0 {
            events = poll.look(events);
        }
        let goes_on = flags & IoringCqeFlags::MORE.bits() != 0;
        if goes_on && result >= 0 && events == 0 {
            return;
        }
        if poll.multishot && !goes_on && result >= 0 && events == 0 {
            if self.for_nothing.contains(&token.slot()) {
                // Twice: such a file is ready at once and for ever, and has nobody to tell when that
                // changes. It never has what this handler waits for.
                poll.stage = Stage::Absent;
                return;
            }
            self.for_nothing.push(token.slot());
        }
        poll.multishot = false;
        poll.becomes_due();
        self.due.push(token.slot());
        if goes_on {
            poll.user_data = token.0 | next_turn(user_data);
            self.superseded.push(user_data);
            self.others_due = true;
        }
        if result < 0 {
            self.take_failure(token, result, sink);
        } else if events != 0 && !(doubt && sink.doubts(token)) {
            sink.ready(token, Events::from_bits_retain(events));
        } else {
            poll.multishot = true;
            poll.becomes_due();
            self.ask_again(token);
        }
    }

    /// The notifier, a request that cancelled, a poll that goes apart, or one that was cancelled.
    #[cold]
    fn take_other(&mut self, completion: Completion, sink: &mut impl Sink, doubt: bool) {
        if completion.user_data != MonitorToken::NOTIFIER.0 {
            let slot = token_of(completion.user_data).slot() as usize;
            let waits = |poll: &Poll| {
                poll.user_data == completion.user_data && poll.stage == Stage::ArmedApart
            };
            if self.polls.get(slot).is_some_and(waits) {
                return self.take_apart(completion, sink, doubt);
            }
            let failed = completion.result < 0 && completion.user_data & NOT_A_POLL != 0;
            if failed && completion.user_data != CANCEL {
                self.change_anew(completion.user_data & !NOT_A_POLL);
            }
            return;
        }
        if completion.flags & IoringCqeFlags::MORE.bits() == 0 {
            (self.notifier_due, self.others_due) = (true, true);
        }
        if completion.result >= 0 {
            sink.ready(MonitorToken::NOTIFIER, Events::IN);
            return;
        }
        match Errno::from_raw_os_error(-completion.result) {
            Errno::INVAL if !self.notifier_once => self.notifier_once = true, // no multishot here
            errno => self.fail(MonitorToken::NOTIFIER, errno),
        }
        self.odd = true; // it may have been written meanwhile
    }

    /// The poll could not be changed: it was just being woken, maybe for nothing, or this kernel
    /// changes none. It is taken back, and put in again as it is wanted now.
    #[cold]
    fn change_anew(&mut self, user_data: u64) {
        let slot = token_of(user_data).slot() as usize;
        let is_armed = |p: &&Poll| p.user_data == user_data && p.stage.is_armed();
        if self.polls.get(slot).filter(is_armed).is_none() {
            return; // it has completed
        }
        let entry = cancel(user_data, self.skip_success);
        if self.ring.is_full() {
            let _ = self.ring.submit();
        }
        self.odd = true;
        if !self.ring.push(|| entry) {
            self.refuse(Errno::AGAIN);
        }
    }

    #[cold]
    fn take_failure(&mut self, token: MonitorToken, result: i32, sink: &mut impl Sink) {
        match Errno::from_raw_os_error(-result) {
            Errno::BADF => Self::report_closed(&mut self.polls, token, sink),
            errno => self.fail(token, errno),
        }
    }

    /// Asked for again, it fails again until somebody hears it.
    fn report_closed<S: Sink>(polls: &mut [Poll], token: MonitorToken, sink: &mut S) {
        if S::HEARS {
            polls[token.slot() as usize].stage = Stage::Absent;
            sink.ready(token, Events::NVAL);
        }
    }

    /// A request failed. It is put in again.
    #[cold]
    fn fail(&mut self, token: MonitorToken, errno: Errno) {
        match errno {
            Errno::CANCELED => {} // by us, or by nobody
            Errno::INTR | Errno::AGAIN | Errno::NOMEM if !self.failed.contains(&token.slot()) => {
                self.failed.push(token.slot());
            }
            errno => self.refuse(errno),
        }
        self.ask_again(token);
    }

    #[cold]
    fn refuse(&mut self, errno: Errno) {
        self.odd = true;
        self.refused = Some(errno);
    }

    /// Queues a request between waits.
    fn push(&mut self, entry: io_uring_sqe) -> Result<(), Errno> {
        if !self.ring.push(|| entry) {
            self.make_room()?;
            self.ring.push(|| entry);
        }
        Ok(())
    }

    /// Takes an armed poll back, now: the caller may close the fd next, and the request holds its
    /// file.
    fn cancel_now(&mut self, user_data: u64) -> Result<(), Errno> {
        let mut unheard = Unheard::default();
        self.batch = 0;
        self.push(cancel(user_data, self.skip_success))?;
        // Nobody waits for what just completed, so it must not end the next wait. What completed
        // beside it is due again and completes once more.
        let result = self.flush_all(&mut unheard);
        self.heed(&unheard);
        result
    }

    #[cold]
    fn cancel_superseded(&mut self, token: MonitorToken) -> Result<(), Errno> {
        let Some(at) = self.superseded.iter().position(|other| token_of(*other) == token) else {
            return Ok(());
        };
        let user_data = self.superseded.swap_remove(at);
        self.cancel_now(user_data)
    }

    /// Submits everything and takes all that completes, though one call does only so much of it.
    fn flush_all(&mut self, unheard: &mut Unheard) -> Result<(), Errno> {
        let mut calls = self.watched / FDS_A_CALL + 2;
        loop {
            self.flush(unheard, false)?;
            self.reap(unheard, false);
            calls = calls.saturating_sub(1);
            let goes_on = self.ring.has_work() && calls != 0;
            if !goes_on && !self.ring.has_unsubmitted() {
                return Ok(());
            }
        }
    }

    fn watch(&mut self, token: MonitorToken, fd: RawFd, interest: Interest) {
        let slot = token.slot();
        let index = slot as usize;
        if index >= self.polls.len() {
            self.polls.resize(index + 1, ABSENT);
        }
        let poll = &mut self.polls[index];
        let turn = next_turn(poll.user_data);
        *poll = Poll { user_data: token.0 | turn, fd, events: mask(interest), ..ABSENT };
        poll.becomes_due();
        self.due.push(slot);
    }
}

/// What the rings of this kernel can do for this process: makes some, and tries them.
pub(crate) fn probe(eventfd: RawFd) -> Result<RingFeatures, Refusal> {
    let made = |mode, restricted| Ring::new(&RingParams { mode, restricted }).is_ok();
    let monitor = UringMonitor::new(&RingParams::default(), eventfd)?;
    // A plain ring does without it for the notifier, also where the kernel has it.
    let notifies_again = || {
        let ring = Ring::new(&RingParams::default())?;
        UringMonitor::on(ring, eventfd, false).map(|monitor| !monitor.notifier_once)
    };
    Ok(RingFeatures {
        multishot_poll: !monitor.notifier_once || notifies_again().unwrap_or(false),
        cooperative: made(RingMode::Cooperative, false),
        restrictions: made(RingMode::Auto, true),
        napi: monitor.ring.poll_queues(1, false).is_ok(),
        ..monitor.features()
    })
}

/// The place in `user_data` of which poll of its handler it is, for the one after this.
fn next_turn(user_data: u64) -> u64 {
    (user_data & TURN_MASK).wrapping_add(1 << TURN_SHIFT) & TURN_MASK
}

fn token_of(user_data: u64) -> MonitorToken {
    MonitorToken(user_data & !TURN_MASK)
}

/// What kind of request has this `user_data`.
#[cfg(feature = "faults")]
pub(crate) fn kind_of(user_data: u64) -> crate::faults::Completed {
    use crate::faults::Completed;
    match user_data {
        CANCEL => Completed::Cancel,
        _ if user_data == MonitorToken::NOTIFIER.0 => Completed::Notifier,
        _ if user_data & NOT_A_POLL != 0 => Completed::Change,
        _ => Completed::Poll,
    }
}

fn silent_success(silent: bool) -> IoringSqeFlags {
    if silent { IoringSqeFlags::CQE_SKIP_SUCCESS } else { IoringSqeFlags::empty() }
}

/// Takes a poll back. Says nothing about its success, if the kernel can be silent. A request to
/// remove it would fail while it is being woken, and leave it there if that was for nothing.
fn cancel(user_data: u64, silent: bool) -> io_uring_sqe {
    io_uring_sqe {
        opcode: IoringOp::AsyncCancel,
        flags: silent_success(silent),
        fd: -1,
        addr_or_splice_off_in: addr_or_splice_off_in_union {
            user_data: io_uring_user_data::from_u64(user_data),
        },
        user_data: io_uring_user_data::from_u64(CANCEL),
        ..io_uring_sqe::default()
    }
}

/// Changes what a poll waits for, where it is.
fn poll_change(user_data: u64, interest: Interest, silent: bool) -> io_uring_sqe {
    io_uring_sqe {
        opcode: IoringOp::PollRemove,
        len: len_union { poll_flags: IoringPollFlags::UPDATE_EVENTS },
        op_flags: op_flags_union { poll32_events: waking(mask(interest)).into() },
        user_data: io_uring_user_data::from_u64(user_data | NOT_A_POLL),
        ..cancel(user_data, silent)
    }
}

#[allow(clippy::cast_possible_truncation, reason = "they fit 16 bits")]
fn mask(interest: Interest) -> u16 {
    (interest.to_events() | Events::ERR | Events::HUP).bits() as u16
}

/// What a request for these events waits for.
#[allow(clippy::cast_possible_truncation, reason = "they fit 16 bits")]
fn waking(events: u16) -> u16 {
    let urgent = u32::from(events) & Events::PRI.bits() != 0;
    if urgent { events | Events::IN.bits() as u16 } else { events }
}

#[inline(always)]
fn poll_add(fd: RawFd, events: u16, user_data: u64) -> io_uring_sqe {
    io_uring_sqe {
        opcode: IoringOp::PollAdd,
        fd,
        op_flags: op_flags_union { poll32_events: events.into() },
        user_data: io_uring_user_data::from_u64(user_data),
        ..io_uring_sqe::default()
    }
}

impl FdMonitor for UringMonitor {
    const SEES_READINESS: bool = true;

    fn update(
        &mut self,
        token: MonitorToken,
        fd: RawFd,
        old: Interest,
        new: Interest,
    ) -> Result<(), Errno> {
        if old.is_empty() && new.is_empty() {
            return Ok(());
        }
        if old.is_empty() {
            self.watched += 1;
            self.watch(token, fd, new);
            return Ok(());
        }
        let Some(poll) = self.polls.get_mut(token.slot() as usize) else { return Ok(()) };
        let was_armed = poll.stage.is_armed();
        let user_data = poll.user_data;
        poll.events = mask(new);
        if new.is_empty() {
            poll.stage = Stage::Absent;
            self.watched -= 1;
            if was_armed {
                self.cancel_now(user_data)?;
            }
            if !self.superseded.is_empty() {
                self.cancel_superseded(token)?;
            }
        } else if was_armed {
            if poll.goes_apart() {
                poll.stage = Stage::ArmedApart;
            }
            self.push(poll_change(user_data, new, self.skip_success))?;
        } else if poll.stage == Stage::Absent {
            self.watch(token, fd, new);
        } else {
            poll.becomes_due();
        }
        Ok(())
    }

    #[inline(always)] // without a timeout, or with one that is not 0, it is only the call
    fn wait(&mut self, timeout: Option<u64>, sink: &mut impl Sink) -> Result<(), Errno> {
        if timeout == Some(0) && !self.has_due() && self.ring.is_quiet() {
            return Ok(()); // all is seen in memory
        }
        self.ask(timeout, sink)
    }

    #[inline]
    fn need_wait(&self) -> bool {
        self.ring.has_completions() || self.ring.has_work()
    }

    fn busy_poll(&mut self, params: Option<BusyPoll>) -> Result<(), Errno> {
        let (usecs, prefer) = params.map_or((0, false), |params| (params.usecs, params.prefer));
        self.ring.poll_queues(usecs, prefer)
    }

    #[inline]
    fn has_due(&self) -> bool {
        !self.due.is_empty() || self.others_due || self.ring.has_unsubmitted()
    }

    /// So that readiness can be seen in memory.
    fn submit_due(&mut self, sink: &mut impl Sink) -> Result<(), Errno> {
        if !self.has_due() {
            return Ok(());
        }
        self.push_due(sink)?;
        match self.ring.submit() {
            Ok(()) if self.due.is_empty() => Ok(()),
            Err(errno) if !passes(errno) => Err(errno),
            _ => self.submit_again(),
        }
    }
}

impl UringMonitor {
    #[inline(never)] // the turns that it is called from keep their registers for the other monitors
    fn ask(&mut self, timeout: Option<u64>, sink: &mut impl Sink) -> Result<(), Errno> {
        if timeout.is_none() && self.due.len() == 1 && self.ring.is_quiet() {
            self.wait_again(sink)
        } else {
            self.wait_in_full(timeout, sink)
        }
    }

    /// The wait as it is most of the time: one fd was dispatched, and its next event is slept for.
    /// It has the steps of [`UringMonitor::wait_in_full`], less those with nothing to do.
    #[inline(always)]
    fn wait_again(&mut self, sink: &mut impl Sink) -> Result<(), Errno> {
        let slot = self.due[0];
        let poll = match self.polls.get(slot as usize) {
            Some(poll) if poll.stage == Stage::Due && !self.others_due => poll,
            _ => return self.wait_in_full(None, sink),
        };
        let (fd, events, user_data) = (poll.fd, poll.events, poll.user_data);
        if !self.ring.push(|| poll_add(fd, events, user_data)) {
            return self.wait_in_full(None, sink);
        }
        sink.arming(token_of(user_data));
        let result = self.ring.sleep(None);
        if let Some(events) = self.ring.take_only(user_data, events) {
            // As if it had been armed meanwhile: it is due again.
            sink.ready(token_of(user_data), Events::from_bits_retain(events));
            if !self.ring.has_work() {
                return Ok(());
            }
        } else {
            self.due.clear();
            self.polls[slot as usize].stage = Stage::Armed;
        }
        self.batch = 0;
        self.finish(result, sink, false)
    }

    #[inline(never)]
    fn wait_in_full(&mut self, timeout: Option<u64>, sink: &mut impl Sink) -> Result<(), Errno> {
        self.batch = 0;
        let (seen, work) = (self.ring.has_completions(), self.ring.has_work());
        // What completes after this look happened after the last callback of its handler.
        let doubt = seen || work;
        self.push_due(sink)?;
        // Making room for the polls may have brought completions.
        let result = if timeout != Some(0) && !seen && self.batch == 0 {
            self.ring.sleep(timeout)
        } else if work || self.ring.has_unsubmitted() {
            self.flush(sink, doubt)
        } else {
            Ok(())
        };
        self.finish(result, sink, doubt)
    }

    /// What follows the call of a wait.
    #[inline(never)]
    fn finish(
        &mut self,
        result: Result<(), Errno>,
        sink: &mut impl Sink,
        doubt: bool,
    ) -> Result<(), Errno> {
        let mut result = match result {
            Err(Errno::AGAIN | Errno::BUSY) => self.flush(sink, doubt), // instead of the sleep
            other => other,
        };
        self.reap(sink, doubt);
        if self.odd || self.ring.has_work() {
            result = self.take_the_rest(sink, doubt).and(result);
        }
        match result {
            Ok(()) => Ok(()),
            Err(errno) => self.end_badly(errno, sink),
        }
    }

    #[cold]
    fn end_badly(&mut self, errno: Errno, sink: &mut impl Sink) -> Result<(), Errno> {
        if errno == Errno::INTR {
            return if self.batch == 0 { Err(errno) } else { Ok(()) };
        }
        self.refuse(errno); // for good: a call that succeeds does not bring back what was lost
        sink.trouble();
        Err(errno)
    }

    /// Everything that was ready when the wait began, though one call fetches only so much of it.
    #[inline(never)]
    fn take_the_rest(&mut self, sink: &mut impl Sink, doubt: bool) -> Result<(), Errno> {
        for _ in 0..=self.watched / FDS_A_CALL {
            if !self.ring.has_work() && !self.ring.has_unsubmitted() {
                break;
            }
            self.flush(sink, doubt)?;
            self.reap(sink, doubt);
        }
        // Asked anew: what is ready completes in this call. What was not believed may fail then, and
        // is asked for once more.
        for _ in 0..2 {
            if self.refused.is_some() || !std::mem::take(&mut self.odd) {
                break;
            }
            self.push_again(sink)?;
            self.flush(sink, false)?;
            self.reap(sink, false);
        }
        self.failed.clear();
        self.for_nothing.clear();
        self.refused.map_or(Ok(()), Err)
    }

    /// What is due was not all put in. What completes meanwhile is due again.
    #[cold]
    fn submit_again(&mut self) -> Result<(), Errno> {
        let mut unheard = Unheard::default();
        let mut result = Err(Errno::AGAIN);
        for _ in 0..TRIES {
            self.batch = 0;
            self.reap(&mut unheard, false);
            result = self.push_due(&mut unheard).and_then(|()| self.ring.submit());
            let again = result.map_or_else(passes, |()| !self.due.is_empty());
            if !again {
                break;
            }
        }
        self.heed(&unheard);
        result
    }
}

impl Drop for UringMonitor {
    /// Takes the requests back, since they hold files that others may close and wait for.
    fn drop(&mut self) {
        if !self.ring.is_ours() {
            return; // a forked child: they are the parent's
        }
        let armed = self.polls.iter_mut().filter(|poll| poll.stage.is_armed());
        let armed: Vec<u64> = armed
            .map(|poll| {
                poll.stage = Stage::Absent;
                poll.user_data
            })
            .chain(self.superseded.drain(..))
            .collect();
        for user_data in armed {
            if self.push(cancel(user_data, self.skip_success)).is_err() {
                return; // the kernel takes them back some time after the ring is closed
            }
        }
        self.batch = 0;
        let _refused = self.flush_all(&mut Unheard::default()); // as above
    }
}

/// Takes reports outside of a wait. Nothing is lost: polls are due again, and complete again if
/// their fds are still ready.
#[derive(Default)]
struct Unheard {
    /// The notifier was among them, which does not report again by itself.
    notified: bool,
}

impl Sink for Unheard {
    const HEARS: bool = false;

    fn ready(&mut self, token: MonitorToken, _: Events) {
        self.notified |= token == MonitorToken::NOTIFIER;
    }
}
