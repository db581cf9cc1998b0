//! Drivers that break the rules: each loses its device, and the next one is served.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use fdmon::{AioContext, PollParams, Remote};
use fdmon_outside::vdev::device::Disk;
use fdmon_outside::vdev::driver::Driver;
use fdmon_outside::vdev::handover::{bell, send};
use fdmon_outside::vdev::memory::{MOST_DATA, Memory, SIZE};
use fdmon_outside::vdev::request::{NEXT, WRITE};
use fdmon_outside::vdev::ring::{AVAIL, BROKEN, Consumer, DATA, DESCRIPTORS, Producer, USED};
use fdmon_outside::vdev::server::serve;
use fdmon_outside::vdev::workload::{Plan, run};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// A device in a thread of this process.
struct Server {
    remote: Remote,
    thread: Option<JoinHandle<()>>,
    path: PathBuf,
}

impl Server {
    fn start(name: &str, spin: u64) -> Self {
        let path = std::env::temp_dir().join(format!("vdev-{}-{name}", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        let file = rustix::fs::memfd_create("disk", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let file = File::from(file);
        file.set_len(1 << 20).unwrap();
        let (sender, receiver) = mpsc::channel();
        let thread = thread::spawn(move || {
            let params = PollParams::spin(Duration::from_micros(spin));
            let ctx = AioContext::builder().poll(params).build().unwrap();
            sender.send(ctx.remote()).unwrap();
            serve(&ctx, listener, Disk::new(file).unwrap()).unwrap();
            ctx.run().unwrap();
        });
        Self { remote: receiver.recv().unwrap(), thread: Some(thread), path }
    }

    /// A driver that keeps the rules is served.
    fn serves(&self) {
        let ctx = AioContext::builder().build().unwrap();
        let driver = Driver::connect(&ctx, &self.path).unwrap();
        run(&ctx, &driver, Plan { requests: 0, workers: 1, seed: 1 }).unwrap();
        driver
            .read(2048 - 1, 512, |ops, result| {
                ops.stop();
                result?;
                Ok(())
            })
            .unwrap();
        ctx.run().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.remote.stop();
        let ended = self.thread.take().map(JoinHandle::join);
        let _ = std::fs::remove_file(&self.path);
        if !thread::panicking() {
            ended.unwrap().unwrap();
        }
    }
}

/// The driver's end by hand.
struct Hand {
    memory: Rc<Memory>,
    avail: Producer,
    call: OwnedFd,
    _socket: UnixStream,
}

impl Hand {
    fn attach(server: &Server) -> Self {
        let mut socket = UnixStream::connect(&server.path).unwrap();
        let (memory, kick, call) = (Memory::create().unwrap(), bell().unwrap(), bell().unwrap());
        send(&socket, &[memory.as_fd(), kick.as_fd(), call.as_fd()]).unwrap();
        socket.read_exact(&mut [0; 8]).unwrap();
        let memory = Rc::new(memory);
        let avail = Producer::new(Rc::clone(&memory), AVAIL, kick);
        Self { memory, avail, call, _socket: socket }
    }

    fn describe(&self, number: usize, values: [u32; 4]) {
        let at = DESCRIPTORS + 4 * number;
        for (word, value) in self.memory.words()[at..at + 4].iter().zip(values) {
            word.store(value, Ordering::Relaxed);
        }
    }

    /// A read of one sector that keeps the rules, at head 0.
    fn lay_out(&self) {
        let data = DATA as u32;
        self.memory.copy_in(DATA, [0_u32, 0, 0, 0].map(u32::to_ne_bytes).as_flattened());
        self.describe(0, [data, 16, NEXT, 1]);
        self.describe(1, [data + 64, 512, NEXT | WRITE, 2]);
        self.describe(2, [data + 16, 4, WRITE, 0]);
    }

    fn wait_for_call(&self) {
        let mut fds = [PollFd::new(&self.call, PollFlags::IN)];
        let patience = Timespec { tv_sec: 10, tv_nsec: 0 };
        assert_eq!(poll(&mut fds, Some(&patience)).unwrap(), 1, "the device did not call");
    }

    fn is_broken(&self) -> bool {
        self.memory.words()[BROKEN].load(Ordering::Acquire) != 0
    }

    fn answers(&self) -> u32 {
        self.memory.words()[USED.index].load(Ordering::Acquire)
    }

    fn status(&self) -> u32 {
        let mut status = [0; 4];
        self.memory.copy_out(DATA + 16, &mut status);
        u32::from_ne_bytes(status)
    }
}

#[test]
fn each_descriptor_that_breaks_the_rules_costs_the_driver_its_device() {
    let (data, end) = (DATA as u32, SIZE as u32);
    let cases: [(&str, usize, [u32; 4]); 17] = [
        ("the header lies on the rings", 0, [0, 16, NEXT, 1]),
        ("the header is outside", 0, [end, 16, NEXT, 1]),
        ("the header ends outside", 0, [end - 12, 16, NEXT, 1]),
        ("the header is too short", 0, [data, 12, NEXT, 1]),
        ("the header is to be written", 0, [data, 16, NEXT | WRITE, 1]),
        ("the chain ends with the header", 0, [data, 16, 0, 1]),
        ("the next descriptor is none", 0, [data, 16, NEXT, 256]),
        ("the chain is a loop", 0, [data, 16, NEXT, 0]),
        ("a flag is unknown", 0, [data, 16, NEXT | 4, 1]),
        ("the data wraps around", 1, [u32::MAX - 511, 512, NEXT | WRITE, 2]),
        ("the data is longer than memory", 1, [data, u32::MAX - 3, NEXT | WRITE, 2]),
        ("the data is odd", 1, [data + 65, 512, NEXT | WRITE, 2]),
        ("the data is no sector", 1, [data + 64, 500, NEXT | WRITE, 2]),
        ("the data is too much", 1, [data + 64, MOST_DATA as u32 + 512, NEXT | WRITE, 2]),
        ("the data goes the wrong way", 1, [data + 64, 512, NEXT, 2]),
        ("the status is read-only", 2, [data + 16, 4, 0, 0]),
        ("something follows the status", 2, [data + 16, 4, WRITE | NEXT, 0]),
    ];
    for spin in [0, 100] {
        let server = Server::start(&format!("descriptors-{spin}"), spin);
        for (name, number, values) in cases {
            let hand = Hand::attach(&server);
            hand.lay_out();
            hand.describe(number, values);
            hand.avail.push(&[0]).unwrap();
            hand.wait_for_call();
            assert!(hand.is_broken(), "{name}");
            assert_eq!((hand.answers(), hand.status()), (0, 0), "{name}: nothing was written");
            // It hears of nothing any more.
            hand.lay_out();
            hand.avail.push(&[0]).unwrap();
            server.serves();
            assert_eq!(hand.answers(), 0, "{name}");
        }
    }
}

#[test]
fn heads_and_indices_that_there_are_not_cost_the_driver_its_device() {
    let server = Server::start("heads", 0);
    for head in [256, u32::MAX] {
        let hand = Hand::attach(&server);
        hand.lay_out();
        hand.avail.push(&[head]).unwrap();
        hand.wait_for_call();
        assert!(hand.is_broken(), "head {head}");
    }
    for index in [257, u32::MAX] {
        let hand = Hand::attach(&server);
        hand.lay_out();
        hand.memory.words()[AVAIL.index].store(index, Ordering::Release);
        hand.avail.ring().unwrap();
        hand.wait_for_call();
        assert!(hand.is_broken(), "index {index}");
    }
    let hand = Hand::attach(&server);
    hand.lay_out();
    hand.memory.copy_in(DATA, &9_u32.to_ne_bytes());
    hand.avail.push(&[0]).unwrap();
    hand.wait_for_call();
    assert!(hand.is_broken(), "a kind that there is not");
    server.serves();
}

#[test]
fn a_chain_that_is_pushed_twice_at_once_costs_the_driver_its_device() {
    let server = Server::start("twice", 0);
    let hand = Hand::attach(&server);
    hand.lay_out();
    let words = hand.memory.words();
    words[AVAIL.entries].store(0, Ordering::Relaxed);
    words[AVAIL.entries + 1].store(0, Ordering::Relaxed);
    words[AVAIL.index].store(2, Ordering::Release);
    hand.avail.ring().unwrap();
    hand.wait_for_call();
    // The first of the two may be answered before, which calls as well.
    let begin = Instant::now();
    while !hand.is_broken() {
        assert!(begin.elapsed() < Duration::from_secs(10), "both were taken");
        thread::yield_now();
    }
    server.serves();
}

#[test]
fn sectors_that_the_disk_has_not_are_an_error_of_the_request_alone() {
    let server = Server::start("sectors", 0);
    let hand = Hand::attach(&server);
    for (turn, [low, high]) in [[2048, 0], [0, 1], [u32::MAX, u32::MAX]].into_iter().enumerate() {
        hand.lay_out();
        hand.memory.copy_in(DATA, [0, low, high, 0].map(u32::to_ne_bytes).as_flattened());
        hand.avail.push(&[0]).unwrap();
        while hand.answers() as usize == turn {
            hand.wait_for_call();
        }
        assert_eq!(hand.status(), 2, "sector {low} + {high} << 32");
    }
    assert!(!hand.is_broken());
}

#[test]
fn an_offer_that_is_none_is_refused_and_the_next_one_is_not() {
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
    let server = Server::start("offers", 0);
    let memfd = |size: usize, seal: bool| {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = memfd_create("offer", flags).unwrap();
        ftruncate(&fd, size as u64).unwrap();
        if seal {
            fcntl_add_seals(&fd, SealFlags::SHRINK).unwrap();
        }
        fd
    };
    let (kick, call) = (bell().unwrap(), bell().unwrap());
    let good = memfd(SIZE, true);
    let cases: [(&str, Vec<OwnedFd>); 5] = [
        ("no fd", vec![]),
        ("one fd", vec![good]),
        ("memory that may shrink", vec![memfd(SIZE, false), bell().unwrap(), bell().unwrap()]),
        ("memory that is too small", vec![memfd(4096, true), bell().unwrap(), bell().unwrap()]),
        ("no memory", vec![bell().unwrap(), kick, call]),
    ];
    for (name, fds) in cases {
        let mut socket = UnixStream::connect(&server.path).unwrap();
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        send(&socket, &fds).unwrap();
        assert_eq!(socket.read(&mut [0; 8]).unwrap(), 0, "{name}: the socket is closed");
        server.serves();
    }
}

#[test]
fn a_side_that_looks_by_itself_is_not_signalled() {
    let memory = Rc::new(Memory::create().unwrap());
    let bell = bell().unwrap();
    let producer = Producer::new(Rc::clone(&memory), AVAIL, bell.try_clone().unwrap());
    let consumer = Consumer::new(memory, AVAIL, bell);
    let rung = || {
        let mut fds = [PollFd::new(&consumer, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
    };
    consumer.suppress(true);
    producer.push(&[7]).unwrap();
    assert!(consumer.has_more() && !rung());
    assert_eq!(consumer.pop(), Ok(Some([7, 0])));
    consumer.suppress(false);
    producer.push(&[8]).unwrap();
    assert!(rung());
    consumer.silence().unwrap();
    assert!(!rung());
    assert_eq!(consumer.pop(), Ok(Some([8, 0])));
    assert_eq!(consumer.pop(), Ok(None));
}
