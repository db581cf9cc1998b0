//! Many threads and moves at once: nothing is lost, nothing doubled, and every request answered.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
use std::time::Duration;

use fdmon::{
    EventNotifier, Interest, IoThread, Left, MoveError, Ops, Outcome, PollParams, Remote,
    SendHandlers, SendToken, Source, WordSource,
};

use super::super::{context, io_thread};
use crate::support::{Spun, Tally, awaited, often, pair, ringing, spin};

fn parameters() -> [PollParams; 2] {
    [PollParams::default(), PollParams { max_ns: 20_000, grow: 0, ..spin() }]
}

fn threads(params: &PollParams) -> [IoThread; 2] {
    [(); 2].map(|()| io_thread().poll(params.clone()).spawn().unwrap())
}

#[track_caller]
fn registered<S: Source + Send>(remote: &Remote, source: S) -> SendToken<S> {
    awaited(remote.register_send(source)).map_err(|(error, _)| error).unwrap()
}

/// Moves it to and fro until this says that it is enough; how often, and where it is then.
fn wander<S: Source + Send>(
    mut token: SendToken<S>,
    threads: &[IoThread],
    done: impl Fn() -> bool,
) -> (u32, SendToken<S>) {
    let mut moves = 0;
    while !done() {
        let (from, to) = (moves as usize % threads.len(), (moves as usize + 1) % threads.len());
        let moved = awaited(threads[from].remote().move_to(&token, &threads[to].remote()));
        token = moved.map_err(|failed| failed.error).unwrap();
        moves += 1;
    }
    (moves, token)
}

/// An eventfd whose counter is summed up, with a check that only one thread is inside at a time.
struct Sum {
    bell: EventNotifier,
    sum: Arc<AtomicU64>,
    inside: Arc<AtomicBool>,
}

impl AsFd for Sum {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

impl Source for Sum {
    fn interest(&self) -> Interest {
        Interest::READ
    }

    fn read(&mut self, _: &mut Ops<'_>) -> Outcome {
        assert!(!self.inside.swap(true, Ordering::SeqCst), "two threads run it at once");
        let mut counter = [0; 8];
        if rustix::io::read(&self.bell, &mut counter).is_ok() {
            self.sum.fetch_add(u64::from_ne_bytes(counter), Ordering::SeqCst);
        }
        self.inside.store(false, Ordering::SeqCst);
        Ok(())
    }
}

/// SPEC 10, 32, 52
#[test]
fn over_thousands_of_moves_what_producers_count_is_neither_lost_nor_doubled() {
    for params in parameters() {
        let threads = threads(&params);
        let (bell, sum) = (EventNotifier::new().unwrap(), Arc::new(AtomicU64::new(0)));
        let inside = Arc::default();
        let token =
            registered(&threads[0].remote(), Sum { bell: bell.clone(), sum: sum.clone(), inside });
        let events = 3_000;
        let producers = [(); 2].map(|()| {
            let (bell, sum) = (bell.clone(), sum.clone());
            std::thread::spawn(move || {
                for event in 0..events {
                    bell.set().unwrap();
                    // Now and then until all is taken, so that the threads fall asleep.
                    while event % 64 == 0 && sum.load(Ordering::SeqCst) < event {
                        std::thread::yield_now();
                    }
                }
            })
        });
        let all = 2 * events;
        let enough = |moves: &AtomicU32| {
            moves.fetch_add(1, Ordering::SeqCst) >= 1_000 && sum.load(Ordering::SeqCst) == all
        };
        let moves = AtomicU32::new(0);
        let (moves, token) = wander(token, &threads, || enough(&moves));
        for producer in producers {
            producer.join().unwrap();
        }
        assert!(moves >= 1_000);
        assert_eq!(sum.load(Ordering::SeqCst), all);
        let home = Remote::from_id(token.context_id()).unwrap();
        assert!(awaited(home.deregister(&token)).unwrap().is_some());
        for thread in threads {
            assert_eq!(thread.stop().unwrap().handlers, 0);
        }
    }
}

/// SPEC 44, 52
#[test]
fn a_stream_stays_in_order_whichever_thread_reads_it() {
    for params in parameters() {
        let threads = threads(&params);
        let (ours, theirs) = pair();
        let bytes = 20_000;
        let (taken, next) = (Tally::new(), Arc::new(AtomicU32::new(0)));
        let count = taken.clone();
        let handlers = SendHandlers::new(ours).read(move |ops| {
            // A few at a time: the rest is still there when it moves.
            let mut buffer = [0; 7];
            let n = rustix::io::read(ops.fd(), &mut buffer)?;
            for byte in &buffer[..n] {
                let expected = next.fetch_add(1, Ordering::SeqCst);
                assert_eq!(u32::from(*byte), expected % 251, "at {expected}");
                count.bump();
            }
            Ok(())
        });
        let token: SendToken<SendHandlers<OwnedFd>> = registered(&threads[0].remote(), handlers);
        let writer = std::thread::spawn(move || {
            let all: Vec<u8> = (0..bytes).map(|at| (at % 251) as u8).collect();
            let mut rest = &all[..];
            while !rest.is_empty() {
                match rustix::io::write(&theirs, &rest[..rest.len().min(100)]) {
                    Ok(n) => rest = &rest[n..],
                    Err(_) => std::thread::yield_now(),
                }
            }
            theirs
        });
        let (moves, _) = wander(token, &threads, || taken.get() == bytes);
        writer.join().unwrap();
        assert!(moves > 0);
        for thread in threads {
            thread.stop().unwrap();
        }
    }
}

/// SPEC 25, 52
#[test]
fn a_producer_that_suppresses_its_signals_loses_none_over_moves_in_spin_mode() {
    let params = PollParams { max_ns: 20_000, grow: 0, ..spin() };
    let threads = threads(&params);
    let [head, tail, suppress] = [(); 3].map(|()| Arc::new(AtomicU32::new(0)));
    let source = WordSource::words_differ(head.clone(), tail.clone());
    let source = source.suppress(suppress.clone()).unwrap();
    let bell = EventNotifier::new().unwrap();
    let take = {
        let (head, tail) = (head.clone(), tail.clone());
        move || tail.store(head.load(Ordering::Acquire), Ordering::Release)
    };
    let (clear, taken) = (bell.clone(), take.clone());
    let handlers = SendHandlers::new(bell.clone())
        .read(move |_| {
            clear.test_and_clear()?;
            taken();
            Ok(())
        })
        .poll(source)
        .poll_ready(move |_| {
            take();
            Ok(())
        });
    let token = registered(&threads[0].remote(), handlers);
    let events = often(10_000);
    let (signals, end) = (Tally::new(), tail.clone());
    let count = signals.clone();
    let producer = std::thread::spawn(move || {
        for event in 1..=events {
            head.store(event, Ordering::Release);
            fence(Ordering::SeqCst);
            if suppress.load(Ordering::Relaxed) == 0 {
                count.bump();
                bell.set().unwrap();
            }
            // In lockstep: one that is lost is missed at once.
            while end.load(Ordering::Acquire) < event {
                std::thread::yield_now();
            }
        }
    });
    let over = || tail.load(Ordering::Acquire) == events;
    let (moves, _) = wander(token, &threads, over);
    producer.join().unwrap();
    assert!(moves > 0 && signals.get() > 0);
}

/// Moves on in each of its callbacks.
struct Hopper {
    bell: EventNotifier,
    homes: Vec<Remote>,
    hops: Tally,
}

impl AsFd for Hopper {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

impl Source for Hopper {
    fn interest(&self) -> Interest {
        Interest::READ
    }

    fn read(&mut self, ops: &mut Ops<'_>) -> Outcome {
        if self.bell.test_and_clear()? {
            let here = ops.remote().id();
            let at = self.homes.iter().position(|home| home.id() == here).unwrap();
            let own = ops.token_of::<Self>(&*self).unwrap();
            drop(ops.move_to(&own, &self.homes[(at + 1) % self.homes.len()]));
            self.hops.bump();
        }
        Ok(())
    }
}

/// SPEC 10, 52
#[test]
fn handlers_that_move_on_in_each_callback_miss_no_ring() {
    for params in parameters() {
        let threads = [(); 3].map(|()| io_thread().poll(params.clone()).spawn().unwrap());
        let homes: Vec<_> = threads.iter().map(IoThread::remote).collect();
        let hoppers: Vec<_> = (0..4)
            .map(|_| {
                let (bell, hops) = (EventNotifier::new().unwrap(), Tally::new());
                let hopper =
                    Hopper { bell: bell.clone(), homes: homes.clone(), hops: hops.clone() };
                registered(&homes[0], hopper);
                (bell, hops)
            })
            .collect();
        for round in 1..=300 {
            for (bell, _) in &hoppers {
                bell.set().unwrap();
            }
            for (_, hops) in &hoppers {
                hops.wait_for(round);
                assert_eq!(hops.get(), round, "a ring is heard once");
            }
        }
        let left: u32 = threads.into_iter().map(|thread| thread.stop().unwrap().handlers).sum();
        assert!(left <= 4);
    }
}

/// SPEC 4, 38
#[test]
fn whenever_the_target_closes_each_source_is_there_or_comes_back() {
    for round in 0..60 {
        let thread = io_thread().spawn().unwrap();
        let remote = thread.remote();
        let askers = [(); 2].map(|()| {
            let remote = remote.clone();
            std::thread::spawn(move || {
                let (mut there, mut back) = (0, 0);
                loop {
                    let (source, _bell, hands) = Spun::new();
                    match awaited(remote.register_send(source)) {
                        Ok(_) => there += 1,
                        Err((error, source)) => {
                            assert!(error.is_closed(), "{error}");
                            assert!(Arc::ptr_eq(&source.hands, &hands));
                            assert_eq!(hands.dropped.get(), 0);
                            back += 1;
                        }
                    }
                    if back == 3 {
                        return there;
                    }
                }
            })
        });
        for _ in 0..round * 20 {
            std::hint::spin_loop();
        }
        let leaks = thread.stop().unwrap().handlers;
        let there: u32 = askers.map(|asker| asker.join().unwrap()).iter().sum();
        assert_eq!(leaks, there, "acknowledged is registered");
    }
}

/// SPEC 4, 38, 52
#[test]
fn whichever_side_closes_during_a_move_the_handler_is_somewhere() {
    for round in 0..60 {
        let (source, _bell, hands) = Spun::new();
        let mut threads = threads(&PollParams::default()).map(Some);
        let remotes = threads.each_ref().map(|thread| thread.as_ref().unwrap().remote());
        let mut token = registered(&remotes[0], source);
        let closes = threads[round % 2].take().unwrap();
        let stopper = std::thread::spawn(move || {
            for _ in 0..round * 10 {
                std::hint::spin_loop();
            }
            closes.stop().unwrap().handlers
        });
        let mut at = 0;
        let found = loop {
            match awaited(remotes[at].move_to(&token, &remotes[1 - at])) {
                Ok(there) => (token, at) = (there, 1 - at),
                Err(MoveError { error, left }) => {
                    assert!(error.is_closed(), "{error}");
                    break left;
                }
            }
        };
        let leaks = stopper.join().unwrap();
        match found {
            // It stayed or came back, and that context goes on.
            Left::Registered(token) => {
                assert_eq!(leaks, 0);
                let home = Remote::from_id(token.context_id()).unwrap();
                assert!(awaited(home.deregister(&token)).unwrap().is_some());
                assert_eq!(hands.dropped.get(), 1);
            }
            Left::Source(_) => panic!("the other side is open: it can come back"),
            // It was at home in the one that closed, which counted it.
            Left::Gone => assert_eq!((leaks, hands.dropped.get()), (1, 1)),
        }
    }
}

/// SPEC 4, 10
#[test]
fn many_threads_register_and_remove_and_nothing_runs_once_that_is_acknowledged() {
    for params in parameters() {
        let thread = io_thread().poll(params).spawn().unwrap();
        let askers = [(); 3].map(|()| {
            let remote = thread.remote();
            std::thread::spawn(move || {
                for _ in 0..150 {
                    let (source, bell, hands) = Spun::new();
                    let token = registered(&remote, source);
                    bell.set().unwrap();
                    hands.runs.wait_for(1);
                    bell.set().unwrap();
                    let source = awaited(remote.deregister(&token)).unwrap().unwrap();
                    let seen = (hands.runs.get(), hands.asked.get(), hands.ends.get());
                    assert!(!hands.has_begun());
                    bell.set().unwrap();
                    hands.say(true);
                    std::thread::yield_now();
                    let now = (hands.runs.get(), hands.asked.get(), hands.ends.get());
                    assert_eq!(seen, now, "something of it ran");
                    assert_eq!(hands.dropped.get(), 0);
                    drop(source);
                }
            })
        });
        for asker in askers {
            asker.join().unwrap();
        }
        assert_eq!(thread.stop().unwrap().handlers, 0);
    }
}

/// SPEC 4
#[test]
fn two_home_threads_that_ask_each_other_do_not_wait_for_each_other() {
    let (swap, other) = std::sync::mpsc::channel();
    let (answer, asked) = std::sync::mpsc::channel();
    let home = |send: std::sync::mpsc::Sender<Remote>,
                receive: std::sync::mpsc::Receiver<Remote>| {
        move || {
            let ctx = context();
            send.send(ctx.remote()).unwrap();
            let peer = receive.recv().unwrap();
            let limit = ctx.timer(|_| panic!("they wait for each other")).unwrap();
            limit.arm(Duration::from_secs(60)).unwrap();
            let (acks, bells) =
                (crate::support::Count::new(), [(); 100].map(|()| crate::support::rung()));
            for bell in &bells {
                let count = acks.clone();
                let ack = peer.register_send(ringing(bell, &Tally::new()));
                ack.then(&ctx, move |_, registered| {
                    registered.map_err(|(error, _)| error)?;
                    count.bump();
                    Ok(())
                })
                .unwrap();
            }
            while acks.get() < 100 || ctx.stats().handlers.len() < 100 {
                ctx.poll(true).unwrap();
            }
            // The other one may still be at it.
            send.send(ctx.remote()).unwrap();
            while receive.try_recv().is_err() {
                ctx.poll(false).unwrap();
                std::thread::yield_now();
            }
            assert_eq!(ctx.close().handlers, 100);
        }
    };
    let first = std::thread::spawn(home(swap, asked));
    let second = std::thread::spawn(home(answer, other));
    first.join().unwrap();
    second.join().unwrap();
}
