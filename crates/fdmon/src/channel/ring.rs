//! The rules of a ring, a function a step: sending, receiving, waiting for room, ringing, looking,
//! closing. The models in `models/channel.rs` run these in every order.
//!
//! ```text
//! producer                               consumer
//! write the record, store head           suppress = 0 (its loop is about to sleep)
//! full barrier                           full barrier
//! suppress? then no bell                 head ≠ tail? then no sleep
//! rung = 1; was it 0? then ring          sleep
//!                                        clear the bell, rung = 0, full barrier, take what there is
//! no room: store room                    store tail
//! full barrier                           full barrier
//! room now? then no sleep                room? then exchange it with 0, and ring
//! ```
//!
//! All of the memory may be written by a liar. What is loaded from it is checked before it is used,
//! and no index comes from it: places in the data are counted here.

use std::sync::atomic::Ordering::Relaxed;

use super::ChannelEnd;
use crate::sync::{AtomicU32, Ordering, fence, in_order, kept, ordered};

#[cfg(not(loom))]
pub(super) use super::memory::Data;
#[cfg(loom)]
pub(super) use super::model::Data;

/// States of a port.
pub(super) const FREE: u32 = 0;
pub(super) const CLAIMED: u32 = 1;
pub(super) const CLOSED: u32 = 2;
pub(super) const DIED: u32 = 3;

/// Bytes of `length` and the 0 after it.
const HEADER: u32 = 8;

/// Bytes that a message of this length takes; lengths stay below 2^30.
pub(super) const fn record(length: u32) -> u32 {
    HEADER + length.next_multiple_of(8)
}

/// A word of the memory: little-endian there, whatever the machine is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Word<'a>(pub &'a AtomicU32);

impl Word<'_> {
    #[inline]
    pub fn load(self, order: Ordering) -> u32 {
        u32::from_le(self.0.load(order))
    }

    #[inline]
    pub fn store(self, value: u32, order: Ordering) {
        self.0.store(value.to_le(), order);
    }

    #[inline]
    fn swap(self, value: u32, order: Ordering) -> u32 {
        u32::from_le(self.0.swap(value.to_le(), order))
    }
}

/// The four words of a port.
#[derive(Clone, Copy, Debug)]
pub(super) struct PortWords<'a> {
    pub state: Word<'a>,
    pub suppress: Word<'a>,
    pub rung: Word<'a>,
    pub room: Word<'a>,
}

impl PortWords<'_> {
    /// Rule 1: whoever claims it first has it. `false` = somebody has, or had.
    pub fn claim(self) -> bool {
        let (free, claimed) = (FREE.to_le(), CLAIMED.to_le());
        // What the one before has written, who gave it up unused, is seen.
        self.state.0.compare_exchange(free, claimed, Ordering::SeqCst, Relaxed).is_ok()
    }

    /// Rule 5, for the other port. `true` = ring its bell.
    ///
    /// What both sides write is exchanged by both, so that each sees what the other did before.
    #[inline]
    pub fn must_ring(self) -> bool {
        self.rung.swap(1, Relaxed) == 0
    }

    /// Rule 8: says that the own port is closed. `true` = ring the other's bell.
    pub fn close(self, peer: PortWords<'_>) -> bool {
        let ((), must_ring) = in_order(
            "close channel: order",
            || {
                // What other threads of this side have sent before is seen by who sees this.
                self.state.store(CLOSED, ordered("close channel: release", Ordering::Release));
                if kept("close channel: barrier") {
                    fence(Ordering::SeqCst);
                }
            },
            || peer.must_ring(),
        );
        must_ring
    }

    /// How the other port has ended, by its `state`.
    #[inline]
    pub fn ended(self) -> Option<ChannelEnd> {
        // What it sent before is seen by who looks into the ring after this.
        match self.state.load(ordered("end: acquire", Ordering::Acquire)) {
            FREE | CLAIMED => None,
            CLOSED => Some(ChannelEnd::Closed),
            DIED => Some(ChannelEnd::PeerDied),
            _ => Some(ChannelEnd::Corrupt),
        }
    }

    /// Rule 6: the bell has rung, and this owner hears it. What comes from here on rings anew, and
    /// what came before is seen by who looks into the ring after this.
    pub fn heard<T>(self, clear: impl FnOnce() -> T) -> T {
        let (cleared, ()) = in_order("hear: order", clear, || {
            self.rung.swap(0, Relaxed);
        });
        if kept("hear: barrier") {
            fence(Ordering::SeqCst);
        }
        cleared
    }
}

/// A ring: its two words, and its data.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ring<'a> {
    pub head: Word<'a>,
    pub tail: Word<'a>,
    /// Bytes of the largest message.
    pub capacity: u32,
    pub data: &'a [Data],
}

impl Ring<'_> {
    #[inline]
    fn bytes(self) -> u32 {
        self.data.len() as u32 * 8 // the constructors of the memory made it of a u32
    }

    /// What is in the ring, if these can be its words.
    #[inline]
    fn used(self, head: u32, tail: u32) -> Result<u32, ChannelEnd> {
        let used = head.wrapping_sub(tail);
        if used > self.bytes() || !used.is_multiple_of(8) {
            Err(ChannelEnd::Corrupt)
        } else {
            Ok(used)
        }
    }

    /// The place that many bytes further on.
    #[inline]
    fn after(self, place: usize, bytes: u32) -> usize {
        let place = place + bytes as usize / 8;
        if place >= self.data.len() { place - self.data.len() } else { place }
    }

    /// The data from a place on, to the end and on from the beginning.
    #[inline]
    fn from(&self, place: usize) -> (&[Data], &[Data]) {
        let (before, after) = self.data.split_at(place);
        (after, before)
    }
}

/// What came of sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// There is no room, and the other side will ring when there is.
    Full,
    /// It is in the ring, and the other side sees it by itself.
    Seen,
    /// It is in the ring; ring the bell.
    Ring,
}

/// The producer's own side of a ring.
#[derive(Debug, Default)]
pub(super) struct Producer {
    /// As it was stored last.
    head: u32,
    /// As it was loaded last: there is at least as much room as this says.
    tail: u32,
    /// Where `head` is in the data, in words of 8 bytes.
    place: usize,
    /// What `room` was asked for; 0 = nobody waits.
    wants: u32,
}

impl Producer {
    /// One that has sent so much already that its head is there, at the first place of the data.
    #[cfg(all(test, not(loom)))]
    pub fn at(head: u32) -> Self {
        Self { head, tail: head, ..Self::default() }
    }

    /// It has sent nothing yet.
    #[cfg(not(loom))]
    pub fn is_new(&self) -> bool {
        self.head == 0 && self.place == 0
    }

    /// Rule 2, and rule 4 where there is no room. The message is no longer than the capacity.
    #[inline]
    pub fn send(
        &mut self,
        ring: Ring<'_>,
        own: PortWords<'_>,
        peer: PortWords<'_>,
        message: &[u8],
    ) -> Result<Sent, ChannelEnd> {
        if ring.head.load(Relaxed) != self.head {
            return Err(ChannelEnd::Corrupt);
        }
        let needed = record(message.len() as u32);
        if self.free(ring) < needed && !self.find_room(ring, own, needed)? {
            return Ok(Sent::Full);
        }
        self.head = self.head.wrapping_add(needed);
        let (head, place) = (self.head, self.place);
        self.place = ring.after(place, needed);
        let publish = || {
            in_order(
                "send: order",
                || write(ring, place, message),
                || ring.head.store(head, ordered("send: release", Ordering::Release)),
            );
            if kept("send: barrier") {
                fence(Ordering::SeqCst);
            }
        };
        let suppressed = || peer.suppress.load(Relaxed) != 0;
        let ((), suppressed) = in_order("send: look order", publish, suppressed);
        Ok(if !suppressed && peer.must_ring() { Sent::Ring } else { Sent::Seen })
    }

    #[inline]
    fn free(&self, ring: Ring<'_>) -> u32 {
        ring.bytes() - self.head.wrapping_sub(self.tail) // checked when `tail` was loaded
    }

    fn look(&mut self, ring: Ring<'_>) -> Result<(), ChannelEnd> {
        // What the consumer has given back it has read.
        let tail = ring.tail.load(ordered("send: acquire", Ordering::Acquire));
        ring.used(self.head, tail)?;
        self.tail = tail;
        Ok(())
    }

    #[cold]
    fn find_room(
        &mut self,
        ring: Ring<'_>,
        own: PortWords<'_>,
        needed: u32,
    ) -> Result<bool, ChannelEnd> {
        self.look(ring)?;
        if self.free(ring) >= needed {
            return Ok(true);
        }
        self.wants = self.wants.max(needed).max(ring.bytes() / 2);
        self.wait_for_room(ring, own)?;
        Ok(self.free(ring) >= needed)
    }

    /// Rule 4.
    fn wait_for_room(&mut self, ring: Ring<'_>, own: PortWords<'_>) -> Result<(), ChannelEnd> {
        let ask = || {
            own.room.swap(self.wants, Relaxed);
            if kept("room: barrier") {
                fence(Ordering::SeqCst);
            }
        };
        let order = ordered("send: acquire", Ordering::Acquire);
        let ((), tail) = in_order("room: order", ask, || ring.tail.load(order));
        ring.used(self.head, tail)?;
        if kept("room: look") {
            self.tail = tail;
        }
        Ok(())
    }

    /// Somebody waits, and the room is there now: to be told once. What comes later rings anew.
    pub fn has_found_room(
        &mut self,
        ring: Ring<'_>,
        own: PortWords<'_>,
    ) -> Result<bool, ChannelEnd> {
        if self.wants == 0 {
            return Ok(false);
        }
        self.wait_for_room(ring, own)?;
        if self.free(ring) < self.wants {
            return Ok(false);
        }
        self.wants = 0;
        own.room.store(0, Relaxed);
        Ok(true)
    }
}

/// The consumer's own side of a ring.
#[derive(Debug, Default)]
pub(super) struct Consumer {
    /// As it was stored last.
    tail: u32,
    /// As it was loaded last: what is before it can be taken.
    head: u32,
    /// Where `tail` is in the data, in words of 8 bytes.
    place: usize,
}

impl Consumer {
    /// As [`Producer::at`].
    #[cfg(all(test, not(loom)))]
    pub fn at(tail: u32) -> Self {
        Self { head: tail, tail, ..Self::default() }
    }

    /// It has taken nothing yet.
    #[cfg(not(loom))]
    pub fn is_new(&self) -> bool {
        self.tail == 0 && self.place == 0
    }

    /// There are records before the `head` that was loaded last.
    #[inline]
    pub fn has_some(&self) -> bool {
        self.head != self.tail
    }

    /// Rule 3: loads `head`, once for all that is taken up to it.
    #[inline]
    pub fn look(&mut self, ring: Ring<'_>) -> Result<bool, ChannelEnd> {
        if ring.tail.load(Relaxed) != self.tail {
            return Err(ChannelEnd::Corrupt);
        }
        // What was written before it is seen by who takes it.
        let head = ring.head.load(ordered("take: acquire", Ordering::Acquire));
        ring.used(head, self.tail)?;
        self.head = head;
        Ok(self.has_some())
    }

    /// Rule 3: takes the next record, of which there is one. `true` = ring the other port's bell.
    #[inline]
    pub fn take(
        &mut self,
        ring: Ring<'_>,
        peer: PortWords<'_>,
        message: &mut Vec<u8>,
    ) -> Result<bool, ChannelEnd> {
        let header = ring.data.get(self.place).map_or(u64::MAX, Data::load);
        let header = u64::from_le(header);
        // The upper half is the word that is 0.
        let length = u32::try_from(header).map_err(|_| ChannelEnd::Corrupt)?;
        let left = self.head.wrapping_sub(self.tail); // checked when `head` was loaded
        if length > ring.capacity || record(length) > left {
            return Err(ChannelEnd::Corrupt);
        }
        self.tail = self.tail.wrapping_add(record(length));
        let (tail, place) = (self.tail, ring.after(self.place, HEADER));
        self.place = ring.after(self.place, record(length));
        let give_back = || {
            in_order(
                "take: order",
                || read(ring, place, length as usize, message),
                || ring.tail.store(tail, ordered("take: release", Ordering::Release)),
            );
            if kept("take: barrier") {
                fence(Ordering::SeqCst);
            }
        };
        let ((), room) = in_order("take: look order", give_back, || peer.room.load(Relaxed));
        Ok(room != 0
            && self.is_free(ring, room)
            && peer.room.swap(0, Relaxed) != 0
            && peer.must_ring())
    }

    /// So many bytes are free in the ring. What makes no sense is found when it is looked at next.
    #[cold]
    fn is_free(&self, ring: Ring<'_>, room: u32) -> bool {
        let used = ring.used(ring.head.load(Relaxed), self.tail);
        used.is_ok_and(|used| ring.bytes() - used >= room)
    }
}

/// Writes a record. The bytes after it, up to a multiple of 8, are 0.
#[inline]
fn write(ring: Ring<'_>, place: usize, message: &[u8]) {
    if let Some(header) = ring.data.get(place) {
        header.store((message.len() as u64).to_le());
    }
    let (first, second) = ring.from(ring.after(place, HEADER));
    let words = message.chunks_exact(8);
    let rest = words.remainder();
    let mut words = words.map(|bytes| u64::from_ne_bytes(bytes.try_into().unwrap_or_default()));
    let at_end = words.len().min(first.len());
    for (data, word) in first.iter().zip(words.by_ref().take(at_end)) {
        data.store(word);
    }
    for (data, word) in second.iter().zip(words) {
        data.store(word);
    }
    if !rest.is_empty() {
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        let at = message.len() / 8;
        let data = first.get(at).or_else(|| second.get(at - first.len()));
        if let Some(data) = data {
            data.store(u64::from_ne_bytes(last));
        }
    }
}

/// Copies a message out. What is in `message` gives way; its memory is used again.
#[inline]
fn read(ring: Ring<'_>, place: usize, length: usize, message: &mut Vec<u8>) {
    message.resize(length.next_multiple_of(8), 0);
    let (first, second) = ring.from(place);
    let at_end = message.len().min(first.len() * 8);
    let (front, back) = message.split_at_mut(at_end);
    for (bytes, data) in front.chunks_exact_mut(8).zip(first) {
        bytes.copy_from_slice(&data.load().to_ne_bytes());
    }
    for (bytes, data) in back.chunks_exact_mut(8).zip(second) {
        bytes.copy_from_slice(&data.load().to_ne_bytes());
    }
    message.truncate(length);
}
