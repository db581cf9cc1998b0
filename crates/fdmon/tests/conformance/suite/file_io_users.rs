//! File I/O against what users do to it: tokens of other contexts, their own code in the middle of a
//! request, parts of transfers that nobody is to hear of, and what is left after close.

use std::cell::RefCell;
use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use fdmon::{AioContext, AioParams, IoEngine, PolicyKind, PollParams};

use super::builder;
use super::file_io::{ENGINES, Ends, file, on, pipe};
use crate::support::alone;

/// SPEC 49
#[test]
fn a_token_cancels_nothing_of_another_context() {
    for engine in ENGINES {
        let (ctx, other, ends) = (on(engine), on(engine), Ends::default());
        let ask = |ctx: &AioContext| {
            let ends = ends.clone();
            ctx.read_at(file(b"abc"), vec![0; 3], 0, move |_, r, _| ends.add(r)).unwrap()
        };
        let (token, its) = (ask(&ctx), ask(&other));
        assert_ne!(token, its);
        other.cancel_io(&token);
        assert_eq!(ends.wait(&other, 1), [Ok(3)]);
        ctx.cancel_io(&token);
        assert_eq!(ends.wait(&ctx, 1), [Err(libc::ECANCELED)]);
    }
}

/// A file that asks its context something when it is asked for its number.
struct Curious(Rc<AioContext>, Rc<File>);

impl AsFd for Curious {
    fn as_fd(&self) -> BorrowedFd<'_> {
        assert!(!self.0.is_closed());
        self.1.as_fd()
    }
}

/// SPEC 47
#[test]
fn what_is_asked_for_may_use_the_context_while_it_is_asked_for() {
    for engine in ENGINES {
        let (ctx, ends) = (Rc::new(on(engine)), Ends::default());
        let kept = ends.clone();
        let curious = Curious(ctx.clone(), file(b"abc"));
        ctx.read_at(curious, vec![0; 3], 0, move |_, result, _| kept.add(result)).unwrap();
        assert_eq!(ends.wait(&ctx, 1), [Ok(3)]);
    }
}

/// Writes to the pipe bytewise, each time the context has gone to sleep or to spin once more.
fn drip(write: OwnedFd, count: usize) -> thread::JoinHandle<OwnedFd> {
    thread::spawn(move || {
        for _ in 0..count {
            thread::sleep(Duration::from_millis(3));
            rustix::io::write(&write, b"x").unwrap();
        }
        write
    })
}

/// SPEC 16
#[test]
fn a_part_of_a_transfer_ends_no_sleep() {
    let ctx = on(IoEngine::IoUring);
    let ((read, write), ends) = (pipe(), Ends::default());
    let kept = ends.clone();
    ctx.read_at(read, vec![0; 4], 0, move |_, result, _| kept.add(result)).unwrap();
    let writer = drip(write, 4);
    assert!(ctx.poll(true).unwrap(), "one turn, until all of it is there");
    assert_eq!(ends.take(), [Ok(4)]);
    drop(writer.join().unwrap());
}

/// SPEC 16, 48
#[test]
fn a_turn_that_collects_completions_ends_with_something_whole() {
    let ctx = builder()
        .aio(AioParams {
            engine: IoEngine::IoUring,
            min_batch: 2,
            min_wait_ns: 5_000_000,
            ..AioParams::default()
        })
        .build()
        .unwrap();
    let ends = Ends::default();
    let (readers, writers): (Vec<_>, Vec<_>) = (0..2).map(|_| pipe()).unzip();
    for read in readers {
        let ends = ends.clone();
        ctx.read_at(read, vec![0; 2], 0, move |_, result, _| ends.add(result)).unwrap();
    }
    let writers: Vec<_> = writers.into_iter().map(|write| drip(write, 2)).collect();
    while ends.len() < 2 {
        assert!(ctx.poll(true).unwrap(), "each turn has something to say");
    }
    assert_eq!(ends.take(), [Ok(2); 2]);
    for writer in writers {
        drop(writer.join().unwrap());
    }
}

/// SPEC 16, 23
#[test]
fn a_part_of_a_transfer_is_no_hit_of_a_spin() {
    let params = PollParams {
        max_ns: 60_000_000_000,
        policy: PolicyKind::Fixed,
        guards: false,
        ..PollParams::default()
    };
    let aio = AioParams { engine: IoEngine::IoUring, ..AioParams::default() };
    let ctx = builder().poll(params).aio(aio).build().unwrap();
    let ((read, write), ends) = (pipe(), Ends::default());
    let kept = ends.clone();
    ctx.read_at(read, vec![0; 4], 0, move |_, result, _| kept.add(result)).unwrap();
    let writer = drip(write, 4);
    assert!(ctx.poll(true).unwrap());
    assert_eq!(ends.take(), [Ok(4)]);
    assert_eq!((ctx.stats().spin_hits, ctx.stats().sleeps), (1, 0));
    drop(writer.join().unwrap());
    ctx.suspend().unwrap();
}

fn open_fds() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

fn threads() -> usize {
    fs::read_dir("/proc/self/task").unwrap().count()
}

/// SPEC 38
#[test]
fn a_closed_context_that_is_kept_has_no_ring_and_no_threads() {
    if !alone("FDMON_TEST_FILE_IO", "closed") {
        return;
    }
    let read = |ctx: &AioContext, closes: bool| {
        let ends = Ends::default();
        let end = ends.clone();
        ctx.read_at(file(b"abc"), vec![0; 3], 0, move |ops, result, _| {
            end.add(result);
            if closes {
                ops.close();
            }
        })
        .unwrap();
        assert_eq!(ends.wait(ctx, 1), [Ok(3)]);
        ctx.close();
    };
    let before = open_fds();
    let unused = on(IoEngine::Auto);
    unused.close();
    let rest = open_fds() - before;
    for closes in [false, true] {
        let before = open_fds();
        let ctx = on(IoEngine::IoUring);
        read(&ctx, closes);
        assert_eq!(open_fds() - before, rest, "in a completion: {closes}");
        drop(ctx);
    }
    drop(unused);
    let ctx = on(IoEngine::Threads);
    read(&ctx, false);
    let deadline = Instant::now() + Duration::from_secs(5); // idle ones live for 10 s
    while threads() > 2 {
        assert!(Instant::now() < deadline, "{} threads are left", threads());
        thread::sleep(Duration::from_millis(1));
    }
    drop(ctx);
}

/// SPEC 49
#[test]
fn requests_that_wait_are_cancelled_from_the_middle_and_the_rest_keeps_its_order() {
    for engine in ENGINES {
        let ctx = on(engine);
        let (file, order) = (file(b"abc"), Rc::new(RefCell::new(Vec::new())));
        let ask = |number: u32| {
            let order = order.clone();
            let done = move |_: &mut fdmon::Ops<'_>, result: std::io::Result<usize>, _| {
                order.borrow_mut().push((number, result.is_ok()));
            };
            ctx.read_at(file.clone(), vec![0; 3], 0, done).unwrap()
        };
        ctx.plug(|| {
            let tokens: Vec<_> = (0..31).map(ask).collect();
            for token in tokens.iter().skip(1).step_by(2) {
                ctx.cancel_io(token);
            }
            assert_eq!((ctx.stats().submissions, ctx.stats().completions), (0, 15));
            ask(31);
            assert_eq!(ctx.stats().submissions, 0, "those that were cancelled count no more");
        });
        assert_eq!((ctx.stats().submissions, ctx.stats().io_batch_max), (1, 17));
        ctx.poll_until(|| order.borrow().len() == 32).unwrap();
        let order = order.take();
        assert!(order.iter().all(|&(number, ok)| ok == (number % 2 == 0 || number == 31)));
        if engine == IoEngine::IoUring {
            let done = order.iter().filter(|(_, ok)| *ok).map(|(number, _)| *number);
            assert!(done.is_sorted(), "{order:?}");
        }
    }
}
