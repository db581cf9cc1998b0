//! A channel whose two sides do what a fuzzer's bytes say, and whose memory somebody overwrites.
//!
//! Whatever is written where: nothing panics, nothing is read or written outside of the mapping, no
//! message is longer than the capacity, and each call returns. As long as nobody has written
//! anything, a model of the two rings says what each call returns, and everything arrives in order.
#![no_main]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use arbitrary::Arbitrary;
use fdmon::{
    AioContext, ChannelEnd, ChannelHandler, ChannelPort, ChannelSender, ChannelSide, MonitorKind,
    Ops, Outcome, PollParams,
};
use libfuzzer_sys::fuzz_target;
use rustix::io::pwrite;
use rustix::net::{SendFlags, send};

#[derive(Arbitrary, Debug)]
struct Input {
    capacity: u8,
    /// A word of the header that is overwritten before the ports are made of the descriptors.
    header: Option<(u8, u32)>,
    monitor: u8,
    spins: bool,
    steps: Vec<Step>,
}

/// Port 1 is used directly, port 2 is in a loop.
#[derive(Arbitrary, Debug)]
enum Step {
    Send {
        length: u8,
    },
    Receive,
    Wait,
    /// From outside of the loop.
    SendBack {
        length: u8,
    },
    Turn,
    /// The loop may sleep: only the bell wakes it, or a timer.
    Sleep,
    Suspend,
    Overwrite {
        at: u16,
        word: u32,
    },
    /// A small difference to what a rule may have written.
    Disturb {
        at: u8,
        word: u8,
    },
    Ring {
        times: u8,
    },
    Close,
    CloseBack,
}

/// Turns that may pass before the end is heard: a loop that spins does not ask the kernel each time.
const MOST_TURNS: u32 = 1000;

/// One direction as it must be.
#[derive(Default)]
struct Model {
    on_its_way: VecDeque<Vec<u8>>,
    used: usize,
}

impl Model {
    fn sent(&mut self, message: &[u8]) {
        self.used += record(message.len());
        self.on_its_way.push_back(message.to_vec());
    }

    fn received(&mut self, message: &[u8]) {
        let expected = self.on_its_way.pop_front().expect("nobody has sent that");
        assert_eq!(message, expected, "torn, or out of order");
        self.used -= record(message.len());
    }
}

/// Bytes of the ring that a message takes.
fn record(length: usize) -> usize {
    8 + length.next_multiple_of(8)
}

/// What port 2 was told, and did.
#[derive(Default)]
struct Log {
    received: Vec<Vec<u8>>,
    sent: Vec<(Vec<u8>, bool)>,
    end: Option<ChannelEnd>,
}

struct Echo(Rc<RefCell<Log>>);

impl ChannelHandler for Echo {
    fn message(&mut self, _: &mut Ops<'_>, port: &ChannelSender, message: &[u8]) -> Outcome {
        self.0.borrow_mut().received.push(message.to_vec());
        if message.len() % 3 == 0 {
            let sent = port.send(message)?;
            self.0.borrow_mut().sent.push((message.to_vec(), sent));
        }
        Ok(())
    }

    fn room(&mut self, _: &mut Ops<'_>, port: &ChannelSender) -> Outcome {
        let sent = port.send(b"r")?; // which any capacity takes
        self.0.borrow_mut().sent.push((b"r".to_vec(), sent));
        Ok(())
    }

    fn closed(&mut self, _: &mut Ops<'_>, end: ChannelEnd) -> Outcome {
        assert!(self.0.borrow_mut().end.replace(end).is_none(), "closed twice");
        Ok(())
    }
}

struct World {
    ctx: AioContext,
    one: Option<ChannelPort>,
    two: ChannelSender,
    memory: OwnedFd,
    log: Rc<RefCell<Log>>,
    capacity: usize,
    ring: usize,
    there: Model,
    back: Model,
    number: u8,
    /// Somebody has written the memory against the rules, or rung for nothing.
    lied: bool,
}

impl World {
    fn new(input: &Input) -> Option<Self> {
        let capacity = usize::from(input.capacity) + 1;
        let (one, two) = ChannelPort::pair(capacity).expect("there are descriptors");
        let [memory, bell_one] = one.into_fds().expect("it was not used");
        let [memory_two, bell_two] = two.into_fds().expect("it was not used");
        let copy = memory.try_clone().expect("there are descriptors");
        let mut lied = false;
        if let Some((at, word)) = input.header {
            lied = true;
            let offset = u64::from(at % 4) * 4;
            pwrite(&copy, &word.to_le_bytes(), offset).expect("it can be written");
        }
        let one = ChannelPort::from_fds(memory, bell_one, ChannelSide::One);
        let two = ChannelPort::from_fds(memory_two, bell_two, ChannelSide::Two);
        assert!(lied || (one.is_ok() && two.is_ok()));
        let (one, two) = (one.ok()?, two.ok()?);
        let monitor = [MonitorKind::Poll, MonitorKind::Epoll, MonitorKind::IoUring];
        let params = if input.spins {
            PollParams { guards: false, ..PollParams::spin(Duration::from_micros(20)) }
        } else {
            PollParams::default()
        };
        let ctx = AioContext::builder().monitor(monitor[usize::from(input.monitor % 3)]);
        let ctx = ctx.poll(params).build().expect("the monitor is there");
        let log = Rc::default();
        let listener = two.listen(Echo(Rc::clone(&log)));
        let two = listener.sender();
        ctx.register(listener).expect("it is a socket");
        let ring = record(capacity);
        let capacity = one.capacity();
        let (there, back, one) = (Model::default(), Model::default(), Some(one));
        Some(Self {
            ctx,
            one,
            two,
            memory: copy,
            log,
            capacity,
            ring,
            there,
            back,
            number: 0,
            lied,
        })
    }

    fn message(&mut self, length: u8) -> Vec<u8> {
        self.number = self.number.wrapping_add(1);
        let number = self.number;
        let length = usize::from(length) % (self.capacity + 2);
        (0..length).map(|at| (at as u8).wrapping_mul(7) ^ number).collect()
    }

    /// What a call to send must have returned.
    fn check_sent(&self, model: &Model, message: &[u8], sent: &fdmon::Result<bool>, over: bool) {
        if message.len() > self.capacity {
            let error = sent.as_ref().expect_err("it is too long");
            assert!(error.is_invalid_arg() || error.is_closed());
        } else if !self.lied && !over {
            let fits = self.ring - model.used >= record(message.len());
            assert_eq!(sent.as_ref().ok(), Some(&fits), "{sent:?}");
        }
    }

    fn send(&mut self, length: u8) {
        let message = self.message(length);
        let Some(one) = &mut self.one else { return };
        let sent = one.send(&message);
        self.check_sent(&self.there, &message, &sent, self.two.end().is_some());
        if matches!(sent, Ok(true)) && !self.lied {
            self.there.sent(&message);
        }
    }

    fn send_back(&mut self, length: u8) {
        let message = self.message(length);
        let sent = self.two.send(&message);
        self.check_sent(
            &self.back,
            &message,
            &sent,
            self.two.end().is_some() || self.one.is_none(),
        );
        if matches!(sent, Ok(true)) && !self.lied {
            self.back.sent(&message);
        }
    }

    fn receive(&mut self) {
        let Some(one) = &mut self.one else { return };
        let received = one.receive();
        if let Ok(Some(message)) = &received {
            assert!(message.len() <= self.capacity);
        }
        if self.lied {
            return;
        }
        match received {
            Ok(Some(message)) => self.back.received(&message),
            Ok(None) => assert!(self.back.on_its_way.is_empty(), "nothing came"),
            Err(_) => {
                assert_eq!(one.end(), Some(ChannelEnd::Closed));
                assert!(self.two.end().is_some() && self.back.on_its_way.is_empty());
            }
        }
    }

    fn turn(&mut self, blocking: bool) {
        if blocking {
            let timer = self.ctx.timer(|_| Ok(())).expect("there is room for a timer");
            timer.arm(Duration::from_micros(10)).expect("it can be armed");
            let turn = self.ctx.poll(true);
            assert!(self.lied || turn.is_ok() || self.one.is_none() || self.two.end().is_some());
            timer.delete();
        } else {
            let _ = self.ctx.poll(false);
        }
        self.told();
    }

    /// Goes through what port 2 was told.
    fn told(&mut self) {
        let log = std::mem::take(&mut *self.log.borrow_mut());
        self.log.borrow_mut().end = log.end;
        assert!(log.received.iter().all(|message| message.len() <= self.capacity));
        if self.lied {
            return;
        }
        for message in log.received {
            self.there.received(&message);
        }
        for (message, sent) in log.sent {
            if sent {
                self.back.sent(&message);
            }
        }
        if let Some(end) = log.end {
            assert_eq!(end, ChannelEnd::Closed);
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Send { length } => self.send(length),
            Step::SendBack { length } => self.send_back(length),
            Step::Receive => self.receive(),
            Step::Wait => {
                let _ = self.one.as_mut().map(|one| one.wait(Some(Duration::ZERO)));
            }
            Step::Turn => self.turn(false),
            Step::Sleep => self.turn(true),
            Step::Suspend => {
                let _ = self.ctx.suspend();
                self.told();
            }
            Step::Overwrite { at, word } => {
                let length = 448 + 2 * self.ring as u64;
                self.overwrite(u64::from(at) * 4 % length, word);
            }
            Step::Disturb { at, word } => {
                const WORDS: [u64; 14] =
                    [64, 68, 72, 76, 128, 132, 136, 140, 192, 256, 320, 384, 448, 452];
                self.overwrite(WORDS[usize::from(at) % WORDS.len()], u32::from(word));
            }
            Step::Ring { times } => {
                if let Some(one) = &self.one {
                    // Its listener may have closed: no SIGPIPE.
                    let _ = send(one, &vec![0; times.into()], SendFlags::NOSIGNAL);
                }
            }
            Step::Close => drop(self.one.take()),
            Step::CloseBack => self.two.close(),
        }
    }

    fn overwrite(&mut self, offset: u64, word: u32) {
        self.lied = true;
        pwrite(&self.memory, &word.to_le_bytes(), offset).expect("it can be written");
    }

    /// As nobody lied, everything arrives, in both directions, and then the end.
    fn finish(mut self) {
        self.turn(true);
        if self.lied {
            while self.one.as_mut().is_some_and(|one| matches!(one.receive(), Ok(Some(_)))) {}
            return;
        }
        while self.one.is_some() && !self.back.on_its_way.is_empty() {
            self.receive();
        }
        let closed_by_itself = self.two.end().is_some();
        drop(self.one.take());
        for _ in 0..MOST_TURNS {
            if self.log.borrow().end.is_some() {
                break;
            }
            self.turn(true);
        }
        assert!(self.log.borrow().end.is_some(), "the end was not heard");
        assert!(self.there.on_its_way.is_empty() || closed_by_itself, "messages were lost");
        assert!(self.ctx.stats().handlers.is_empty());
    }
}

fuzz_target!(|input: Input| {
    let Some(mut world) = World::new(&input) else { return };
    for step in &input.steps {
        world.step(step);
    }
    world.finish();
});
