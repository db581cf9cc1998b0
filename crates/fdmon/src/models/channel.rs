//! Two sides of a channel: messages, bells, room and the end.
//!
//! The memory is loom's (`channel/model.rs`): its data is no atomic, so a message that is read while
//! it is written, or written while it is read, is found even where no byte of it would show.

use std::cell::Cell;
use std::rc::Rc;

use loom::thread::{self, JoinHandle};

use super::spin::{WINDOW, spinning};
use super::{check, check_within, context};
use crate::{
    AioContext, ChannelEnd, ChannelHandler, ChannelPort, ChannelSender, MonitorKind, Ops, Outcome,
};

/// A message of 8 bytes that says which one it is, everywhere.
fn message(number: u8) -> [u8; 8] {
    [number; 8]
}

/// Both ports; each ring has room for so many messages of 8 bytes.
fn pair(messages: usize) -> (ChannelPort, ChannelPort) {
    ChannelPort::pair(messages * 16 - 8).unwrap()
}

/// Sends these; sleeps while there is no room.
fn sends(mut port: ChannelPort, numbers: std::ops::Range<u8>) -> ChannelPort {
    for number in numbers {
        while !port.send(&message(number)).unwrap() {
            assert!(port.wait(None).unwrap());
        }
    }
    port
}

/// Receives these, and sleeps while there are none.
fn receives(port: &mut ChannelPort, numbers: std::ops::Range<u8>) {
    for number in numbers {
        let received = loop {
            match port.receive().unwrap() {
                Some(received) => break received,
                None => assert!(port.wait(None).unwrap()),
            }
        };
        assert_eq!(received, message(number));
    }
}

fn thread<T: 'static>(body: impl FnOnce() -> T + 'static) -> JoinHandle<T> {
    thread::spawn(body)
}

#[test]
fn messages_wake_who_waits_for_them_and_are_whole() {
    check_within(4, || {
        let (one, mut two) = pair(2);
        let sender = thread(move || sends(one, 0..2));
        receives(&mut two, 0..2);
        drop(sender.join().unwrap());
    });
}

#[test]
fn who_waits_for_room_is_woken_and_overwrites_nothing_that_is_being_read() {
    check_within(3, || {
        let (one, mut two) = pair(1);
        let sender = thread(move || sends(one, 0..3));
        receives(&mut two, 0..3);
        drop(sender.join().unwrap());
    });
}

#[test]
fn two_sides_that_send_and_wait_at_once_wake_each_other() {
    check_within(3, || {
        let (one, two) = pair(1);
        let other = thread(move || {
            let mut one = sends(one, 0..1);
            receives(&mut one, 0..1);
            one
        });
        let mut two = sends(two, 0..1);
        receives(&mut two, 0..1);
        drop(other.join().unwrap());
    });
}

#[test]
fn what_was_sent_before_the_port_was_closed_is_received_whoever_sent_it() {
    check_within(3, || {
        let (one, mut two) = pair(1);
        let (sender, receiver) = one.split();
        let closer = thread(move || {
            thread(move || sender.send(&message(0)).unwrap()).join().unwrap();
            drop(receiver);
        });
        receives(&mut two, 0..1);
        while two.receive().is_ok() {
            two.wait(None).unwrap();
        }
        assert_eq!(two.end(), Some(ChannelEnd::Closed));
        closer.join().unwrap();
    });
}

/// What a listener heard.
#[derive(Clone, Default)]
struct Heard {
    messages: Rc<Cell<u8>>,
    room: Rc<Cell<u8>>,
    end: Rc<Cell<Option<ChannelEnd>>>,
}

impl ChannelHandler for Heard {
    fn message(&mut self, _: &mut Ops<'_>, _: &ChannelSender, received: &[u8]) -> Outcome {
        assert_eq!(received, message(self.messages.get()));
        self.messages.set(self.messages.get() + 1);
        Ok(())
    }

    fn room(&mut self, _: &mut Ops<'_>, _: &ChannelSender) -> Outcome {
        self.room.set(self.room.get() + 1);
        Ok(())
    }

    fn closed(&mut self, _: &mut Ops<'_>, end: ChannelEnd) -> Outcome {
        self.end.set(Some(end));
        Ok(())
    }
}

/// Turns until so many messages were heard.
fn hears(ctx: &AioContext, heard: &Heard, messages: u8) {
    while heard.messages.get() < messages {
        ctx.poll(true).unwrap();
    }
}

/// SPEC 25
#[test]
fn a_turn_is_woken_by_messages() {
    check_within(3, || {
        let ((one, two), heard) = (pair(2), Heard::default());
        let ctx = context(MonitorKind::Epoll);
        ctx.register(two.listen(heard.clone())).unwrap();
        let sender = thread(move || sends(one, 0..2));
        hears(&ctx, &heard, 2);
        drop(sender.join().unwrap());
    });
}

/// SPEC 25
#[test]
fn a_turn_that_leaves_spin_mode_misses_no_message_that_was_sent_without_a_bell() {
    check_within(3, || {
        let ((one, two), heard) = (pair(2), Heard::default());
        let (ctx, _clock) = spinning(MonitorKind::Epoll, WINDOW << 20);
        ctx.register(two.listen(heard.clone())).unwrap();
        let one = sends(one, 0..1);
        hears(&ctx, &heard, 1);
        let one = sends(one, 1..2);
        hears(&ctx, &heard, 2);
        let sender = thread(move || sends(one, 2..3));
        hears(&ctx, &heard, 3);
        drop(sender.join().unwrap());
    });
}

#[test]
fn a_turn_is_woken_by_room_and_by_the_end_after_all_messages() {
    check_within(2, || {
        let ((one, two), heard) = (pair(1), Heard::default());
        let ctx = context(MonitorKind::Poll);
        let listener = two.listen(heard.clone());
        let sender = listener.sender();
        ctx.register(listener).unwrap();
        assert!(sender.send(&message(0)).unwrap());
        let is_full = !sender.send(&message(1)).unwrap();
        let other = thread(move || {
            let mut one = sends(one, 0..1);
            receives(&mut one, 0..1);
        });
        while heard.end.get().is_none() {
            ctx.poll(true).unwrap();
        }
        assert_eq!(heard.messages.get(), 1);
        assert!(is_full && sender.send(&message(1)).is_err());
        other.join().unwrap();
    });
}

#[test]
fn a_turn_is_woken_by_room() {
    check_within(3, || {
        let ((mut one, two), heard) = (pair(1), Heard::default());
        let ctx = context(MonitorKind::Poll);
        let listener = two.listen(heard.clone());
        let sender = listener.sender();
        ctx.register(listener).unwrap();
        assert!(sender.send(&message(0)).unwrap());
        let other = thread(move || {
            receives(&mut one, 0..1);
            one
        });
        if !sender.send(&message(1)).unwrap() {
            while heard.room.get() == 0 {
                ctx.poll(true).unwrap();
            }
            assert!(sender.send(&message(1)).unwrap());
        }
        drop(other.join().unwrap());
    });
}

#[test]
fn a_turn_hears_that_another_thread_closed_its_port() {
    check(|| {
        let ((_one, two), heard) = (pair(1), Heard::default());
        let ctx = context(MonitorKind::Epoll);
        let listener = two.listen(heard.clone());
        let sender = listener.sender();
        ctx.register(listener).unwrap();
        let other = thread(move || sender.close());
        while heard.end.get().is_none() {
            ctx.poll(true).unwrap();
        }
        other.join().unwrap();
    });
}
