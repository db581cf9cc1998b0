//! Requests that wait to be submitted, in their order.
//!
//! One that is cancelled stays as an entry that means nothing, since to take it out of the middle
//! costs a pass over all: a signal that aborts n requests would cost n². Its slot may be another
//! request's by then, so an entry names its request by number too.

use std::collections::VecDeque;

use super::request::Stage;
use crate::registry::Registry;

/// Entries that mean nothing are thrown out when there are this many more than others.
const SLACK: usize = 64;

#[derive(Clone, Copy)]
struct Entry {
    slot: u32,
    number: u64,
}

impl Entry {
    fn waits(self, reg: &Registry) -> bool {
        reg.io_ref(self.slot)
            .is_some_and(|request| request.number == self.number && request.stage == Stage::Queued)
    }
}

#[derive(Default)]
pub(super) struct Queue {
    entries: VecDeque<Entry>,
    waiting: usize,
}

impl Queue {
    /// Requests that wait.
    pub fn len(&self) -> usize {
        self.waiting
    }

    pub fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// The last one.
    pub fn push(&mut self, slot: u32, number: u64) {
        self.entries.push_back(Entry { slot, number });
        self.waiting += 1;
    }

    /// One that was taken out is to go again: before all others but those that were put back just
    /// now, of which there are `at`.
    pub fn put_back(&mut self, at: usize, slot: u32, number: u64) {
        self.entries.insert(at, Entry { slot, number });
        self.waiting += 1;
    }

    /// The one whose turn it is.
    pub fn first(&mut self, reg: &Registry) -> Option<u32> {
        while let Some(&entry) = self.entries.front() {
            if entry.waits(reg) {
                return Some(entry.slot);
            }
            self.entries.pop_front();
        }
        None
    }

    /// The first has been taken.
    pub fn advance(&mut self) {
        self.entries.pop_front();
        self.left();
    }

    /// One of them, no matter which, has stopped waiting.
    pub fn withdrawn(&mut self, reg: &Registry) {
        self.left();
        if self.entries.len() > 2 * self.waiting + SLACK {
            self.entries.retain(|entry| entry.waits(reg));
        }
    }

    fn left(&mut self) {
        self.waiting -= 1;
        if self.waiting == 0 {
            self.entries.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::request::{IoOp, Request, Segment, Segments};
    use super::*;
    use crate::registry;

    fn slots(count: u32) -> Registry {
        let mut reg = Registry::new();
        for slot in 0..count {
            assert_eq!(reg.reserve().unwrap(), Some(slot));
            reg.fill(slot, registry::Entry::Io(Box::new(Request::free())));
        }
        reg
    }

    fn ask(reg: &mut Registry, queue: &mut Queue, slot: u32, number: u64) {
        let nothing = Segments::One(Segment::NONE);
        reg.io(slot).unwrap().ask(IoOp::Fsync, 3, 0, nothing, number);
        queue.push(slot, number);
    }

    fn withdraw(reg: &mut Registry, queue: &mut Queue, slot: u32) {
        reg.io(slot).unwrap().stage = Stage::Ended;
        queue.withdrawn(reg);
    }

    /// SPEC 49
    #[test]
    fn one_that_asks_in_the_slot_of_a_cancelled_one_has_its_own_place() {
        let (mut reg, mut queue) = (slots(3), Queue::default());
        for slot in 0..3 {
            ask(&mut reg, &mut queue, slot, u64::from(slot));
        }
        withdraw(&mut reg, &mut queue, 1);
        ask(&mut reg, &mut queue, 1, 3);
        assert_eq!(queue.len(), 3);
        let order = std::iter::from_fn(|| {
            let slot = queue.first(&reg)?;
            reg.io(slot).unwrap().stage = Stage::InFlight;
            queue.advance();
            Some(slot)
        });
        assert_eq!(order.collect::<Vec<_>>(), [0, 2, 1]);
        assert!(queue.is_empty());
    }

    /// SPEC 49
    #[test]
    fn what_is_asked_for_and_cancelled_for_ever_takes_no_more_room() {
        let (mut reg, mut queue) = (slots(2), Queue::default());
        ask(&mut reg, &mut queue, 0, 0);
        for number in 1..10_000 {
            ask(&mut reg, &mut queue, 1, number);
            withdraw(&mut reg, &mut queue, 1);
            assert_eq!(queue.len(), 1);
            assert!(queue.entries.len() <= SLACK + 2);
        }
        assert_eq!(queue.first(&reg), Some(0));
    }
}
