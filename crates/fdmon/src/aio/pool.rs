//! File I/O by a bounded pool of threads, where there is no ring.
//!
//! A thread that wakes wakes the next before it works, while there is more to do: so calls that the
//! page cache answers are done by one thread before a second is awake, and calls that wait for a
//! disk wait side by side.
#![allow(unsafe_code)] // system calls on memory that requests vouch for

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc as Counted, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::fd::RawFd;

use super::request::{IoOp, Memory, Request};
use crate::config::AioParams;
use crate::remote::Shared;
use crate::sync::{Arc, lock_std};

/// A thread that has had nothing to do for this long ends.
const IDLE: Duration = Duration::from_secs(10);

/// A thread calls the kernel and little else.
const STACK: usize = 128 * 1024;

/// One call to be made.
pub(super) struct Job {
    slot: u32,
    op: IoOp,
    fd: RawFd,
    position: i64,
    memory: Memory,
}

impl Job {
    pub fn of(slot: u32, request: &Request) -> Self {
        Self {
            slot,
            op: request.op,
            fd: request.fd,
            position: i64::try_from(request.position).unwrap_or(i64::MAX),
            memory: request.segments.memory(),
        }
    }
}

// SAFETY: the memory that its pointers name is vouched for until the request has ended, and nobody
// else touches it meanwhile.
unsafe impl Send for Job {}

struct Jobs {
    waiting: VecDeque<Job>,
    done: Vec<(u32, i32)>,
    /// Threads there are, of these those that wait for work, and those that have just been made.
    threads: u32,
    idle: u32,
    starting: u32,
    /// Threads that were idle and are to wake.
    waking: u32,
    /// Calls being made.
    running: u32,
    min: u32,
    max: u32,
    over: bool,
}

struct Common {
    jobs: Mutex<Jobs>,
    /// There is something to do, or the pool is over.
    work: Condvar,
    /// No call is being made any more.
    quiet: Condvar,
    /// Something is done.
    ready: AtomicBool,
    context: Arc<Shared>,
}

impl Common {
    fn lock(&self) -> MutexGuard<'_, Jobs> {
        lock_std(&self.jobs)
    }
}

pub(crate) struct Pool(Counted<Common>);

impl Pool {
    pub fn new(params: &AioParams, context: &Arc<Shared>) -> Self {
        let pool = Self(Counted::new(Common {
            jobs: Mutex::new(Jobs {
                waiting: VecDeque::new(),
                done: Vec::new(),
                threads: 0,
                idle: 0,
                starting: 0,
                waking: 0,
                running: 0,
                min: 0,
                max: 1,
                over: false,
            }),
            work: Condvar::new(),
            quiet: Condvar::new(),
            ready: AtomicBool::new(false),
            context: Arc::clone(context),
        }));
        pool.set_params(params);
        pool
    }

    pub fn set_params(&self, params: &AioParams) {
        let mut jobs = self.0.lock();
        (jobs.min, jobs.max) = (params.pool_min, params.pool_max);
        drop(jobs);
        self.0.work.notify_all(); // some may be too many now
    }

    /// Hands requests over, and begins to work on them.
    pub fn submit(&self, requests: impl Iterator<Item = Job>) {
        let mut jobs = self.0.lock();
        jobs.waiting.extend(requests);
        let left = self.0.call_for_help(jobs);
        if let Some(mut jobs) = left {
            // No thread is to be had at all: the work is done here.
            while let Some(job) = jobs.waiting.pop_front() {
                let result = call(&job);
                jobs.done.push((job.slot, result));
                self.0.ready.store(true, Ordering::Release);
            }
        }
    }

    #[inline]
    pub fn is_ready(&self) -> bool {
        self.0.ready.load(Ordering::Acquire)
    }

    /// Hands out what is done.
    pub fn reap(&self, mut each: impl FnMut(u32, i32)) {
        if !self.is_ready() {
            return;
        }
        let mut jobs = self.0.lock();
        self.0.ready.store(false, Ordering::Relaxed); // under the lock, as it is raised
        for (slot, result) in jobs.done.drain(..) {
            each(slot, result);
        }
    }

    /// Takes a request back that no thread has begun. `false` = it is under way.
    pub fn cancel(&self, slot: u32) -> bool {
        let mut jobs = self.0.lock();
        let at = jobs.waiting.iter().position(|job| job.slot == slot);
        at.is_some_and(|at| jobs.waiting.remove(at).is_some())
    }

    /// Waits for the calls that are being made; those that no thread has begun are taken back.
    pub fn finish(&self, mut each: impl FnMut(u32, i32)) {
        let mut jobs = self.0.lock();
        for job in std::mem::take(&mut jobs.waiting) {
            jobs.done.push((job.slot, -libc::ECANCELED));
        }
        while jobs.running != 0 {
            jobs = self.0.quiet.wait(jobs).unwrap_or_else(PoisonError::into_inner);
        }
        for (slot, result) in jobs.done.drain(..) {
            each(slot, result);
        }
    }
}

impl Drop for Pool {
    /// The threads end by themselves. In a forked child there are none, and one of them may have
    /// had the lock.
    fn drop(&mut self) {
        if self.0.context.home.is_here() {
            self.0.lock().over = true;
            self.0.work.notify_all();
        }
    }
}

impl Common {
    /// Wakes or makes one thread more, if there is work for it. The lock comes back if there is no
    /// thread at all, and none can be made.
    fn call_for_help<'a>(
        self: &'a Counted<Self>,
        mut jobs: MutexGuard<'a, Jobs>,
    ) -> Option<MutexGuard<'a, Jobs>> {
        // Who is being woken wakes the next.
        if jobs.waiting.is_empty() || jobs.waking + jobs.starting != 0 {
            return None;
        }
        if jobs.idle != 0 {
            jobs.idle -= 1;
            jobs.waking += 1;
            drop(jobs);
            self.work.notify_one();
            return None;
        }
        if jobs.threads < jobs.max {
            jobs.threads += 1;
            jobs.starting += 1;
            let common = Counted::clone(self);
            let thread = thread::Builder::new().name("fdmon-io".into()).stack_size(STACK);
            if thread.spawn(move || common.work()).is_ok() {
                return None;
            }
            jobs.threads -= 1;
            jobs.starting -= 1;
        }
        (jobs.threads == 0).then_some(jobs)
    }

    /// One thread.
    fn work(self: &Counted<Self>) {
        block_signals();
        let mut jobs = self.lock();
        jobs.starting -= 1;
        loop {
            while let Some(job) = jobs.waiting.pop_front() {
                jobs.running += 1;
                self.help(jobs);
                let result = call(&job);
                jobs = self.lock();
                jobs.running -= 1;
                jobs.done.push((job.slot, result));
                if !self.ready.swap(true, Ordering::Release) {
                    self.context.notify();
                }
                if jobs.running == 0 {
                    self.quiet.notify_all();
                }
            }
            if jobs.over || jobs.threads > jobs.max {
                break;
            }
            jobs.idle += 1;
            let (woken, timeout) = self
                .work
                .wait_timeout_while(jobs, IDLE, |jobs| {
                    jobs.waking == 0 && !jobs.over && jobs.threads <= jobs.max
                })
                .unwrap_or_else(PoisonError::into_inner);
            jobs = woken;
            if jobs.waking != 0 {
                jobs.waking -= 1; // and with that it is no longer idle
                continue;
            }
            jobs.idle -= 1;
            if timeout.timed_out() && jobs.threads > jobs.min {
                break;
            }
        }
        jobs.threads -= 1;
    }

    /// Somebody else is to take what is left, while this thread calls the kernel.
    fn help(self: &Counted<Self>, jobs: MutexGuard<'_, Jobs>) {
        drop(self.call_for_help(jobs));
    }
}

/// Makes the call: what it returns, an errno if negative.
fn call(job: &Job) -> i32 {
    let Job { fd, position, .. } = *job;
    loop {
        let result = match (job.op, job.memory) {
            // SAFETY: the request vouches for its memory until it has ended.
            (IoOp::Read, Memory::One { base, len }) => unsafe {
                libc::pread(fd, base, len, position)
            },
            // SAFETY: as above.
            (IoOp::Write, Memory::One { base, len }) => unsafe {
                libc::pwrite(fd, base, len, position)
            },
            // SAFETY: as above, and for the segments.
            (IoOp::Read, Memory::Many { first, count }) => unsafe {
                libc::preadv(fd, first, segments(count), position)
            },
            // SAFETY: as above.
            (IoOp::Write, Memory::Many { first, count }) => unsafe {
                libc::pwritev(fd, first, segments(count), position)
            },
            // SAFETY: no memory.
            (IoOp::Fsync, _) => unsafe { libc::fsync(fd) as isize },
            // SAFETY: no memory.
            (IoOp::Fdatasync, _) => unsafe { libc::fdatasync(fd) as isize },
        };
        if result >= 0 {
            return i32::try_from(result).unwrap_or(i32::MAX);
        }
        let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
        if errno != libc::EINTR {
            return -errno;
        }
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "at most 1,024")]
fn segments(count: usize) -> libc::c_int {
    count as libc::c_int
}

/// WASI has no signals.
#[cfg(wasi)]
pub(crate) fn block_signals() {}

/// Signals are for the process's own threads.
#[cfg(not(wasi))]
pub(crate) fn block_signals() {
    // SAFETY: a set of signals is plain memory, for which zeroes are valid.
    let mut all: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `all` lives here.
    unsafe { libc::sigfillset(&mut all) };
    // SAFETY: as above; the old set is not asked for. It cannot fail with these arguments.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &all, std::ptr::null_mut()) };
}
