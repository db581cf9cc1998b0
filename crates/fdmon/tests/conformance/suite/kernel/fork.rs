//! After a fork the context is the parent's; the child must not touch what they share.
#![allow(unsafe_code)]

use std::os::fd::AsRawFd;
use std::time::Duration;

use fdmon::{
    AioContext, AioParams, EventNotifier, ForeignHandler, Handlers, Interest, IoEngine, OuterLoop,
    Remote, TraceBuffer, TraceKinds, probe_io_uring,
};

use super::super::{builder, context, io_thread};
use crate::support::{Count, Tally, alone, answer, awaited, block, ringing, rung, spin};

unsafe extern "C" {
    // std has none; the C library is linked anyway.
    fn fork() -> i32;
    fn _exit(code: i32) -> !;
}

/// Runs this in a forked child and expects it to hold there.
fn in_child(check: impl FnOnce()) {
    // SAFETY: this process runs one test alone, whose other thread only waits for this one; the
    // child leaves by `_exit`.
    let pid = unsafe { fork() };
    assert!(pid >= 0);
    if pid == 0 {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(check));
        // SAFETY: ends the child, in which nothing of the parent's is to be tidied up.
        unsafe { _exit(i32::from(result.is_err())) }
    }
    let pid = rustix::process::Pid::from_raw(pid);
    let (_, status) =
        rustix::process::waitpid(pid, rustix::process::WaitOptions::empty()).unwrap().unwrap();
    assert_eq!(status.exit_status(), Some(0), "the child found something wrong");
}

/// SPEC 38, 54
#[test]
fn a_trace_stays_with_the_parent_and_a_child_that_traces_gets_a_file_of_its_own() {
    if !alone("FDMON_FORK", "trace") {
        return;
    }
    let folder = std::env::temp_dir().join(format!("fdmon-fork-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let file = folder.join("trace.json");
    let turns = |file: &std::path::Path| {
        let text = std::fs::read_to_string(file).unwrap();
        let said: serde_json::Value = serde_json::from_str(&text).unwrap();
        let turn = |event: &&serde_json::Value| event["name"] == "turn";
        said["traceEvents"].as_array().unwrap().iter().filter(turn).count()
    };
    let ctx = context();
    let trace = ctx.trace(&file).unwrap();
    ctx.poll(false).unwrap();
    in_child(|| {
        assert!(ctx.poll(false).unwrap_err().is_closed());
        assert!(trace.stop().is_ok(), "it has nothing to end here");
        let own = context();
        assert!(own.trace(&file).unwrap_err().is_in_use());
        let mine = folder.join("%p.json");
        let trace = own.trace(mine).unwrap();
        own.poll(false).unwrap();
        own.poll(false).unwrap();
        let written = trace.file().unwrap().to_owned();
        assert!(written.ends_with(format!("{}.json", std::process::id())));
        trace.finish().unwrap();
        assert_eq!(turns(&written), 2);
    });
    ctx.poll(false).unwrap();
    trace.finish().unwrap();
    assert_eq!(turns(&file), 2);
    std::fs::remove_dir_all(folder).unwrap();
}

/// SPEC 38
#[test]
fn every_call_in_a_forked_child_fails_with_closed() {
    if !alone("FDMON_FORK", "1") {
        return;
    }
    let ctx = context();
    let bell = EventNotifier::new().unwrap();
    let token = ctx.set_fd_handler(bell.clone(), Handlers::new().read(|_| Ok(()))).unwrap();
    let timer = ctx.timer(|_| Ok(())).unwrap();
    let (remote, id) = (ctx.remote(), ctx.id());
    let half = ctx.bottom_half(|_| Ok(())).unwrap();
    in_child(|| {
        let results = [
            ("poll", ctx.poll(false).map(drop)),
            ("blocking poll", ctx.poll(true).map(drop)),
            ("run", ctx.run()),
            ("run_for", ctx.run_for(Duration::from_millis(1))),
            ("poll_until", ctx.poll_until(|| true)),
            ("suspend", ctx.suspend()),
            ("prepare", ctx.prepare().map(drop)),
            ("check", ctx.check().map(drop)),
            ("dispatch", ctx.dispatch().map(drop)),
            ("backend_fd", ctx.backend_fd().map(drop)),
            ("schedule", ctx.schedule(|_| Ok(()))),
            ("bottom_half", ctx.bottom_half(|_| Ok(())).map(drop)),
            ("timer", ctx.timer(|_| Ok(())).map(drop)),
            ("arm", timer.arm(Duration::from_secs(1))),
            (
                "set_fd_handler",
                ctx.set_fd_handler(bell.clone(), Handlers::new().read(|_| Ok(()))).map(drop),
            ),
            ("set_interest", token.set_interest(Interest::empty()).map(drop)),
            ("set_poll_params", ctx.set_poll_params(spin())),
            ("remote.notify", remote.notify()),
            ("remote.stop", remote.stop()),
            ("remote.schedule", remote.schedule(&half.id())),
            ("remote.run", remote.run(|_| ())),
            ("remote.set_poll_params", remote.set_poll_params(spin())),
            ("Remote::from_id", Remote::from_id(id).map(drop)),
            ("prepare_within", ctx.prepare_within(Some(1)).map(drop)),
            ("check_if", ctx.check_if(false).map(drop)),
            ("wake_fds", ctx.wake_fds().map(drop)),
            ("set_outer_loop", ctx.set_outer_loop(OuterLoop::default())),
            ("set_aio_params", ctx.set_aio_params(AioParams::default())),
            ("remote.set_aio_params", remote.set_aio_params(AioParams::default())),
            ("remote.bottom_half", remote.bottom_half(half.id().as_u64()).map(drop)),
            ("arm_at", timer.arm_at(1)),
            ("trace", ctx.trace("nowhere.json").map(drop)),
            ("foreign_trace", ctx.foreign_trace(TraceKinds::all(), TraceBuffer::new())),
            ("foreign_loop_begin", ctx.foreign_loop_begin()),
            ("foreign_bottom_half", ctx.foreign_bottom_half().map(drop)),
            ("foreign_timer", ctx.foreign_timer().map(drop)),
            ("foreign_handler", ctx.foreign_handler(0, ForeignHandler::default()).map(drop)),
        ];
        for (call, result) in results {
            match result {
                Ok(()) => panic!("{call} worked"),
                Err(error) => assert!(error.is_closed(), "{call}: {error}"),
            }
        }
        // A context of the child's own works.
        let own = context();
        own.schedule(|_| Ok(())).unwrap();
        assert!(own.poll(true).unwrap());
    });
    bell.set().unwrap();
    assert!(block(&ctx), "the parent goes on");
}

/// SPEC 38
#[test]
fn calls_of_a_forked_child_that_return_nothing_do_not_touch_the_parents_context() {
    if !alone("FDMON_FORK", "1") {
        return;
    }
    let ctx = context();
    let bells: Vec<_> = (0..3).map(|_| EventNotifier::new().unwrap()).collect();
    let runs = Count::new();
    let tokens: Vec<_> = bells
        .iter()
        .map(|bell| {
            let (clear, counter) = (bell.clone(), runs.clone());
            let handlers = Handlers::new().external(true).read(move |_| {
                clear.test_and_clear()?;
                counter.bump();
                Ok(())
            });
            ctx.set_fd_handler(bell.clone(), handlers).unwrap()
        })
        .collect();
    in_child(|| {
        ctx.remove_fd_handler(bells[0].as_raw_fd());
        ctx.deregister(&tokens[1]);
        ctx.disable_external();
        ctx.notify();
        ctx.stop();
    });
    for bell in &bells {
        bell.set().unwrap();
    }
    assert!(block(&ctx));
    assert_eq!(runs.get(), 3, "the child took handlers of the parent away");
}

/// SPEC 38
#[test]
fn a_forked_child_may_close_and_drop_the_context_and_the_parent_goes_on() {
    if !alone("FDMON_FORK", "1") {
        return;
    }
    for way in ["close", "drop"] {
        let ctx = context();
        let bell = EventNotifier::new().unwrap();
        let (clear, runs) = (bell.clone(), Count::new());
        let counter = runs.clone();
        let handlers = Handlers::new().read(move |_| {
            clear.test_and_clear()?;
            counter.bump();
            Ok(())
        });
        ctx.set_fd_handler(bell.clone(), handlers).unwrap();
        let mut held = Some(ctx);
        in_child(|| {
            if way == "close" {
                held.as_ref().unwrap().close();
            }
            drop(held.take());
        });
        let ctx: AioContext = held.unwrap();
        bell.set().unwrap();
        assert!(block(&ctx));
        assert_eq!(runs.get(), 1, "{way}");
        ctx.notify();
        assert!(!block(&ctx));
    }
}

/// SPEC 4, 38, 52
#[test]
fn requests_of_a_forked_child_are_answered_with_closed_and_its_source() {
    if !alone("FDMON_FORK", "1") {
        return;
    }
    let (ctx, other) = (context(), context());
    let (bell, runs) = (EventNotifier::new().unwrap(), Tally::new());
    let token = ctx.register(ringing(&bell, &runs)).map_err(|(e, _)| e).unwrap();
    let (name, remote) = (token.to_send(), ctx.remote());
    let mut before = remote.register_send(ringing(&rung(), &runs));
    in_child(|| {
        let (error, source) = answer(remote.register_send(ringing(&rung(), &runs))).unwrap_err();
        assert!(error.is_closed(), "{error}");
        assert!(source.into_fd().test_and_clear().unwrap());
        assert!(answer(remote.deregister(&name)).unwrap_err().is_closed());
        assert!(answer(remote.set_interest(&name, Interest::empty())).unwrap_err().is_closed());
        let failed = answer(ctx.move_to(&token, &other.remote())).unwrap_err();
        assert!(failed.error.is_closed(), "{failed}");
        let failed = answer(remote.move_to(&name, &other.remote())).unwrap_err();
        assert!(failed.error.is_closed(), "{failed}");
        // Made by the parent, and answered there.
        assert!(before.try_take().is_none());
        assert!(before.wait().unwrap_err().is_closed());
        assert!(before.wait_for(Duration::MAX).unwrap_err().is_closed());
        ctx.close();
        other.close();
        // The parent's contexts are not at home here: only the child's own would stand still.
        let own = context();
        let mut ack = own.remote().register_send(ringing(&rung(), &runs));
        let error = ack.wait_for(Duration::ZERO).unwrap_err();
        assert!(error.to_string().contains("1 open contexts"), "{error}");
        drop(own);
        assert!(answer(ack).is_err());
        let thread = io_thread().spawn().unwrap();
        let ack = awaited(thread.remote().register_send(ringing(&rung(), &runs)));
        assert_eq!(ack.unwrap().context_id(), thread.remote().id());
        assert_eq!(thread.stop().unwrap().handlers, 1);
    });
    assert!(ctx.poll(false).unwrap());
    assert!(answer(before).is_ok(), "the parent's own request is served");
    let moving = ctx.move_to(&token, &other.remote());
    assert!(other.poll(false).unwrap());
    assert!(answer(moving).is_ok());
}

/// SPEC 38, 52
#[test]
fn an_io_thread_stays_with_the_parent() {
    if !alone("FDMON_FORK", "1") {
        return;
    }
    let mut threads = [(); 2].map(|()| Some(io_thread().spawn().unwrap()));
    let remote = threads[0].as_ref().unwrap().remote();
    in_child(|| {
        let [stopped, dropped] = threads.each_mut().map(|thread| thread.take().unwrap());
        assert!(stopped.set_poll_params(spin()).unwrap_err().is_closed());
        let _ = (stopped.stats(), stopped.poll_params(), stopped.is_finished());
        assert!(stopped.load() <= 1.0);
        let error = stopped.stop().unwrap_err();
        assert!(matches!(&error.failure, fdmon::Failure::Error(error) if error.is_closed()));
        drop(dropped); // nobody to wait for
    });
    let runs = Tally::new();
    let bell = rung();
    assert!(awaited(remote.register_send(ringing(&bell, &runs))).is_ok());
    runs.wait_for(1);
    for thread in threads {
        thread.unwrap().stop().unwrap();
    }
}

/// SPEC 38, 44
#[test]
fn a_forked_childs_own_contexts_outlive_the_inherited_ones() {
    if !alone("FDMON_FORK", "1") {
        return;
    }
    let mut inherited: Vec<_> = (0..3).map(|_| context()).collect();
    in_child(|| {
        // They may have the numbers that the parent's have there.
        let own: Vec<_> = (0..3).map(|_| context()).collect();
        inherited.clear();
        for ctx in &own {
            let (bell, runs) = (rung(), Count::new());
            ctx.set_fd_handler(bell, Handlers::new().read(runs.callback())).unwrap();
            assert!(block(ctx));
            assert_eq!(runs.get(), 1);
            assert_eq!(ctx.stats().fallbacks, 0);
        }
    });
    for ctx in &inherited {
        ctx.notify();
        assert!(!block(ctx));
        assert_eq!(ctx.stats().fallbacks, 0);
    }
}

/// SPEC 38, 49
#[test]
fn a_forked_child_cancels_no_request_of_the_parent() {
    if !alone("FDMON_FORK", "1") {
        return;
    }
    for engine in [IoEngine::IoUring, IoEngine::Threads] {
        let aio = AioParams { engine, ..AioParams::default() };
        let built = builder().aio(aio).build();
        if engine == IoEngine::IoUring && probe_io_uring().is_err() {
            assert!(built.unwrap_err().is_unsupported());
            continue;
        }
        let mut held = Some(built.unwrap());
        let ctx = held.as_ref().unwrap();
        let file = std::rc::Rc::new(std::fs::File::open("Cargo.toml").unwrap());
        let ends = Count::new();
        let end = ends.clone();
        let done = move |_: &mut fdmon::Ops<'_>, result: std::io::Result<usize>, _: Vec<u8>| {
            assert_eq!(result.unwrap(), 9);
            end.bump();
        };
        let token = ctx.read_at(file, vec![0; 9], 0, done).unwrap();
        in_child(|| {
            let ctx = held.take().unwrap();
            ctx.cancel_io(&token);
            ctx.plug(|| {});
            assert_eq!(ctx.stats().completions, 0, "it is not this process's to cancel");
            drop(ctx);
            assert_eq!(ends.get(), 0);
        });
        let ctx = held.as_ref().unwrap();
        ctx.poll_until(|| ends.get() == 1).unwrap();
    }
}
