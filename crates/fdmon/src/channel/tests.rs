//! Unit tests of the ring: sizes, places, and words that no rule can have written.

use std::sync::atomic::Ordering::Relaxed;

use super::ring::{CLAIMED, CLOSED, Consumer, DIED, FREE, Producer, record};
use super::*;

fn pair(capacity: usize) -> (ChannelPort, ChannelPort) {
    ChannelPort::pair(capacity).unwrap()
}

/// A message that says how long it is and which one.
fn message(length: usize, number: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + number * 31 + length) as u8).collect()
}

#[test]
fn a_record_is_its_header_and_the_message_up_to_a_multiple_of_8() {
    assert_eq!([0, 1, 8, 9, 16].map(record), [8, 16, 16, 24, 24]);
    let sizes = [(1, 16), (8, 16), (9, 24), (MOST, (1 << 30) - 56)];
    for (capacity, ring) in sizes {
        assert_eq!(Sizes::of(capacity).unwrap().ring, ring);
    }
    assert!(Sizes::of(0).is_none() && Sizes::of(MOST + 1).is_none());
}

#[test]
fn messages_of_every_size_come_back_at_every_place_of_the_ring() {
    for capacity in [1, 7, 8, 9, 24, 61, 64] {
        let (mut one, mut two) = pair(capacity);
        let mut received = Vec::new();
        let places = record(capacity as u32) as usize / 8;
        for number in 0..places * (capacity + 1) {
            let sent = message(number % (capacity + 1), number);
            assert!(one.send(&sent).unwrap());
            assert!(two.receive_into(&mut received).unwrap());
            assert_eq!(received, sent, "number {number}, capacity {capacity}");
        }
        assert!(!two.receive_into(&mut received).unwrap());
    }
}

#[test]
fn positions_pass_2_to_the_32_where_the_ring_does_not_divide_it() {
    let (mut one, mut two) = pair(16); // a ring of 24 bytes
    let near = u32::MAX - 63;
    one.producer = Producer::at(near);
    two.receiver.consumer = Consumer::at(near);
    let ring = one.receiver.shared.out();
    ring.head.store(near, Relaxed);
    ring.tail.store(near, Relaxed);
    for number in 0..100 {
        let sent = message(number % 17, number);
        assert!(one.send(&sent).unwrap());
        assert_eq!(two.receive().unwrap().unwrap(), sent, "number {number}");
    }
    let head = one.receiver.shared.out().head.load(Relaxed);
    assert!(head < near, "{head} is beyond");
}

#[test]
fn a_ring_is_filled_to_its_last_byte_and_then_full() {
    let (mut one, mut two) = pair(56); // 64 bytes: eight empty messages
    for _ in 0..8 {
        assert!(one.send(b"").unwrap());
    }
    assert!(!one.send(b"").unwrap());
    assert_eq!(one.receiver.shared.own().room.load(Relaxed), 32, "half the ring");
    for _ in 0..3 {
        assert_eq!(two.receive().unwrap().unwrap(), b"");
    }
    assert_eq!(one.receiver.shared.own().room.load(Relaxed), 32, "24 bytes are too little");
    assert_eq!(two.receive().unwrap().unwrap(), b"");
    assert_eq!(one.receiver.shared.own().room.load(Relaxed), 0);
    assert_eq!(one.receiver.shared.own().rung.load(Relaxed), 1);
}

#[test]
fn a_message_longer_than_half_the_ring_waits_for_as_much_as_it_needs() {
    let (mut one, mut two) = pair(56);
    assert!(one.send(&[1; 16]).unwrap());
    assert!(one.send(&[2; 16]).unwrap());
    assert!(!one.send(&[3; 40]).unwrap());
    assert_eq!(one.receiver.shared.own().room.load(Relaxed), 48);
    two.receive().unwrap();
    assert_eq!(one.receiver.shared.own().room.load(Relaxed), 48);
    two.receive().unwrap();
    assert_eq!(one.receiver.shared.own().room.load(Relaxed), 0);
    assert!(one.wait(None).unwrap());
    assert!(one.send(&[3; 40]).unwrap());
}

/// What port 2 finds when it looks, with a message in the ring, after this was done to the memory.
fn found(change: impl FnOnce(&Memory)) -> Option<ChannelEnd> {
    let (mut one, mut two) = pair(61);
    assert!(one.send(b"hello").unwrap());
    change(&two.receiver.shared.memory);
    let mut message = Vec::new();
    for _ in 0..2 {
        if let Err(error) = two.receive_into(&mut message) {
            assert!(error.is_closed());
            assert_eq!(two.receiver.shared.own().state.load(Relaxed), CLOSED);
            assert!(two.send(b"").unwrap_err().is_closed());
            return two.end();
        }
    }
    None
}

#[test]
fn each_word_of_a_consumer_that_no_rule_can_have_written_is_corrupt() {
    let corrupt = Some(ChannelEnd::Corrupt);
    let ring = |memory: &Memory, head: u32| {
        memory.ring(ChannelSide::One).head.store(head, Relaxed);
    };
    assert_eq!(found(|_| ()), None);
    assert_eq!(found(|memory| ring(memory, 17)), corrupt, "no multiple of 8");
    assert_eq!(found(|memory| ring(memory, 80)), corrupt, "more than the ring has");
    assert_eq!(found(|memory| ring(memory, u32::MAX - 7)), corrupt, "before the tail");
    assert_eq!(found(|memory| ring(memory, 8)), corrupt, "the record reaches beyond");
    let header = |memory: &Memory, header: u64| {
        memory.ring(ChannelSide::One).data[0].store(header.to_le());
    };
    assert_eq!(found(|memory| header(memory, 62)), corrupt, "above the capacity");
    assert_eq!(found(|memory| header(memory, 9)), corrupt, "beyond the head");
    assert_eq!(found(|memory| header(memory, u64::from(u32::MAX))), corrupt, "a huge length");
    assert_eq!(found(|memory| header(memory, 5 | 1 << 32)), corrupt, "the second word is not 0");
    let tail = |memory: &Memory, tail: u32| {
        memory.ring(ChannelSide::One).tail.store(tail, Relaxed);
    };
    assert_eq!(found(|memory| tail(memory, 8)), corrupt, "an own tail that it did not store");
    for state in [4, u32::MAX] {
        let end = found(|memory| memory.port(ChannelSide::One).state.store(state, Relaxed));
        assert_eq!(end, corrupt, "state {state}");
    }
    let end = found(|memory| memory.port(ChannelSide::One).state.store(DIED, Relaxed));
    assert_eq!(end, Some(ChannelEnd::PeerDied));
}

#[test]
fn each_word_of_a_producer_that_no_rule_can_have_written_is_corrupt() {
    let send = |change: &dyn Fn(&Memory)| {
        let (mut one, _two) = pair(56);
        assert!(one.send(&[0; 40]).unwrap());
        change(&one.receiver.shared.memory);
        // Too large for what it knows is free, so that it looks at the tail.
        let sent = one.send(&[0; 40]);
        if one.end().is_some() {
            assert_eq!(one.receiver.shared.own().state.load(Relaxed), CLOSED);
        }
        (sent.ok(), one.end())
    };
    let corrupt = (None, Some(ChannelEnd::Corrupt));
    assert_eq!(send(&|_| ()), (Some(false), None));
    let head =
        |head: u32| send(&move |memory| memory.ring(ChannelSide::One).head.store(head, Relaxed));
    assert_eq!(head(0), corrupt, "an own head that it did not store");
    let tail =
        |tail: u32| send(&move |memory| memory.ring(ChannelSide::One).tail.store(tail, Relaxed));
    assert_eq!(tail(48), (Some(true), None));
    assert_eq!(tail(4), corrupt, "no multiple of 8");
    assert_eq!(tail(56), corrupt, "beyond the head");
    assert_eq!(tail(u32::MAX - 23), corrupt, "more than the ring has");
    let state =
        |state: u32| send(&move |memory| memory.port(ChannelSide::Two).state.store(state, Relaxed));
    assert_eq!(state(9), corrupt);
    assert_eq!(state(CLOSED), (None, None), "which is not the end of what it receives");
}

#[test]
fn words_that_only_a_liar_needs_may_hold_anything() {
    let (mut one, mut two) = pair(56);
    for value in [1, 7, u32::MAX] {
        for side in [ChannelSide::One, ChannelSide::Two] {
            let words = one.receiver.shared.memory.port(side);
            [words.suppress, words.rung, words.room]
                .into_iter()
                .for_each(|word| word.store(value, Relaxed));
        }
        for _ in 0..20 {
            assert!(one.send(b"there").unwrap() && two.send(b"back").unwrap());
            assert_eq!(two.receive().unwrap().unwrap(), b"there");
            assert_eq!(one.receive().unwrap().unwrap(), b"back");
        }
        assert!(!one.wait(Some(std::time::Duration::ZERO)).unwrap());
    }
}

#[test]
fn a_port_is_claimed_while_it_has_an_owner_and_free_when_it_was_handed_over() {
    let (one, two) = pair(8);
    let memory = std::sync::Arc::clone(&one.receiver.shared.memory);
    let states =
        || [ChannelSide::One, ChannelSide::Two].map(|side| memory.port(side).state.load(Relaxed));
    assert_eq!(states(), [CLAIMED, CLAIMED]);
    let [fd, bell] = two.into_fds().unwrap();
    assert_eq!(states(), [CLAIMED, FREE]);
    let two = ChannelPort::from_fds(fd, bell, ChannelSide::Two).unwrap();
    assert_eq!(states(), [CLAIMED, CLAIMED]);
    drop(one);
    assert_eq!(states(), [CLOSED, CLAIMED]);
    drop(two);
    assert_eq!(states(), [CLOSED, CLOSED]);
}

#[test]
fn a_consumer_of_nothing_takes_nothing_but_finds_that_it_is_corrupt() {
    let (one, _two) = pair(8);
    let shared = &one.receiver.shared;
    let taken = Consumer::default().take(shared.incoming(), shared.peer(), &mut Vec::new());
    assert_eq!(taken, Err(ChannelEnd::Corrupt), "a record of 8 bytes is beyond the head");
}
