//! File I/O through a ring of the context's own, whatever its monitor is.
//!
//! Completions write the context's notifier, which every monitor and every outer loop waits for
//! already; but only while the loop is about to sleep or does, as other threads do it. While it is
//! awake it looks at memory that it shares with the kernel.

use std::collections::VecDeque;

use rustix::fd::BorrowedFd;
use rustix::io::Errno;
use rustix::io_uring::{
    IoringFsyncFlags, IoringOp, addr_or_splice_off_in_union, io_uring_ptr, io_uring_sqe,
    io_uring_user_data, len_union, off_or_addr2_union, op_flags_union,
};

use super::request::{IoOp, Memory, Request};
use crate::config::RingParams;
use crate::monitor::refusal::Refusal;
use crate::monitor::ring::Ring;
use crate::sync::{Ordering, fence};

/// `user_data` of requests that take others back; those have their slot.
const CANCEL: u64 = u64::MAX;

/// The kernel raises its mark for work and then looks whether completions are silenced. On x86 the
/// first is a barrier for the second; elsewhere it need not be, so completions are never silenced.
const MAY_SILENCE: bool = cfg!(target_arch = "x86_64");

/// Stands for a request that takes another back.
const NO_SLOT: u32 = u32::MAX;

pub(crate) struct IoRing {
    ring: Ring,
    /// What the kernel has not been given, by slot.
    unsubmitted: VecDeque<u32>,
}

impl IoRing {
    pub fn new(params: &RingParams, notifier: BorrowedFd<'_>) -> Result<Self, Refusal> {
        #[allow(unused_mut, reason = "for tests alone")]
        let mut ring = Ring::new(params)?;
        #[cfg(feature = "faults")]
        {
            ring.kind_of = |_| crate::faults::Completed::Io;
        }
        ring.register_eventfd(notifier).map_err(Refusal::of("io_uring_register"))?;
        let mut ring = Self { ring, unsubmitted: VecDeque::new() };
        ring.silence(true);
        // A sandbox may let rings be made, and nothing be done with them.
        ring.ring.flush().map_err(Refusal::of("io_uring_enter"))?;
        Ok(ring)
    }

    fn silence(&self, silent: bool) {
        self.ring.silence(silent && MAY_SILENCE);
    }

    /// How many requests may be in flight.
    pub fn size(&self) -> u32 {
        self.ring.size()
    }

    /// Queues a request. `false` = submit first.
    pub fn push(&mut self, slot: u32, request: &Request) -> bool {
        let pushed = self.ring.push(|| entry(slot, request));
        if pushed {
            self.unsubmitted.push_back(slot);
        }
        pushed
    }

    /// Asks for the end of a request that is in flight.
    pub fn cancel(&mut self, slot: u32) -> Result<(), Errno> {
        let entry = || io_uring_sqe {
            opcode: IoringOp::AsyncCancel,
            fd: -1,
            addr_or_splice_off_in: addr_or_splice_off_in_union {
                user_data: io_uring_user_data::from_u64(slot.into()),
            },
            user_data: io_uring_user_data::from_u64(CANCEL),
            ..io_uring_sqe::default()
        };
        let mut pushed = self.ring.push(entry);
        if !pushed {
            self.submit()?;
            pushed = self.ring.push(entry);
        }
        if pushed {
            self.unsubmitted.push_back(NO_SLOT);
        }
        Ok(())
    }

    /// There are requests that the kernel has not been given.
    #[inline]
    pub fn has_unsubmitted(&self) -> bool {
        !self.unsubmitted.is_empty()
    }

    /// Takes them back.
    pub fn rewind(&mut self) -> impl Iterator<Item = u32> + use<> {
        self.ring.rewind();
        std::mem::take(&mut self.unsubmitted).into_iter().filter(|&slot| slot != NO_SLOT)
    }

    /// Gives the kernel what is queued.
    pub fn submit(&mut self) -> Result<(), Errno> {
        let result = self.ring.submit();
        self.forget_submitted();
        result
    }

    /// …and makes the completions appear that are ready.
    pub fn flush(&mut self) -> Result<(), Errno> {
        let result = self.ring.flush();
        self.forget_submitted();
        result
    }

    /// Sleeps until so many completions are there that were not taken yet, or for this long.
    pub fn collect(&mut self, count: u32, ns: u64) -> Result<(), Errno> {
        let result = self.ring.collect(count, ns);
        self.forget_submitted();
        result
    }

    fn forget_submitted(&mut self) {
        let submitted = self.unsubmitted.len() - self.ring.unsubmitted() as usize;
        self.unsubmitted.drain(..submitted);
    }

    /// A look at it is worth while: completions are there, or a call would make some appear.
    #[inline]
    pub fn is_ready(&self) -> bool {
        self.ring.has_completions() || self.ring.has_work()
    }

    /// A call is needed to see what has completed.
    pub fn has_work(&self) -> bool {
        self.ring.has_work()
    }

    /// Before a sleep: from here on completions wake it. `false` = there are some already.
    pub fn arm(&self) -> bool {
        self.silence(false);
        // The kernel's half of this barrier is in `MAY_SILENCE`.
        fence(Ordering::SeqCst);
        !self.is_ready()
    }

    /// After it.
    pub fn disarm(&self) {
        self.silence(true);
    }

    /// Hands out what has completed.
    pub fn reap(&mut self, mut each: impl FnMut(u32, i32)) {
        let posted = self.ring.posted();
        let mut batch = 0;
        while let Some(completion) = self.ring.next(posted) {
            batch += 1;
            // One that took another back says whether it found it; what became of the other, that
            // one says itself.
            if let Ok(slot) = u32::try_from(completion.user_data) {
                each(slot, completion.result);
            }
        }
        if batch != 0 {
            self.ring.release(batch);
        }
    }

    /// Completions are there to be taken without a call.
    #[inline]
    pub fn has_completions(&self) -> bool {
        self.ring.has_completions()
    }
}

fn entry(slot: u32, request: &Request) -> io_uring_sqe {
    let mut entry = io_uring_sqe {
        fd: request.fd,
        user_data: io_uring_user_data::from_u64(slot.into()),
        ..io_uring_sqe::default()
    };
    let is_read = match request.op {
        IoOp::Read => true,
        IoOp::Write => false,
        IoOp::Fsync | IoOp::Fdatasync => {
            entry.opcode = IoringOp::Fsync;
            if request.op == IoOp::Fdatasync {
                entry.op_flags = op_flags_union { fsync_flags: IoringFsyncFlags::DATASYNC };
            }
            return entry;
        }
    };
    entry.off_or_addr2 = off_or_addr2_union { off: request.position };
    let (opcode, pointer, len) = match request.segments.memory() {
        Memory::One { base, len } if is_read => (IoringOp::Read, base, len),
        Memory::One { base, len } => (IoringOp::Write, base, len),
        Memory::Many { first, count } if is_read => {
            (IoringOp::Readv, first.cast_mut().cast(), count)
        }
        Memory::Many { first, count } => (IoringOp::Writev, first.cast_mut().cast(), count),
    };
    entry.opcode = opcode;
    entry.addr_or_splice_off_in = addr_or_splice_off_in_union { addr: io_uring_ptr::new(pointer) };
    #[allow(clippy::cast_possible_truncation, reason = "limited to what a call takes")]
    let len = len as u32;
    entry.len = len_union { len };
    entry
}
