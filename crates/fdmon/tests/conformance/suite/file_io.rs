//! File I/O on both engines, whatever the monitor is.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use fdmon::{
    AioContext, AioParams, EventNotifier, Handlers, IoEngine, PolicyKind, PollParams, RingMode,
    RingParams,
};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::pipe::{PipeFlags, pipe_with};

use super::{builder, ring_params};
use crate::support::{Count, Log};

pub(super) const ENGINES: [IoEngine; 2] = [IoEngine::IoUring, IoEngine::Threads];

fn with(params: AioParams) -> AioContext {
    builder().aio(params).build().unwrap()
}

pub(super) fn on(engine: IoEngine) -> AioContext {
    with(AioParams { engine, ..AioParams::default() })
}

/// A file with this in it.
pub(super) fn file(content: &[u8]) -> Rc<File> {
    let mut file = File::from(memfd_create("fdmon-test", MemfdFlags::CLOEXEC).unwrap());
    file.write_all(content).unwrap();
    Rc::new(file)
}

fn content(file: &File) -> Vec<u8> {
    let mut file = file.try_clone().unwrap();
    file.rewind().unwrap();
    let mut all = Vec::new();
    file.read_to_end(&mut all).unwrap();
    all
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from(at * 7 % 251).unwrap()).collect()
}

/// A pipe whose reads wait until it is written: requests that stay in flight on a ring.
pub(super) fn pipe() -> (Rc<OwnedFd>, OwnedFd) {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    (Rc::new(read), write)
}

/// What requests came to, in the order in which they ended.
#[derive(Clone, Default)]
pub(super) struct Ends(Rc<RefCell<Vec<Result<usize, i32>>>>);

impl Ends {
    pub(super) fn add(&self, result: io::Result<usize>) {
        self.0.borrow_mut().push(result.map_err(|error| error.raw_os_error().unwrap()));
    }

    pub(super) fn take(&self) -> Vec<Result<usize, i32>> {
        self.0.take()
    }

    pub(super) fn len(&self) -> usize {
        self.0.borrow().len()
    }

    /// Turns until so many have ended.
    pub(super) fn wait(&self, ctx: &AioContext, count: usize) -> Vec<Result<usize, i32>> {
        ctx.poll_until(|| self.len() >= count).unwrap();
        self.take()
    }
}

/// SPEC 47
#[test]
fn what_is_written_is_read_back() {
    for engine in ENGINES {
        let ctx = on(engine);
        let (file, ends) = (file(b""), Ends::default());
        let data = pattern(100_000);
        for (at, chunk) in data.chunks(10_000).enumerate() {
            let ends = ends.clone();
            ctx.write_at(file.clone(), chunk.to_vec(), at as u64 * 10_000, move |_, result, _| {
                ends.add(result);
            })
            .unwrap();
        }
        assert_eq!(ends.wait(&ctx, 10), [Ok(10_000); 10]);
        assert_eq!(content(&file), data);
        let seen = Rc::new(RefCell::new(Vec::new()));
        let into = seen.clone();
        let kept = ends.clone();
        ctx.read_at(file, vec![0; 60_000].into_boxed_slice(), 30_000, move |_, result, bytes| {
            kept.add(result);
            *into.borrow_mut() = bytes.into_vec();
        })
        .unwrap();
        assert_eq!(ends.wait(&ctx, 1), [Ok(60_000)]);
        assert_eq!(seen.take(), data[30_000..90_000]);
        assert_eq!(ctx.stats().aio_engine, Some(engine));
        assert_eq!(ctx.stats().aio_reason, "asked for");
    }
}

/// SPEC 47
#[test]
fn a_read_ends_at_the_end_of_the_file() {
    for engine in ENGINES {
        let ctx = on(engine);
        let ends = Ends::default();
        let mut results = Vec::new();
        for (offset, len) in [(0, 64), (60, 64), (100, 64), (1 << 40, 64), (7, 0)] {
            let kept = ends.clone();
            ctx.read_at(file(&pattern(100)), vec![0; len], offset, move |_, result, _| {
                kept.add(result);
            })
            .unwrap();
            results.extend(ends.wait(&ctx, 1));
        }
        assert_eq!(results, [Ok(64), Ok(40), Ok(0), Ok(0), Ok(0)]);
    }
}

/// SPEC 47
#[test]
fn several_buffers_are_one_request() {
    for engine in ENGINES {
        let ctx = on(engine);
        let (file, ends) = (file(b""), Ends::default());
        let data = pattern(5_000);
        // More of them than one call takes.
        let pieces: Vec<Vec<u8>> = data.chunks(2).map(<[u8]>::to_vec).collect();
        assert!(pieces.len() > 1024);
        let kept = ends.clone();
        ctx.writev_at(file.clone(), pieces, 3, move |_, result, pieces| {
            kept.add(result);
            assert_eq!(pieces.len(), 2500);
        })
        .unwrap();
        assert_eq!(ends.wait(&ctx, 1), [Ok(5_000)]);
        assert_eq!(content(&file)[3..], data);
        let buffers: Vec<Vec<u8>> = vec![vec![0; 1], vec![], vec![0; 4_000], vec![0; 2_000]];
        let (kept, joined) = (ends.clone(), Rc::new(RefCell::new(Vec::new())));
        let into = joined.clone();
        ctx.readv_at(file, buffers, 3, move |_, result, buffers| {
            kept.add(result);
            *into.borrow_mut() = buffers.concat();
        })
        .unwrap();
        assert_eq!(ends.wait(&ctx, 1), [Ok(5_000)]);
        assert_eq!(joined.take()[..5_000], data);
    }
}

/// SPEC 47
#[test]
fn what_the_kernel_refuses_ends_with_its_errno() {
    let full = || Rc::new(File::options().write(true).open("/dev/full").unwrap());
    for engine in ENGINES {
        let ctx = on(engine);
        let ends = Ends::default();
        let done = || {
            let ends = ends.clone();
            move |_: &mut fdmon::Ops<'_>, result, _| ends.add(result)
        };
        ctx.write_at(full(), vec![1; 10], 0, done()).unwrap();
        assert_eq!(ends.wait(&ctx, 1), [Err(libc::ENOSPC)]);
        ctx.read_at(File::open("/").unwrap(), vec![1; 10], 0, done()).unwrap();
        assert_eq!(ends.wait(&ctx, 1), [Err(libc::EISDIR)]);
        ctx.read_at(full(), vec![1; 10], 0, done()).unwrap();
        assert_eq!(ends.wait(&ctx, 1), [Err(libc::EBADF)]);
        let kept = ends.clone();
        ctx.fsync(pipe().0, move |_, result| kept.add(result.map(|()| 0))).unwrap();
        assert_eq!(ends.wait(&ctx, 1), [Err(libc::EINVAL)]);
        let error = ctx.read_at(file(b""), vec![0; 1], 1 << 63, |_, _, _| {}).unwrap_err();
        assert!(error.is_invalid_arg());
        assert!(error.to_string().starts_with("offset = 9223372036854775808 "), "{error}");
    }
}

/// SPEC 47
#[test]
fn syncs_end_after_what_they_cover() {
    for engine in ENGINES {
        let ctx = on(engine);
        let (file, log) = (file(b""), Log::new());
        let (written, synced, whole) = (log.clone(), log.clone(), log.clone());
        let again = file.clone();
        ctx.write_at(file.clone(), vec![1; 10], 0, move |ops, result, _| {
            result.unwrap();
            written.add("written");
            ops.fdatasync(again.clone(), move |ops, result| {
                result.unwrap();
                synced.add("data");
                ops.fsync(again, move |ops, result| {
                    result.unwrap();
                    whole.add("all");
                    ops.stop();
                })
                .unwrap();
            })
            .unwrap();
        })
        .unwrap();
        ctx.run().unwrap();
        assert_eq!(log.take(), ["written", "data", "all"]);
    }
}

/// SPEC 48
#[test]
fn requests_wait_for_max_batch_the_end_of_a_section_or_the_turn() {
    for engine in ENGINES {
        let ctx = with(AioParams { max_batch: 10, engine, ..AioParams::default() });
        let (file, ends) = (file(&pattern(4096)), Ends::default());
        let ask = |count: usize| {
            for _ in 0..count {
                let ends = ends.clone();
                ctx.read_at(file.clone(), vec![0; 16], 0, move |_, result, _| ends.add(result))
                    .unwrap();
            }
        };
        let submissions = || ctx.stats().submissions;
        ask(9);
        assert_eq!(submissions(), 0, "they wait for more");
        ask(1);
        assert_eq!(submissions(), 1);
        ask(25);
        assert_eq!(submissions(), 3, "five wait");
        ctx.plug(|| {
            ctx.plug(|| ask(2));
            assert_eq!(submissions(), 3, "the outermost section submits");
        });
        assert_eq!(submissions(), 4);
        ctx.plug(|| ask(10));
        assert_eq!(submissions(), 5, "max_batch holds within a section");
        ask(3);
        assert_eq!(ends.wait(&ctx, 50).len(), 50);
        assert_eq!((submissions(), ctx.stats().completions), (6, 50));
        assert_eq!((ctx.stats().io_batch_max, ctx.stats().io_in_flight), (10, 0));
    }
}

/// SPEC 48
#[test]
fn thirty_two_requests_go_together_by_default_and_what_completions_ask_for_waits_for_the_turn() {
    for engine in ENGINES {
        let ctx = on(engine);
        let (file, count) = (file(&pattern(4096)), Count::new());
        ctx.plug(|| {
            for _ in 0..32 {
                let (count, again) = (count.clone(), file.clone());
                ctx.read_at(file.clone(), vec![0; 16], 0, move |ops, result, buffer| {
                    result.unwrap();
                    let before = ops.context().stats().submissions;
                    let done = count.clone();
                    if count.get() != 0 {
                        count.bump();
                        return; // enough of them
                    }
                    ops.plug(|ops| {
                        ops.read_at(again, buffer, 0, move |_, result, _| {
                            result.unwrap();
                            done.bump();
                        })
                        .unwrap();
                    });
                    assert_eq!(ops.context().stats().submissions, before, "it is within one");
                    count.bump();
                })
                .unwrap();
            }
        });
        assert_eq!(ctx.stats().submissions, 1);
        ctx.poll_until(|| count.get() == 33).unwrap();
        assert_eq!((ctx.stats().submissions, ctx.stats().completions), (2, 33));
    }
}

/// SPEC 15, 16
#[test]
fn completions_come_before_bottom_halves_handlers_and_timers_and_are_progress() {
    for engine in ENGINES {
        let ctx = on(engine);
        let log = Log::new();
        let bell = EventNotifier::with_value(1).unwrap();
        let (clear, rung) = (bell.clone(), log.clone());
        ctx.set_fd_handler(
            bell,
            Handlers::new().read(move |_| {
                rung.add("handler");
                clear.test_and_clear()?;
                Ok(())
            }),
        )
        .unwrap();
        let timer = ctx.timer(log.callback("timer")).unwrap();
        timer.arm_at(1).unwrap();
        ctx.schedule({
            let log = log.clone();
            move |_| {
                log.add("bottom half");
                Ok(())
            }
        })
        .unwrap();
        let end = log.clone();
        let done = move |_: &mut fdmon::Ops<'_>, _, _| end.add("completion");
        let token = ctx.read_at(file(b"x"), vec![0; 1], 0, done).unwrap();
        ctx.cancel_io(&token); // so that it has ended, whoever was to do it
        assert!(ctx.poll(true).unwrap());
        assert_eq!(log.take(), ["completion", "bottom half", "handler", "timer"]);
    }
}

/// SPEC 49
#[test]
fn more_requests_than_the_ring_has_slots_wait_in_order() {
    for engine in ENGINES {
        let ctx = on(engine);
        let (file, order) = (file(&pattern(4096)), Rc::new(RefCell::new(Vec::new())));
        for number in 0..2_000 {
            let order = order.clone();
            ctx.read_at(file.clone(), vec![0; 8], number % 4000, move |ops, result, _| {
                assert_eq!(result.unwrap(), 8);
                assert!(ops.context().stats().io_in_flight <= 256);
                order.borrow_mut().push(number);
            })
            .unwrap();
        }
        ctx.poll_until(|| order.borrow().len() == 2_000).unwrap();
        let mut order = order.take();
        if engine == IoEngine::IoUring {
            assert!(order.is_sorted(), "what completes at once completes in order");
        }
        order.sort_unstable();
        assert_eq!(order, (0..2_000).collect::<Vec<u64>>());
    }
}

/// SPEC 49
#[test]
fn a_cancelled_request_ends_once() {
    for engine in ENGINES {
        let ctx = on(engine);
        let (file, ends) = (file(b"abc"), Ends::default());
        let kept = ends.clone();
        let token =
            ctx.read_at(file.clone(), vec![0; 3], 0, move |_, result, _| kept.add(result)).unwrap();
        ctx.cancel_io(&token); // it was not submitted yet
        ctx.cancel_io(&token);
        assert_eq!(ends.len(), 0, "it ends in a turn");
        assert!(ctx.poll(true).unwrap());
        assert_eq!(ends.take(), [Err(libc::ECANCELED)]);
        ctx.cancel_io(&token);
        let kept = ends.clone();
        ctx.read_at(file, vec![0; 3], 0, move |_, result, _| kept.add(result)).unwrap();
        ctx.cancel_io(&token); // its slot is another request's now
        assert_eq!(ends.wait(&ctx, 1), [Ok(3)]);
        assert!(!ctx.poll(false).unwrap());
        assert_eq!((ends.len(), ctx.stats().completions), (0, 2));
    }
}

/// SPEC 49
#[test]
fn a_request_in_flight_is_cancelled() {
    let ctx = on(IoEngine::IoUring);
    let ((read, _write), ends) = (pipe(), Ends::default());
    let kept = ends.clone();
    let token = ctx.read_at(read, vec![0; 3], 0, move |_, result, _| kept.add(result)).unwrap();
    assert!(!ctx.poll(false).unwrap());
    assert_eq!(ctx.stats().io_in_flight, 1);
    ctx.cancel_io(&token);
    assert_eq!(ends.wait(&ctx, 1), [Err(libc::ECANCELED)]);
    assert_eq!(ctx.stats().io_in_flight, 0);
}

/// SPEC 19, 47
#[test]
fn nested_turns_complete_requests() {
    for engine in ENGINES {
        let ctx = on(engine);
        let ends = Ends::default();
        let (file, kept) = (file(b"abc"), ends.clone());
        ctx.schedule(move |ops| {
            for depth in 0..3 {
                let kept = kept.clone();
                let (file, again) = (file.clone(), file.clone());
                ops.read_at(file, vec![0; 3], depth, move |ops, result, buffer| {
                    let inner = kept.clone();
                    kept.add(result);
                    // A completion that waits for another.
                    let before = kept.len();
                    ops.read_at(again, buffer, 0, move |_, result, _| inner.add(result)).unwrap();
                    ops.poll_until(|| kept.len() > before).unwrap();
                })?;
            }
            let all = kept.clone();
            ops.poll_until(move || all.len() == 6)?;
            Ok(())
        })
        .unwrap();
        ctx.poll(true).unwrap();
        let mut results = ends.take();
        results.sort_unstable();
        assert_eq!(results, [Ok(1), Ok(2), Ok(3), Ok(3), Ok(3), Ok(3)]);
    }
}

/// SPEC 21
#[test]
fn a_completion_that_panics_stops_no_other() {
    for engine in ENGINES {
        let ctx = on(engine);
        let (file, ends) = (file(b"abc"), Ends::default());
        for number in 0..5 {
            let ends = ends.clone();
            ctx.read_at(file.clone(), vec![0; 3], 0, move |_, result, _| {
                ends.add(result);
                assert_ne!(number, 2, "on purpose");
            })
            .unwrap();
        }
        let turns = || ctx.poll_until(|| ends.len() == 5).unwrap();
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(turns)).is_err());
        ctx.poll_until(|| ends.len() == 5).unwrap();
        assert_eq!(ends.take(), [Ok(3); 5]);
    }
}

/// SPEC 47, 49
#[test]
fn close_waits_or_cancels_and_loses_no_completion() {
    for engine in ENGINES {
        let ctx = on(engine);
        let (ends, (read, _write)) = (Ends::default(), pipe());
        let alive = Rc::new(());
        let ask = |fd: Rc<OwnedFd>| {
            let (ends, alive) = (ends.clone(), alive.clone());
            ctx.read_at(fd, vec![0; 3], 0, move |ops, result, _| {
                ends.add(result);
                let again = ops.read_at(file(b""), vec![0; 3], 0, |_, _, _| {});
                assert!(again.unwrap_err().is_closed());
                drop(alive);
            })
            .unwrap();
        };
        if engine == IoEngine::IoUring {
            (0..40).for_each(|_| ask(read.clone())); // those stay in flight for ever
        }
        ctx.plug(|| {});
        let file: OwnedFd = file(b"abc").try_clone().unwrap().into();
        let file = Rc::new(file);
        (0..10).for_each(|_| ask(file.clone()));
        let asked = if engine == IoEngine::IoUring { 50 } else { 10 };
        let report = ctx.close();
        assert!(report.io > 0 && report.io <= asked, "{report:?}");
        let ended = ends.take();
        assert_eq!(ended.len(), asked as usize, "each hears of its end once");
        assert!(ended.iter().all(|end| matches!(end, Ok(3) | Err(libc::ECANCELED))), "{ended:?}");
        assert_eq!(Rc::strong_count(&alive), 1, "what they held is dropped");
        assert!(ctx.read_at(read, vec![0; 1], 0, |_, _, _| {}).unwrap_err().is_closed());
        assert_eq!(ctx.close().io, 0);
    }
}

/// SPEC 49
#[test]
fn a_completion_may_close_the_context() {
    for engine in ENGINES {
        let ctx = on(engine);
        let (file, ends) = (file(b"abc"), Ends::default());
        for _ in 0..20 {
            let ends = ends.clone();
            ctx.read_at(file.clone(), vec![0; 3], 0, move |ops, result, _| {
                ends.add(result);
                ops.close();
            })
            .unwrap();
        }
        while !ctx.is_closed() {
            let _ = ctx.poll(true);
        }
        assert_eq!(ends.len(), 20);
    }
}

/// SPEC 32, 47
#[test]
fn a_completion_wakes_a_loop_that_sleeps() {
    let ctx = on(IoEngine::IoUring);
    let remote = ctx.remote();
    for round in 1..=20 {
        let ((read, write), ends) = (pipe(), Ends::default());
        let (remote, kept) = (remote.clone(), ends.clone());
        let (armed, go) = mpsc::channel::<()>();
        let slept = ctx.stats().sleeps;
        let writer = thread::spawn(move || {
            go.recv().unwrap();
            while remote.stats().sleeps == slept {
                thread::yield_now(); // it has not gone to sleep
            }
            if round % 2 == 0 {
                thread::sleep(Duration::from_millis(1));
            }
            rustix::io::write(&write, b"abc").unwrap();
            write
        });
        ctx.read_at(read, vec![0; 3], 0, move |_, result, _| kept.add(result)).unwrap();
        armed.send(()).unwrap();
        assert!(ctx.poll(true).unwrap(), "one turn, that sleeps until then");
        assert_eq!(ends.take(), [Ok(3)]);
        drop(writer.join().unwrap());
    }
}

/// SPEC 23, 47
#[test]
fn a_spin_sees_a_completion_without_a_sleep() {
    let params = PollParams {
        max_ns: 60_000_000_000,
        policy: PolicyKind::Fixed,
        guards: false,
        ..PollParams::default()
    };
    let ctx = builder()
        .poll(params)
        .aio(AioParams { engine: IoEngine::IoUring, ..AioParams::default() })
        .build()
        .unwrap();
    let ((read, write), ends) = (pipe(), Ends::default());
    let (remote, kept) = (ctx.remote(), ends.clone());
    ctx.read_at(read, vec![0; 3], 0, move |_, result, _| kept.add(result)).unwrap();
    let writer = thread::spawn(move || {
        while remote.stats().io_in_flight == 0 {
            thread::yield_now();
        }
        rustix::io::write(&write, b"abc").unwrap();
        write
    });
    assert!(ctx.poll(true).unwrap());
    assert_eq!((ends.take(), ctx.stats().sleeps), (vec![Ok(3)], 0));
    assert_eq!(ctx.stats().spin_hits, 1);
    drop(writer.join().unwrap());
    ctx.suspend().unwrap();
}

/// SPEC 50, 47
#[test]
fn an_outer_loop_is_woken_by_completions() {
    for engine in ENGINES {
        let ctx = on(engine);
        let ends = Ends::default();
        let (read, write) = pipe();
        let kept = ends.clone();
        let mut writer = None;
        if engine == IoEngine::IoUring {
            let remote = ctx.remote();
            ctx.read_at(read, vec![0; 3], 0, move |_, result, _| kept.add(result)).unwrap();
            writer = Some(thread::spawn(move || {
                while remote.stats().io_in_flight == 0 {
                    thread::yield_now();
                }
                thread::sleep(Duration::from_millis(2));
                rustix::io::write(&write, b"abc").unwrap();
                write
            }));
        } else {
            ctx.read_at(file(b"abc"), vec![0; 3], 0, move |_, r, _| kept.add(r)).unwrap();
        }
        while ends.len() == 0 {
            let left = ctx.prepare().unwrap();
            if left != Some(0) {
                use rustix::event::{PollFd, PollFlags, poll};
                let fd = ctx.backend_fd().unwrap();
                let mut fds = [PollFd::new(&fd, PollFlags::IN)];
                assert_eq!(poll(&mut fds, None).unwrap(), 1);
            }
            if ctx.check().unwrap() {
                ctx.dispatch().unwrap();
            }
        }
        assert_eq!(ends.take(), [Ok(3)]);
        if let Some(writer) = writer {
            drop(writer.join().unwrap());
        }
        // A thread may tell late of what was seen before.
        let turns = (0..10).find(|_| {
            let left = ctx.prepare().unwrap();
            assert!(!ctx.check().unwrap());
            left.is_none()
        });
        assert!(turns.is_some(), "nothing is left, so it may sleep");
    }
}

/// SPEC 48
#[test]
fn a_sleep_collects_min_batch_completions() {
    let ctx = with(AioParams {
        min_batch: 3,
        min_wait_ns: 60_000_000_000,
        engine: IoEngine::IoUring,
        ..AioParams::default()
    });
    let ends = Ends::default();
    let (readers, writers): (Vec<_>, Vec<_>) = (0..4).map(|_| pipe()).unzip();
    for read in readers {
        let ends = ends.clone();
        ctx.read_at(read, vec![0; 1], 0, move |_, result, _| ends.add(result)).unwrap();
    }
    assert!(!ctx.poll(false).unwrap());
    let remote = ctx.remote();
    let writer = thread::spawn(move || {
        for write in &writers[..3] {
            while remote.stats().sleeps == 0 {
                thread::yield_now();
            }
            thread::sleep(Duration::from_millis(3));
            rustix::io::write(write, b"x").unwrap();
        }
        writers
    });
    assert!(ctx.poll(true).unwrap());
    assert_eq!(ends.take(), [Ok(1); 3], "one turn for three");
    drop(writer.join().unwrap());
    ctx.close();
}

/// SPEC 47
#[test]
fn the_engine_is_chosen_by_what_there_is_and_by_who_asks() {
    let off = RingParams { mode: RingMode::Off, ..RingParams::default() };
    let params = AioParams { engine: IoEngine::IoUring, ..AioParams::default() };
    let without = || AioContext::builder().ring(off.clone());
    let error = without().aio(params.clone()).build().unwrap_err();
    assert!(error.is_invalid_arg());
    assert!(error.to_string().starts_with("engine = 'io_uring' is refused"), "{error}");

    let ctx = without().build().unwrap();
    assert_eq!(ctx.stats().aio_engine, None);
    let ends = Ends::default();
    let ask = |ctx: &AioContext| {
        let kept = ends.clone();
        ctx.read_at(file(b"abc"), vec![0; 3], 0, move |_, result, _| kept.add(result)).unwrap();
        assert_eq!(ends.wait(ctx, 1), [Ok(3)]);
        (ctx.stats().aio_engine, ctx.stats().aio_reason)
    };
    let reason = "auto: io_uring is turned off by ring.mode; threads";
    assert_eq!(ask(&ctx), (Some(IoEngine::Threads), reason.into()));
    assert!(ctx.set_aio_params(params.clone()).unwrap_err().is_invalid_arg());
    assert_eq!(ctx.aio_params(), AioParams::default(), "as before");
    assert_eq!(ask(&ctx).0, Some(IoEngine::Threads));

    let ctx = on(IoEngine::Auto);
    assert_eq!(ask(&ctx), (Some(IoEngine::IoUring), "auto: io_uring works here".into()));
    let threads = AioParams { engine: IoEngine::Threads, ..AioParams::default() };
    ctx.set_aio_params(threads).unwrap();
    assert_eq!(ask(&ctx), (Some(IoEngine::Threads), "asked for".into()));
    ctx.remote().set_aio_params(params).unwrap();
    ctx.poll(false).unwrap();
    assert_eq!(ask(&ctx), (Some(IoEngine::IoUring), "asked for".into()));
}

/// SPEC 47
#[test]
fn a_restricted_ring_does_file_io() {
    let ring = RingParams { restricted: true, ..ring_params() };
    let ctx = builder()
        .ring(ring)
        .aio(AioParams { engine: IoEngine::IoUring, ..AioParams::default() })
        .build()
        .unwrap();
    let (file, ends) = (file(b"abc"), Ends::default());
    let (kept, synced) = (ends.clone(), ends.clone());
    ctx.read_at(file.clone(), vec![0; 3], 0, move |_, result, _| kept.add(result)).unwrap();
    ctx.fsync(file, move |_, result| synced.add(result.map(|()| 0))).unwrap();
    assert_eq!(ends.wait(&ctx, 2), [Ok(3), Ok(0)]);
}

/// SPEC 47
#[test]
fn parameters_from_another_thread_are_in_force() {
    let ctx = on(IoEngine::Threads);
    let thread_ctx = ctx.remote();
    let changed = thread::spawn(move || {
        let params = AioParams { max_batch: 1, ..thread_ctx.aio_params() };
        thread_ctx.set_aio_params(params).unwrap();
    });
    changed.join().unwrap();
    ctx.poll(false).unwrap();
    assert_eq!(ctx.aio_params().max_batch, 1);
    let ends = Ends::default();
    let kept = ends.clone();
    ctx.read_at(file(b"abc"), vec![0; 3], 0, move |_, result, _| kept.add(result)).unwrap();
    assert_eq!(ctx.stats().submissions, 1, "at once");
    assert_eq!(ends.wait(&ctx, 1), [Ok(3)]);
}

/// SPEC 47
#[test]
fn foreign_memory_is_read_and_written() {
    for engine in ENGINES {
        let ctx = on(engine);
        let (file, ends) = (file(b"abcdef"), Ends::default());
        let bytes = Rc::new(Cell::new([0_u8; 6]));
        let base = std::ptr::NonNull::new(bytes.as_ptr()).unwrap().cast::<u8>();
        let kept = ends.clone();
        let held = bytes.clone();
        // SAFETY: `held` keeps the bytes in place until the completion has run, and `file` is open.
        let asked = unsafe {
            let done = move |_: &mut fdmon::Ops<'_>, result| {
                let _held = held;
                kept.add(result);
            };
            ctx.transfer_at(fdmon::IoOp::Read, file.as_raw_fd(), base, 6, 0, done)
        };
        asked.unwrap();
        assert_eq!(ends.wait(&ctx, 1), [Ok(6)]);
        assert_eq!(&bytes.get(), b"abcdef");
    }
}
