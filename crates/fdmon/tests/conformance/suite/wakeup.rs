//! The wake-up protocol, and what other threads may do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use fdmon::{
    AioContext, AioParams, EventNotifier, Handlers, Interest, PollParams, Remote, Timer, Token,
};

use super::{context, manual};
use crate::support::{Count, block, rung, sleep_for, spin};

/// Waits until the loop of this remote is about to sleep, or asleep, once more than before.
fn wait_for_sleep(remote: &Remote, sleeps: u64) {
    while remote.stats().sleeps <= sleeps {
        std::thread::yield_now();
    }
}

/// SPEC 32, 33
#[test]
fn a_notification_signals_only_a_loop_that_is_about_to_sleep() {
    let (ctx, _clock) = manual();
    let remote = ctx.remote();
    for _ in 0..10 {
        remote.notify().unwrap();
    }
    let half = ctx.bottom_half(|_| Ok(())).unwrap();
    remote.schedule(&half.id()).unwrap();
    remote.run(|ops| ops.remote().notify().unwrap()).unwrap();
    assert!(block(&ctx));
    let stats = ctx.stats();
    assert_eq!((stats.notifies_sent, stats.notifies_elided), (0, 13));
}

/// SPEC 32, 33, 50
#[test]
#[cfg_attr(wasi, ignore = "nothing on WASI wakes an outer loop")]
fn between_prepare_and_check_every_notification_signals_also_when_one_is_pending() {
    let (ctx, _clock) = manual();
    let remote = ctx.remote();
    assert_eq!(ctx.prepare().unwrap(), None);
    for sent in 1..=3 {
        remote.notify().unwrap();
        assert_eq!(ctx.stats().notifies_sent, sent);
    }
    assert!(!ctx.check().unwrap());
    remote.notify().unwrap();
    let stats = ctx.stats();
    assert_eq!((stats.notifies_sent, stats.notifies_elided), (3, 1));
}

/// SPEC 32
#[test]
fn what_the_home_thread_changes_itself_notifies_nobody() {
    let (ctx, _clock) = manual();
    let timer = ctx.timer(|_| Ok(())).unwrap();
    timer.arm(Duration::from_secs(1)).unwrap();
    timer.cancel();
    let half = ctx.bottom_half(|_| Ok(())).unwrap();
    half.schedule();
    half.cancel();
    half.schedule_idle();
    half.delete();
    let token = ctx.set_fd_handler(rung(), Handlers::new().read(|_| Ok(()))).unwrap();
    token.set_interest(Interest::empty()).unwrap();
    ctx.deregister(&token);
    ctx.set_poll_params(spin()).unwrap();
    ctx.set_poll_params(PollParams::default()).unwrap();
    ctx.set_aio_params(AioParams { max_batch: 8, ..AioParams::default() }).unwrap();
    ctx.stop();
    ctx.run().unwrap();
    let stats = ctx.stats();
    assert_eq!((stats.notifies_sent, stats.notifies_elided), (0, 0));
    sleep_for(&ctx, 1_000_000_000);
}

/// SPEC 32
#[test]
fn the_next_turn_computes_anew_what_the_home_thread_changed_after_the_last_one() {
    let (ctx, clock) = manual();
    sleep_for(&ctx, 1_000);
    let far = ctx.timer(|_| Ok(())).unwrap();
    far.arm(Duration::from_secs(100)).unwrap();
    let fired = Count::new();
    let near = ctx.timer(fired.callback()).unwrap();
    near.arm(Duration::from_secs(1)).unwrap();
    assert!(ctx.poll(true).unwrap());
    assert_eq!((fired.get(), clock.now_ns()), (1, 1_000_001_000));
    ctx.schedule(|_| Ok(())).unwrap();
    assert!(ctx.poll(true).unwrap());
    assert_eq!(clock.now_ns(), 1_000_001_000);
}

/// SPEC 34
#[test]
#[cfg_attr(not(threads), ignore = "there are no threads")]
fn a_notification_is_accepted_once_and_with_everything_that_was_published_before_it() {
    let (ctx, _clock) = manual();
    let runs = Count::new();
    let half = ctx.bottom_half(runs.callback()).unwrap();
    let (remote, id) = (ctx.remote(), half.id());
    std::thread::spawn(move || {
        for _ in 0..5 {
            remote.schedule(&id).unwrap();
        }
    })
    .join()
    .unwrap();
    assert!(block(&ctx));
    assert_eq!(runs.get(), 1);
    sleep_for(&ctx, 1_000_000_000);
}

/// SPEC 32
#[test]
fn a_notification_before_a_blocking_turn_is_not_lost() {
    let ctx = context();
    for _ in 0..3 {
        ctx.notify();
        assert!(!block(&ctx));
    }
    assert_eq!(ctx.stats().sleeps, 0);
}

/// SPEC 4, 36
#[test]
#[cfg_attr(not(threads), ignore = "there are no threads")]
fn a_bottom_half_scheduled_from_a_thread_wakes_a_sleeping_loop() {
    let ctx = context();
    let runs = Count::new();
    let half = ctx.bottom_half(runs.callback()).unwrap();
    let (remote, id) = (ctx.remote(), half.id());
    let thread = std::thread::spawn(move || {
        wait_for_sleep(&remote, 0);
        remote.schedule(&id).unwrap();
    });
    assert!(block(&ctx));
    thread.join().unwrap();
    assert_eq!((runs.get(), ctx.stats().notifies_sent), (1, 1));
}

/// SPEC 33
#[test]
#[cfg_attr(wasi, ignore = "nothing on WASI wakes an outer loop")]
fn notify_me_counts_nested_sleeps_too_and_is_0_again_after_them() {
    let ctx = context();
    let runs = Count::new();
    let half = ctx.bottom_half(runs.callback()).unwrap();
    let (remote, id) = (ctx.remote(), half.id());
    let slept = ctx.stats().sleeps;
    ctx.schedule(move |ops| {
        let thread = std::thread::spawn(move || {
            wait_for_sleep(&remote, slept);
            remote.schedule(&id).unwrap();
        });
        assert!(block(ops.context()), "the nested sleep is woken");
        thread.join().unwrap();
        Ok(())
    })
    .unwrap();
    // Around it, an outer loop holds its own bit, which the nested sleep must leave alone.
    assert_eq!(ctx.prepare().unwrap(), Some(0));
    assert!(ctx.check().unwrap());
    assert!(ctx.dispatch().unwrap());
    assert_eq!((runs.get(), ctx.stats().notifies_sent), (1, 1));
    ctx.remote().notify().unwrap();
    assert_eq!(ctx.stats().notifies_sent, 1, "elided: nobody is about to sleep");
    assert!(!block(&ctx));
    assert_eq!(ctx.prepare().unwrap(), None);
    sleep_for(&ctx, 1_000_000);
    ctx.remote().notify().unwrap();
    assert_eq!(ctx.stats().notifies_sent, 2, "the outer loop's bit is still there");
    assert!(!ctx.check().unwrap());
}

/// SPEC 4, 12
#[test]
#[cfg_attr(not(threads), ignore = "there are no threads")]
fn a_registration_from_another_thread_wakes_a_sleeping_loop() {
    let ctx = context();
    let (remote, runs) = (ctx.remote(), Arc::new(AtomicU32::new(0)));
    let counter = runs.clone();
    let thread = std::thread::spawn(move || {
        wait_for_sleep(&remote, 0);
        let bell = rung();
        let handle = bell.clone();
        remote
            .run(move |ops| {
                let clear = bell.clone();
                let handlers = Handlers::new().read(move |ops| {
                    clear.test_and_clear()?;
                    counter.fetch_add(1, Ordering::Relaxed);
                    ops.stop();
                    Ok(())
                });
                ops.set_fd_handler(bell.clone(), handlers).unwrap();
            })
            .unwrap();
        handle
    });
    ctx.run_for(Duration::from_secs(10)).unwrap();
    let bell = thread.join().unwrap();
    assert_eq!(runs.load(Ordering::Relaxed), 1);
    // …and so can it be removed.
    let (remote, fd) = (ctx.remote(), std::os::fd::AsRawFd::as_raw_fd(&bell));
    std::thread::spawn(move || remote.run(move |ops| ops.remove_fd_handler(fd)))
        .join()
        .unwrap()
        .unwrap();
    bell.set().unwrap();
    assert!(block(&ctx), "the job is progress");
    assert!(!ctx.poll(false).unwrap());
    assert_eq!(runs.load(Ordering::Relaxed), 1);
}

/// SPEC 4, 32
#[test]
#[cfg_attr(not(threads), ignore = "there are no threads")]
fn stop_from_a_thread_ends_run_and_poll_until() {
    let ctx = context();
    for way in ["run", "poll_until"] {
        let (remote, sleeps) = (ctx.remote(), ctx.stats().sleeps);
        let thread = std::thread::spawn(move || {
            wait_for_sleep(&remote, sleeps);
            remote.stop().unwrap();
        });
        match way {
            "run" => ctx.run().unwrap(),
            _ => ctx.poll_until(|| false).unwrap(),
        }
        thread.join().unwrap();
    }
}

/// SPEC 4
#[test]
fn a_remote_is_send_and_sync_and_a_context_is_neither() {
    fn is<T: Send + Sync>() {}
    is::<Remote>();
    is::<fdmon::BottomHalfId>();
    is::<EventNotifier>();
    is::<fdmon::Error>();
    // Ambiguous, and so an error, if the type is `Send` or `Sync`.
    trait NotBoth<A> {
        fn holds() {}
    }
    struct IfSend;
    struct IfSync;
    impl<T: ?Sized> NotBoth<()> for T {}
    impl<T: ?Sized + Send> NotBoth<IfSend> for T {}
    impl<T: ?Sized + Sync> NotBoth<IfSync> for T {}
    <AioContext as NotBoth<_>>::holds();
    <Token<EventNotifier> as NotBoth<_>>::holds();
    <Timer as NotBoth<_>>::holds();
    <fdmon::BottomHalf as NotBoth<_>>::holds();
}

/// SPEC 4, 31, 53
#[test]
#[cfg_attr(not(threads), ignore = "there are no threads")]
fn a_remote_reads_statistics_and_parameters_and_changes_them_from_the_next_turn_on() {
    let (ctx, _clock) = manual();
    let remote = Remote::from_id(ctx.id()).unwrap();
    let changed = PollParams { max_ns: 7_000, ..spin() };
    let (from_afar, wanted) = (remote.clone(), changed.clone());
    std::thread::spawn(move || {
        from_afar.set_poll_params(wanted.clone()).unwrap();
        from_afar.set_aio_params(AioParams { max_batch: 4, ..AioParams::default() }).unwrap();
        assert_eq!(from_afar.poll_params(), wanted);
        let error =
            from_afar.set_poll_params(PollParams { cpu_budget: 2.0, ..spin() }).unwrap_err();
        assert!(error.is_invalid_arg() && error.to_string().contains("cpu_budget = 2"));
        let error = from_afar
            .set_aio_params(AioParams { max_batch: 5_000, ..AioParams::default() })
            .unwrap_err();
        assert!(error.is_invalid_arg() && error.to_string().contains("max_batch = 5000"));
    })
    .join()
    .unwrap();
    assert_eq!(ctx.poll_params(), PollParams::default());
    ctx.poll(false).unwrap();
    assert_eq!(ctx.poll_params(), changed);
    assert_eq!(ctx.aio_params().max_batch, 4);
    assert_eq!(remote.stats().turns, ctx.stats().turns);
    assert_eq!((remote.id(), remote.name()), (ctx.id(), ctx.name()));
}

/// SPEC 4, 38
#[test]
fn every_call_of_a_remote_fails_once_the_context_is_closed() {
    let (ctx, _clock) = manual();
    let remote = ctx.remote();
    let half = ctx.bottom_half(|_| Ok(())).unwrap();
    let (id, number) = (half.id(), half.id().as_u64());
    ctx.close();
    let errors = [
        remote.notify().unwrap_err(),
        remote.stop().unwrap_err(),
        remote.schedule(&id).unwrap_err(),
        remote.bottom_half(number).unwrap_err(),
        remote.run(|_| ()).unwrap_err(),
        remote.set_poll_params(spin()).unwrap_err(),
        remote.set_aio_params(AioParams::default()).unwrap_err(),
        Remote::from_id(ctx.id()).unwrap_err(),
    ];
    for error in errors {
        assert!(error.is_closed(), "{error}");
    }
    let _ = remote.stats();
}

/// SPEC 4, 38
#[test]
fn a_job_that_never_ran_is_dropped_when_the_context_closes() {
    let (ctx, _clock) = manual();
    let owned = Arc::new(());
    let kept = owned.clone();
    ctx.remote().run(move |_| drop(kept)).unwrap();
    ctx.close();
    assert_eq!(Arc::strong_count(&owned), 1);
}

/// SPEC 36
#[test]
fn a_bottom_half_is_found_by_its_number_until_it_is_deleted() {
    let (ctx, _clock) = manual();
    let runs = Count::new();
    let half = ctx.bottom_half(runs.callback()).unwrap();
    let (remote, number) = (ctx.remote(), half.id().as_u64());
    remote.schedule(&remote.bottom_half(number).unwrap()).unwrap();
    assert!(block(&ctx));
    assert_eq!(runs.get(), 1);
    half.delete();
    let heir = ctx.bottom_half(|_| Ok(())).unwrap();
    assert_ne!(heir.id().as_u64(), number, "never used again");
    for number in [number, u64::MAX, 0x1f_ffff, 1 << 53] {
        let error = remote.bottom_half(number).unwrap_err();
        assert!(error.is_invalid_arg(), "{error}");
        assert!(error.to_string().contains(&number.to_string()), "{error}");
    }
}

/// SPEC 13, 36
#[test]
fn a_bottom_half_of_another_context_is_refused_and_not_harmed() {
    let ((ctx, _clock), (other, _other_clock)) = (manual(), manual());
    let runs = Count::new();
    let half = ctx.bottom_half(runs.callback()).unwrap();
    let stray = other.bottom_half(|_| panic!("not this one")).unwrap();
    let refused = other.remote().schedule(&half.id());
    other.poll(false).unwrap();
    half.schedule();
    assert!(block(&ctx));
    assert_eq!(runs.get(), 1);
    assert!(refused.unwrap_err().is_invalid_arg());
    drop(stray);
}
