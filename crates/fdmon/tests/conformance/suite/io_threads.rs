//! I/O threads: their life, their parameters, what they report, their load.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use fdmon::{
    AioParams, EventNotifier, Failure, IoThread, IoThreadBuilder, MonitorKind, Ops, PollParams,
    RingMode, RingParams, SendHandlers,
};

use super::{io_thread, monitor, ring_params};
use crate::support::{Spun, Tally, awaited, ringing, rung, spin};

/// What a closure says there.
fn ask<T: Send + 'static>(
    thread: &IoThread,
    f: impl FnOnce(&mut Ops<'_>) -> T + Send + 'static,
) -> T {
    let (tell, told) = mpsc::channel();
    thread.remote().run(move |ops| tell.send(f(ops)).unwrap()).unwrap();
    told.recv_timeout(Duration::from_secs(60)).expect("the thread runs turns")
}

/// Waits for the end of a thread that ends by itself.
#[track_caller]
fn ended(thread: &IoThread) {
    let start = Instant::now();
    while !thread.is_finished() {
        assert!(start.elapsed() < Duration::from_secs(60), "it does not end");
        std::thread::yield_now();
    }
}

/// SPEC 52
#[test]
#[cfg_attr(not(threads), ignore = "there are no threads")]
fn a_thread_has_a_context_of_its_own_that_may_spin_for_32768_ns() {
    let builder = IoThread::builder().monitor(monitor()).ring(ring_params()).name("disk");
    let thread = builder.spawn().unwrap();
    let (home, name, params, kind) = ask(&thread, |ops| {
        let home = std::thread::current();
        let ctx = ops.context();
        (home.id(), home.name().map(String::from), ctx.poll_params(), ctx.monitor())
    });
    assert_ne!(home, std::thread::current().id());
    assert_eq!(name.as_deref(), Some("disk"));
    assert_eq!(thread.remote().name(), "disk");
    assert_eq!(params, PollParams { max_ns: 32_768, ..PollParams::default() });
    assert_eq!((kind, thread.stats().monitor), (monitor(), monitor()));
}

/// SPEC 31, 52
#[test]
#[cfg_attr(not(threads), ignore = "there are no threads")]
fn its_parameters_change_while_it_runs() {
    let thread =
        io_thread().aio(AioParams { max_batch: 4, ..AioParams::default() }).spawn().unwrap();
    assert_eq!(ask(&thread, |ops| ops.context().aio_params().max_batch), 4);
    for max_ns in [0, 50_000, 7, 0] {
        let params = PollParams { max_ns, grow: 3, shrink: 2, ..spin() };
        thread.set_poll_params(params.clone()).unwrap();
        thread.set_aio_params(AioParams { max_batch: 9, ..AioParams::default() }).unwrap();
        assert_eq!(thread.poll_params(), params);
        // In force from the next turn on, which may be the one that runs this.
        ask(&thread, |_| ());
        let (poll, aio) =
            ask(&thread, |ops| (ops.context().poll_params(), ops.context().aio_params()));
        assert_eq!((poll, aio.max_batch), (params, 9));
    }
    let error = thread.set_poll_params(PollParams { weight: 99, ..spin() }).unwrap_err();
    assert!(error.is_invalid_arg() && thread.poll_params().weight != 99);
    let error =
        thread.set_aio_params(AioParams { max_batch: 5000, ..AioParams::default() }).unwrap_err();
    assert!(error.is_invalid_arg() && thread.aio_params().max_batch == 9);
}

/// SPEC 13, 45, 52
#[test]
#[cfg_attr(not(threads), ignore = "there are no threads")]
fn a_context_that_cannot_be_built_is_an_error_of_spawn() {
    let bad = io_thread().poll(PollParams { cpu_budget: -1.0, ..spin() }).spawn().unwrap_err();
    assert!(bad.is_invalid_arg() && bad.to_string().contains("cpu_budget"), "{bad}");
    let off = RingParams { mode: RingMode::Off, ..RingParams::default() };
    let bad = IoThread::builder().monitor(MonitorKind::IoUring).ring(off).spawn().unwrap_err();
    assert!(bad.is_invalid_arg() && bad.to_string().contains("ring.mode"), "{bad}");
    let bad = io_thread().name("a\0b").spawn().unwrap_err();
    assert!(bad.is_invalid_arg() && bad.to_string().contains("name"), "{bad}");
}

/// SPEC 52
#[test]
#[cfg_attr(not(threads), ignore = "there are no threads")]
fn stopping_is_a_bottom_half_behind_what_was_asked_before() {
    for params in [PollParams::default(), PollParams { max_ns: 20_000, ..spin() }] {
        let thread = io_thread().poll(params).spawn().unwrap();
        let (remote, runs, count) = (thread.remote(), Tally::new(), Tally::new());
        let bells = [(); 3].map(|()| rung());
        let acks = bells.each_ref().map(|bell| remote.register_send(ringing(bell, &runs)));
        let seen = count.clone();
        remote.run(move |_| seen.bump()).unwrap();
        let leaks = thread.stop().unwrap();
        assert_eq!((leaks.handlers, leaks.bottom_halves, leaks.timers), (3, 0, 0));
        assert_eq!(count.get(), 1);
        for mut ack in acks {
            assert!(ack.try_take().unwrap().is_ok());
        }
        assert!(remote.notify().unwrap_err().is_closed());
        assert_eq!(runs.holders(), 1, "its handlers are released");
    }
}

/// SPEC 52
#[test]
#[cfg_attr(not(threads), ignore = "there are no threads")]
fn a_thread_that_sleeps_or_has_never_run_a_turn_is_stopped_too() {
    io_thread().spawn().unwrap().stop().unwrap();
    let thread = io_thread().spawn().unwrap();
    while thread.stats().sleeps == 0 {
        std::thread::yield_now();
    }
    thread.stop().unwrap();
}

/// SPEC 52
#[test]
#[cfg_attr(not(threads), ignore = "there are no threads")]
fn dropping_it_stops_it_and_waits_for_its_end() {
    let (source, bell, hands) = Spun::new();
    let thread = io_thread().poll(PollParams { max_ns: 20_000, ..spin() }).spawn().unwrap();
    let _token = awaited(thread.remote().register_send(source)).map_err(|(e, _)| e).unwrap();
    bell.set().unwrap();
    hands.runs.wait_for(1);
    drop(thread);
    assert_eq!(hands.dropped.get(), 1);
    assert!(!hands.has_begun());
}

/// SPEC 52
#[test]
#[cfg_attr(not(threads), ignore = "there are no threads")]
fn it_ends_by_itself_when_a_callback_or_a_remote_stops_it_or_closes_its_context() {
    for way in ["ops", "remote", "nested", "close"] {
        let thread = io_thread().spawn().unwrap();
        let _ack = thread.remote().register_send(ringing(&rung(), &Tally::new()));
        match way {
            "ops" => thread.remote().run(|ops| ops.stop()).unwrap(),
            "remote" => {
                ask(&thread, |_| ());
                thread.remote().stop().unwrap();
            }
            "nested" => {
                let remote = thread.remote();
                thread
                    .remote()
                    .run(move |ops| {
                        remote.run(|ops| ops.stop()).unwrap();
                        ops.poll_until(|| false).unwrap(); // ended by the stop, and the thread too
                    })
                    .unwrap();
            }
            _ => thread.remote().run(|ops| assert_eq!(ops.close().handlers, 1)).unwrap(),
        }
        ended(&thread);
        assert!(thread.remote().notify().unwrap_err().is_closed(), "{way}");
        let handlers = thread.join().unwrap().handlers;
        assert_eq!(handlers, u32::from(way != "close"), "{way}");
    }
}

/// SPEC 52
#[test]
#[cfg_attr(not(threads), ignore = "there are no threads")]
fn inside_itself_it_can_be_stopped_and_dropped_but_not_waited_for() {
    for way in ["stop", "drop"] {
        let thread = io_thread().spawn().unwrap();
        let (remote, (tell, told)) = (thread.remote(), mpsc::channel());
        remote
            .run(move |_| match way {
                "stop" => tell.send(Some(thread.stop().unwrap_err().to_string())).unwrap(),
                _ => {
                    drop(thread);
                    tell.send(None).unwrap();
                }
            })
            .unwrap();
        let said = told.recv_timeout(Duration::from_secs(60)).unwrap();
        assert!(said.is_none_or(|said| said.contains("its own end")));
        let start = Instant::now();
        while remote.notify().is_ok() {
            assert!(start.elapsed() < Duration::from_secs(60), "it does not end");
            std::thread::yield_now();
        }
    }
}

/// Makes one turn of the thread fail.
fn fail(thread: &IoThread, how: &'static str) {
    let job = move |ops: &mut Ops<'_>| match how {
        "panic" => panic!("a callback lost its head"),
        _ => ops.schedule(move |_| Err(how.into())).unwrap(),
    };
    thread.remote().run(job).unwrap();
}

/// SPEC 21, 52
#[test]
#[cfg_attr(not(threads), ignore = "there are no threads")]
fn a_failing_callback_does_not_end_the_thread_and_the_first_failure_is_reported_at_the_end() {
    for first in ["no such device", "panic"] {
        let thread = io_thread().spawn().unwrap();
        fail(&thread, first);
        ask(&thread, |_| ());
        fail(&thread, "another one");
        ask(&thread, |_| ());
        let (bell, runs) = (rung(), Tally::new());
        let ack = awaited(thread.remote().register_send(ringing(&bell, &runs)));
        assert!(ack.is_ok());
        runs.wait_for(1);
        let error = thread.stop().unwrap_err();
        assert_eq!((error.failures, error.leaks.handlers), (2, 1));
        let text = error.to_string();
        match (&error.failure, first) {
            (Failure::Error(error), "no such device") => {
                assert!(error.is_callback() && text.contains("no such device"), "{text}");
            }
            (Failure::Panic(payload), "panic") => {
                assert_eq!(payload.downcast_ref::<&str>(), Some(&"a callback lost its head"));
                assert!(text.contains("lost its head"), "{text}");
            }
            other => panic!("{other:?}"),
        }
    }
}

/// SPEC 21, 52
#[test]
#[cfg_attr(not(threads), ignore = "there are no threads")]
fn a_hook_hears_each_failure_and_what_it_deals_with_is_not_reported() {
    let (tell, told) = mpsc::channel();
    let home = Arc::new(std::sync::OnceLock::new());
    let here = home.clone();
    let thread = io_thread()
        .on_failure(move |failure| {
            here.set(std::thread::current().id()).ok();
            tell.send(failure.to_string()).unwrap();
            ControlFlow::Continue(())
        })
        .spawn()
        .unwrap();
    for how in ["one", "panic", "two"] {
        fail(&thread, how);
        let said = told.recv_timeout(Duration::from_secs(60)).unwrap();
        assert!(said.contains(if how == "panic" { "lost its head" } else { how }), "{said}");
    }
    assert_eq!(home.get(), Some(&ask(&thread, |_| std::thread::current().id())));
    assert!(thread.stop().is_ok());
}

/// SPEC 21, 52
#[test]
#[cfg_attr(not(threads), ignore = "there are no threads")]
fn a_hook_ends_the_thread_if_it_says_so_or_panics_itself() {
    for way in ["break", "panic"] {
        let (source, _bell, hands) = Spun::new();
        let thread = io_thread()
            .on_failure(move |failure| match (way, failure.to_string().contains("fatal")) {
                (_, false) => ControlFlow::Continue(()),
                ("break", true) => ControlFlow::Break(()),
                _ => panic!("the hook itself"),
            })
            .spawn()
            .unwrap();
        assert!(awaited(thread.remote().register_send(source)).is_ok());
        fail(&thread, "harmless");
        ask(&thread, |_| ()); // in a turn of its own
        fail(&thread, "fatal");
        ended(&thread);
        assert_eq!(hands.dropped.get(), 1, "its context is closed");
        let error = thread.join().unwrap_err();
        let said = if way == "break" { "fatal" } else { "the hook itself" };
        assert!(error.to_string().contains(said), "{error}");
        assert_eq!((error.failures, error.leaks.handlers), (1, 1));
    }
}

/// SPEC 21, 52
#[test]
#[cfg_attr(not(threads), ignore = "there are no threads")]
fn a_failure_in_the_turn_that_stops_it_loses_neither() {
    let thread = io_thread().spawn().unwrap();
    let stop = |ops: &mut Ops<'_>| {
        ops.schedule(|_| Err("on the way out".into())).unwrap();
        ops.schedule(|ops| {
            ops.stop();
            Ok(())
        })
        .unwrap();
    };
    thread.remote().run(stop).unwrap();
    ended(&thread);
    let error = thread.join().unwrap_err();
    assert!(error.to_string().contains("on the way out"), "{error}");
    assert_eq!(error.failures, 1);
}

/// A thread whose window has opened to this and stays open.
fn wide_open(builder: IoThreadBuilder, max_ns: u64) -> IoThread {
    let thread = builder.poll(PollParams { max_ns, shrink: 1, ..spin() }).spawn().unwrap();
    let start = Instant::now();
    while thread.stats().window_ns < max_ns {
        assert!(start.elapsed() < Duration::from_secs(60), "it does not open");
        std::thread::sleep(Duration::from_millis(1));
        thread.remote().notify().unwrap();
    }
    thread
}

/// SPEC 21, 25, 52
#[test]
#[cfg_attr(not(threads), ignore = "there are no threads")]
fn a_hook_of_a_handler_that_fails_at_the_end_is_reported() {
    struct Sore(Spun);
    impl std::os::fd::AsFd for Sore {
        fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
            self.0.as_fd()
        }
    }
    impl fdmon::Source for Sore {
        fn interest(&self) -> fdmon::Interest {
            fdmon::Interest::READ
        }
        fn poll(&self) -> bool {
            self.0.poll()
        }
        fn read(&mut self, ops: &mut Ops<'_>) -> fdmon::Outcome {
            self.0.read(ops)
        }
        fn poll_ready(&mut self, ops: &mut Ops<'_>) -> fdmon::Outcome {
            self.0.poll_ready(ops)
        }
        fn poll_begin(&mut self) {
            self.0.poll_begin();
        }
        fn poll_end(&mut self) {
            self.0.poll_end();
            panic!("a sore loser");
        }
    }
    let (source, bell, hands) = Spun::new();
    let heard = Tally::new();
    let hook = heard.clone();
    let builder = io_thread().on_failure(move |_| {
        hook.bump();
        ControlFlow::Continue(())
    });
    let thread = wide_open(builder, 60_000_000_000);
    assert!(awaited(thread.remote().register_send(Sore(source))).is_ok());
    bell.set().unwrap();
    hands.begins.wait_for(1);
    let error = thread.stop().unwrap_err();
    assert!(error.to_string().contains("a sore loser"), "{error}");
    assert_eq!((hands.ends.get(), heard.get(), error.failures), (1, 0, 1));
}

/// CPU time of the thread that calls this.
fn cpu_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    u64::try_from(time.tv_sec * 1_000_000_000 + time.tv_nsec).unwrap()
}

/// Keeps the CPU busy for this much CPU time.
fn work(ns: u64) {
    let start = cpu_ns();
    while cpu_ns() - start < ns {
        std::hint::spin_loop();
    }
}

/// SPEC 52, 53
#[test]
#[cfg_attr(not(threads), ignore = "there are no threads")]
fn busy_time_is_the_cpu_time_of_its_callbacks_and_load_its_share() {
    let thread = io_thread().spawn().unwrap();
    let idle = io_thread().spawn().unwrap();
    assert_eq!(ask(&idle, |_| ()), ());
    let before = thread.busy_ns();
    let spent = Arc::new(AtomicU64::new(0));
    let told = spent.clone();
    ask(&thread, move |_| {
        let start = cpu_ns();
        work(20_000_000);
        told.store(cpu_ns() - start, Ordering::SeqCst);
    });
    let (busy, other) = (thread.busy_ns() - before, idle.busy_ns());
    assert!(busy >= spent.load(Ordering::SeqCst), "{busy} ns of {spent:?}");
    assert!(other < busy, "{other} ns where nothing was to do");
    let (load, calm) = (thread.load(), idle.load());
    assert!(load > calm && load <= 1.0 && calm >= 0.0, "{load} and {calm}");
    ask(&thread, |_| ()); // counted when the first one has returned
    assert!(thread.stats().events > 0);

    let remote = thread.remote();
    remote.stop().unwrap();
    ended(&thread);
    let last = thread.busy_ns();
    assert!(last >= busy);
    work(2_000_000);
    assert_eq!(thread.busy_ns(), last, "it has ended");
    assert!(thread.load() <= 1.0);
    assert_eq!(thread.load().to_bits(), thread.load().to_bits());
}

/// SPEC 52, 53
#[test]
#[cfg_attr(not(threads), ignore = "there are no threads")]
fn spinning_in_vain_is_no_load() {
    let thread = wide_open(io_thread(), 2_000_000);
    let start = Instant::now();
    while thread.stats().spin_wasted_ns < 40_000_000 {
        assert!(start.elapsed() < Duration::from_secs(60), "it does not spin in vain");
        thread.remote().notify().unwrap();
        std::thread::sleep(Duration::from_millis(4));
    }
    thread.set_poll_params(PollParams::default()).unwrap();
    ask(&thread, |_| ());
    let (wasted, busy) = (thread.stats().spin_wasted_ns, thread.busy_ns());
    let cpu = ask(&thread, |_| cpu_ns());
    // Measured before the CPU time, and never more than what is left of it.
    assert!(busy <= cpu.saturating_sub(wasted), "{busy} of {cpu} ns");
    assert!(thread.busy_ns() >= busy, "it never goes back");
}

/// SPEC 52
#[test]
#[cfg_attr(not(threads), ignore = "there are no threads")]
fn handlers_are_spread_and_moved_over_threads_by_their_load() {
    let threads = [(); 2].map(|()| io_thread().spawn().unwrap());
    let [busy, idle] = &threads;
    let (bell, homes) = (EventNotifier::new().unwrap(), mpsc::channel());
    let clear = bell.clone();
    let handlers = SendHandlers::new(bell.clone()).read(move |ops| {
        clear.test_and_clear()?;
        work(5_000_000);
        Ok(homes.0.send(ops.remote().id())?)
    });
    let token = awaited(busy.remote().register_send(handlers)).map_err(|(e, _)| e).unwrap();
    let ring = || {
        bell.set().unwrap();
        homes.1.recv_timeout(Duration::from_secs(60)).unwrap()
    };
    assert_eq!(ring(), busy.remote().id());
    let loads = threads.each_ref().map(IoThread::load);
    assert!(loads[0] > loads[1], "{loads:?}");
    let moved = awaited(busy.remote().move_to(&token, &idle.remote()));
    assert_eq!(moved.unwrap().context_id(), idle.remote().id());
    assert_eq!(ring(), idle.remote().id());
    assert_eq!((busy.stats().handlers.len(), idle.stats().handlers.len()), (0, 1));
}
