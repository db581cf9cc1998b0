//! ② The ring: the two queues that io_uring(7) shares with the kernel, and the calls on them.
//!
//! Nothing here knows what is submitted. The head of the completion queue is published late on
//! purpose: the kernel counts what we have seen and not yet released towards the number it is
//! asked to wait for, and does at least as much deferred work as that number in one call. So a
//! burst that would need a call for every 20 completions is fetched by one, without ever waiting
//! for completions that may not come.
#![allow(unsafe_code)] // memory shared with the kernel, and raw system calls on it

use std::ffi::c_void;
use std::mem::size_of;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::event::Timespec;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use rustix::io::Errno;
use rustix::io_uring::{
    IORING_OFF_SQ_RING, IORING_OFF_SQES, IoringEnterFlags, IoringFeatureFlags, IoringOp,
    IoringRegisterOp, IoringRestrictionOp, IoringSetupFlags, IoringSqFlags, IoringSqeFlags,
    io_uring_cqe, io_uring_enter, io_uring_enter_arg, io_uring_getevents_arg, io_uring_napi,
    io_uring_params, io_uring_ptr, io_uring_register, io_uring_restriction, io_uring_rsrc_update,
    io_uring_setup, io_uring_sqe, register_or_sqe_op_or_sqe_flags_union,
};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::refusal::Refusal;
use super::ring_features::RingFeatures;
use super::{borrow, timespec};
use crate::config::{RingMode, RingParams};
use crate::fork::Home;

/// Requests that fit between two calls.
const SUBMISSIONS: u32 = 256;
/// Completions that fit before the kernel has to keep some aside.
const COMPLETIONS: u32 = 1024;

/// In the flags of the completion queue: no completion writes the eventfd (Linux 5.8).
const EVENTFD_DISABLED: u32 = 1;

/// The kernel does this much deferred work in one call anyway.
const WORK_A_CALL: u32 = 20;

/// Newer than the bindings: a wait does not count as waiting for a disk (Linux 6.15).
const FEAT_NO_IOWAIT: IoringFeatureFlags = IoringFeatureFlags::from_bits_retain(1 << 17);
const ENTER_NO_IOWAIT: IoringEnterFlags = IoringEnterFlags::from_bits_retain(1 << 7);
/// Newer than the bindings: a wait for several completions within a time (Linux 6.12).
const FEAT_MIN_TIMEOUT: IoringFeatureFlags = IoringFeatureFlags::from_bits_retain(1 << 15);

/// What a ring that may be restricted has to be able to do.
const OPERATIONS: [IoringOp; 8] = [
    IoringOp::PollAdd,
    IoringOp::PollRemove,
    IoringOp::AsyncCancel,
    IoringOp::Read,
    IoringOp::Write,
    IoringOp::Readv,
    IoringOp::Writev,
    IoringOp::Fsync,
];
const REGISTRATIONS: [IoringRegisterOp; 6] = [
    IoringRegisterOp::RegisterEventfd,
    IoringRegisterOp::UnregisterEventfd,
    IoringRegisterOp::RegisterRingFds,
    IoringRegisterOp::UnregisterRingFds,
    IoringRegisterOp::RegisterNapi,
    IoringRegisterOp::UnregisterNapi,
];

/// Entries of the two queues of a ring.
fn sizes() -> (u32, u32) {
    #[cfg(feature = "faults")]
    if let Some(shape) = crate::faults::shape() {
        return (shape.submissions, shape.completions);
    }
    (SUBMISSIONS, COMPLETIONS)
}

/// A word that the kernel shares.
#[derive(Clone, Copy)]
struct Word(NonNull<AtomicU32>);

impl Word {
    #[inline]
    fn get(self, order: Ordering) -> u32 {
        // SAFETY: `Mapping::word` checked that it lies in the mapping, which its ring keeps.
        unsafe { self.0.as_ref() }.load(order)
    }

    #[inline]
    fn set(self, value: u32) {
        // SAFETY: as above. Release: what the kernel is told to look at is written before.
        unsafe { self.0.as_ref() }.store(value, Ordering::Release);
    }

    fn lower(self, bits: u32) {
        // SAFETY: as above. Acquire: what was put in before a bit was raised is taken by the call
        // that follows.
        unsafe { self.0.as_ref() }.fetch_and(!bits, Ordering::Acquire);
    }
}

/// Memory of the ring, mapped here.
struct Mapping {
    base: NonNull<c_void>,
    len: usize,
}

impl Mapping {
    fn new(fd: BorrowedFd<'_>, len: usize, offset: u64) -> Result<Self, Errno> {
        let (access, flags) =
            (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED | MapFlags::POPULATE);
        // SAFETY: a new mapping at an address of the kernel's choice.
        let base = unsafe { mmap(ptr::null_mut(), len, access, flags, fd, offset) }?;
        Ok(Self { base: NonNull::new(base).ok_or(Errno::FAULT)?, len })
    }

    /// `count` values from this offset on; the kernel said that they are there.
    fn at<T>(&self, offset: u32, count: u32) -> NonNull<T> {
        let offset = offset as usize;
        assert!(offset + count as usize * size_of::<T>() <= self.len);
        // SAFETY: within the mapping, as was just checked.
        unsafe { self.base.byte_add(offset) }.cast()
    }

    fn word(&self, offset: u32) -> Word {
        Word(self.at(offset, 1))
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`; the ring that had pointers into it is gone.
        let _ = unsafe { munmap(self.base.as_ptr(), self.len) };
    }
}

/// One completion.
#[derive(Clone, Copy)]
pub(crate) struct Completion {
    pub user_data: u64,
    /// What the operation returned, an errno if negative.
    pub result: i32,
    pub flags: u32,
}

/// One io_uring instance, used by the thread that made it.
pub(crate) struct Ring {
    fd: OwnedFd,
    mode: RingMode,
    features: IoringFeatureFlags,
    setup: IoringSetupFlags,
    /// The number that calls name it by: the fd, or its index among the thread's registered rings.
    name: RawFd,
    flags: IoringEnterFlags,
    home: Home,

    submission_tail: Word,
    submission_flags: Word,
    submissions: NonNull<io_uring_sqe>,
    submission_mask: u32,
    tail: u32,
    unsubmitted: u32,

    completion_head: Word,
    completion_tail: Word,
    completion_flags: Word,
    completions: NonNull<io_uring_cqe>,
    completion_mask: u32,
    /// What kind of request has this `user_data`.
    #[cfg(feature = "faults")]
    pub kind_of: fn(u64) -> crate::faults::Completed,
    /// Completions before this one were changed, if they were to be.
    #[cfg(feature = "faults")]
    rewritten: std::cell::Cell<u32>,
    /// Completions before this one were seen…
    seen: u32,
    /// …and those before this one were given back to the kernel.
    released: u32,

    // Last, since the pointers above lead into them.
    _entries: Mapping,
    _queues: Mapping,
}

impl Ring {
    /// The best kind of ring that this kernel makes, or the one asked for.
    pub fn new(params: &RingParams) -> Result<Self, Refusal> {
        let modes: &[RingMode] = match params.mode {
            RingMode::Auto => &[RingMode::Deferred, RingMode::Cooperative, RingMode::Plain],
            RingMode::Deferred => &[RingMode::Deferred],
            RingMode::Cooperative => &[RingMode::Cooperative],
            RingMode::Plain => &[RingMode::Plain],
            RingMode::Off => &[], // nobody comes here with it
        };
        let mut last = Refusal { call: "io_uring_setup", errno: Errno::INVAL };
        for &mode in modes {
            // An unknown flag is EINVAL: the next kind needs fewer of them.
            for extra in [IoringSetupFlags::NO_SQARRAY, IoringSetupFlags::empty()] {
                match Self::set_up(mode, extra, params.restricted) {
                    Err(refusal) if refusal.errno == Errno::INVAL => last = refusal,
                    other => return other,
                }
            }
        }
        Err(last)
    }

    fn set_up(mode: RingMode, extra: IoringSetupFlags, restricted: bool) -> Result<Self, Refusal> {
        let mut flags = IoringSetupFlags::CQSIZE | extra;
        flags |= match mode {
            RingMode::Auto | RingMode::Deferred => {
                IoringSetupFlags::SINGLE_ISSUER
                    | IoringSetupFlags::DEFER_TASKRUN
                    | IoringSetupFlags::TASKRUN_FLAG
            }
            RingMode::Cooperative => {
                IoringSetupFlags::COOP_TASKRUN | IoringSetupFlags::TASKRUN_FLAG
            }
            RingMode::Plain | RingMode::Off => IoringSetupFlags::empty(),
        };
        flags.set(IoringSetupFlags::R_DISABLED, restricted);
        let mut params = io_uring_params::default();
        params.flags = flags;
        let submissions;
        (submissions, params.cq_entries) = sizes();
        // SAFETY: no memory is handed over; the kernel fills `params`. The fd is close-on-exec.
        let fd = unsafe { io_uring_setup(submissions, &mut params) }
            .map_err(Refusal::of("io_uring_setup"))?;
        #[cfg(feature = "faults")]
        if crate::faults::shape().is_some_and(|shape| shape.noisy) {
            params.features.remove(IoringFeatureFlags::CQE_SKIP);
        }
        if !params.features.contains(IoringFeatureFlags::EXT_ARG | IoringFeatureFlags::SINGLE_MMAP)
        {
            return Err(Refusal { call: "io_uring_setup", errno: Errno::NOSYS });
        }
        let mut ring = Self::map(fd, mode, &params).map_err(Refusal::of("mmap"))?;
        if restricted {
            ring.restrict().map_err(Refusal::of("io_uring_register"))?;
        }
        ring.register_fd();
        Ok(ring)
    }

    fn map(fd: OwnedFd, mode: RingMode, params: &io_uring_params) -> Result<Self, Errno> {
        let (sq, cq) = (&params.sq_off, &params.cq_off);
        let has_array = !params.flags.contains(IoringSetupFlags::NO_SQARRAY);
        let array = if has_array { sq.array + params.sq_entries * 4 } else { 0 };
        let completions = cq.cqes as usize + params.cq_entries as usize * size_of::<io_uring_cqe>();
        let queues = Mapping::new(fd.as_fd(), completions.max(array as usize), IORING_OFF_SQ_RING)?;
        let entries = Mapping::new(
            fd.as_fd(),
            params.sq_entries as usize * size_of::<io_uring_sqe>(),
            IORING_OFF_SQES,
        )?;
        if has_array {
            // Entry i is always at index i.
            for i in 0..params.sq_entries {
                queues.word(sq.array + 4 * i).set(i);
            }
        }
        let mut flags = IoringEnterFlags::GETEVENTS;
        flags.set(ENTER_NO_IOWAIT, params.features.contains(FEAT_NO_IOWAIT));
        let submission_tail = queues.word(sq.tail);
        let completion_head = queues.word(cq.head);
        Ok(Self {
            name: fd.as_raw_fd(),
            mode,
            features: params.features,
            setup: params.flags,
            flags,
            home: Home::here(),
            submission_tail,
            submission_flags: queues.word(sq.flags),
            submissions: entries.at(0, params.sq_entries),
            submission_mask: params.sq_entries - 1,
            tail: submission_tail.get(Ordering::Relaxed),
            unsubmitted: 0,
            completion_head,
            completion_tail: queues.word(cq.tail),
            completion_flags: queues.word(cq.flags),
            completions: queues.at(cq.cqes, params.cq_entries),
            completion_mask: params.cq_entries - 1,
            #[cfg(feature = "faults")]
            kind_of: super::io_uring::kind_of,
            #[cfg(feature = "faults")]
            rewritten: completion_head.get(Ordering::Relaxed).into(),
            seen: completion_head.get(Ordering::Relaxed),
            released: completion_head.get(Ordering::Relaxed),
            fd,
            _entries: entries,
            _queues: queues,
        })
    }

    /// Limits the ring, for good, to what a context does with it.
    fn restrict(&mut self) -> Result<(), Errno> {
        let restriction = |opcode, what| {
            let mut restriction = io_uring_restriction::default();
            restriction.opcode = opcode;
            restriction.register_or_sqe_op_or_sqe_flags = what;
            restriction
        };
        let mut allowed: Vec<io_uring_restriction> = Vec::new();
        for sqe_op in OPERATIONS {
            let what = register_or_sqe_op_or_sqe_flags_union { sqe_op };
            allowed.push(restriction(IoringRestrictionOp::SqeOp, what));
        }
        let sqe_flags = IoringSqeFlags::CQE_SKIP_SUCCESS;
        let what = register_or_sqe_op_or_sqe_flags_union { sqe_flags };
        allowed.push(restriction(IoringRestrictionOp::SqeFlagsAllowed, what));
        for register_op in REGISTRATIONS {
            let what = register_or_sqe_op_or_sqe_flags_union { register_op };
            allowed.push(restriction(IoringRestrictionOp::RegisterOp, what));
        }
        // A kernel that does not know the last ones refuses them all, and can do without. They are
        // pairs: what was done must be undone.
        let fewest = allowed.len() - REGISTRATIONS.len();
        loop {
            match self.register(IoringRegisterOp::RegisterRestrictions, &mut allowed) {
                Err(Errno::INVAL) if allowed.len() > fewest => allowed.truncate(allowed.len() - 2),
                other => break other?,
            }
        }
        self.register::<u8>(IoringRegisterOp::RegisterEnableRings, &mut [])
    }

    /// `arg` must be what the operation takes.
    fn register<T>(&self, op: IoringRegisterOp, arg: &mut [T]) -> Result<(), Errno> {
        let pointer =
            if arg.is_empty() { ptr::null() } else { arg.as_mut_ptr().cast_const().cast() };
        #[allow(clippy::cast_possible_truncation, reason = "a few entries")]
        let count = arg.len() as u32;
        // SAFETY: the kernel reads, and for some operations writes, `count` entries at `pointer`,
        // during the call.
        unsafe { io_uring_register(&self.fd, op, pointer, count) }.map(drop)
    }

    /// Calls then need no look-up of the fd. A thread has room for 16 such rings, and old kernels
    /// have none: the fd itself serves as well.
    fn register_fd(&mut self) {
        let mut place = io_uring_rsrc_update::default();
        place.offset = u32::MAX; // any
        #[allow(clippy::cast_sign_loss, reason = "an open fd is not negative")]
        let fd = self.fd.as_raw_fd() as usize;
        place.data = io_uring_ptr::new(ptr::without_provenance_mut(fd));
        let mut place = [place];
        if self.register(IoringRegisterOp::RegisterRingFds, &mut place).is_ok()
            && let Ok(index) = RawFd::try_from(place[0].offset)
        {
            self.name = index;
            self.flags |= IoringEnterFlags::REGISTERED_RING;
        }
    }

    /// Waits poll network queues first, for this many microseconds; 0 = not at all.
    pub fn poll_queues(&self, usecs: u32, prefer: bool) -> Result<(), Errno> {
        let mut napi = io_uring_napi::default();
        napi.busy_poll_to = usecs;
        napi.prefer_busy_poll = prefer.into();
        let on = usecs != 0;
        let op = if on { IoringRegisterOp::RegisterNapi } else { IoringRegisterOp::UnregisterNapi };
        self.register(op, &mut [napi])
    }

    /// Completions write this eventfd, unless they are silenced.
    pub fn register_eventfd(&self, eventfd: BorrowedFd<'_>) -> Result<(), Errno> {
        self.register(IoringRegisterOp::RegisterEventfd, &mut [eventfd.as_raw_fd()])
    }

    /// Whether completions write the eventfd. To stay silent is a wish: they may write it.
    pub fn silence(&self, silent: bool) {
        self.completion_flags.set(if silent { EVENTFD_DISABLED } else { 0 });
    }

    fn unregister_fd(&mut self) {
        if !self.flags.contains(IoringEnterFlags::REGISTERED_RING) {
            return;
        }
        let mut place = io_uring_rsrc_update::default();
        #[allow(clippy::cast_sign_loss, reason = "an index")]
        let index = self.name as u32;
        place.offset = index;
        let _ = self.register(IoringRegisterOp::UnregisterRingFds, &mut [place]);
        self.flags -= IoringEnterFlags::REGISTERED_RING;
        self.name = self.fd.as_raw_fd();
    }

    /// This process made it.
    pub fn is_ours(&self) -> bool {
        self.home.is_here()
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub fn mode(&self) -> RingMode {
        self.mode
    }

    /// What is known of the kernel from this ring.
    pub fn features(&self) -> RingFeatures {
        RingFeatures {
            defer_taskrun: self.setup.contains(IoringSetupFlags::DEFER_TASKRUN),
            cooperative: self.setup.contains(IoringSetupFlags::COOP_TASKRUN),
            ext_arg: self.features.contains(IoringFeatureFlags::EXT_ARG),
            no_iowait: self.features.contains(FEAT_NO_IOWAIT),
            no_sqarray: self.setup.contains(IoringSetupFlags::NO_SQARRAY),
            registered_ring: self.flags.contains(IoringEnterFlags::REGISTERED_RING),
            restrictions: self.setup.contains(IoringSetupFlags::R_DISABLED),
            min_timeout: self.features.contains(FEAT_MIN_TIMEOUT),
            skip_success: self.features.contains(IoringFeatureFlags::CQE_SKIP),
            ..RingFeatures::default()
        }
    }

    /// No request can be queued before some are submitted.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.unsubmitted > self.submission_mask
    }

    /// Queues a request, made in its place. `false` = the queue is full: submit first.
    #[inline(always)]
    pub fn push(&mut self, make: impl FnOnce() -> io_uring_sqe) -> bool {
        if self.is_full() {
            #[cfg(feature = "faults")]
            crate::faults::note(true, false);
            return false;
        }
        let index = (self.tail & self.submission_mask) as usize;
        // SAFETY: below the number of entries, and not in use: fewer than that are unsubmitted.
        let place = unsafe { self.submissions.add(index) };
        // SAFETY: as above; the kernel reads it only after the tail has passed it.
        unsafe { place.write(make()) };
        self.tail = self.tail.wrapping_add(1);
        self.unsubmitted += 1;
        self.submission_tail.set(self.tail);
        true
    }

    #[inline]
    pub fn has_unsubmitted(&self) -> bool {
        self.unsubmitted != 0
    }

    /// Completions are there to be seen.
    #[inline]
    pub fn has_completions(&self) -> bool {
        self.completion_tail.get(Ordering::Acquire) != self.seen
    }

    /// A call would make completions appear.
    #[inline]
    pub fn has_work(&self) -> bool {
        let flags = self.submission_flags.get(Ordering::Relaxed);
        #[cfg(feature = "faults")]
        crate::faults::note(false, flags & IoringSqFlags::CQ_OVERFLOW.bits() != 0);
        flags & (IoringSqFlags::TASKRUN | IoringSqFlags::CQ_OVERFLOW).bits() != 0
    }

    /// No completion is there, none is on its way, and nothing waits to be submitted.
    #[inline]
    pub fn is_quiet(&self) -> bool {
        !self.has_completions() && !self.has_work() && self.unsubmitted == 0
    }

    /// Where the completions end that are there now.
    #[inline]
    pub fn posted(&self) -> u32 {
        let posted = self.completion_tail.get(Ordering::Acquire);
        #[cfg(feature = "faults")]
        self.rewrite(posted);
        posted
    }

    /// Changes the results of what was posted since the last time, where the test wants to.
    #[cfg(feature = "faults")]
    fn rewrite(&self, posted: u32) {
        while self.rewritten.get() != posted {
            let at = self.rewritten.get();
            self.rewritten.set(at.wrapping_add(1));
            let index = (at & self.completion_mask) as usize;
            // SAFETY: below the number of entries.
            let mut place = unsafe { self.completions.add(index) };
            // SAFETY: the kernel wrote it before the tail, and keeps it until the head passes it;
            // only this thread looks at it.
            let entry = unsafe { place.as_mut() };
            let kind = (self.kind_of)(entry.user_data.u64_());
            if let Some(result) = crate::faults::rewritten(kind, entry.res) {
                entry.res = result;
                entry.flags.remove(rustix::io_uring::IoringCqeFlags::MORE);
            }
        }
    }

    /// The next completion that was not seen yet, of those before `posted`.
    #[inline(always)]
    pub fn next(&mut self, posted: u32) -> Option<Completion> {
        if self.seen == posted {
            return None;
        }
        let index = (self.seen & self.completion_mask) as usize;
        // SAFETY: below the number of entries.
        let place = unsafe { self.completions.add(index) };
        // SAFETY: the kernel wrote it before the tail, and keeps it until the head passes it.
        let entry = unsafe { place.as_ref() };
        self.seen = self.seen.wrapping_add(1);
        Some(Completion {
            user_data: entry.user_data.u64_(),
            result: entry.res,
            flags: entry.flags.bits(),
        })
    }

    /// Takes the next completion if it is the only one and this request found some of these events:
    /// which.
    #[inline(always)]
    pub fn take_only(&mut self, user_data: u64, events: u16) -> Option<u32> {
        let (posted, seen) = (self.posted(), self.seen);
        if posted.wrapping_sub(seen) != 1 {
            return None;
        }
        let completion = self.next(posted)?;
        if completion.user_data == user_data
            && let Ok(result) = u32::try_from(completion.result)
        {
            let found = result & u32::from(events);
            if found != 0 {
                self.release(1);
                return Some(found);
            }
        }
        self.seen = seen; // for others to take
        None
    }

    /// Gives the kernel its entries back after a batch of this many. In deferred mode, so many are
    /// kept as the next batch may have.
    #[inline]
    pub fn release(&mut self, batch: u32) {
        self.released = self.seen;
        if batch >= WORK_A_CALL && self.mode == RingMode::Deferred {
            self.keep(batch);
        }
        self.completion_head.set(self.released);
    }

    #[inline(never)]
    fn keep(&mut self, batch: u32) {
        let unreleased = self.seen.wrapping_sub(self.completion_head.get(Ordering::Relaxed));
        let kept = batch.min(unreleased).min(self.completion_mask / 2);
        self.released = self.seen.wrapping_sub(kept);
    }

    /// How many completions were seen that the kernel still counts.
    #[inline]
    fn kept(&self) -> u32 {
        self.seen.wrapping_sub(self.released)
    }

    /// Submits, without looking for completions. Some may appear nevertheless.
    pub fn submit(&mut self) -> Result<(), Errno> {
        self.enter(0, self.flags - IoringEnterFlags::GETEVENTS, None)
    }

    /// Submits, and makes the completions appear that are ready.
    #[inline]
    pub fn flush(&mut self) -> Result<(), Errno> {
        self.lower_work();
        self.enter(self.kept(), self.flags, None)
    }

    /// Submits, and sleeps until a completion appears that was not seen yet.
    #[inline]
    pub fn sleep(&mut self, timeout: Option<u64>) -> Result<(), Errno> {
        let wanted = self.kept() + 1;
        match timeout {
            None => self.enter(wanted, self.flags, None),
            Some(ns) => self.sleep_at_most(wanted, ns),
        }
    }

    /// Sleeps until so many completions are there that were not taken yet, or for this long.
    pub fn collect(&mut self, count: u32, ns: u64) -> Result<(), Errno> {
        self.lower_work();
        let wanted = self.kept() + count;
        self.sleep_at_most(wanted, ns)
    }

    /// Requests that the kernel has not been given.
    pub fn unsubmitted(&self) -> u32 {
        self.unsubmitted
    }

    /// How many requests fit between two calls.
    pub fn size(&self) -> u32 {
        self.submission_mask + 1
    }

    /// Takes back what the kernel has not been given.
    pub fn rewind(&mut self) {
        self.tail = self.tail.wrapping_sub(std::mem::take(&mut self.unsubmitted));
        self.submission_tail.set(self.tail);
    }

    #[inline(never)]
    fn sleep_at_most(&mut self, wanted: u32, ns: u64) -> Result<(), Errno> {
        self.enter(wanted, self.flags, Some(&timespec(ns)))
    }

    /// In deferred mode another CPU puts work in and then raises TASKRUN; where the work is done in
    /// between, the bit stays up without any, and only work to come would lower it. So it is lowered
    /// before the call that does all work there is. Elsewhere the bit comes first, and stays.
    fn lower_work(&self) {
        if self.mode == RingMode::Deferred && self.has_work() {
            self.submission_flags.lower(IoringSqFlags::TASKRUN.bits());
        }
    }

    #[inline]
    fn enter(
        &mut self,
        wanted: u32,
        flags: IoringEnterFlags,
        timeout: Option<&Timespec>,
    ) -> Result<(), Errno> {
        let name = borrow(self.name);
        let result = if let Some(timeout) = timeout {
            let ts = io_uring_ptr::new(ptr::from_ref(timeout).cast_mut().cast());
            let arg = io_uring_getevents_arg { ts, ..io_uring_getevents_arg::default() };
            let flags = flags | IoringEnterFlags::EXT_ARG;
            // SAFETY: every request's memory stays valid until it completes: polls have none, and
            // who asks for file I/O says so.
            unsafe { io_uring_enter_arg(name, self.unsubmitted, wanted, flags, Some(&arg)) }
        } else {
            // SAFETY: as above.
            unsafe { io_uring_enter(name, self.unsubmitted, wanted, flags) }
        };
        match result {
            Ok(submitted) => {
                self.unsubmitted -= submitted.min(self.unsubmitted);
                Ok(())
            }
            Err(Errno::TIME) => Ok(()),
            Err(errno) => Err(errno),
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // In a forked child the index may be that of a ring of its own.
        if self.home.is_here() {
            self.unregister_fd();
        }
    }
}

#[cfg(test)]
impl Ring {
    /// What is left of work that was done while another CPU was putting it in.
    pub fn raise_work(&self) {
        // SAFETY: as in `Word::get`.
        let flags = unsafe { self.submission_flags.0.as_ref() };
        flags.fetch_or(IoringSqFlags::TASKRUN.bits(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use crate::monitor::Monitor;
    use crate::{AioContext, EventNotifier, Handlers, MonitorKind};

    /// A context with fds on a ring, and a mark of work that is done.
    fn marked() -> AioContext {
        let ctx = AioContext::builder().monitor(MonitorKind::IoUring).build().unwrap();
        for _ in 0..64 {
            let bell = EventNotifier::new().unwrap();
            ctx.set_fd_handler(bell, Handlers::new().read(|_| Ok(()))).unwrap();
        }
        assert!(!ctx.poll(false).unwrap());
        match &ctx.0.state().monitor {
            Monitor::IoUring(monitor) => monitor.ring.raise_work(),
            _ => unreachable!("it was asked for"),
        }
        ctx
    }

    /// SPEC 44
    #[test]
    fn a_mark_of_work_that_is_done_costs_one_call() {
        let ctx = marked();
        assert!(ctx.0.state().monitor.need_wait());
        assert!(!ctx.poll(false).unwrap());
        assert!(!ctx.0.state().monitor.need_wait());
        assert_eq!(ctx.prepare().unwrap(), None, "nor does it keep an outer loop awake");
    }

    /// SPEC 38, 44
    #[test]
    fn a_mark_of_work_that_is_done_keeps_nobody_from_closing() {
        marked().close();
    }
}
