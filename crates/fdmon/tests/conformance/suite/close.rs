//! Closing: what is released, what is reported, what stops.

use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::Duration;

use fdmon::{EventNotifier, Handlers, LeakReport};

use super::{manual, spinning};
use crate::support::{Count, Log, Predicate, alone, block, member, rung};

/// SPEC 38
#[test]
fn close_releases_and_counts_what_is_alive_and_a_second_one_reports_nothing() {
    let (ctx, _clock) = manual();
    let owned = Rc::new(());
    for _ in 0..3 {
        let kept = owned.clone();
        let handlers = Handlers::new().read(move |_| {
            let _ = &kept;
            Ok(())
        });
        ctx.set_fd_handler(rung(), handlers).unwrap();
    }
    let keeps = || {
        let kept = owned.clone();
        move |_: &mut fdmon::Ops<'_>| {
            let _ = &kept;
            Ok(())
        }
    };
    let halves = [ctx.bottom_half(keeps()).unwrap(), ctx.bottom_half(keeps()).unwrap()];
    halves[0].schedule();
    let timers = [ctx.timer(keeps()).unwrap()];
    timers[0].arm(Duration::from_secs(1)).unwrap();
    assert_eq!(Rc::strong_count(&owned), 7);
    let report = ctx.close();
    assert_eq!((report.handlers, report.bottom_halves, report.timers, report.io), (3, 2, 1, 0));
    assert_eq!(Rc::strong_count(&owned), 1);
    assert!(ctx.is_closed());
    assert_eq!(ctx.close(), LeakReport::default());
}

/// SPEC 38
#[test]
fn nothing_alive_is_nothing_leaked() {
    let (ctx, _clock) = manual();
    let token = ctx.set_fd_handler(rung(), Handlers::new().read(|_| Ok(()))).unwrap();
    let half = ctx.bottom_half(|_| Ok(())).unwrap();
    let timer = ctx.timer(|_| Ok(())).unwrap();
    ctx.schedule(|_| Ok(())).unwrap();
    assert!(block(&ctx));
    ctx.deregister(&token);
    drop((half, timer));
    assert_eq!(ctx.close(), LeakReport::default());
}

/// SPEC 38
#[test]
#[cfg_attr(wasi, ignore = "nothing on WASI wakes an outer loop")]
fn every_call_after_close_fails_with_closed_or_does_nothing() {
    let (ctx, _clock) = manual();
    let token = ctx.set_fd_handler(rung(), Handlers::new().read(|_| Ok(()))).unwrap();
    let half = ctx.bottom_half(|_| Ok(())).unwrap();
    let timer = ctx.timer(|_| Ok(())).unwrap();
    ctx.close();
    let errors = [
        ctx.poll(false).unwrap_err(),
        ctx.poll(true).unwrap_err(),
        ctx.run().unwrap_err(),
        ctx.run_for(Duration::from_secs(1)).unwrap_err(),
        ctx.poll_until(|| true).unwrap_err(),
        ctx.suspend().unwrap_err(),
        ctx.prepare().unwrap_err(),
        ctx.check().unwrap_err(),
        ctx.dispatch().unwrap_err(),
        ctx.backend_fd().unwrap_err(),
        ctx.schedule(|_| Ok(())).unwrap_err(),
        ctx.bottom_half(|_| Ok(())).unwrap_err(),
        ctx.timer(|_| Ok(())).unwrap_err(),
        ctx.set_fd_handler(rung(), Handlers::new().read(|_| Ok(()))).unwrap_err(),
        ctx.set_poll_params(crate::support::spin()).unwrap_err(),
        ctx.set_aio_params(fdmon::AioParams::default()).unwrap_err(),
        timer.arm(Duration::from_secs(1)).unwrap_err(),
        timer.arm_at(1).unwrap_err(),
    ];
    for error in errors {
        assert!(error.is_closed(), "{error}");
        assert!(error.to_string().ends_with("create a new AioContext"), "{error}");
    }
    half.schedule();
    half.schedule_idle();
    half.cancel();
    timer.cancel();
    assert!(!timer.is_pending());
    assert!(!token.is_live());
    assert!(ctx.deregister(&token).is_none());
    ctx.remove_fd_handler(0);
    ctx.disable_external();
    ctx.enable_external();
    ctx.stop();
    ctx.notify();
    let _ = (ctx.stats(), ctx.monitor(), ctx.monitor_reason(), ctx.now_ns(), ctx.poll_params());
}

/// SPEC 38
#[test]
fn handles_may_outlive_the_context() {
    let (ctx, _clock) = manual();
    let token = ctx.set_fd_handler(rung(), Handlers::new().read(|_| Ok(()))).unwrap();
    let half = ctx.bottom_half(|_| Ok(())).unwrap();
    let timer = ctx.timer(|_| Ok(())).unwrap();
    half.schedule();
    drop(ctx);
    assert!(!token.set_interest(fdmon::Interest::empty()).unwrap());
    assert!(timer.arm(Duration::ZERO).unwrap_err().is_closed());
    half.schedule();
    half.cancel();
    half.delete();
    timer.delete();
}

/// SPEC 38
#[test]
#[cfg_attr(wasi, ignore = "WASI makes no sockets")]
fn close_in_a_callback_stops_all_further_callbacks_at_once() {
    for place in ["bottom half", "handler", "timer"] {
        let (ctx, clock) = manual();
        let log = Log::new();
        let close = |at: &'static str| {
            let writes = log.clone();
            move |ops: &mut fdmon::Ops<'_>| {
                writes.add(at);
                if at == place {
                    let report = ops.close();
                    assert!(report.handlers > 0 && report.timers > 0);
                    assert!(ops.poll(false).unwrap_err().is_closed());
                }
                Ok(())
            }
        };
        let halves =
            ["bottom half", "second half"].map(|name| ctx.bottom_half(close(name)).unwrap());
        for half in &halves {
            half.schedule();
        }
        let (ours, theirs) = crate::support::pair();
        rustix::io::write(&theirs, b"x").unwrap();
        let handlers = Handlers::new().read(close("handler")).write(close("write"));
        ctx.set_fd_handler(ours, handlers).unwrap();
        let timers = ["timer", "second timer"].map(|name| ctx.timer(close(name)).unwrap());
        for timer in &timers {
            timer.arm(Duration::from_nanos(1)).unwrap();
        }
        clock.advance_ns(1);
        assert!(ctx.poll(true).unwrap());
        let all = ["bottom half", "second half", "handler", "write", "timer"];
        let ran = match place {
            "bottom half" => &all[..1],
            "handler" => &all[..3],
            _ => &all[..],
        };
        assert_eq!(log.take(), ran, "{place}");
        assert!(ctx.poll(false).unwrap_err().is_closed());
    }
}

/// SPEC 38
#[test]
fn close_in_a_nested_turn_ends_the_outer_ones_and_run() {
    let (ctx, _clock) = manual();
    let log = Log::new();
    let writes = log.clone();
    ctx.schedule(move |ops| {
        ops.schedule(|ops| {
            ops.close();
            Ok(())
        })?;
        assert!(ops.poll(true)?);
        writes.add("outer callback goes on");
        Ok(())
    })
    .unwrap();
    let half = ctx.bottom_half(log.callback("never")).unwrap();
    half.schedule();
    // The nested turn takes the second one as well, and it is scheduled before the closing one.
    half.cancel();
    let timer = ctx.timer(log.callback("never")).unwrap();
    timer.arm(Duration::ZERO).unwrap();
    timer.cancel();
    ctx.run().unwrap();
    assert_eq!(log.take(), ["outer callback goes on"]);
    assert!(ctx.is_closed());
}

/// SPEC 38
#[test]
fn close_from_predicates_and_hooks_is_survived() {
    for place in ["poll", "begin", "end"] {
        let (ctx, _clock) = spinning();
        let ctx = Rc::new(ctx);
        let predicates = [Predicate::new(), Predicate::new()];
        for predicate in &predicates {
            member(&ctx, &EventNotifier::new().unwrap(), predicate);
        }
        let weak = Rc::downgrade(&ctx);
        let close = move || {
            weak.upgrade().unwrap().close();
        };
        match place {
            "poll" => predicates[0].on_poll(close),
            "begin" => predicates[0].on_begin(close),
            _ => predicates[0].on_end(close),
        }
        assert!(!ctx.poll(true).unwrap_or(false), "{place}");
        assert!(ctx.is_closed(), "{place}");
        for predicate in &predicates {
            assert!(!predicate.has_begun(), "{place}");
        }
    }
}

/// SPEC 38
#[test]
fn what_users_drop_at_close_may_call_the_context() {
    struct Last(Rc<fdmon::AioContext>, Count);
    impl Drop for Last {
        fn drop(&mut self) {
            assert!(self.0.is_closed());
            assert_eq!(self.0.close(), LeakReport::default());
            assert!(self.0.poll(false).unwrap_err().is_closed());
            self.0.remove_fd_handler(0);
            self.1.bump();
        }
    }
    let (ctx, _clock) = manual();
    let (ctx, dropped) = (Rc::new(ctx), Count::new());
    let last = Last(ctx.clone(), dropped.clone());
    ctx.schedule(move |_| {
        let _ = &last;
        Ok(())
    })
    .unwrap();
    let last = Last(ctx.clone(), dropped.clone());
    let handlers = Handlers::new().read(move |_| {
        let _ = &last;
        Ok(())
    });
    ctx.set_fd_handler(rung(), handlers).unwrap();
    assert_eq!(ctx.close().handlers, 1);
    assert_eq!(dropped.get(), 2);
}

/// SPEC 38
#[test]
fn what_a_closure_from_elsewhere_drops_at_close_may_call_the_context() {
    thread_local! {
        static CONTEXT: std::cell::RefCell<Option<Rc<fdmon::AioContext>>> = Default::default();
        static CLOSED: Count = Count::new();
    }
    struct Last;
    impl Drop for Last {
        fn drop(&mut self) {
            let closed = CONTEXT.with_borrow(|ctx| ctx.as_ref().is_some_and(|c| c.is_closed()));
            assert!(closed);
            CLOSED.with(Count::bump);
        }
    }
    let (ctx, _clock) = manual();
    CONTEXT.set(Some(Rc::new(ctx)));
    let ctx = CONTEXT.with_borrow(|ctx| ctx.as_ref().unwrap().clone());
    // The first closes while the second waits for its turn in the same batch, the third in the inbox.
    let remote = ctx.remote();
    let last = Last;
    remote
        .run(move |ops| {
            ops.remote().run(move |_| drop(last)).unwrap();
            ops.close();
        })
        .unwrap();
    let last = Last;
    remote.run(move |_| drop(last)).unwrap();
    assert!(ctx.poll(false).unwrap());
    assert_eq!(CLOSED.with(Count::get), 2);
    CONTEXT.take();
}

/// SPEC 38
#[test]
fn close_does_not_close_fds_that_are_not_the_contexts() {
    let (ctx, _clock) = manual();
    let bell = rung();
    let number = crate::support::by_number(bell.as_raw_fd());
    ctx.set_fd_handler(number, Handlers::new().read(|_| Ok(()))).unwrap();
    assert_eq!(ctx.close().handlers, 1);
    assert!(bell.test_and_clear().unwrap());
}

/// Sets, rings and timers that this process has open.
fn held() -> usize {
    let kinds = ["eventpoll", "io_uring", "timerfd"];
    std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter(|link| kinds.iter().any(|kind| link.to_string_lossy().contains(kind)))
        .count()
}

/// SPEC 38
#[test]
#[cfg_attr(wasi, ignore = "nothing on WASI wakes an outer loop")]
fn what_the_kernel_and_users_lent_goes_at_the_latest_when_the_outermost_turn_unwinds() {
    if !alone("FDMON_CLOSE", "1") {
        return;
    }
    assert_eq!(held(), 0);
    let ctx = super::context();
    ctx.backend_fd().unwrap();
    assert!(held() > 0);
    let lent = Rc::new(());
    let keeps = || {
        let held = lent.clone();
        move |_: &mut fdmon::Ops<'_>| {
            let _ = &held;
            Ok(())
        }
    };
    ctx.set_fd_handler(rung(), Handlers::new().read(keeps())).unwrap();
    let _half = ctx.bottom_half(keeps()).unwrap();
    let timer = ctx.timer(keeps()).unwrap();
    timer.arm(Duration::from_secs(1)).unwrap();
    ctx.schedule(keeps()).unwrap();
    let (count, seen) = (Rc::downgrade(&lent), Count::new());
    let counter = seen.clone();
    ctx.schedule(move |ops| {
        ops.schedule(|ops| {
            ops.close();
            Ok(())
        })?;
        assert!(ops.poll(true)?);
        assert_eq!(count.strong_count(), 1, "users' values go at once, but the one that runs");
        counter.bump();
        Ok(())
    })
    .unwrap();
    assert!(ctx.poll(true).unwrap());
    assert_eq!((seen.get(), held()), (1, 0));
    assert_eq!(Rc::strong_count(&lent), 1);
    assert!(ctx.is_closed(), "the object lives on");
}
