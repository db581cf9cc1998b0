//! ② The io_uring monitor: one poll request an fd, and completions in shared memory.
//!
//! A poll request completes once. It is put in again by the next call that waits, or by one call
//! before a spin, and completes at once if the fd is still ready: so readiness is level-triggered,
//! an event costs one system call, and whether there is any can be seen in memory. The notifier
//! has a request that completes at each write, since nobody reads it.
//!
//! A request holds its file: taking an fd out cancels the request before the caller closes the fd,
//! so that peers see the hang-up and ports are free at once.

use rustix::fd::{BorrowedFd, RawFd};
use rustix::io::Errno;
use rustix::io_uring::{
    IoringCqeFlags, IoringOp, IoringPollFlags, IoringSqeFlags, addr_or_splice_off_in_union,
    io_uring_sqe, io_uring_user_data, len_union, op_flags_union,
};

use super::refusal::Refusal;
use super::ring::{Completion, Ring, RingFeatures};
use super::{FdMonitor, MonitorToken, Sink, borrow, timespec};
use crate::config::{BusyPoll, RingMode, RingParams};
use crate::interest::{Events, Interest};
use crate::notifier;

/// `user_data` of a poll: generation, 0, which poll of that handler it is, slot. The bit between
/// is set in the `user_data` of everything else.
const TURN_SHIFT: u32 = 21;
const TURN_MASK: u64 = 0x3ff << TURN_SHIFT;
const NOT_A_POLL: u64 = 1 << 31;
/// Requests that change or cancel polls.
const CHANGE: u64 = NOT_A_POLL;

/// A wait asks at most once for so many watched fds…
const FDS_A_CALL: u32 = 16;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Not watched.
    Absent,
    /// On the list of what is to be put in.
    Due,
    /// The kernel has it.
    Armed,
}

/// The poll request of one slot.
#[derive(Clone, Copy)]
struct Poll {
    user_data: u64,
    fd: RawFd,
    interest: Interest,
    stage: Stage,
}

const ABSENT: Poll =
    Poll { user_data: 0, fd: -1, interest: Interest::empty(), stage: Stage::Absent };

pub(crate) struct UringMonitor {
    ring: Ring,
    /// By slot.
    polls: Vec<Poll>,
    /// Slots whose poll is to be put in by the next call…
    due: Vec<u32>,
    /// …and room for those that become due meanwhile.
    next_due: Vec<u32>,
    watched: u32,
    notifier: RawFd,
    notifier_due: bool,
    /// The notifier's request completes once, as on old kernels.
    notifier_once: bool,
    /// Requests may be silent about their success.
    skip_success: bool,
    /// Completions since the wait began.
    batch: u32,
    /// Some of them were not believed.
    doubted: bool,
    /// A poll was refused for a reason other than its fd.
    refused: Option<Errno>,
}

impl UringMonitor {
    pub fn new(params: &RingParams, notifier: RawFd) -> Result<Self, Refusal> {
        let ring = Ring::new(params)?;
        let mut monitor = Self {
            notifier_once: ring.mode() == RingMode::Plain,
            skip_success: ring.features().skip_success,
            ring,
            polls: Vec::new(),
            due: Vec::new(),
            next_due: Vec::new(),
            watched: 0,
            notifier,
            notifier_due: true,
            batch: 0,
            doubted: false,
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
            self.ring.flush()?;
            self.reap(&mut unheard, false);
            if !self.notifier_due {
                break; // else it was refused, and is put in again in another way
            }
        }
        self.refused.map_or(Ok(()), Err)
    }

    /// Queues the polls that are due.
    #[inline]
    fn push_due(&mut self, sink: &mut impl Sink) -> Result<(), Errno> {
        if self.notifier_due {
            self.push_notifier(sink)?;
        }
        let mut due = std::mem::replace(&mut self.due, std::mem::take(&mut self.next_due));
        for &slot in &due {
            let Some(poll) = self.polls.get_mut(slot as usize) else { continue };
            if poll.stage != Stage::Due {
                continue;
            }
            poll.stage = Stage::Armed;
            let poll = *poll;
            sink.arming(token_of(poll.user_data));
            let entry = poll_add(poll.fd, poll.interest, poll.user_data);
            if !self.ring.push(entry) {
                self.push_to_full_queue(entry, sink)?;
            }
        }
        due.clear();
        self.next_due = due;
        Ok(())
    }

    #[cold]
    fn push_notifier(&mut self, sink: &mut impl Sink) -> Result<(), Errno> {
        self.notifier_due = false;
        let mut entry = poll_add(self.notifier, Interest::READ, MonitorToken::NOTIFIER.0);
        if !self.notifier_once {
            entry.len = len_union { poll_flags: IoringPollFlags::ADD_MULTI };
        }
        if !self.ring.push(entry) {
            self.push_to_full_queue(entry, sink)?;
        }
        Ok(())
    }

    #[cold]
    fn push_to_full_queue(
        &mut self,
        entry: io_uring_sqe,
        sink: &mut impl Sink,
    ) -> Result<(), Errno> {
        while !self.ring.push(entry) {
            match self.ring.submit() {
                Ok(()) | Err(Errno::INTR) => {}
                // Old kernels take no more while completions wait to be seen.
                Err(Errno::BUSY) => {
                    let _ = self.ring.flush();
                    self.reap(sink, false);
                }
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    /// Takes the completions that are there. `doubt` = they may be older than the last callback of
    /// their handler.
    #[inline]
    fn reap(&mut self, sink: &mut impl Sink, doubt: bool) {
        while let Some(completion) = self.ring.next() {
            self.batch += 1;
            self.take(completion, sink, doubt);
        }
        self.ring.release(self.batch);
    }

    #[inline(always)]
    fn take(&mut self, completion: Completion, sink: &mut impl Sink, doubt: bool) {
        let Completion { user_data, result, .. } = completion;
        let token = token_of(user_data);
        let poll = match self.polls.get_mut(token.slot() as usize) {
            Some(poll) if poll.user_data == user_data && poll.stage == Stage::Armed => poll,
            _ => return self.take_other(completion, sink),
        };
        poll.stage = Stage::Due;
        self.due.push(token.slot());
        if result < 0 {
            self.take_failure(token, result, sink);
        } else if doubt && sink.doubts(token) {
            self.doubted = true;
        } else {
            #[allow(clippy::cast_sign_loss, reason = "it is not negative")]
            let events = Events::from_bits_retain(result as u32);
            // It may have completed before the interest was changed.
            if events.intersects(poll.interest.to_events() | Events::ERR | Events::HUP) {
                sink.ready(token, events);
            }
        }
    }

    /// The notifier, a request that cancelled, or a poll that was cancelled.
    #[cold]
    fn take_other(&mut self, completion: Completion, sink: &mut impl Sink) {
        if completion.user_data == CHANGE {
            if completion.result == -Errno::INVAL.raw_os_error() {
                self.refused = Some(Errno::INVAL); // polls cannot be changed here
            }
            return;
        }
        if completion.user_data != MonitorToken::NOTIFIER.0 {
            return;
        }
        if completion.flags & IoringCqeFlags::MORE.bits() == 0 {
            self.notifier_due = true;
        }
        if completion.result >= 0 {
            sink.ready(MonitorToken::NOTIFIER, Events::IN);
        } else if completion.result == -Errno::INVAL.raw_os_error() && !self.notifier_once {
            self.notifier_once = true; // no multishot polls here
        } else if completion.result != -Errno::CANCELED.raw_os_error() {
            self.refused = Some(Errno::from_raw_os_error(-completion.result));
        }
    }

    #[cold]
    fn take_failure(&mut self, token: MonitorToken, result: i32, sink: &mut impl Sink) {
        match Errno::from_raw_os_error(-result) {
            Errno::CANCELED => {} // not by us: it is put in again
            Errno::BADF => {
                self.polls[token.slot() as usize].stage = Stage::Absent;
                sink.ready(token, Events::NVAL);
            }
            errno => self.refused = Some(errno),
        }
    }

    /// Queues a request between waits.
    fn push(&mut self, entry: io_uring_sqe) -> Result<(), Errno> {
        if !self.ring.push(entry) {
            self.ring.submit()?;
            self.ring.push(entry);
        }
        Ok(())
    }

    /// Takes an armed poll back, now: the caller may close the fd next, and the request holds its
    /// file.
    fn cancel_now(&mut self, user_data: u64) -> Result<(), Errno> {
        self.push(poll_remove(user_data, self.skip_success))?;
        self.ring.flush()?;
        // Nobody waits for what just completed, so it must not end the next wait. What completed
        // beside it is due again and completes once more.
        let mut unheard = Unheard::default();
        self.batch = 0;
        self.reap(&mut unheard, false);
        if unheard.notified {
            let _ = notifier::set(borrow(self.notifier));
        }
        Ok(())
    }

    fn watch(&mut self, token: MonitorToken, fd: RawFd, interest: Interest) {
        let slot = token.slot();
        let index = slot as usize;
        if index >= self.polls.len() {
            self.polls.resize(index + 1, ABSENT);
        }
        let poll = &mut self.polls[index];
        let turn = (poll.user_data & TURN_MASK).wrapping_add(1 << TURN_SHIFT) & TURN_MASK;
        *poll = Poll { user_data: token.0 | turn, fd, interest, stage: Stage::Due };
        self.due.push(slot);
    }
}

/// What the rings of this kernel can do for this process: makes some, and tries them.
pub(crate) fn probe(eventfd: RawFd) -> Result<RingFeatures, Refusal> {
    let made = |mode, restricted| Ring::new(&RingParams { mode, restricted }).is_ok();
    let monitor = UringMonitor::new(&RingParams::default(), eventfd)?;
    Ok(RingFeatures {
        cooperative: made(RingMode::Cooperative, false),
        restrictions: made(RingMode::Auto, true),
        napi: monitor.ring.poll_queues(1, false).is_ok(),
        ..monitor.features()
    })
}

fn token_of(user_data: u64) -> MonitorToken {
    MonitorToken(user_data & !TURN_MASK)
}

/// Takes a poll back. Says nothing about its success, if the kernel can be silent.
fn poll_remove(user_data: u64, silent: bool) -> io_uring_sqe {
    let flags = if silent { IoringSqeFlags::CQE_SKIP_SUCCESS } else { IoringSqeFlags::empty() };
    io_uring_sqe {
        opcode: IoringOp::PollRemove,
        flags,
        fd: -1,
        addr_or_splice_off_in: addr_or_splice_off_in_union {
            user_data: io_uring_user_data::from_u64(user_data),
        },
        user_data: io_uring_user_data::from_u64(CHANGE),
        ..io_uring_sqe::default()
    }
}

/// Changes what a poll waits for, where it is.
fn poll_change(user_data: u64, interest: Interest, silent: bool) -> io_uring_sqe {
    io_uring_sqe {
        len: len_union { poll_flags: IoringPollFlags::UPDATE_EVENTS },
        op_flags: op_flags_union { poll32_events: interest.to_events().bits() },
        ..poll_remove(user_data, silent)
    }
}

#[inline]
fn poll_add(fd: RawFd, interest: Interest, user_data: u64) -> io_uring_sqe {
    io_uring_sqe {
        opcode: IoringOp::PollAdd,
        fd,
        op_flags: op_flags_union { poll32_events: interest.to_events().bits() },
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
        let was_armed = poll.stage == Stage::Armed;
        let user_data = poll.user_data;
        poll.interest = new;
        if new.is_empty() {
            poll.stage = Stage::Absent;
            self.watched -= 1;
            if was_armed {
                self.cancel_now(user_data)?;
            }
        } else if was_armed {
            self.push(poll_change(user_data, new, self.skip_success))?;
        } else if poll.stage == Stage::Absent {
            self.watch(token, fd, new);
        }
        Ok(())
    }

    fn wait(&mut self, timeout: Option<u64>, sink: &mut impl Sink) -> Result<(), Errno> {
        self.batch = 0;
        // What completes after this look happened after the last callback of its handler.
        let doubt = self.need_wait();
        self.push_due(sink)?;
        let result = if timeout == Some(0) || self.ring.has_completions() {
            if self.ring.has_unsubmitted() || self.ring.has_work() {
                self.ring.flush()
            } else {
                Ok(())
            }
        } else {
            self.ring.sleep(timeout.map(timespec))
        };
        self.reap(sink, doubt);
        if self.ring.has_work() || self.doubted {
            self.take_the_rest(sink, doubt)?;
        }
        if let Some(errno) = self.refused {
            return Err(errno);
        }
        match result {
            Err(Errno::BUSY) => Ok(()), // there were completions to take first
            Err(Errno::INTR) if self.batch != 0 => Ok(()),
            other => other,
        }
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
        !self.due.is_empty() || self.notifier_due || self.ring.has_unsubmitted()
    }

    /// So that readiness can be seen in memory.
    fn submit_due(&mut self) -> Result<(), Errno> {
        if !self.has_due() {
            return Ok(());
        }
        self.push_due(&mut Unheard::default())?;
        self.ring.submit()
    }
}

impl UringMonitor {
    /// Everything that was ready when the wait began, though one call fetches only so much of it.
    #[inline(never)]
    fn take_the_rest(&mut self, sink: &mut impl Sink, doubt: bool) -> Result<(), Errno> {
        for _ in 0..=self.watched / FDS_A_CALL {
            if !self.ring.has_work() {
                break;
            }
            match self.ring.flush() {
                Ok(()) | Err(Errno::INTR | Errno::BUSY) => self.reap(sink, doubt),
                Err(errno) => return Err(errno),
            }
        }
        if std::mem::take(&mut self.doubted) {
            // Asked anew: what is ready completes in this call.
            self.push_due(sink)?;
            self.ring.flush()?;
            self.reap(sink, false);
        }
        Ok(())
    }
}

impl Drop for UringMonitor {
    /// Takes the requests back, since they hold files that others may close and wait for.
    fn drop(&mut self) {
        if !self.ring.is_ours() {
            return; // a forked child: they are the parent's
        }
        let armed = self.polls.iter_mut().filter(|poll| poll.stage == Stage::Armed);
        let armed: Vec<u64> = armed
            .map(|poll| {
                poll.stage = Stage::Absent;
                poll.user_data
            })
            .collect();
        for user_data in armed {
            if self.push(poll_remove(user_data, self.skip_success)).is_err() {
                return; // the kernel takes them back some time after the ring is closed
            }
        }
        loop {
            self.batch = 0;
            let done = self.ring.flush();
            self.reap(&mut Unheard::default(), false);
            if done.is_err() || !self.ring.has_work() {
                return;
            }
        }
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
    fn ready(&mut self, token: MonitorToken, _: Events) {
        self.notified |= token == MonitorToken::NOTIFIER;
    }
}
