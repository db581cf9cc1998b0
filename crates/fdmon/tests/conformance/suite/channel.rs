//! Channels: messages in order and whole, bells for who sleeps, room, the end, and liars.
#![allow(unsafe_code)] // fork(2)

use std::cell::RefCell;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::{Arc, Mutex, mpsc};

use fdmon::{
    AioContext, ChannelEnd, ChannelHandler, ChannelListener, ChannelPort, ChannelReceiver,
    ChannelSender, ChannelSide, Ops, Outcome, Remote, SendToken,
};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::io::{ioctl_fionread, pread, pwrite};

use super::{context, io_thread, spinning};
use crate::support::{Tally, alone, awaited, block, by_number, drain, polling, turn_until};

unsafe extern "C" {
    // std has none; the C library is linked anyway.
    fn fork() -> i32;
    fn _exit(code: i32) -> !;
}

/// What a handler was told.
#[derive(Clone, Debug, PartialEq)]
enum Told {
    Message(Vec<u8>),
    Room,
    Closed(ChannelEnd),
}

/// Remembers what it is told.
#[derive(Clone, Default)]
struct Recorder(Rc<RefCell<Vec<Told>>>);

impl Recorder {
    fn take(&self) -> Vec<Told> {
        self.0.take()
    }

    fn add(&self, told: Told) -> Outcome {
        self.0.borrow_mut().push(told);
        Ok(())
    }
}

impl ChannelHandler for Recorder {
    fn message(&mut self, _: &mut Ops<'_>, _: &ChannelSender, message: &[u8]) -> Outcome {
        self.add(Told::Message(message.to_vec()))
    }

    fn room(&mut self, _: &mut Ops<'_>, _: &ChannelSender) -> Outcome {
        self.add(Told::Room)
    }

    fn closed(&mut self, _: &mut Ops<'_>, end: ChannelEnd) -> Outcome {
        self.add(Told::Closed(end))
    }
}

fn pair(capacity: usize) -> (ChannelPort, ChannelPort) {
    ChannelPort::pair(capacity).unwrap()
}

/// Both ports, and the memory for who writes it against the rules.
fn pair_and_memory(capacity: usize) -> (ChannelPort, ChannelPort, OwnedFd) {
    let (one, two) = pair(capacity);
    let [memory, bell] = two.into_fds().unwrap();
    let copy = memory.try_clone().unwrap();
    (one, ChannelPort::from_fds(memory, bell, ChannelSide::Two).unwrap(), copy)
}

fn store(memory: &OwnedFd, offset: u64, word: u32) {
    assert_eq!(pwrite(memory, &word.to_le_bytes(), offset), Ok(4));
}

fn load(memory: &OwnedFd, offset: u64) -> u32 {
    let mut word = [0; 4];
    assert_eq!(pread(memory, &mut word, offset), Ok(4));
    u32::from_le_bytes(word)
}

fn listen<H: ChannelHandler>(
    ctx: &AioContext,
    port: ChannelPort,
    handler: H,
) -> fdmon::Token<ChannelListener<H>> {
    ctx.register(port.listen(handler)).map_err(|(error, _)| error).unwrap()
}

/// A message that says how long it is and which one.
fn message(length: usize, number: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + number * 31 + length) as u8).collect()
}

fn messages(told: &[&[u8]]) -> Vec<Told> {
    told.iter().map(|message| Told::Message(message.to_vec())).collect()
}

/// Rings that wait to be heard.
fn rings(port: impl AsFd) -> u64 {
    ioctl_fionread(port).unwrap()
}

#[test]
fn a_handler_sends_back_messages_of_every_size_from_where_it_is_told_of_them() {
    let (mut one, two) = pair(61);
    let ctx = context();
    listen(&ctx, two, |_: &mut Ops<'_>, port: &ChannelSender, message: &[u8]| {
        assert!(port.send(message)?);
        Ok(())
    });
    for number in 0..62 * 3 {
        let sent = message(number % 62, number);
        assert!(one.send(&sent).unwrap());
        assert!(block(&ctx));
        assert_eq!(one.receive().unwrap().unwrap(), sent, "number {number}");
    }
}

#[test]
fn a_message_arrives_in_the_turn_after_it_and_one_look_takes_all_there_are() {
    let (mut one, two) = pair(64);
    let (ctx, recorder) = (context(), Recorder::default());
    listen(&ctx, two, recorder.clone());
    for number in 0..3_u8 {
        assert!(one.send(&[number]).unwrap());
    }
    assert!(block(&ctx));
    assert_eq!(recorder.take(), messages(&[&[0], &[1], &[2]]));
    assert_eq!(drain(&ctx), 0, "no turn for nothing");
}

#[test]
fn what_was_sent_before_the_registration_arrives() {
    let (mut one, mut two) = pair(64);
    let (ctx, recorder) = (context(), Recorder::default());
    one.send(b"first").unwrap();
    one.send(b"second").unwrap();
    assert!(two.wait(None).unwrap());
    assert_eq!(two.receive().unwrap().unwrap(), b"first");
    listen(&ctx, two, recorder.clone());
    assert!(block(&ctx));
    assert_eq!(recorder.take(), messages(&[b"second"]));
}

#[test]
fn a_bell_is_rung_once_until_it_is_heard() {
    let (mut one, two) = pair(256);
    let (ctx, recorder) = (context(), Recorder::default());
    let listener = two.listen(recorder.clone());
    let bell = listener.as_fd().try_clone_to_owned().unwrap();
    ctx.register(listener).unwrap();
    drain(&ctx);
    for turn in 0..3 {
        for _ in 0..5 {
            assert!(one.send(b"hello").unwrap());
        }
        assert_eq!(rings(&bell), 1, "turn {turn}");
        assert!(block(&ctx));
        assert_eq!((recorder.take().len(), rings(&bell)), (5, 0));
    }
}

/// SPEC 25
#[test]
fn a_loop_that_spins_is_sent_messages_without_a_bell() {
    let (mut one, two, memory) = pair_and_memory(64);
    let ((ctx, _clock), recorder) = (spinning(), Recorder::default());
    let listener = two.listen(recorder.clone());
    let bell = listener.as_fd().try_clone_to_owned().unwrap();
    let fd = listener.as_fd().as_raw_fd();
    ctx.register(listener).unwrap();
    one.send(b"to join").unwrap();
    assert!(block(&ctx));
    assert!(polling(&ctx, fd));
    one.send(b"to begin").unwrap();
    assert!(block(&ctx));
    assert_eq!(load(&memory, 132), 1, "suppress is up");
    let before = rings(&bell); // not heard yet where only the kernel can tell of it
    recorder.take();
    for _ in 0..100 {
        assert!(one.send(b"hello").unwrap());
        assert_eq!(rings(&bell), before);
        assert!(block(&ctx));
        assert_eq!(recorder.take(), messages(&[b"hello"]));
    }
    ctx.suspend().unwrap();
    assert_eq!(load(&memory, 132), 0, "suppress has fallen");
    if before > 0 {
        assert!(block(&ctx));
        ctx.suspend().unwrap();
    }
    assert_eq!(rings(&bell), 0);
    one.send(b"and now with a bell").unwrap();
    assert_eq!(rings(&bell), 1);
}

#[test]
fn who_found_the_ring_full_is_told_of_room_once_and_loses_nothing() {
    const ALL: u32 = 500;
    /// Sends numbers for as long as there is room.
    struct Numbers(u32);
    impl ChannelHandler for Numbers {
        fn message(&mut self, _: &mut Ops<'_>, _: &ChannelSender, _: &[u8]) -> Outcome {
            Ok(())
        }
        fn room(&mut self, _: &mut Ops<'_>, port: &ChannelSender) -> Outcome {
            while self.0 < ALL && port.send(&self.0.to_le_bytes())? {
                self.0 += 1;
            }
            Ok(())
        }
    }
    let (mut one, two) = pair(120); // 128 bytes: eight numbers
    let ctx = context();
    let listener = two.listen(Numbers(8));
    let sender = listener.sender();
    let token = ctx.register(listener).unwrap();
    for number in 0..8_u32 {
        assert!(sender.send(&number.to_le_bytes()).unwrap());
    }
    assert!(!sender.send(b"full").unwrap());
    let mut next = 0_u32;
    let mut turns = 0;
    while next < ALL {
        match one.receive().unwrap() {
            Some(number) => {
                assert_eq!(number, next.to_le_bytes());
                next += 1;
            }
            None => {
                assert!(block(&ctx), "there is room, and it is told");
                turns += 1;
            }
        }
    }
    assert!((ALL / 8 - 1..=ALL / 4).contains(&turns), "{turns} times told");
    assert_eq!(ctx.deregister(&token).unwrap().handler().0, ALL);
}

#[test]
fn room_is_told_when_it_is_enough_and_not_before() {
    let (mut one, two) = pair(56); // 64 bytes
    let (ctx, recorder) = (context(), Recorder::default());
    let listener = two.listen(recorder.clone());
    let sender = listener.sender();
    ctx.register(listener).unwrap();
    assert!(sender.send(&[1; 16]).unwrap() && sender.send(&[2; 16]).unwrap());
    assert!(!sender.send(&[3; 40]).unwrap());
    assert_eq!(one.receive().unwrap().unwrap(), [1; 16]);
    assert_eq!(drain(&ctx), 0, "40 of the 48 bytes are free");
    assert_eq!(one.receive().unwrap().unwrap(), [2; 16]);
    assert!(block(&ctx));
    assert_eq!(recorder.take(), [Told::Room]);
    assert!(sender.send(&[3; 40]).unwrap());
    one.receive().unwrap();
    assert_eq!(drain(&ctx), 0, "nobody waits any more");
}

#[test]
fn a_port_that_is_closed_leaves_its_messages_and_then_the_context() {
    for by_drop in [false, true] {
        let (mut one, two) = pair(64);
        let (ctx, recorder) = (context(), Recorder::default());
        let token = listen(&ctx, two, recorder.clone());
        one.send(b"last").unwrap();
        one.send(b"words").unwrap();
        if by_drop {
            drop(one)
        } else {
            one.close()
        }
        assert!(block(&ctx));
        let mut told = messages(&[b"last", b"words"]);
        told.push(Told::Closed(ChannelEnd::Closed));
        drain(&ctx);
        assert_eq!(recorder.take(), told);
        assert!(!token.is_live());
        assert!(ctx.stats().handlers.is_empty());
    }
}

#[test]
fn whoever_has_a_sender_may_close_the_port_and_its_loop_hears_it() {
    let (mut one, two) = pair(64);
    let (ctx, recorder) = (context(), Recorder::default());
    let listener = two.listen(recorder.clone());
    let sender = listener.sender();
    ctx.register(listener).unwrap();
    drain(&ctx);
    let closer = std::thread::spawn(move || {
        sender.send(b"goodbye").unwrap();
        sender.close();
        assert!(sender.send(b"too late").unwrap_err().is_closed());
    });
    assert!(block(&ctx));
    closer.join().unwrap();
    assert_eq!(recorder.take(), [Told::Closed(ChannelEnd::Closed)]);
    assert!(ctx.stats().handlers.is_empty());
    assert_eq!(one.receive().unwrap().unwrap(), b"goodbye");
    assert!(one.receive().unwrap_err().is_closed());
}

#[test]
fn a_listener_that_is_dropped_closes_its_port() {
    let (mut one, two) = pair(64);
    let ctx = context();
    let listener = two.listen(Recorder::default());
    let sender = listener.sender();
    let token = ctx.register(listener).unwrap();
    drop(ctx.deregister(&token).unwrap());
    assert_eq!(sender.end(), Some(ChannelEnd::Closed));
    assert!(one.receive().unwrap_err().is_closed());
    assert!(one.send(b"").unwrap_err().is_closed());
}

/// SPEC 21
#[test]
fn an_error_of_one_message_does_not_stop_the_others() {
    let (mut one, two) = pair(64);
    let ctx = context();
    let seen = Tally::new();
    let tally = seen.clone();
    listen(&ctx, two, move |_: &mut Ops<'_>, _: &ChannelSender, message: &[u8]| {
        tally.bump();
        if message == b"bad" { Err("no".into()) } else { Ok(()) }
    });
    for message in [&b"bad"[..], b"good", b"bad", b"good"] {
        one.send(message).unwrap();
    }
    let error = ctx.poll(true).unwrap_err();
    assert!(error.is_callback(), "{error}");
    let [errors] = error.callback_errors() else { panic!("one callback failed") };
    let inner = errors.downcast_ref::<fdmon::Error>().expect("two messages did");
    assert_eq!(inner.callback_errors().len(), 2);
    assert_eq!(seen.get(), 4);
    one.send(b"bad").unwrap();
    let error = ctx.poll(true).unwrap_err();
    assert_eq!(error.callback_errors()[0].to_string(), "no");
}

/// SPEC 21
#[test]
fn a_panic_of_one_message_does_not_stop_the_others_and_then_resumes() {
    let (mut one, two) = pair(256);
    let ctx = context();
    let seen = Tally::new();
    let tally = seen.clone();
    listen(&ctx, two, move |_: &mut Ops<'_>, _: &ChannelSender, message: &[u8]| {
        tally.bump();
        assert_ne!(message, b"bad", "on purpose");
        Ok(())
    });
    for message in [&b"good"[..], b"bad", b"good", b"bad", b"good"] {
        assert!(one.send(message).unwrap());
    }
    let turn = std::panic::AssertUnwindSafe(|| ctx.poll(true));
    assert!(std::panic::catch_unwind(turn).is_err());
    assert_eq!(seen.get(), 5);
    one.send(b"good").unwrap();
    assert!(block(&ctx));
    assert_eq!(seen.get(), 6);
}

/// SPEC 10
#[test]
fn a_handler_that_removes_itself_is_told_of_nothing_more() {
    /// Removes itself at the first message.
    struct Once(Recorder);
    impl ChannelHandler for Once {
        fn message(&mut self, ops: &mut Ops<'_>, port: &ChannelSender, message: &[u8]) -> Outcome {
            let fd = ops.context().stats().handlers[0].fd;
            ops.remove_fd_handler(fd);
            self.0.message(ops, port, message)
        }
        fn closed(&mut self, ops: &mut Ops<'_>, end: ChannelEnd) -> Outcome {
            self.0.closed(ops, end)
        }
    }
    let (mut one, two) = pair(64);
    let (ctx, recorder) = (context(), Recorder::default());
    listen(&ctx, two, Once(recorder.clone()));
    one.send(b"first").unwrap();
    one.send(b"second").unwrap();
    assert!(block(&ctx));
    drain(&ctx);
    assert_eq!(recorder.take(), messages(&[b"first"]));
    assert!(one.receive().unwrap_err().is_closed(), "dropped, and so closed");
}

/// SPEC 38
#[test]
fn a_context_that_is_closed_by_a_message_tells_of_no_other() {
    let (mut one, two) = pair(64);
    let (ctx, seen) = (context(), Tally::new());
    let tally = seen.clone();
    listen(&ctx, two, move |ops: &mut Ops<'_>, _: &ChannelSender, _: &[u8]| {
        tally.bump();
        ops.close();
        Ok(())
    });
    one.send(b"first").unwrap();
    one.send(b"second").unwrap();
    let _closed = ctx.poll(true);
    assert_eq!(seen.get(), 1);
}

/// SPEC 19
#[test]
fn a_handler_that_runs_a_turn_is_not_told_of_another_message_meanwhile() {
    let (mut one, two) = pair(64);
    let ctx = context();
    let (depth, seen) = (Rc::new(RefCell::new(0)), Rc::new(RefCell::new(Vec::new())));
    let (inside, list) = (Rc::clone(&depth), Rc::clone(&seen));
    listen(&ctx, two, move |ops: &mut Ops<'_>, _: &ChannelSender, message: &[u8]| {
        *inside.borrow_mut() += 1;
        assert_eq!(*inside.borrow(), 1, "it is entered twice");
        while ops.poll(false)? {}
        *inside.borrow_mut() -= 1;
        list.borrow_mut().push(message.to_vec());
        Ok(())
    });
    for number in 0..4 {
        one.send(&[number]).unwrap();
    }
    assert!(block(&ctx));
    drain(&ctx);
    assert_eq!(*seen.borrow(), [[0], [1], [2], [3]]);
}

#[test]
fn bottom_halves_and_threads_send_on_a_port_that_is_registered() {
    let (mut one, two) = pair(1024);
    let ctx = context();
    let listener = two.listen(Recorder::default());
    let (here, there) = (listener.sender(), listener.sender());
    ctx.register(listener).unwrap();
    ctx.schedule(move |_| Ok(here.send(b"half").map(drop)?)).unwrap();
    let thread = std::thread::spawn(move || there.send(b"thread"));
    assert!(thread.join().unwrap().unwrap());
    assert!(block(&ctx));
    let mut received = [one.receive().unwrap().unwrap(), one.receive().unwrap().unwrap()];
    received.sort();
    assert_eq!(received, [b"half".to_vec(), b"thread".to_vec()]);
}

/// Records in whichever thread it is.
#[derive(Clone, Default)]
struct Numbers(Arc<Mutex<Vec<u32>>>);

impl ChannelHandler for Numbers {
    fn message(&mut self, _: &mut Ops<'_>, _: &ChannelSender, message: &[u8]) -> Outcome {
        self.0.lock().unwrap().push(u32::from_le_bytes(message.try_into()?));
        Ok(())
    }
}

/// SPEC 10
#[test]
fn a_port_that_moves_between_contexts_loses_no_message() {
    let (mut one, two) = pair(4096);
    let (threads, numbers) = ([(); 2].map(|()| io_thread().spawn().unwrap()), Numbers::default());
    let remotes = threads.each_ref().map(|thread| thread.remote());
    let register = remotes[0].register_send(two.listen(numbers.clone()));
    let mut token: SendToken<_> = awaited(register).map_err(|(error, _)| error).unwrap();
    for number in 0..200_u32 {
        assert!(one.send(&number.to_le_bytes()).unwrap());
        if number % 20 == 19 {
            let from = &remotes[number as usize / 20 % 2];
            let to = &remotes[(number as usize / 20 + 1) % 2];
            token = awaited(from.move_to(&token, to)).map_err(|failed| failed.error).unwrap();
        }
    }
    let start = std::time::Instant::now();
    while numbers.0.lock().unwrap().len() < 200 {
        assert!(start.elapsed() < std::time::Duration::from_secs(60), "some are lost");
        std::thread::yield_now();
    }
    assert!(numbers.0.lock().unwrap().iter().copied().eq(0..200));
}

/// SPEC 10
#[test]
fn a_port_that_moves_after_its_bell_was_heard_hears_the_end_in_the_other_context() {
    /// The second message, and the end, come while the first is handled; at the second it moves.
    struct Moves {
        other: Option<(ChannelSender, ChannelReceiver)>,
        to: Remote,
        told: Arc<Mutex<Vec<Told>>>,
        stays_open: mpsc::Sender<ChannelSender>,
    }
    impl ChannelHandler for Moves {
        fn message(&mut self, ops: &mut Ops<'_>, _: &ChannelSender, message: &[u8]) -> Outcome {
            self.told.lock().unwrap().push(Told::Message(message.to_vec()));
            if let Some((sender, receiver)) = self.other.take() {
                assert!(sender.send(b"second")?);
                drop(receiver); // closes the port; its bell stays open as long as the sender
                self.stays_open.send(sender)?;
            } else {
                let fd = ops.context().stats().handlers[0].fd;
                let own = ops.token_of::<ChannelListener<Self>>(by_number(fd)).unwrap();
                let _moved = ops.move_to(&own, &self.to);
            }
            Ok(())
        }
        fn closed(&mut self, _: &mut Ops<'_>, end: ChannelEnd) -> Outcome {
            self.told.lock().unwrap().push(Told::Closed(end));
            Ok(())
        }
    }
    let (one, two) = pair(64);
    let ((other, receiver), thread) = (one.split(), io_thread().spawn().unwrap());
    let (stays_open, kept) = mpsc::channel();
    let (told, ctx) = (Arc::default(), context());
    assert!(other.send(b"first").unwrap());
    let handler = Moves {
        other: Some((other, receiver)),
        to: thread.remote(),
        told: Arc::clone(&told),
        stays_open,
    };
    listen(&ctx, two, handler);
    let start = std::time::Instant::now();
    while told.lock().unwrap().len() < 3 {
        ctx.poll(false).unwrap();
        assert!(start.elapsed() < std::time::Duration::from_secs(60), "{:?}", told.lock().unwrap());
    }
    let mut expected = messages(&[b"first", b"second"]);
    expected.push(Told::Closed(ChannelEnd::Closed));
    assert_eq!(*told.lock().unwrap(), expected);
    drop(kept);
}

/// The number, and bytes that follow from it.
fn numbered(number: u32) -> [u8; 64] {
    let mut message = [0; 64];
    message[..4].copy_from_slice(&number.to_le_bytes());
    for (at, byte) in message[4..].iter_mut().enumerate() {
        *byte = (number as usize * 13 + at) as u8;
    }
    message
}

/// Sends each message back that is the next one; every so many are on their way.
struct PingPong {
    next: u32,
    last: u32,
    is_first: bool,
    done: mpsc::Sender<Result<(), String>>,
}

impl ChannelHandler for PingPong {
    fn message(&mut self, _: &mut Ops<'_>, port: &ChannelSender, message: &[u8]) -> Outcome {
        if message != numbered(self.next) {
            self.done.send(Err(format!("number {} is {message:?}", self.next)))?;
        }
        let answer = if self.is_first { self.next + ON_THEIR_WAY } else { self.next };
        self.next += 1;
        if answer < self.last && !port.send(&numbered(answer))? {
            self.done.send(Err(format!("no room for number {answer}")))?;
        }
        if self.next == self.last {
            self.done.send(Ok(()))?;
        }
        Ok(())
    }
}

const ON_THEIR_WAY: u32 = 32;

#[test]
fn two_threads_play_ping_pong_with_100_000_messages() {
    const ALL: u32 = 100_000;
    let (one, two) = pair(ON_THEIR_WAY as usize * 72);
    let (done, is_done) = mpsc::channel();
    let player = |is_first| PingPong { next: 0, last: ALL, is_first, done: done.clone() };
    let threads = [(); 2].map(|()| io_thread().spawn().unwrap());
    let (first, second) = (one.listen(player(true)), two.listen(player(false)));
    let sender = first.sender();
    let [one, two] = threads.each_ref().map(|thread| thread.remote());
    for number in 0..ON_THEIR_WAY {
        assert!(sender.send(&numbered(number)).unwrap());
    }
    assert!(awaited(one.register_send(first)).is_ok());
    assert!(awaited(two.register_send(second)).is_ok());
    for _ in 0..2 {
        is_done.recv_timeout(std::time::Duration::from_secs(60)).unwrap().unwrap();
    }
}

#[test]
fn what_no_rule_can_have_written_ends_the_channel_and_nothing_else() {
    // Port 2 hears: ring 1 has its head at 192 and its tail at 256, its data at 448; port 1 has its
    // state at 64.
    let lies = [(192, 17), (192, 0x8000_0000), (256, 8), (448, 9), (448, 65), (452, 1), (64, 4)];
    for (offset, word) in lies {
        let (mut one, two, memory) = pair_and_memory(64);
        let (ctx, recorder) = (context(), Recorder::default());
        listen(&ctx, two, recorder.clone());
        one.send(b"hello").unwrap();
        store(&memory, offset, word);
        assert!(block(&ctx));
        drain(&ctx);
        let mut told = recorder.take();
        told.retain(|told| *told != Told::Message(b"hello".to_vec())); // before the lie was found
        assert_eq!(told, [Told::Closed(ChannelEnd::Corrupt)], "{word} at {offset}");
        assert!(ctx.stats().handlers.is_empty());
        assert_eq!(load(&memory, 128), 2, "its port is closed");
    }
}

#[test]
fn a_sender_that_finds_a_lie_ends_the_channel_for_the_loop_as_well() {
    let (_one, two, memory) = pair_and_memory(64);
    let (ctx, recorder) = (context(), Recorder::default());
    let listener = two.listen(recorder.clone());
    let sender = listener.sender();
    ctx.register(listener).unwrap();
    drain(&ctx);
    store(&memory, 320, 8); // the head of its own ring
    assert!(sender.send(b"hello").unwrap_err().is_closed());
    assert_eq!(sender.end(), Some(ChannelEnd::Corrupt));
    assert!(block(&ctx));
    assert_eq!(recorder.take(), [Told::Closed(ChannelEnd::Corrupt)]);
}

#[test]
fn a_liar_that_rings_for_nothing_wakes_the_loop_and_no_more() {
    let (mut one, two) = pair(64);
    let (ctx, recorder) = (context(), Recorder::default());
    listen(&ctx, two, recorder.clone());
    drain(&ctx);
    assert_eq!(rustix::io::write(&one, &[0; 200]), Ok(200)); // four times as much as is cleared
    assert_eq!(drain(&ctx), 4);
    one.send(b"hello").unwrap();
    assert!(block(&ctx));
    assert_eq!(recorder.take(), messages(&[b"hello"]));
}

#[test]
fn a_port_has_one_owner() {
    let (one, two) = pair(64);
    let (side, [memory, bell]) = (two.side(), two.into_fds().unwrap());
    let copies = || (memory.try_clone().unwrap(), bell.try_clone().unwrap());
    let from = |side| ChannelPort::from_fds(copies().0, copies().1, side);
    let error = from(ChannelSide::One).unwrap_err();
    assert!(error.is_in_use() && error.to_string().contains("port 1"), "{error}");
    let two = from(side).unwrap();
    assert!(from(side).unwrap_err().is_in_use());
    drop(two);
    assert!(from(side).unwrap_err().is_in_use(), "it had one");
    drop(one);
}

#[test]
fn a_port_that_was_used_is_not_handed_over() {
    let (mut one, mut two) = pair(64);
    one.send(b"hello").unwrap();
    let (error, mut one) = one.into_fds().unwrap_err();
    assert!(error.is_in_use());
    assert_eq!(two.receive().unwrap().unwrap(), b"hello");
    let (error, mut two) = two.into_fds().unwrap_err();
    assert!(error.is_in_use());
    assert!(two.send(b"it goes on").unwrap());
    assert_eq!(one.receive().unwrap().unwrap(), b"it goes on");
    one.close();
    assert!(two.receive().is_err());
}

#[test]
fn descriptors_that_are_no_channel_are_refused_by_name() {
    let fresh = |seal| {
        let memory = memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        ftruncate(&memory, 448 + 2 * 72).unwrap();
        for (at, word) in [0x436d_6466, 1, 64, 72].into_iter().enumerate() {
            store(&memory, at as u64 * 4, word);
        }
        if seal {
            fcntl_add_seals(&memory, SealFlags::SHRINK).unwrap();
        }
        memory
    };
    let refused = |memory: OwnedFd, said: &str| {
        let bell = crate::support::pair().0;
        let error = ChannelPort::from_fds(memory, bell, ChannelSide::One).unwrap_err();
        assert!(error.is_invalid_arg() && error.to_string().contains(said), "{error}");
    };
    let changed = |offset, word| {
        let memory = fresh(true);
        store(&memory, offset, word);
        memory
    };
    refused(crate::support::pipe().0, "no memfd");
    refused(fresh(false), "F_SEAL_SHRINK");
    refused(changed(0, 7), "magic");
    refused(changed(4, 2), "version 2");
    for (offset, word) in [(8, 0), (8, 73), (8, u32::MAX), (12, 64), (12, 80)] {
        refused(changed(offset, word), "sizes");
    }
    refused(changed(192, 8), "was used");
    let short = memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    for (at, word) in [0x436d_6466, 1, 64, 72].into_iter().enumerate() {
        store(&short, at as u64 * 4, word);
    }
    fcntl_add_seals(&short, SealFlags::SHRINK).unwrap();
    refused(short, "16 bytes");
    let error = ChannelPort::from_fds(fresh(true), crate::support::pipe().0, ChannelSide::One);
    assert!(error.unwrap_err().to_string().contains("bell"));
    let bell = crate::support::pair().0;
    assert!(ChannelPort::from_fds(fresh(true), bell, ChannelSide::One).is_ok());
}

#[test]
fn who_takes_a_port_over_rings_so_that_the_other_side_lets_go_of_its_copies() {
    let (one, two) = pair(64);
    let [memory, bell] = two.into_fds().unwrap();
    assert_eq!(rings(&one), 0);
    let _two = ChannelPort::from_fds(memory, bell, ChannelSide::Two).unwrap();
    assert_eq!(rings(&one), 1);
}

#[test]
fn the_death_of_the_other_side_is_heard_after_what_it_sent_before() {
    if !alone("FDMON_FORK", "1") {
        return;
    }
    let (one, two) = pair(64);
    let (ctx, recorder) = (context(), Recorder::default());
    let [memory, bell] = two.into_fds().unwrap();
    // SAFETY: this process runs one test alone, whose other thread only waits for this one; the
    // child ends by a signal.
    let pid = unsafe { fork() };
    assert!(pid >= 0);
    if pid == 0 {
        drop(one); // its copies of the descriptors, and no more
        let send = || {
            let mut two = ChannelPort::from_fds(memory, bell, ChannelSide::Two)?;
            [b"last", b"word"].iter().try_for_each(|message| two.send(*message).map(drop))?;
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
                .expect("it may kill itself");
            drop(two);
            Ok::<_, fdmon::Error>(())
        };
        let _ = send();
        // SAFETY: not reached unless something went wrong, which the parent sees by the status.
        unsafe { _exit(1) }
    }
    drop((memory, bell)); // or this process would keep the other side alive
    let pid = rustix::process::Pid::from_raw(pid);
    let (_, status) =
        rustix::process::waitpid(pid, rustix::process::WaitOptions::empty()).unwrap().unwrap();
    assert_eq!(status.terminating_signal(), Some(9));
    let listener = one.listen(recorder.clone());
    let sender = listener.sender();
    ctx.register(listener).unwrap();
    assert!(block(&ctx));
    drain(&ctx);
    let mut told = messages(&[b"last", b"word"]);
    told.push(Told::Closed(ChannelEnd::PeerDied));
    assert_eq!(recorder.take(), told);
    assert!(sender.send(b"").unwrap_err().is_closed());
}

#[test]
fn who_waits_without_a_loop_hears_the_death_of_the_other_side() {
    let (mut one, two) = pair(64);
    drop(two.into_fds().unwrap()); // nobody has them any more
    assert!(one.receive().unwrap().is_none(), "not known yet");
    assert!(one.wait(None).unwrap());
    assert!(one.receive().unwrap_err().to_string().contains("died"));
    assert_eq!(one.end(), Some(ChannelEnd::PeerDied));
}

/// SPEC 38
#[test]
fn a_forked_child_neither_uses_nor_closes_the_parents_port() {
    if !alone("FDMON_FORK", "1") {
        return;
    }
    let (mut one, mut two) = pair(64);
    // SAFETY: as above; the child leaves by `_exit`.
    let pid = unsafe { fork() };
    assert!(pid >= 0);
    if pid == 0 {
        let closed = |result: fdmon::Result<()>| result.is_err_and(|error| error.is_closed());
        let fine = closed(one.send(b"from the child").map(drop))
            && closed(one.receive().map(drop))
            && closed(one.wait(None).map(drop));
        drop((one, two));
        // SAFETY: ends the child.
        unsafe { _exit(i32::from(!fine)) }
    }
    let pid = rustix::process::Pid::from_raw(pid);
    let (_, status) =
        rustix::process::waitpid(pid, rustix::process::WaitOptions::empty()).unwrap().unwrap();
    assert_eq!(status.exit_status(), Some(0), "the child found something wrong");
    assert!(one.send(b"from the parent").unwrap());
    assert_eq!(two.receive().unwrap().unwrap(), b"from the parent");
    assert!(two.receive().unwrap().is_none());
}

#[test]
fn a_port_is_used_in_the_thread_that_it_is_sent_to() {
    let (mut one, mut two) = pair(64);
    let ctx = context();
    let thread = std::thread::spawn(move || {
        for number in 0..1000_u32 {
            while !one.send(&number.to_le_bytes())? {
                one.wait(None)?;
            }
        }
        Ok::<_, fdmon::Error>(())
    });
    for number in 0..1000_u32 {
        let mut message = Vec::new();
        while !two.receive_into(&mut message).unwrap() {
            assert!(two.wait(Some(std::time::Duration::from_secs(60))).unwrap());
        }
        assert_eq!(message, number.to_le_bytes());
    }
    turn_until(&ctx, &thread);
    thread.join().unwrap().unwrap();
}
