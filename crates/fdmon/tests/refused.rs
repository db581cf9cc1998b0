//! Kernels, sandboxes and limits that refuse io_uring: from the start, or later.
//!
//! The filter is installed in a thread of the test's own, and reaches no other. Tests that need a
//! ring to begin with fail where there is none; `FDMON_WITHOUT_IO_URING=1` leaves them out.
#![allow(clippy::print_stderr)]

mod sandbox;

use std::cell::{Cell, RefCell};
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::rc::Rc;
use std::time::Duration;

use fdmon::{
    AioContext, AioParams, Error, EventNotifier, Handlers, IoEngine, MonitorKind, PollParams,
    RingParams, probe_io_uring,
};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sandbox::{Refused, refuse};

const ERRNOS: [(&str, Errno); 3] =
    [("EPERM", Errno::PERM), ("ENOSYS", Errno::NOSYS), ("ENOMEM", Errno::NOMEM)];

/// Runs in a thread that is refused this from now on.
fn refusing(pairs: &[&str], test: impl FnOnce() + Send) {
    let refused: Vec<Refused> = pairs.iter().map(|pair| pair.parse().unwrap()).collect();
    within(|| {
        refuse(&refused).unwrap();
        test();
    });
}

/// Runs in a thread of its own, so that a filter goes with it.
fn within(test: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        if let Err(panic) = scope.spawn(test).join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// There is a ring here, or this test was left out on purpose.
fn ring_here() -> bool {
    let Err(error) = probe_io_uring() else { return true };
    let left_out = std::env::var_os("FDMON_WITHOUT_IO_URING").is_some_and(|value| value == "1");
    assert!(left_out, "{error}; set FDMON_WITHOUT_IO_URING=1 to leave out what needs io_uring");
    eprintln!("left out: {error}");
    false
}

/// What can be refused: where there is no ring, nobody comes as far as to the second call.
fn calls() -> &'static [&'static str] {
    if ring_here() { &["io_uring_setup", "io_uring_enter"] } else { &["io_uring_setup"] }
}

/// The environment decides for `auto`; these tests are about what it decides by itself.
fn overridden() -> bool {
    const INSIDE: &str = "FDMON_TEST_ALONE";
    std::env::var_os("FDMON_MONITOR").is_some() && std::env::var_os(INSIDE).is_none()
}

/// Runs this test once more in a process of its own, with this variable set. `true` = this is it.
fn alone(variable: &str, value: &str) -> bool {
    const INSIDE: &str = "FDMON_TEST_ALONE";
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let thread = std::thread::current();
    let name = thread.name().unwrap();
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .env(variable, value)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "alone, it fails:\n{text}\n{complaints}");
    assert!(text.contains("1 passed"), "alone, it did not run:\n{text}\n{complaints}");
    false
}

fn build(kind: MonitorKind) -> Result<AioContext, Error> {
    AioContext::builder().monitor(kind).build()
}

/// An error that a user can do something with.
#[track_caller]
fn assert_helpful(error: &Error, option: &str, call: &str, (name, errno): (&str, Errno)) {
    let text = error.to_string();
    assert!(error.is_unsupported(), "{text}");
    assert_eq!(error.errno(), Some(errno.raw_os_error()), "{text}");
    assert_eq!(error.syscall_name(), Some(call), "{text}");
    assert!(text.starts_with(&format!("{option} = 'io_uring' is refused: ")), "{text}");
    assert!(text.contains(name), "{text}");
    let (_, advice) = text.split_once("; ").expect("it says what to do");
    assert!(advice.contains("'auto'"), "{text}");
}

/// Bells that count how often they were heard, and are cleared by it.
struct Bells {
    bells: Vec<EventNotifier>,
    heard: Vec<Rc<Cell<u32>>>,
}

impl Bells {
    fn on(ctx: &AioContext, count: usize) -> Self {
        let bells: Vec<_> = (0..count).map(|_| EventNotifier::new().unwrap()).collect();
        let heard: Vec<_> = bells.iter().map(|bell| listen(ctx, bell)).collect();
        Self { bells, heard }
    }

    fn ring(&self) {
        self.bells.iter().for_each(|bell| bell.set().unwrap());
    }

    fn heard(&self) -> Vec<u32> {
        self.heard.iter().map(|count| count.get()).collect()
    }
}

fn listen(ctx: &AioContext, bell: &EventNotifier) -> Rc<Cell<u32>> {
    let heard = Rc::new(Cell::new(0));
    let (clear, counter) = (bell.clone(), heard.clone());
    let handlers = Handlers::new().read(move |_| {
        if clear.test_and_clear()? {
            counter.set(counter.get() + 1);
        }
        Ok(())
    });
    ctx.set_fd_handler(bell.clone(), handlers).unwrap();
    heard
}

/// A blocking turn that something must end: one that sleeps on fails instead of hanging.
#[track_caller]
fn block(ctx: &AioContext) -> bool {
    let late = Rc::new(Cell::new(false));
    let flag = late.clone();
    let mut limit = ctx.timer(move |_| {
        flag.set(true);
        Ok(())
    });
    let limit = limit.as_mut().unwrap();
    limit.arm(Duration::from_secs(10)).unwrap();
    let progress = ctx.poll(true).unwrap();
    limit.cancel();
    assert!(!late.get(), "nothing ended the sleep");
    progress
}

/// Blocking turns until every bell was heard this often.
#[track_caller]
fn until_heard(ctx: &AioContext, bells: &Bells, often: u32) {
    for _ in 0..10 {
        if bells.heard().iter().all(|&heard| heard >= often) {
            break;
        }
        block(ctx);
    }
    assert!(bells.heard().iter().all(|&heard| heard == often), "{:?}", bells.heard());
}

/// It works without a ring as a context does.
fn assert_works(ctx: &AioContext) {
    let bells = Bells::on(ctx, 3);
    for round in 1..=3 {
        bells.ring();
        until_heard(ctx, &bells, round);
    }
    let remote = ctx.remote();
    let waker = std::thread::spawn(move || remote.notify());
    block(ctx);
    waker.join().unwrap().unwrap();
}

/// SPEC 45
#[test]
fn auto_falls_back_in_silence_and_says_so() {
    if overridden() {
        return;
    }
    for &call in calls() {
        for (name, _) in ERRNOS {
            refusing(&[&format!("{call}={name}")], || {
                let ctx = build(MonitorKind::Auto).unwrap();
                assert_ne!(ctx.monitor(), MonitorKind::IoUring);
                let reason = ctx.monitor_reason();
                assert!(reason.starts_with("auto: io_uring refused: "), "{reason}");
                assert!(reason.contains(name) && reason.contains(call), "{reason}");
                assert_eq!(ctx.stats().fallbacks, 0, "it never had a ring");
                assert_works(&ctx);
            });
        }
    }
}

/// SPEC 45
#[test]
fn who_asked_for_it_hears_what_was_refused_and_what_to_do() {
    for &call in calls() {
        for errno in ERRNOS {
            refusing(&[&format!("{call}={}", errno.0)], || {
                let error = build(MonitorKind::IoUring).unwrap_err();
                assert_helpful(&error, "monitor", call, errno);
                let error = probe_io_uring().unwrap_err();
                assert_helpful(&error, "monitor", call, errno);
            });
        }
    }
}

/// SPEC 45
#[test]
fn the_environment_asks_for_it_as_well() {
    if !alone("FDMON_MONITOR", "io_uring") {
        return;
    }
    for &call in calls() {
        for errno in ERRNOS {
            refusing(&[&format!("{call}={}", errno.0)], || {
                let error = build(MonitorKind::Auto).unwrap_err();
                assert_helpful(&error, "FDMON_MONITOR", call, errno);
                assert!(build(MonitorKind::Poll).is_ok(), "an option beats it");
            });
        }
    }
}

/// SPEC 45
#[test]
fn a_sandbox_that_refuses_only_to_register_leaves_the_ring_usable() {
    if !ring_here() {
        return;
    }
    for (name, errno) in ERRNOS {
        refusing(&[&format!("io_uring_register={name}")], || {
            let features = probe_io_uring().unwrap();
            let registers = (features.registered_ring, features.restrictions, features.napi);
            assert_eq!(registers, (false, false, false));
            let ctx = build(MonitorKind::IoUring).unwrap();
            assert_works(&ctx);
            assert_eq!((ctx.monitor(), ctx.stats().fallbacks), (MonitorKind::IoUring, 0));
            let restricted = RingParams { restricted: true, ..RingParams::default() };
            let builder = AioContext::builder().monitor(MonitorKind::IoUring).ring(restricted);
            let error = builder.build().expect_err("less than what was asked for");
            assert_helpful(&error, "monitor", "io_uring_register", (name, errno));
        });
    }
}

/// Memory runs out: nothing more can be mapped.
fn allow_no_more_memory() -> impl FnOnce() {
    let before = getrlimit(Resource::As);
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let mut words = status.split_whitespace().skip_while(|word| *word != "VmSize:");
    let now = words.nth(1).unwrap().parse::<u64>().unwrap() * 1024;
    setrlimit(Resource::As, Rlimit { current: Some(now), ..before }).unwrap();
    move || setrlimit(Resource::As, before).unwrap()
}

/// SPEC 45
#[test]
fn without_memory_for_a_ring_it_is_as_if_it_were_refused() {
    // The limit is the process's.
    if !ring_here() || !alone("FDMON_MONITOR", "") {
        return;
    }
    drop(build(MonitorKind::Poll).unwrap()); // what every context needs is there
    let enough = allow_no_more_memory();
    let asked_for = build(MonitorKind::IoUring).unwrap_err();
    let auto = build(MonitorKind::Auto);
    enough();
    let text = asked_for.to_string();
    assert!(asked_for.is_unsupported(), "{text}");
    assert_eq!(asked_for.errno(), Some(Errno::NOMEM.raw_os_error()), "{text}");
    assert!(text.contains("ENOMEM") && text.contains("limits on memory"), "{text}");
    let ctx = auto.unwrap();
    assert_eq!(ctx.monitor(), MonitorKind::Poll);
    let reason = ctx.monitor_reason();
    assert!(reason.starts_with("auto: io_uring refused: ENOMEM"), "{reason}");
    assert_works(&ctx);
    assert!(build(MonitorKind::IoUring).is_ok(), "with memory again, it is there again");
}

/// The monitors whose contexts may have a ring, on which a sandbox then closes.
fn with_a_ring(test: impl Fn(AioContext) + Sync) {
    if !ring_here() {
        return;
    }
    let kinds = [MonitorKind::IoUring, MonitorKind::Auto];
    for kind in kinds.into_iter().filter(|kind| *kind != MonitorKind::Auto || !overridden()) {
        within(|| {
            let ctx = build(kind).unwrap();
            assert_eq!(ctx.monitor(), MonitorKind::IoUring, "{}", ctx.monitor_reason());
            test(ctx);
        });
    }
}

fn refuse_enter() {
    refuse(&["io_uring_enter=EPERM".parse().unwrap()]).unwrap();
}

/// It has moved, once, and says why.
#[track_caller]
fn assert_moved(ctx: &AioContext) {
    let stats = ctx.stats();
    let found = (ctx.monitor(), stats.monitor, stats.fallbacks);
    assert_eq!(found, (MonitorKind::Epoll, MonitorKind::Epoll, 1), "{}", ctx.monitor_reason());
    let reason = ctx.monitor_reason();
    assert!(reason.contains("io_uring refused: EPERM (io_uring_enter)"), "{reason}");
    assert_works(ctx);
    assert_eq!(ctx.stats().fallbacks, 1, "once");
}

/// SPEC 45, 53
#[test]
fn refused_later_a_context_moves_to_epoll_and_loses_and_doubles_nothing() {
    for armed in [true, false] {
        for count in [1, 5, 100] {
            with_a_ring(|ctx| {
                let bells = Bells::on(&ctx, count);
                if armed {
                    bells.ring();
                    until_heard(&ctx, &bells, 1);
                    assert!(!ctx.poll(false).unwrap());
                }
                refuse_enter();
                let before = u32::from(armed);
                bells.ring();
                until_heard(&ctx, &bells, before + 1);
                // On a plain ring completions come without a call: the next turn makes one.
                assert!(!ctx.poll(false).unwrap());
                assert_moved(&ctx);
                bells.ring();
                until_heard(&ctx, &bells, before + 2);
                assert!(!ctx.poll(false).unwrap());
            });
        }
    }
}

/// SPEC 45
#[test]
fn refused_later_events_that_had_completed_already_are_heard_once() {
    with_a_ring(|ctx| {
        let bells = Bells::on(&ctx, 10);
        ctx.poll(false).unwrap();
        bells.ring();
        refuse_enter();
        until_heard(&ctx, &bells, 1);
        assert!(!ctx.poll(false).unwrap());
        assert_moved(&ctx);
        assert!(!ctx.poll(false).unwrap());
        assert_eq!(bells.heard(), [1; 10]);
    });
}

/// SPEC 45
#[test]
fn refused_later_turns_that_do_not_block_hear_all_as_well() {
    with_a_ring(|ctx| {
        let bells = Bells::on(&ctx, 10);
        ctx.poll(false).unwrap();
        refuse_enter();
        bells.ring();
        for _ in 0..100 {
            ctx.poll(false).unwrap();
        }
        assert_eq!(bells.heard(), [1; 10]);
        assert_moved(&ctx);
    });
}

/// SPEC 30, 45
#[test]
fn refused_later_a_context_that_spins_hears_all() {
    with_a_ring(|ctx| {
        let params = PollParams { guards: false, ..PollParams::spin(Duration::from_millis(50)) };
        ctx.set_poll_params(params).unwrap();
        let bells = Bells::on(&ctx, 3);
        let plain = EventNotifier::new().unwrap();
        let heard = Rc::new(Cell::new(0));
        let (clear, counter) = (plain.clone(), heard.clone());
        let handlers = Handlers::new().poll_kernel().read(move |_| {
            clear.test_and_clear()?;
            counter.set(counter.get() + 1);
            Ok(())
        });
        ctx.set_fd_handler(plain.clone(), handlers).unwrap();
        for round in 1..=5 {
            bells.ring();
            until_heard(&ctx, &bells, round);
        }
        refuse_enter();
        for round in 6..=10 {
            bells.ring();
            until_heard(&ctx, &bells, round);
            plain.set().unwrap();
            while heard.get() < round - 5 {
                block(&ctx);
            }
            assert_eq!(heard.get(), round - 5);
        }
        assert_moved(&ctx);
    });
}

/// SPEC 10, 45
#[test]
fn refused_later_handlers_can_still_be_added_changed_and_removed() {
    with_a_ring(|ctx| {
        let kept = Bells::on(&ctx, 2);
        let removed = Bells::on(&ctx, 2);
        ctx.poll(false).unwrap(); // all of them are armed
        refuse_enter();
        for bell in &removed.bells {
            ctx.remove_fd_handler(bell.as_raw_fd());
        }
        let added = Bells::on(&ctx, 2);
        let replaced = listen(&ctx, &kept.bells[0]);
        for bells in [&kept, &removed, &added] {
            bells.ring();
        }
        until_heard(&ctx, &added, 1);
        while kept.heard[1].get() + replaced.get() < 2 {
            block(&ctx);
        }
        assert!(!ctx.poll(false).unwrap());
        assert_eq!((kept.heard(), replaced.get()), (vec![0, 1], 1));
        assert_eq!(removed.heard(), [0, 0]);
        assert_moved(&ctx);
    });
}

/// SPEC 19, 45
#[test]
fn refused_inside_a_callback_nested_turns_and_the_rest_of_the_turn_go_on() {
    with_a_ring(|ctx| {
        let bells = Bells::on(&ctx, 5);
        let first = EventNotifier::with_value(1).unwrap();
        let (clear, others) = (first.clone(), bells.bells.clone());
        let nested = Rc::new(Cell::new(0));
        let turns = nested.clone();
        let handlers = Handlers::new().read(move |ops| {
            clear.test_and_clear()?;
            refuse_enter();
            others.iter().try_for_each(EventNotifier::set)?;
            assert!(ops.poll(true)?);
            turns.set(turns.get() + 1);
            Ok(())
        });
        ctx.set_fd_handler(first, handlers).unwrap();
        assert!(block(&ctx));
        assert_eq!(nested.get(), 1);
        until_heard(&ctx, &bells, 1);
        assert_moved(&ctx);
    });
}

/// SPEC 32, 45
#[test]
fn refused_later_other_threads_still_wake_it() {
    with_a_ring(|ctx| {
        ctx.poll(false).unwrap();
        let remote = ctx.remote();
        let (go, wait) = std::sync::mpsc::channel::<()>();
        // Started before, so that nothing is refused to it.
        let waker = std::thread::spawn(move || {
            for () in wait {
                std::thread::sleep(Duration::from_millis(5));
                remote.notify().unwrap();
            }
        });
        refuse_enter();
        for _ in 0..5 {
            go.send(()).unwrap();
            assert!(!block(&ctx));
        }
        drop(go);
        waker.join().unwrap();
        assert_moved(&ctx);
    });
}

/// SPEC 39, 45
#[test]
fn refused_later_timers_keep_their_deadlines() {
    with_a_ring(|ctx| {
        // First, and with time to spare: where all were due before the first sleep, nothing would
        // be refused.
        refuse_enter();
        let begin = ctx.now_ns();
        let fired = Rc::new(RefCell::new(Vec::new()));
        let timers: Vec<_> = [90, 30, 60]
            .into_iter()
            .map(|ms| {
                let log = fired.clone();
                let timer = ctx.timer(move |_| {
                    log.borrow_mut().push(ms);
                    Ok(())
                });
                let timer = timer.unwrap();
                timer.arm(Duration::from_millis(ms)).unwrap();
                timer
            })
            .collect();
        while fired.borrow().len() < timers.len() {
            ctx.poll(true).unwrap();
        }
        assert_eq!(*fired.borrow(), [30, 60, 90]);
        assert!(ctx.now_ns() - begin >= 90_000_000, "not at once");
        assert_moved(&ctx);
    });
}

/// SPEC 38, 45
#[test]
fn refused_later_it_can_be_closed_and_peers_see_the_hang_up() {
    with_a_ring(|ctx| {
        let (ours, theirs): (OwnedFd, OwnedFd) = rustix::pipe::pipe().unwrap();
        ctx.set_fd_handler(ours, Handlers::new().read(|_| Ok(()))).unwrap();
        ctx.poll(false).unwrap();
        refuse_enter();
        ctx.poll(false).unwrap();
        assert_eq!(ctx.close().handlers, 1);
        drop(ctx);
        // Its reader is gone, and the ring held the file no longer than the context.
        let hung_up = rustix::event::PollFlags::ERR;
        let mut watched = [rustix::event::PollFd::new(&theirs, rustix::event::PollFlags::OUT)];
        let second = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
        for _ in 0..100 {
            rustix::event::poll(&mut watched, Some(&second)).unwrap();
            if watched[0].revents().contains(hung_up) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10)); // the kernel ends a ring by and by
        }
        panic!("the reader of the pipe is still there");
    });
}

/// Reads the first bytes of a file: what they are, through which engine, and why that one.
fn read_of(ctx: &AioContext) -> (Vec<u8>, Option<IoEngine>, String) {
    let bytes = Rc::new(RefCell::new(Vec::new()));
    let into = Rc::clone(&bytes);
    let file = Rc::new(fs::File::open("Cargo.toml").unwrap());
    ctx.read_at(file, vec![0; 9], 0, move |_, result, buffer| {
        assert_eq!(result.unwrap(), 9);
        *into.borrow_mut() = buffer;
    })
    .unwrap();
    ctx.poll_until(|| !bytes.borrow().is_empty()).unwrap();
    let stats = ctx.stats();
    (bytes.take(), stats.aio_engine, stats.aio_reason)
}

/// SPEC 47
#[test]
fn without_a_ring_file_io_goes_through_threads_and_says_why() {
    for call in calls() {
        for (name, _) in ERRNOS {
            refusing(&[&format!("{call}={name}")], || {
                let ctx = AioContext::builder().monitor(MonitorKind::Poll).build().unwrap();
                let (bytes, engine, reason) = read_of(&ctx);
                assert_eq!((&*bytes, engine), (&b"[package]"[..], Some(IoEngine::Threads)));
                assert_eq!(reason, format!("auto: io_uring refused: {name} ({call}); threads"));
                let asked = AioParams { engine: IoEngine::IoUring, ..AioParams::default() };
                let error = ctx.set_aio_params(asked.clone()).unwrap_err();
                assert!(error.is_unsupported(), "{error}");
                assert!(error.to_string().starts_with("engine = 'io_uring' is refused"), "{error}");
                assert!(AioContext::builder().aio(asked).build().unwrap_err().is_unsupported());
                assert_eq!(read_of(&ctx).1, Some(IoEngine::Threads), "it goes on as before");
            });
        }
    }
}

/// SPEC 47, 49
#[test]
fn a_sandbox_that_comes_later_turns_file_io_over_to_threads() {
    if !ring_here() {
        return;
    }
    within(|| {
        let ctx = AioContext::builder().monitor(MonitorKind::Poll).build().unwrap();
        assert_eq!(read_of(&ctx).1, Some(IoEngine::IoUring));
        let (read, write) = rustix::pipe::pipe().unwrap();
        // The ring has one request that waits, and two that it was not given.
        let ends = Rc::new(RefCell::new(Vec::new()));
        let ask = |fd: Rc<OwnedFd>| {
            let ends = Rc::clone(&ends);
            let done = move |_: &mut fdmon::Ops<'_>, result: std::io::Result<usize>, _| {
                ends.borrow_mut().push(result.map_err(|error| error.raw_os_error()));
            };
            ctx.read_at(fd, vec![0; 9], 0, done).unwrap();
        };
        ask(Rc::new(read));
        assert!(!ctx.poll(false).unwrap());
        let file = || Rc::new(OwnedFd::from(fs::File::open("Cargo.toml").unwrap()));
        ask(file());
        ask(file());
        refuse(&["io_uring_enter=EPERM".parse().unwrap()]).unwrap();
        ctx.poll_until(|| ends.borrow().len() == 2).unwrap();
        assert_eq!(ends.take(), [Ok(9), Ok(9)]);
        let (bytes, engine, reason) = read_of(&ctx);
        assert_eq!((&*bytes, engine), (&b"[package]"[..], Some(IoEngine::Threads)));
        assert_eq!(reason, "io_uring refused: EPERM (io_uring_enter); threads");
        assert_eq!((ctx.stats().fallbacks, ctx.stats().io_in_flight), (1, 1));
        // Nobody can say what became of the first: it keeps its memory, and close does not hang.
        assert_eq!(ctx.close().io, 1);
        assert!(ends.borrow().is_empty());
        drop(write);
    });
}

/// SPEC 49
#[test]
#[allow(unsafe_code)]
fn a_binding_hears_of_requests_whose_memory_the_kernel_may_still_use() {
    if !ring_here() {
        return;
    }
    within(|| {
        let ctx = AioContext::builder().monitor(MonitorKind::Poll).build().unwrap();
        let results = Rc::new([const { Cell::new(7_u32) }; 64]);
        let base = NonNull::from(&*results).cast();
        // SAFETY: the owner keeps the words in place, and this thread alone writes them.
        unsafe { ctx.adopt_results(base, 64, Box::new(Rc::clone(&results))) };
        let slot = ctx.foreign_io().unwrap().unwrap();
        let (read, _write) = rustix::pipe::pipe().unwrap();
        let memory = NonNull::from(Box::leak(Box::new([0_u8; 4]))).cast();
        let memory = fdmon::ForeignMemory::One(memory, 4);
        // SAFETY: the memory is never freed.
        let asked =
            unsafe { ctx.foreign_transfer(slot, fdmon::IoOp::Read, read.as_raw_fd(), memory, 0) };
        asked.unwrap();
        assert!(!ctx.poll(false).unwrap());
        refuse(&["io_uring_enter=EPERM".parse().unwrap()]).unwrap();
        assert_eq!(ctx.close().io, 1);
        let result = [results[0].get(), results[1].get()].map(u32::cast_signed);
        assert_eq!((slot, result), (0, [-libc::EINPROGRESS, -1]));
    });
}

/// SPEC 47
#[test]
fn without_a_thread_to_be_had_file_io_is_done_all_the_same() {
    if !alone("FDMON_TEST_THREADS", "none") {
        return;
    }
    // Threads count towards the limit on address space: no stack fits any more.
    let ctx = AioContext::builder()
        .aio(AioParams { engine: IoEngine::Threads, ..AioParams::default() })
        .build()
        .unwrap();
    let pages = fs::read_to_string("/proc/self/statm").unwrap();
    let used: u64 = pages.split(' ').next().unwrap().parse().unwrap();
    let limit = used * 4096 + 64 * 1024;
    let old = getrlimit(Resource::As);
    setrlimit(Resource::As, Rlimit { current: Some(limit), maximum: old.maximum }).unwrap();
    let (bytes, engine, _) = read_of(&ctx);
    assert_eq!((&*bytes, engine), (&b"[package]"[..], Some(IoEngine::Threads)));
    setrlimit(Resource::As, old).unwrap();
}
