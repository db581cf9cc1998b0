//! ②′ Spinning: who takes part, what a window is, what ends it.

use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use fdmon::{EventNotifier, Handlers, PollParams, WordSource};

use super::{manual, manual_with, sees_readiness, spinning};
use crate::support::{
    Count, Log, Predicate, WINDOW, block, drain, member, polling, rung, sleep_for, spin, warm,
};

/// SPEC 22
#[test]
#[cfg_attr(wasi, ignore = "WASI makes no sockets")]
fn a_handler_joins_the_spin_list_when_it_is_dispatched_for_any_reason() {
    let (ctx, _clock) = spinning();
    for reason in ["hit", "read", "write"] {
        let (ours, theirs) = crate::support::pair();
        let fd = ours.as_raw_fd();
        let predicate = Predicate::new();
        let mut handlers = Handlers::new().poll(predicate.clone()).poll_ready(|_| Ok(()));
        handlers = match reason {
            "read" => handlers.read(|_| Ok(())),
            "write" => handlers.write(|_| Ok(())),
            _ => handlers,
        };
        rustix::io::write(&theirs, b"x").unwrap();
        let token = ctx.set_fd_handler(ours, handlers).unwrap();
        assert!(!polling(&ctx, fd), "registered alone is not enough");
        predicate.say(reason == "hit");
        assert!(ctx.poll(false).unwrap());
        assert!(polling(&ctx, fd), "{reason}");
        assert_eq!(predicate.begins(), 0, "spin mode is not on yet");
        ctx.deregister(&token);
    }
}

/// SPEC 22
#[test]
fn with_spinning_off_nobody_joins_but_the_first_look_is_made() {
    let (ctx, _clock) = manual();
    let bell = EventNotifier::new().unwrap();
    let (predicate, runs) = (Predicate::new(), Count::new());
    predicate.say(true);
    let handlers = Handlers::new().poll(predicate.clone()).poll_ready(predicate.taken(&runs));
    ctx.set_fd_handler(bell.clone(), handlers).unwrap();
    assert!(block(&ctx));
    assert_eq!((runs.get(), predicate.asked()), (1, 1));
    assert!(!polling(&ctx, bell.as_raw_fd()));
    sleep_for(&ctx, 1_000_000_000);
    assert_eq!(predicate.asked(), 0);
}

/// SPEC 22
#[test]
fn a_handler_that_was_added_is_looked_at_once_before_any_sleep_and_a_hit_is_dispatched() {
    for blocking in [true, false] {
        let (ctx, _clock) = manual();
        let (predicate, runs) = (Predicate::new(), Count::new());
        predicate.say(true);
        let handlers =
            Handlers::new().read(|_| Ok(())).poll(predicate.clone()).poll_ready(runs.callback());
        ctx.set_fd_handler(EventNotifier::new().unwrap(), handlers).unwrap();
        assert!(ctx.poll(blocking).unwrap());
        assert_eq!((runs.get(), predicate.asked(), ctx.stats().sleeps), (1, 1, 0));
        assert!(!ctx.poll(false).unwrap());
        assert_eq!(predicate.asked(), 0, "once");
    }
}

/// SPEC 22
#[test]
fn a_handler_that_was_added_in_a_callback_is_looked_at_before_the_next_sleep() {
    let (ctx, _clock) = manual();
    let (predicate, runs) = (Predicate::new(), Count::new());
    predicate.say(true);
    let (source, ready) = (predicate.clone(), predicate.taken(&runs));
    ctx.schedule(move |ops| {
        let handlers = Handlers::new().poll(source).poll_ready(ready);
        ops.set_fd_handler(EventNotifier::new()?, handlers)?;
        Ok(())
    })
    .unwrap();
    assert!(ctx.poll(true).unwrap());
    assert_eq!(runs.get(), 0);
    assert!(block(&ctx));
    assert_eq!(runs.get(), 1);
}

/// SPEC 23
#[test]
fn a_round_asks_every_member_and_collects_every_hit() {
    let (ctx, clock) = spinning();
    clock.set_step_ns(100);
    let predicates: Vec<_> = (0..5).map(|_| Predicate::new()).collect();
    let runs: Vec<_> =
        predicates.iter().map(|p| member(&ctx, &EventNotifier::new().unwrap(), p)).collect();
    // In the third round the first and the fourth one hit.
    for predicate in &predicates {
        predicate.asked();
    }
    for at in [0, 3] {
        let (hit, mut rounds) = (predicates[at].clone(), 0);
        predicates[at].on_poll(move || {
            rounds += 1;
            hit.say(rounds == 3);
        });
    }
    assert!(block(&ctx));
    for (at, predicate) in predicates.iter().enumerate() {
        assert_eq!(predicate.asked(), 3);
        assert_eq!(runs[at].get(), u32::from(at == 0 || at == 3));
    }
}

/// SPEC 23
#[test]
fn a_spin_without_a_hit_ends_with_its_window_and_then_the_loop_sleeps() {
    let (ctx, clock) = spinning();
    clock.set_step_ns(1_000);
    let predicate = Predicate::new();
    member(&ctx, &EventNotifier::new().unwrap(), &predicate);
    let before = ctx.stats();
    sleep_for(&ctx, 10 * WINDOW);
    let after = ctx.stats();
    assert_eq!(after.spin_misses, before.spin_misses + 1);
    assert_eq!(after.sleeps, before.sleeps + 1);
    let spun = after.spin_wasted_ns - before.spin_wasted_ns;
    assert!((WINDOW..WINDOW + 5_000).contains(&spun), "{spun} ns");
    let rounds = u64::from(predicate.asked());
    assert!((10..=WINDOW / 1_000 + 1).contains(&rounds), "{rounds} rounds");
}

/// SPEC 23, 32, 35
#[test]
fn a_notification_ends_the_spin_without_a_system_call_and_without_progress() {
    let (ctx, _clock) = spinning();
    let predicate = Predicate::new();
    member(&ctx, &EventNotifier::new().unwrap(), &predicate);
    let remote = ctx.remote();
    predicate.on_poll(move || remote.notify().unwrap());
    let before = ctx.stats();
    assert!(!block(&ctx));
    let after = ctx.stats();
    assert_eq!(predicate.asked(), 1);
    // But for the look that is due every 50 µs; the clock stands still.
    assert!(after.waits <= before.waits + u64::from(!sees_readiness()));
    assert_eq!((after.sleeps, after.notifies_sent), (before.sleeps, before.notifies_sent));
    assert_eq!(after.notifies_elided, before.notifies_elided + 1);
    assert_eq!(after.window_ns, WINDOW, "an event soon after the start keeps the window");
    assert_eq!(predicate.ends(), 0, "it stays in spin mode");
}

/// SPEC 35
#[test]
fn a_bottom_half_from_afar_during_a_spin_costs_no_system_call_on_either_side() {
    let (ctx, _clock) = spinning();
    let predicate = Predicate::new();
    member(&ctx, &EventNotifier::new().unwrap(), &predicate);
    let runs = Count::new();
    let half = ctx.bottom_half(runs.callback()).unwrap();
    let (remote, id) = (ctx.remote(), half.id());
    predicate.on_poll(move || remote.schedule(&id).unwrap());
    let before = ctx.stats();
    for turn in 1..=20 {
        assert!(block(&ctx));
        assert_eq!(runs.get(), turn);
    }
    let after = ctx.stats();
    // But for the look that is due every 50 µs; the clock stands still.
    assert!(after.waits <= before.waits + u64::from(!sees_readiness()), "{} waits", after.waits);
    assert_eq!(after.notifies_sent, before.notifies_sent);
}

/// SPEC 23
#[test]
fn a_context_that_has_only_bottom_halves_spins_for_its_notifier() {
    let (ctx, _clock) = spinning();
    let before = ctx.stats();
    sleep_for(&ctx, 1_000_000_000);
    assert_eq!(ctx.stats().spin_misses, before.spin_misses + 1);
}

/// SPEC 9
#[test]
fn a_handler_without_poll_turns_spinning_into_waiting_where_readiness_costs_a_system_call() {
    let (ctx, _clock) = spinning();
    let predicate = Predicate::new();
    member(&ctx, &EventNotifier::new().unwrap(), &predicate);
    let bell = EventNotifier::new().unwrap();
    ctx.set_fd_handler(bell.clone(), Handlers::new().read(|_| Ok(()))).unwrap();
    sleep_for(&ctx, WINDOW);
    let spun = sees_readiness();
    assert_eq!(predicate.begins(), u32::from(spun));
    let guard = ctx.stats().guard;
    assert_eq!(guard.is_some(), !spun);
    if let Some(guard) = guard {
        assert_eq!(guard, fdmon::Guard::HandlerWithoutPoll);
    }
    ctx.remove_fd_handler(bell.as_raw_fd());
    ctx.suspend().unwrap();
    sleep_for(&ctx, WINDOW);
    assert_eq!(predicate.begins(), 1 + u32::from(spun), "and back again");
    assert_eq!(ctx.stats().guard, None);
}

/// SPEC 9, 30
#[test]
fn a_source_that_spins_on_the_kernel_does_not_turn_spinning_off() {
    let (ctx, clock) = spinning();
    clock.set_step_ns(200);
    let bell = EventNotifier::new().unwrap();
    let runs = Count::new();
    let (clear, counter) = (bell.clone(), runs.clone());
    let handlers = Handlers::new().poll_kernel().read(move |_| {
        clear.test_and_clear()?;
        counter.bump();
        Ok(())
    });
    ctx.set_fd_handler(bell.clone(), handlers).unwrap();
    let predicate = Predicate::new();
    member(&ctx, &EventNotifier::new().unwrap(), &predicate);
    let mut rounds = 0;
    predicate.on_poll(move || {
        rounds += 1;
        if rounds == 5 {
            bell.set().unwrap();
        }
    });
    let (sleeps, start) = (ctx.stats().sleeps, clock.now_ns());
    assert!(block(&ctx));
    assert_eq!(runs.get(), 1, "the spin itself asked the kernel");
    assert_eq!(ctx.stats().sleeps, sleeps);
    let took = clock.now_ns() - start;
    assert!(took < 20_000, "found after {took} ns");
    assert_eq!(drain(&ctx), 0);
}

/// SPEC 24
#[test]
fn readiness_that_a_hit_consumed_is_not_dispatched_again() {
    let (ctx, _clock) = spinning();
    let (bell, predicate) = (EventNotifier::new().unwrap(), Predicate::new());
    let log = Log::new();
    let take = |name| {
        let (clear, quiet, log) = (bell.clone(), predicate.clone(), log.clone());
        move |_: &mut fdmon::Ops<'_>| {
            clear.test_and_clear()?;
            quiet.say(false);
            log.add(name);
            Ok(())
        }
    };
    let handlers =
        Handlers::new().read(take("read")).poll(predicate.clone()).poll_ready(take("ready"));
    ctx.set_fd_handler(bell.clone(), handlers).unwrap();
    for _ in 0..10 {
        bell.set().unwrap();
        predicate.say(true);
        assert!(block(&ctx));
        // Found by the spin alone, or with the kernel's word for it when that was asked as well.
        assert_eq!(log.take().len(), 1);
        assert_eq!(drain(&ctx), 0);
    }
    sleep_for(&ctx, 1_000_000_000);
    assert_eq!(log.take(), [""; 0]);
}

/// SPEC 24, 25
#[test]
fn a_signal_may_arrive_although_its_event_was_taken() {
    let (ctx, _clock) = spinning();
    let (bell, predicate) = (EventNotifier::new().unwrap(), Predicate::new());
    let runs = member(&ctx, &bell, &predicate);
    predicate.say(true);
    assert!(block(&ctx)); // poll_ready takes the event…
    assert_eq!(runs.take(), 1);
    bell.set().unwrap(); // …and its signal comes late: read finds nothing to take
    assert!(block(&ctx));
    assert_eq!(runs.take(), 1);
    sleep_for(&ctx, 1_000_000_000);
}

/// SPEC 26
#[test]
fn the_classic_window_grows_along_its_path() {
    let params = PollParams { max_ns: 32_768, grow: 0, ..spin() };
    let (ctx, _clock) = manual_with(params);
    assert_eq!(ctx.stats().window_ns, 0);
    for window in [4_000, 8_000, 16_000, 32_000, 32_768, 32_768] {
        sleep_for(&ctx, 32_767);
        assert_eq!(ctx.stats().window_ns, window);
    }
    sleep_for(&ctx, 100);
    assert_eq!(ctx.stats().window_ns, 32_768, "a short block keeps it");
    sleep_for(&ctx, 32_768);
    assert_eq!(ctx.stats().window_ns, 32_768, "a block of exactly the maximum keeps it");
    sleep_for(&ctx, 32_769);
    assert_eq!(ctx.stats().window_ns, 0, "a longer one resets it");
}

/// SPEC 26
#[test]
fn the_classic_window_grows_and_shrinks_by_its_factors() {
    let (ctx, _clock) = manual_with(PollParams { max_ns: 1_000_000, grow: 3, shrink: 4, ..spin() });
    for window in [4_000, 12_000, 36_000] {
        sleep_for(&ctx, 999_999);
        assert_eq!(ctx.stats().window_ns, window);
    }
    for window in [9_000, 2_250, 562] {
        sleep_for(&ctx, 1_000_001);
        assert_eq!(ctx.stats().window_ns, window);
    }
}

/// SPEC 26
#[test]
fn non_blocking_turns_and_dispatch_time_do_not_move_the_window() {
    let (ctx, clock) = manual_with(PollParams { max_ns: 32_768, grow: 0, ..spin() });
    sleep_for(&ctx, 5_000);
    let bell = rung();
    let (clear, hand) = (bell.clone(), clock.clone());
    let handlers = Handlers::new().poll(|| false).poll_ready(|_| Ok(())).read(move |_| {
        clear.test_and_clear()?;
        hand.advance_ns(1_000_000_000); // a slow callback
        Ok(())
    });
    ctx.set_fd_handler(bell, handlers).unwrap();
    assert!(block(&ctx));
    assert_eq!(ctx.stats().window_ns, 4_000);
    for _ in 0..10 {
        clock.advance_ns(1_000_000);
        ctx.poll(false).unwrap();
    }
    assert_eq!(ctx.stats().window_ns, 4_000);
}

/// SPEC 26, 31
#[test]
#[cfg_attr(not(threads), ignore = "there are no threads")]
fn a_change_of_parameters_resets_the_window_from_any_thread() {
    let (ctx, _clock) = spinning();
    ctx.set_poll_params(spin()).unwrap();
    assert_eq!(ctx.stats().window_ns, 0);
    warm(&ctx);
    let remote = ctx.remote();
    std::thread::spawn(move || remote.set_poll_params(spin())).join().unwrap().unwrap();
    assert!(!block(&ctx), "it wakes the loop");
    ctx.poll(false).unwrap();
    assert_eq!(ctx.stats().window_ns, 0);
    assert_eq!(ctx.remote().poll_params(), spin());
}

/// SPEC 28
#[test]
fn fruitless_spins_pay_from_the_cpu_budget_and_hits_do_not() {
    let params = PollParams { cpu_budget: 0.1, shrink: 1, ..spin() };
    let (ctx, clock) = manual_with(params);
    warm(&ctx);
    let (turns, length) = (1_000, 3 * WINDOW);
    let start = clock.now_ns();
    let mut refused = false;
    for _ in 0..turns {
        sleep_for(&ctx, length);
        refused |= ctx.stats().guard == Some(fdmon::Guard::Budget);
    }
    let elapsed = clock.now_ns() - start;
    let (wasted, cap) = (ctx.stats().spin_wasted_ns, 10_000_000);
    assert!(wasted <= cap + elapsed / 10, "{wasted} ns of {elapsed}");
    assert!(wasted >= elapsed / 10, "the bucket and the share are used: {wasted} of {elapsed}");
    assert!(refused || wasted > cap);
    // Hits are free, however long they take.
    clock.advance_ns(100_000_000);
    let predicate = Predicate::new();
    let runs = member(&ctx, &EventNotifier::new().unwrap(), &predicate);
    for _ in 0..turns {
        predicate.say(true);
        assert!(block(&ctx));
    }
    assert_eq!(runs.get(), 1_000);
    assert_eq!(ctx.stats().spin_wasted_ns, wasted);
}

/// SPEC 28
#[cfg(not(wasi))]
#[test]
fn on_one_usable_cpu_there_is_no_spin_unless_guards_are_off() {
    let all = rustix::thread::sched_getaffinity(None).unwrap();
    let first = (0..rustix::thread::CpuSet::MAX_CPU).find(|&cpu| all.is_set(cpu)).unwrap();
    let mut one = rustix::thread::CpuSet::new();
    one.set(first);
    rustix::thread::sched_setaffinity(None, &one).unwrap(); // of this test's own thread
    for guards in [true, false] {
        let (ctx, _clock) = manual_with(PollParams { guards, ..spin() });
        warm(&ctx);
        let before = ctx.stats();
        sleep_for(&ctx, WINDOW - 1);
        let after = ctx.stats();
        assert_eq!(after.spin_misses - before.spin_misses, u64::from(!guards));
        assert_eq!(after.guard, guards.then_some(fdmon::Guard::OneCpu));
    }
    rustix::thread::sched_setaffinity(None, &all).unwrap();
}

/// SPEC 22, 23
#[test]
fn a_word_of_memory_is_spun_on_natively() {
    let (ctx, _clock) = spinning();
    let (head, tail) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let runs = Count::new();
    let (produced, taken, counter) = (head.clone(), tail.clone(), runs.clone());
    let handlers = Handlers::new()
        .read(|_| Ok(()))
        .poll(WordSource::words_differ(head.clone(), tail))
        .poll_ready(move |_| {
            taken.store(produced.load(Ordering::Acquire), Ordering::Release);
            counter.bump();
            Ok(())
        });
    ctx.set_fd_handler(EventNotifier::new().unwrap(), handlers).unwrap();
    head.store(1, Ordering::Release);
    assert!(block(&ctx));
    let sleeps = ctx.stats().sleeps;
    for turn in 2..10 {
        head.store(turn, Ordering::Release);
        assert!(block(&ctx));
        assert_eq!(runs.get(), turn);
    }
    assert_eq!(ctx.stats().sleeps, sleeps);
    assert_eq!(drain(&ctx), 0);
}

/// SPEC 17, 23
#[test]
fn a_timer_that_a_predicate_arms_is_not_overslept() {
    let (ctx, clock) = spinning();
    let ctx = Rc::new(ctx);
    let predicate = Predicate::new();
    member(&ctx, &EventNotifier::new().unwrap(), &predicate);
    let fired = Count::new();
    let timer = ctx.timer(fired.callback()).unwrap();
    predicate.on_poll(move || {
        if !timer.is_pending() {
            timer.arm(Duration::from_millis(1)).unwrap();
        }
    });
    let start = clock.now_ns();
    assert!(block(&ctx));
    assert_eq!(fired.get(), 1);
    assert!(clock.now_ns() - start < 3_000_000);
}
