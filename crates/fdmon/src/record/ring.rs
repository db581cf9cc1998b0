//! What happened, as records of one size in a ring that one thread fills and another empties.
//!
//! The home thread writes six words and moves the head: no lock, no allocation, no system call. A
//! ring that is full drops what is new, and counts it: what was recorded before stays true.

use std::sync::atomic::{AtomicU64, Ordering};

/// Words of a record: kind and small arguments, begin, end, three arguments.
pub(crate) type Record = [u64; 6];

/// What a record is about; the low byte of its first word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    // From begin to end.
    Turn,
    Prepare,
    Check,
    Dispatch,
    Spin,
    Sleep,
    Look,
    OuterSleep,
    Handler,
    BottomHalf,
    Job,
    Timer,
    Completion,
    // At one time.
    Submitted,
    Completed,
    Woken,
    Window,
    Joined,
    Left,
    Monitor,
    /// No event: the name of the handler in a slot, in the five other words.
    Name,
}

impl Kind {
    const ALL: [Self; 21] = [
        Self::Turn,
        Self::Prepare,
        Self::Check,
        Self::Dispatch,
        Self::Spin,
        Self::Sleep,
        Self::Look,
        Self::OuterSleep,
        Self::Handler,
        Self::BottomHalf,
        Self::Job,
        Self::Timer,
        Self::Completion,
        Self::Submitted,
        Self::Completed,
        Self::Woken,
        Self::Window,
        Self::Joined,
        Self::Left,
        Self::Monitor,
        Self::Name,
    ];

    pub fn of(record: &Record) -> Option<Self> {
        Self::ALL.get(usize::try_from(record[0] & 0xff).ok()?).copied()
    }
}

pub(crate) struct Ring {
    slots: Box<[[AtomicU64; 6]]>,
    /// Records so far; only the home thread writes it.
    head: AtomicU64,
    /// Records that were taken; only who holds the file writes it.
    tail: AtomicU64,
    /// Records that found no room.
    dropped: AtomicU64,
    /// Records that were taken and could not be written.
    lost: AtomicU64,
}

impl Ring {
    /// A ring for so many records, rounded up to a power of two. All of its memory is there at once.
    pub fn new(records: u32) -> Self {
        let slots = (0..records.next_power_of_two()).map(|_| [const { AtomicU64::new(0) }; 6]);
        Self {
            slots: slots.collect(),
            head: AtomicU64::new(0),
            tail: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        }
    }

    pub fn len(&self) -> u64 {
        self.slots.len() as u64
    }

    fn slot(&self, number: u64) -> &[AtomicU64; 6] {
        #[allow(clippy::cast_possible_truncation, reason = "masked")]
        let index = number as usize & (self.slots.len() - 1);
        &self.slots[index]
    }

    /// Home thread: adds a record. `room_until` is the head up to which there is known to be room,
    /// so that the other side's word is read once a lap. The head after it; `None` = dropped.
    #[inline]
    pub fn push(&self, record: &Record, room_until: &mut u64) -> Option<u64> {
        let head = self.head.load(Ordering::Relaxed);
        if head >= *room_until {
            // Acquire: what was taken has been read before the words are written anew.
            *room_until = self.tail.load(Ordering::Acquire) + self.len();
            if head >= *room_until {
                self.dropped.store(self.dropped() + 1, Ordering::Relaxed);
                return None;
            }
        }
        for (word, value) in self.slot(head).iter().zip(record) {
            word.store(*value, Ordering::Relaxed);
        }
        self.head.store(head + 1, Ordering::Release);
        Some(head + 1)
    }

    /// Who holds the file: the oldest record that was not taken.
    pub fn pop(&self) -> Option<Record> {
        let tail = self.tail.load(Ordering::Relaxed);
        if tail == self.head.load(Ordering::Acquire) {
            return None;
        }
        let record = std::array::from_fn(|word| self.slot(tail)[word].load(Ordering::Relaxed));
        self.tail.store(tail + 1, Ordering::Release);
        Some(record)
    }

    /// Records that were written to the ring.
    pub fn recorded(&self) -> u64 {
        self.head.load(Ordering::Relaxed)
    }

    /// Records that found no room.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Records that are not in the file.
    pub fn missing(&self) -> u64 {
        self.dropped() + self.lost.load(Ordering::Relaxed)
    }

    /// Records that were taken, and not lost.
    pub fn written(&self) -> u64 {
        self.tail.load(Ordering::Relaxed) - self.lost.load(Ordering::Relaxed)
    }

    pub fn lose(&self, records: u64) {
        self.lost.fetch_add(records, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_ring_drops_what_is_new_and_counts_it() {
        let ring = Ring::new(3); // four
        let mut room = 0;
        let pushed = (0..7).filter(|n| ring.push(&[*n; 6], &mut room).is_some()).count();
        assert_eq!((pushed, ring.recorded(), ring.dropped()), (4, 4, 3));
        assert_eq!(ring.pop(), Some([0; 6]));
        assert_eq!(ring.push(&[9; 6], &mut room), Some(5));
        assert_eq!(ring.push(&[10; 6], &mut room), None);
        let rest: Vec<u64> = std::iter::from_fn(|| ring.pop()).map(|record| record[5]).collect();
        assert_eq!((rest, ring.dropped()), (vec![1, 2, 3, 9], 4));
    }

    #[test]
    fn two_threads_lose_nothing_but_what_was_counted() {
        let ring = Ring::new(64);
        let all = if cfg!(miri) { 300 } else { 20_000 };
        let taken = std::thread::scope(|scope| {
            let taker = scope.spawn(|| {
                let mut next = 0;
                let mut taken = 0;
                while next < all {
                    let Some(record) = ring.pop() else {
                        std::thread::yield_now();
                        continue;
                    };
                    assert!(record[0] >= next && record.iter().all(|word| *word == record[0]));
                    next = record[0] + 1;
                    taken += 1;
                }
                taken
            });
            let mut room = 0;
            for number in 0..all {
                // The last one must arrive.
                while ring.push(&[number; 6], &mut room).is_none() && number == all - 1 {
                    std::thread::yield_now();
                }
            }
            taker.join().unwrap()
        });
        assert_eq!(taken, ring.recorded());
        assert!(taken + ring.dropped() >= all);
    }

    #[test]
    fn each_kind_is_found_by_its_number() {
        for (number, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, number);
            assert_eq!(Kind::of(&[0xab00 | number as u64, 0, 0, 0, 0, 0]), Some(kind));
        }
        assert_eq!(Kind::of(&[0xff; 6]), None);
    }
}
