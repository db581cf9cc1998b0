//! The way in from other threads: a lock-free list of nodes, pushed by many, emptied by one.
//!
//! A push is one compare-and-swap and allocates nothing (a bottom half is its own node); the
//! home thread takes the whole list with one swap and turns it round, so that what was scheduled
//! first runs first. Taking everything at once is what makes the list free of the ABA problem.
#![allow(unsafe_code)] // intrusive list: nodes travel as raw `Arc` pointers

use std::ptr;
use std::sync::PoisonError;

use crate::ops::Ops;
use crate::sync::{Arc, AtomicPtr, AtomicU8, Mutex, Ordering, in_order, kept, ordered};

/// The node is in the inbox's list.
const LINKED: u8 = 1;
/// The bottom half is to run.
const SCHEDULED: u8 = 2;
/// …as an idle one.
const IDLE: u8 = 4;
/// The bottom half was deleted or its context closed.
const DEAD: u8 = 8;

/// Nothing to run: the parameters have changed.
const CHANGE: u8 = 16;
/// The job takes a handler away.
const LEAVING: u8 = 32;

/// Acquire and release, less what a mutation leaves out.
#[inline(always)]
fn both(release: &str, acquire: &str) -> Ordering {
    match (kept(release), kept(acquire)) {
        (true, true) => Ordering::AcqRel,
        (true, false) => Ordering::Release,
        (false, _) => Ordering::Acquire,
    }
}

/// A closure for the home thread.
pub(crate) type Job = Box<dyn FnOnce(&mut Ops<'_>) + Send>;

/// A bottom half as other threads see it, or one job.
pub(crate) struct Node {
    /// Written by the pusher before the node is published, read by the taker.
    next: AtomicPtr<Node>,
    state: AtomicU8,
    pub slot: u32,
    pub generation: u32,
    /// The job; a bottom half keeps its callback in the registry.
    job: Mutex<Option<Job>>,
}

impl Node {
    pub fn bottom_half(slot: u32, generation: u32) -> Arc<Self> {
        Arc::new(Self {
            next: AtomicPtr::new(ptr::null_mut()),
            state: AtomicU8::new(0),
            slot,
            generation,
            job: Mutex::new(None),
        })
    }

    pub fn job(job: Job) -> Arc<Self> {
        Self::new(LINKED | SCHEDULED, Some(job))
    }

    /// A job that takes a handler away: a context that closes serves it still.
    pub fn leaving(job: Job) -> Arc<Self> {
        Self::new(LINKED | SCHEDULED | LEAVING, Some(job))
    }

    pub fn is_leaving(&self) -> bool {
        self.state.load(Ordering::Relaxed) & LEAVING != 0
    }

    /// Says that the parameters have changed.
    pub fn change() -> Arc<Self> {
        Self::new(LINKED | CHANGE, None)
    }

    fn new(state: u8, job: Option<Job>) -> Arc<Self> {
        Arc::new(Self {
            next: AtomicPtr::new(ptr::null_mut()),
            state: AtomicU8::new(state),
            slot: u32::MAX,
            generation: 0,
            job: Mutex::new(job),
        })
    }

    pub fn is_change(&self) -> bool {
        self.state.load(Ordering::Relaxed) & CHANGE != 0
    }

    pub fn take_job(&self) -> Option<Job> {
        self.job.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Marks the bottom half as due. `true` = the caller must push it.
    pub fn schedule(&self, idle: bool) -> bool {
        let mut old = self.state.load(Ordering::Relaxed);
        loop {
            if old & DEAD != 0 {
                return false;
            }
            // A normal schedule overrides an idle one, never the other way round.
            let new = match (old & SCHEDULED != 0, idle) {
                (false, true) => old | LINKED | SCHEDULED | IDLE,
                (false, false) => (old | LINKED | SCHEDULED) & !IDLE,
                (true, true) => old,
                (true, false) => old & !IDLE,
            };
            // Release: what was written before `schedule` is seen by the callback, also when an
            // earlier schedule already put the node on its way. Acquire: see `unlink`.
            let order = both("schedule: release", "schedule: acquire");
            match self.state.compare_exchange_weak(old, new, order, Ordering::Relaxed) {
                Ok(_) if kept("schedule: linked") => return old & (SCHEDULED | LINKED) == 0,
                Ok(_) => return old & SCHEDULED == 0,
                Err(seen) => old = seen,
            }
        }
    }

    /// The node left the inbox. `true` = it is still to run.
    pub fn unlink(&self) -> bool {
        let scheduled = !kept("unlink: at once") && self.is_scheduled();
        // Release: who schedules it anew writes the link that was read here before.
        let old = self.state.fetch_and(!LINKED, ordered("unlink: release", Ordering::Release));
        if kept("unlink: at once") { old & SCHEDULED != 0 } else { scheduled }
    }

    /// Takes the schedule: `None` = it was cancelled, else whether it was an idle one.
    pub fn begin_run(&self) -> Option<bool> {
        let order = ordered("begin: acquire", Ordering::Acquire);
        let old = if kept("begin: at once") {
            self.state.fetch_and(!(SCHEDULED | IDLE), order)
        } else {
            let old = self.state.load(order);
            self.state.store(old & !(SCHEDULED | IDLE), Ordering::Relaxed);
            old
        };
        (old & SCHEDULED != 0).then_some(old & IDLE != 0)
    }

    pub fn is_scheduled(&self) -> bool {
        self.state.load(Ordering::Relaxed) & SCHEDULED != 0
    }

    pub fn is_idle(&self) -> bool {
        self.state.load(Ordering::Relaxed) & IDLE != 0
    }

    pub fn cancel(&self) {
        self.state.fetch_and(!(SCHEDULED | IDLE), Ordering::Relaxed);
    }

    pub fn kill(&self) {
        self.state.fetch_or(DEAD, Ordering::Relaxed);
        self.cancel();
    }
}

/// The list itself.
pub(crate) struct Inbox {
    head: AtomicPtr<Node>,
}

impl Inbox {
    pub fn new() -> Self {
        Self { head: AtomicPtr::new(ptr::null_mut()) }
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.head.load(Ordering::Relaxed).is_null()
    }

    /// Publishes a node whose LINKED bit the caller has just set; it may be in no list.
    pub fn push(&self, node: Arc<Node>) {
        let node = Arc::into_raw(node).cast_mut();
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            // SAFETY: `node` came from `Arc::into_raw` just above and is not published yet, and
            // LINKED keeps every other pusher away from its `next`.
            unsafe { (*node).next.store(head, Ordering::Relaxed) };
            let order = ordered("push: release", Ordering::Release);
            if !kept("push: at once") {
                return self.head.store(node, order);
            }
            match self.head.compare_exchange_weak(head, node, order, Ordering::Relaxed) {
                Ok(_) => return,
                Err(seen) => head = seen,
            }
        }
    }

    /// Takes everything and hands it out in the order in which it was pushed.
    pub fn drain(&self, mut each: impl FnMut(Arc<Node>)) {
        if self.is_empty() {
            return;
        }
        let order = ordered("drain: acquire", Ordering::Acquire);
        let mut newest = if kept("drain: at once") {
            self.head.swap(ptr::null_mut(), order)
        } else {
            let newest = self.head.load(order);
            self.head.store(ptr::null_mut(), Ordering::Relaxed);
            newest
        };
        let mut oldest: *mut Node = ptr::null_mut();
        while !newest.is_null() {
            // SAFETY: the swap made this thread the owner of the whole chain, each link of which
            // is one strong count from `push`.
            let next = unsafe { (*newest).next.swap(oldest, Ordering::Relaxed) };
            oldest = newest;
            newest = next;
        }
        while !oldest.is_null() {
            // SAFETY: as above; the strong count goes to `each`.
            let node = unsafe { Arc::from_raw(oldest.cast_const()) };
            // SAFETY: as above. `next` is read before the node is handed on, since it may be
            // pushed again as soon as it is unlinked.
            let next = || unsafe { (*oldest).next.load(Ordering::Relaxed) };
            (oldest, ()) = in_order("drain: order", next, || each(node));
        }
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.drain(drop);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SPEC 36
    #[test]
    fn nodes_come_out_in_the_order_in_which_they_were_scheduled() {
        let inbox = Inbox::new();
        let nodes: Vec<_> = (0..10).map(|slot| Node::bottom_half(slot, 0)).collect();
        for node in &nodes {
            assert!(node.schedule(false));
            inbox.push(node.clone());
            assert!(!node.schedule(false), "a second schedule must not push again");
        }
        let mut seen = Vec::new();
        inbox.drain(|node| {
            assert!(node.unlink());
            seen.push(node.slot);
        });
        assert_eq!(seen, (0..10).collect::<Vec<_>>());
        assert!(inbox.is_empty());
    }

    /// SPEC 36
    #[test]
    fn a_normal_schedule_overrides_an_idle_one() {
        let node = Node::bottom_half(1, 0);
        assert!(node.schedule(true));
        assert!(node.is_idle());
        assert!(!node.schedule(false));
        assert!(!node.is_idle());
        assert!(!node.schedule(true));
        assert_eq!(node.begin_run(), Some(false));
        assert_eq!(node.begin_run(), None);
    }

    #[test]
    fn many_pushers_lose_nothing() {
        let inbox = Inbox::new();
        let mut seen = 0_u32;
        std::thread::scope(|scope| {
            for thread in 0..4_u32 {
                let inbox = &inbox;
                scope.spawn(move || {
                    for i in 0..1000 {
                        let node = Node::bottom_half(thread * 1000 + i, 0);
                        assert!(node.schedule(false));
                        inbox.push(node);
                    }
                });
            }
            let mut last = [None::<u32>; 4];
            while seen < 4000 {
                inbox.drain(|node| {
                    let thread = (node.slot / 1000) as usize;
                    assert!(last[thread] < Some(node.slot), "one pusher's order is kept");
                    last[thread] = Some(node.slot);
                    seen += 1;
                });
            }
        });
        assert_eq!(seen, 4000);
    }
}
