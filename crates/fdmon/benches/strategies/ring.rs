//! The ring under the strategies: two queues in memory, `io_uring_enter`, and a completion head that may be
//! published late. See io_uring_setup(2), io_uring_enter(2).

use std::ffi::c_void;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::ptr::{from_mut, null_mut, without_provenance_mut};
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};

use rustix::event::PollFlags;
use rustix::io::{self, Errno};
use rustix::io_uring::{
    IORING_OFF_SQ_RING, IORING_OFF_SQES, IoringCqeFlags, IoringEnterFlags, IoringFeatureFlags,
    IoringOp, IoringPollFlags, IoringRegisterOp, IoringSetupFlags, IoringSqFlags, io_uring_enter,
    io_uring_params, io_uring_register, io_uring_rsrc_update, io_uring_setup, io_uring_sqe,
    len_union, op_flags_union,
};
use rustix::mm::{MapFlags, ProtFlags, mmap};

use crate::Outcome;

pub const SQ_ENTRIES: u32 = 512;
pub const CQ_ENTRIES: u32 = 1024;

/// A ring and its memory, which stays mapped until the process ends.
pub struct Ring {
    fd: BorrowedFd<'static>,
    enter_flags: IoringEnterFlags,
    sq_flags: &'static AtomicU32,
    sq_tail: &'static AtomicU32,
    sqes: &'static mut [io_uring_sqe],
    tail: u32,
    unsubmitted: u32,
    cq_head: &'static AtomicU32,
    cq_tail: &'static AtomicU32,
    cqes: &'static [Cqe],
    /// What was read; the head that the kernel sees lies behind it when entries are kept.
    head: u32,
    released: u32,
}

#[repr(C)]
struct Cqe {
    user_data: AtomicU64,
    _result: AtomicI32,
    flags: AtomicU32,
}

impl Ring {
    pub fn new(mode: &str) -> Outcome<Self> {
        let flags = IoringSetupFlags::CQSIZE | IoringSetupFlags::TASKRUN_FLAG;
        let flags = match mode {
            "deferred" => flags | IoringSetupFlags::SINGLE_ISSUER | IoringSetupFlags::DEFER_TASKRUN,
            "cooperative" => flags | IoringSetupFlags::COOP_TASKRUN,
            other => return Err(format!("--mode {other}: use deferred or cooperative").into()),
        };
        let (fd, params) = setup(flags | IoringSetupFlags::NO_SQARRAY) // 6.6
            .or_else(|_| setup(flags))
            .map_err(|error| format!("this kernel refuses a {mode} ring: {error}"))?;
        if !params.features.contains(IoringFeatureFlags::SINGLE_MMAP) {
            return Err("this kernel maps the two queues apart; use 5.4 or newer".into());
        }
        let (sq, cq) = (params.sq_off, params.cq_off);
        let (sq_entries, cq_entries) = (params.sq_entries as usize, params.cq_entries as usize);
        let queues = (cq.cqes as usize + cq_entries * size_of::<Cqe>())
            .max(sq.array as usize + sq_entries * size_of::<u32>());
        let queues = Mapping::new(&fd, queues, IORING_OFF_SQ_RING)?;
        let sqes = Mapping::new(&fd, sq_entries * size_of::<io_uring_sqe>(), IORING_OFF_SQES)?;
        if !params.flags.contains(IoringSetupFlags::NO_SQARRAY) {
            let array: &[AtomicU32] = queues.slice(sq.array, sq_entries);
            for (slot, at) in array.iter().zip(0..) {
                slot.store(at, Ordering::Relaxed);
            }
        }
        let word = |offset| &queues.slice::<AtomicU32>(offset, 1)[0];
        let (index, registered) = register(&fd);
        // The ring is open until the process ends, as is its memory.
        let _open = fd.into_raw_fd();
        Ok(Self {
            // SAFETY: a number that stays in use until the process ends: the ring's or its place.
            fd: unsafe { BorrowedFd::borrow_raw(index) },
            enter_flags: registered,
            sq_flags: word(sq.flags),
            sq_tail: word(sq.tail),
            sqes: sqes.slice_mut(sq_entries),
            tail: 0,
            unsubmitted: 0,
            cq_head: word(cq.head),
            cq_tail: word(cq.tail),
            cqes: queues.slice(cq.cqes, cq_entries),
            head: 0,
            released: 0,
        })
    }

    /// Queues a poll for reading.
    #[inline]
    pub fn poll(&mut self, user_data: u64, fd: &OwnedFd, flags: IoringPollFlags) -> io::Result<()> {
        if self.unsubmitted as usize == self.sqes.len() {
            self.submit()?;
        }
        let sqe = io_uring_sqe {
            opcode: IoringOp::PollAdd,
            fd: fd.as_raw_fd(),
            len: len_union { poll_flags: flags },
            op_flags: op_flags_union { poll32_events: u32::from(PollFlags::IN.bits()) },
            user_data: user_data.into(),
            ..Default::default()
        };
        let at = self.tail as usize & (self.sqes.len() - 1);
        self.sqes[at] = sqe;
        self.tail = self.tail.wrapping_add(1);
        self.unsubmitted += 1;
        Ok(())
    }

    /// Submits, and looks for no completion.
    pub fn submit(&mut self) -> io::Result<()> {
        self.enter(0, IoringEnterFlags::empty())
    }

    /// Submits and waits for so many completions, entries that were not released included.
    #[inline]
    pub fn wait(&mut self, min_complete: u32) -> io::Result<()> {
        self.enter(min_complete, IoringEnterFlags::GETEVENTS)
    }

    #[inline]
    fn enter(&mut self, min_complete: u32, flags: IoringEnterFlags) -> io::Result<()> {
        self.sq_tail.store(self.tail, Ordering::Release);
        // SAFETY: the entries are polls of open fds; they point to no memory.
        let taken = unsafe {
            io_uring_enter(self.fd, self.unsubmitted, min_complete, flags | self.enter_flags)
        }?;
        self.unsubmitted -= taken;
        Ok(())
    }

    /// The next completion, and whether more will come from its poll.
    #[inline]
    pub fn next(&mut self) -> Option<(u64, bool)> {
        if self.is_empty() {
            return None;
        }
        let cqe = &self.cqes[self.head as usize & (self.cqes.len() - 1)];
        let flags = IoringCqeFlags::from_bits_retain(cqe.flags.load(Ordering::Relaxed));
        self.head = self.head.wrapping_add(1);
        Some((cqe.user_data.load(Ordering::Relaxed), flags.contains(IoringCqeFlags::MORE)))
    }

    /// Whether there is something to submit.
    #[inline]
    pub fn has_queued(&self) -> bool {
        self.unsubmitted > 0
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.cq_tail.load(Ordering::Acquire) == self.head
    }

    /// Whether the kernel has completions that an enter would post.
    #[inline]
    pub fn has_more(&self) -> bool {
        let flags = IoringSqFlags::from_bits_retain(self.sq_flags.load(Ordering::Relaxed));
        flags.intersects(IoringSqFlags::TASKRUN | IoringSqFlags::CQ_OVERFLOW)
    }

    /// Entries that were read and not given back.
    #[inline]
    pub fn kept(&self) -> u32 {
        self.head.wrapping_sub(self.released)
    }

    /// Gives all but the last `keep` entries back, and half of the queue in any case.
    #[inline]
    pub fn release(&mut self, keep: u32) {
        self.released = self.head.wrapping_sub(keep.min(self.cqes.len() as u32 / 2));
        self.cq_head.store(self.released, Ordering::Release);
    }
}

fn setup(flags: IoringSetupFlags) -> Result<(OwnedFd, io_uring_params), Errno> {
    let mut params = io_uring_params::default();
    (params.flags, params.cq_entries) = (flags, CQ_ENTRIES);
    // SAFETY: no flag in use makes the kernel look at memory of ours besides the parameters.
    let fd = unsafe { io_uring_setup(SQ_ENTRIES, &mut params) }?;
    Ok((fd, params))
}

/// The number to enter by: the ring's place in the table of this thread, or its fd before 5.18.
fn register(fd: &OwnedFd) -> (RawFd, IoringEnterFlags) {
    let mut place = io_uring_rsrc_update::default();
    place.offset = u32::MAX; // any
    place.data = without_provenance_mut::<c_void>(fd.as_raw_fd() as usize).into();
    // SAFETY: the argument is one update, which lives over the call.
    let done = unsafe {
        io_uring_register(
            fd.as_fd(),
            IoringRegisterOp::RegisterRingFds,
            from_mut(&mut place).cast(),
            1,
        )
    };
    match done {
        Ok(1) => (place.offset as RawFd, IoringEnterFlags::REGISTERED_RING),
        _ => (fd.as_raw_fd(), IoringEnterFlags::empty()),
    }
}

/// Memory shared with the kernel, never unmapped.
struct Mapping {
    start: *mut u8,
    length: usize,
}

impl Mapping {
    fn new(fd: &OwnedFd, length: usize, offset: u64) -> Outcome<Self> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED | MapFlags::POPULATE;
        // SAFETY: a new mapping of the ring, at a place the kernel chooses.
        let start = unsafe { mmap(null_mut(), length, access, flags, fd, offset) }?;
        Ok(Self { start: start.cast(), length })
    }

    /// Atomics, or a struct of them, at an offset that the kernel gave.
    fn slice<T>(&self, offset: u32, length: usize) -> &'static [T] {
        let offset = offset as usize;
        assert!(offset + length * size_of::<T>() <= self.length, "the ring is too short");
        let start = self.start.wrapping_add(offset).cast::<T>();
        // SAFETY: inside the mapping, which stays; what the kernel writes is read by atomics only.
        unsafe { std::slice::from_raw_parts(start, length) }
    }

    fn slice_mut(&self, length: usize) -> &'static mut [io_uring_sqe] {
        assert!(length * size_of::<io_uring_sqe>() <= self.length, "the ring is too short");
        // SAFETY: the mapping is the entries, stays, is asked for once, and the kernel only reads it.
        unsafe { std::slice::from_raw_parts_mut(self.start.cast(), length) }
    }
}
