//! Callbacks that fail, and callbacks that panic.

use std::cell::Cell;
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use fdmon::{AioContext, EventNotifier, Handlers, PollParams};

use super::{manual, spinning};
use crate::support::{Count, Log, Predicate, block, member, rung, sleep_for};

/// The message of the panic that a turn resumes.
#[track_caller]
fn panic_of(ctx: &AioContext, blocking: bool) -> &'static str {
    // Bounded: one that sleeps on fails instead of hanging.
    let limit = ctx.timer(|_| Ok(())).unwrap();
    limit.arm(Duration::from_secs(10)).unwrap();
    let payload = catch_unwind(AssertUnwindSafe(|| ctx.poll(blocking))).unwrap_err();
    limit.delete();
    payload.downcast_ref::<&str>().copied().unwrap()
}

/// SPEC 21
#[test]
fn an_error_stops_none_of_the_others_and_is_returned_after_them() {
    let (ctx, clock) = manual();
    let log = Log::new();
    let timer = ctx.timer(log.callback("timer")).unwrap();
    timer.arm(Duration::from_nanos(1)).unwrap();
    clock.advance_ns(1);
    for name in ["one", "two"] {
        let writes = log.clone();
        let handlers = Handlers::new().read(move |_| {
            writes.add(name);
            if name == "one" { Err("one failed".into()) } else { Ok(()) }
        });
        ctx.set_fd_handler(rung(), handlers).unwrap();
    }
    let writes = log.clone();
    ctx.schedule(move |_| {
        writes.add("bottom half");
        Err("it failed".into())
    })
    .unwrap();
    let error = ctx.poll(true).unwrap_err();
    let mut ran = log.take();
    ran.sort_unstable();
    assert_eq!(ran, ["bottom half", "one", "timer", "two"]);
    assert!(error.is_callback());
    let messages: Vec<_> = error.callback_errors().iter().map(ToString::to_string).collect();
    assert_eq!(messages, ["it failed", "one failed"]);
    assert!(error.to_string().contains("it failed"), "{error}");
}

/// SPEC 21
#[test]
#[cfg_attr(wasi, ignore = "WASI makes no sockets")]
fn write_runs_although_read_failed() {
    let (ctx, _clock) = manual();
    let (ours, theirs) = crate::support::pair();
    rustix::io::write(&theirs, b"x").unwrap();
    let writes = Count::new();
    let handlers = Handlers::new().read(|_| Err("read failed".into())).write(writes.callback());
    ctx.set_fd_handler(ours, handlers).unwrap();
    assert!(ctx.poll(true).is_err());
    assert_eq!(writes.get(), 1);
    assert!(ctx.poll(true).is_err(), "it stays registered");
}

/// SPEC 21
#[test]
fn an_error_ends_run_and_the_context_stays_usable() {
    let (ctx, _clock) = manual();
    ctx.schedule(|_| Err("on purpose".into())).unwrap();
    assert!(ctx.run().unwrap_err().is_callback());
    ctx.schedule(|_| Ok(())).unwrap();
    assert!(ctx.poll(true).unwrap());
}

/// SPEC 21
#[test]
fn the_errors_of_a_nested_turn_are_its_own() {
    let (ctx, _clock) = manual();
    let seen = Rc::new(Cell::new(0));
    ctx.schedule(|_| Err("outer".into())).unwrap();
    let inner = seen.clone();
    ctx.schedule(move |ops| {
        ops.schedule(|_| Err("inner".into()))?;
        let error = ops.poll(true).unwrap_err();
        assert_eq!(error.callback_errors().len(), 1);
        assert_eq!(error.callback_errors()[0].to_string(), "inner");
        inner.set(1);
        Ok(())
    })
    .unwrap();
    let error = ctx.poll(true).unwrap_err();
    assert_eq!(seen.get(), 1);
    assert_eq!(error.callback_errors().len(), 1);
    assert_eq!(error.callback_errors()[0].to_string(), "outer");
}

/// SPEC 21
#[test]
#[cfg_attr(wasi, ignore = "WebAssembly does not unwind")]
fn a_panic_of_a_callback_resumes_after_the_others_ran() {
    let (ctx, _clock) = manual();
    let log = Log::new();
    for at in 0..3 {
        let writes = log.clone();
        ctx.schedule(move |_| {
            writes.add("ran");
            assert_ne!(at, 1, "the middle one");
            Ok(())
        })
        .unwrap();
    }
    ctx.schedule(|_| panic!("not the first")).unwrap();
    assert!(catch_unwind(AssertUnwindSafe(|| ctx.poll(true))).is_err());
    assert_eq!(log.take().len(), 3);
    assert!(!ctx.poll(false).unwrap(), "it is reported once");
}

/// SPEC 21
#[test]
#[cfg_attr(wasi, ignore = "WebAssembly does not unwind")]
fn panics_of_handlers_timers_and_jobs_leave_the_context_usable() {
    let (ctx, _clock) = manual();
    let bell = rung();
    let clear = bell.clone();
    let handlers = Handlers::new().read(move |_| {
        clear.test_and_clear()?;
        panic!("handler")
    });
    ctx.set_fd_handler(bell.clone(), handlers).unwrap();
    assert_eq!(panic_of(&ctx, true), "handler");
    bell.set().unwrap();
    assert_eq!(panic_of(&ctx, true), "handler");
    let timer = ctx.timer(|_| panic!("timer")).unwrap();
    timer.arm(Duration::from_secs(1)).unwrap();
    assert_eq!(panic_of(&ctx, true), "timer");
    timer.arm(Duration::from_secs(1)).unwrap();
    assert_eq!(panic_of(&ctx, true), "timer");
    ctx.remote().run(|_| panic!("job")).unwrap();
    assert_eq!(panic_of(&ctx, true), "job");
    assert!(!ctx.poll(false).unwrap());
}

/// SPEC 19, 21
#[test]
#[cfg_attr(wasi, ignore = "WebAssembly does not unwind")]
fn a_panic_of_the_outer_turn_does_not_unwind_a_callback_that_nests() {
    let (ctx, _clock) = manual();
    let log = Log::new();
    let writes = log.clone();
    ctx.schedule(|_| panic!("outer")).unwrap();
    ctx.schedule(move |ops| {
        let _ = ops.poll(false);
        writes.add("went on");
        Ok(())
    })
    .unwrap();
    assert_eq!(panic_of(&ctx, true), "outer");
    assert_eq!(log.take(), ["went on"]);
}

/// SPEC 19, 21
#[test]
#[cfg_attr(wasi, ignore = "WebAssembly does not unwind")]
fn a_panic_in_a_nested_turn_resumes_there_and_unwinds_no_further_than_its_callback() {
    let (ctx, _clock) = manual();
    let log = Log::new();
    let writes = log.clone();
    ctx.schedule(move |ops| {
        ops.schedule(|_| panic!("inner"))?;
        let caught = catch_unwind(AssertUnwindSafe(|| ops.poll(true)));
        assert!(caught.is_err());
        writes.add("caught");
        Ok(())
    })
    .unwrap();
    assert!(ctx.poll(true).unwrap());
    assert_eq!(log.take(), ["caught"]);
    assert!(!ctx.poll(false).unwrap());
}

/// SPEC 21, 23
#[test]
#[cfg_attr(wasi, ignore = "WebAssembly does not unwind")]
fn a_predicate_that_panics_is_no_hit_and_ends_the_spin_and_begin_and_end_stay_balanced() {
    let (ctx, _clock) = spinning();
    let (predicate, other) = (Predicate::new(), Predicate::new());
    let runs = member(&ctx, &EventNotifier::new().unwrap(), &predicate);
    let others = member(&ctx, &EventNotifier::new().unwrap(), &other);
    predicate.on_poll(|| panic!("predicate"));
    other.say(true);
    let sleeps = ctx.stats().sleeps;
    assert_eq!(panic_of(&ctx, true), "predicate");
    assert_eq!((runs.get(), others.get()), (0, 1), "the other one hit and ran");
    assert_eq!(ctx.stats().sleeps, sleeps);
    predicate.on_poll(|| ());
    sleep_for(&ctx, 1_000_000_000);
    assert!(predicate.begins() > 0);
    assert!(!predicate.has_begun() && !other.has_begun());
}

/// SPEC 21, 25
#[test]
#[cfg_attr(wasi, ignore = "WebAssembly does not unwind")]
fn hooks_that_panic_stop_no_other_and_are_reported() {
    for hook in ["begin", "end"] {
        let (ctx, _clock) = spinning();
        let predicates = [Predicate::new(), Predicate::new(), Predicate::new()];
        for predicate in &predicates {
            member(&ctx, &EventNotifier::new().unwrap(), predicate);
        }
        match hook {
            "begin" => predicates[1].on_begin(|| panic!("hook")),
            _ => predicates[1].on_end(|| panic!("hook")),
        }
        assert_eq!(panic_of(&ctx, true), "hook");
        ctx.suspend().unwrap();
        for predicate in &predicates {
            assert_eq!(predicate.begins(), 1, "{hook}");
            assert!(!predicate.has_begun(), "{hook}");
        }
    }
}

/// SPEC 21
#[test]
fn what_fails_in_a_turn_that_also_progressed_is_not_lost_by_close() {
    let (ctx, _clock) = manual();
    ctx.schedule(|ops| {
        ops.close();
        Err("on the way out".into())
    })
    .unwrap();
    let error = ctx.poll(true).unwrap_err();
    assert_eq!(error.callback_errors().len(), 1);
    assert!(ctx.is_closed());
}

/// SPEC 21
#[test]
#[cfg_attr(wasi, ignore = "WebAssembly does not unwind")]
fn a_panicking_bottom_half_and_timer_can_run_again() {
    let (ctx, _clock) = manual();
    let runs = Count::new();
    let counter = runs.clone();
    let half = ctx
        .bottom_half(move |_| {
            counter.bump();
            assert!(counter.get() != 1, "the first time");
            Ok(())
        })
        .unwrap();
    half.schedule();
    assert!(catch_unwind(AssertUnwindSafe(|| ctx.poll(true))).is_err());
    half.schedule();
    assert!(block(&ctx));
    assert_eq!(runs.get(), 2);
}

/// SPEC 21
#[test]
#[cfg_attr(wasi, ignore = "WebAssembly does not unwind")]
fn a_panic_that_ends_run_or_poll_until_leaves_the_next_run_as_if_it_had_not_been() {
    for way in ["run", "run_for", "condition"] {
        let (ctx, _clock) = manual();
        let unwound = catch_unwind(AssertUnwindSafe(|| match way {
            "condition" => ctx.poll_until(|| panic!("on purpose")),
            "run" => ctx.schedule(|_| panic!("on purpose")).and_then(|()| ctx.run()),
            _ => {
                ctx.schedule(|_| panic!("on purpose")).unwrap();
                ctx.run_for(Duration::from_secs(1))
            }
        }));
        assert!(unwound.is_err(), "{way}");
        let runs = Count::new();
        for run in 1..=3 {
            let counter = runs.clone();
            ctx.schedule(move |ops| {
                counter.bump();
                ops.stop();
                Ok(())
            })
            .unwrap();
            ctx.run().unwrap();
            assert_eq!(runs.get(), run, "{way}: a stop belongs to the run that it ends");
        }
        assert_eq!(ctx.close().timers, 0, "{way}");
    }
}

/// SPEC 21
#[test]
#[cfg_attr(wasi, ignore = "WebAssembly does not unwind")]
fn a_panic_that_ends_run_leaves_spin_mode() {
    let (ctx, _clock) = spinning();
    let predicate = Predicate::new();
    member(&ctx, &EventNotifier::new().unwrap(), &predicate);
    predicate.say(true);
    assert!(block(&ctx));
    assert!(predicate.has_begun());
    ctx.schedule(|_| panic!("on purpose")).unwrap();
    assert!(catch_unwind(AssertUnwindSafe(|| ctx.run())).is_err());
    assert!(!predicate.has_begun(), "the producer must signal again");
}

/// SPEC 21, 25
#[test]
#[cfg_attr(wasi, ignore = "WebAssembly does not unwind")]
fn what_a_hook_panics_outside_a_turn_goes_on_from_the_call_that_ran_it_once_its_work_is_done() {
    type Call = fn(&AioContext, &EventNotifier);
    let calls: [(&str, Call); 6] = [
        ("suspend", |ctx, _| ctx.suspend().unwrap()),
        ("remove", |ctx, bell| ctx.remove_fd_handler(bell.as_raw_fd())),
        ("replace", |ctx, bell| {
            ctx.set_fd_handler(bell.clone(), Handlers::new().read(|_| Ok(()))).unwrap();
        }),
        ("disable", |ctx, _| ctx.disable_external()),
        ("parameters", |ctx, _| ctx.set_poll_params(PollParams::default()).unwrap()),
        ("close", |ctx, _| assert_eq!(ctx.close().handlers, 1)),
    ];
    for (name, call) in calls {
        let (ctx, _clock) = spinning();
        let (bell, predicate, runs) =
            (EventNotifier::new().unwrap(), Predicate::new(), Count::new());
        let handlers = Handlers::new()
            .external(true)
            .poll(predicate.clone())
            .poll_ready(predicate.taken(&runs));
        ctx.set_fd_handler(bell.clone(), handlers).unwrap();
        predicate.say(true);
        assert!(ctx.poll(false).unwrap());
        predicate.say(true);
        assert!(block(&ctx));
        assert!(predicate.has_begun());
        predicate.on_end(|| panic!("hook"));
        let payload = catch_unwind(AssertUnwindSafe(|| call(&ctx, &bell))).unwrap_err();
        assert_eq!(payload.downcast_ref::<&str>(), Some(&"hook"), "{name}");
        predicate.on_end(|| ());
        assert!(!predicate.has_begun(), "{name}");
        match name {
            "suspend" | "parameters" | "disable" => assert_eq!(ctx.stats().handlers.len(), 1),
            "remove" => assert_eq!(ctx.stats().handlers.len(), 0),
            "replace" => {
                bell.set().unwrap();
                assert!(block(&ctx));
            }
            _ => assert!(ctx.is_closed()),
        }
        if !ctx.is_closed() {
            assert!(catch_unwind(AssertUnwindSafe(|| ctx.poll(false))).is_ok(), "{name}: once");
        }
    }
}

/// SPEC 21
#[test]
#[cfg_attr(wasi, ignore = "WebAssembly does not unwind")]
fn a_hook_that_panics_while_the_context_is_dropped_is_heard_and_releases_everything() {
    let (ctx, _clock) = spinning();
    let (bell, predicate) = (EventNotifier::new().unwrap(), Predicate::new());
    member(&ctx, &bell, &predicate);
    predicate.say(true);
    assert!(block(&ctx));
    assert!(predicate.has_begun());
    let kept = Rc::new(());
    let held = kept.clone();
    ctx.set_fd_handler(rung(), Handlers::new().read(move |_| drop_nothing(&held))).unwrap();
    predicate.on_end(|| panic!("hook"));
    assert!(catch_unwind(AssertUnwindSafe(|| drop(ctx))).is_err());
    assert_eq!(Rc::strong_count(&kept), 1);
}

fn drop_nothing(_: &Rc<()>) -> fdmon::Outcome {
    Ok(())
}
