//! One turn: its order, its progress, its sleep.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use fdmon::{EventNotifier, Handlers};

use super::{context, manual, manual_with, spinning};
use crate::support::{
    Count, Log, Predicate, WINDOW, block, by_number, member, rung, sleep_for, spin,
};

/// SPEC 15
#[test]
fn bottom_halves_run_before_handlers_and_these_before_timers() {
    let (ctx, clock) = manual();
    let log = Log::new();
    let timer = ctx.timer(log.callback("timer")).unwrap();
    timer.arm(Duration::from_nanos(1)).unwrap();
    clock.advance_ns(1);
    ctx.set_fd_handler(rung(), Handlers::new().read(log.callback("handler"))).unwrap();
    let half = ctx.bottom_half(log.callback("bottom half")).unwrap();
    half.schedule();
    assert!(ctx.poll(true).unwrap());
    assert_eq!(log.take(), ["bottom half", "handler", "timer"]);
}

/// SPEC 15, 25
#[test]
fn before_a_sleep_comes_the_spin_then_poll_end_of_all_then_each_predicate_once_more() {
    let (ctx, _clock) = spinning();
    let log = Log::new();
    let predicates = [Predicate::new(), Predicate::new()];
    for predicate in &predicates {
        member(&ctx, &EventNotifier::new().unwrap(), predicate);
    }
    let names = [["poll 1", "begin 1", "end 1"], ["poll 2", "begin 2", "end 2"]];
    for (predicate, names) in predicates.iter().zip(names) {
        for (at, name) in names.into_iter().enumerate() {
            let writes = log.clone();
            let write = move || writes.add(name);
            match at {
                0 => predicate.on_poll(write),
                1 => predicate.on_begin(write),
                _ => predicate.on_end(write),
            }
        }
    }
    sleep_for(&ctx, 1_000_000_000);
    assert_eq!(
        log.take(),
        ["begin 1", "begin 2", "poll 1", "poll 2", "end 1", "end 2", "poll 1", "poll 2"]
    );
}

/// SPEC 15, 25
#[test]
fn a_hit_in_the_last_look_cancels_the_sleep() {
    let (ctx, clock) = spinning();
    let predicate = Predicate::new();
    let runs = member(&ctx, &EventNotifier::new().unwrap(), &predicate);
    let late = predicate.clone();
    predicate.on_end(move || late.say(true)); // published between the spin and the last look
    let (sleeps, start) = (ctx.stats().sleeps, clock.now_ns());
    assert!(block(&ctx));
    assert_eq!(runs.get(), 1);
    assert_eq!(ctx.stats().sleeps, sleeps);
    assert!(clock.now_ns() <= start + WINDOW);
    assert_eq!((predicate.begins(), predicate.ends()), (1, 1));
}

/// SPEC 15, 31
#[test]
fn parameters_are_read_once_a_turn() {
    let (ctx, _clock) = manual_with(spin());
    let remote = ctx.remote();
    crate::support::warm(&ctx);
    let predicate = Predicate::new();
    member(&ctx, &EventNotifier::new().unwrap(), &predicate);
    predicate.on_poll(move || {
        remote.set_poll_params(fdmon::PollParams::default()).unwrap();
    });
    sleep_or_wake(&ctx);
    assert_eq!(ctx.poll_params().max_ns, WINDOW, "this turn goes on with what it had");
    predicate.on_poll(|| ());
    ctx.poll(false).unwrap();
    assert_eq!(ctx.poll_params().max_ns, 0);
}

fn sleep_or_wake(ctx: &fdmon::AioContext) {
    let timer = ctx.timer(|_| Ok(())).unwrap();
    timer.arm(Duration::from_secs(1)).unwrap();
    ctx.poll(true).unwrap();
}

/// SPEC 16
#[test]
fn a_handler_a_timer_and_a_bottom_half_are_progress_and_an_idle_one_is_not() {
    let (ctx, clock) = manual();
    assert!(!ctx.poll(false).unwrap());
    let bell = rung();
    let clear = bell.clone();
    let handlers = Handlers::new().read(move |_| {
        clear.test_and_clear()?;
        Ok(())
    });
    ctx.set_fd_handler(bell, handlers).unwrap();
    assert!(ctx.poll(false).unwrap());
    assert!(!ctx.poll(false).unwrap());
    let timer = ctx.timer(|_| Ok(())).unwrap();
    timer.arm(Duration::from_nanos(1)).unwrap();
    clock.advance_ns(1);
    assert!(ctx.poll(false).unwrap());
    assert!(!ctx.poll(false).unwrap());
    ctx.schedule(|_| Ok(())).unwrap();
    assert!(ctx.poll(false).unwrap());
    assert!(!ctx.poll(false).unwrap());
    let runs = Count::new();
    let half = ctx.bottom_half(runs.callback()).unwrap();
    half.schedule_idle();
    assert!(!ctx.poll(false).unwrap());
    assert_eq!(runs.get(), 1);
    half.schedule();
    assert!(ctx.poll(false).unwrap());
}

/// SPEC 16, 32
#[test]
fn a_notification_ends_the_sleep_and_is_no_progress() {
    let (ctx, _clock) = manual();
    ctx.notify();
    assert!(!block(&ctx));
    ctx.remote().notify().unwrap();
    assert!(!block(&ctx));
    sleep_for(&ctx, 1_000_000_000); // and it is taken: the next sleep is whole
}

/// SPEC 16, 19
#[test]
fn what_failed_in_the_outer_turn_does_not_keep_a_nested_one_awake() {
    let (ctx, _clock) = manual();
    ctx.schedule(|_| Err("on purpose".into())).unwrap();
    let slept = Count::new();
    let counter = slept.clone();
    ctx.schedule(move |ops| {
        let timer = ops.arm(Duration::from_secs(1), counter.callback())?;
        assert!(ops.poll(true)?, "a nested turn sleeps until its timer");
        drop(timer);
        Ok(())
    })
    .unwrap();
    let error = ctx.poll(true).unwrap_err();
    assert_eq!(error.callback_errors().len(), 1, "{error}");
    assert_eq!(slept.get(), 1);
}

/// SPEC 17
#[test]
fn a_turn_with_work_due_does_not_sleep() {
    let (ctx, clock) = manual();
    let later = ctx.timer(|_| Ok(())).unwrap();
    later.arm(Duration::from_secs(5)).unwrap();
    let start = clock.now_ns();
    ctx.schedule(|_| Ok(())).unwrap();
    assert!(ctx.poll(true).unwrap());
    let timer = ctx.timer(|_| Ok(())).unwrap();
    timer.arm(Duration::ZERO).unwrap();
    assert!(ctx.poll(true).unwrap());
    assert_eq!(ctx.stats().sleeps, 0);
    ctx.set_fd_handler(rung(), Handlers::new().read(|_| Ok(()))).unwrap();
    assert!(ctx.poll(true).unwrap());
    assert_eq!(clock.now_ns(), start);
}

/// SPEC 17
#[test]
fn a_turn_sleeps_at_most_until_its_soonest_deadline() {
    let (ctx, clock) = manual();
    let log = Log::new();
    let timers: Vec<_> = [("late", 3_000_000), ("soon", 1_000_000), ("middle", 2_000_000)]
        .into_iter()
        .map(|(name, ns)| {
            let timer = ctx.timer(log.callback(name)).unwrap();
            timer.arm(Duration::from_nanos(ns)).unwrap();
            timer
        })
        .collect();
    for (name, at) in [("soon", 1_000_000), ("middle", 2_000_000), ("late", 3_000_000)] {
        assert!(ctx.poll(true).unwrap());
        assert_eq!((log.take(), clock.now_ns()), (vec![name], at));
    }
    drop(timers);
}

/// SPEC 17
#[test]
fn time_spent_spinning_is_taken_off_the_sleep() {
    let (ctx, clock) = spinning();
    clock.set_step_ns(100);
    let start = clock.now_ns();
    sleep_for(&ctx, 10 * WINDOW);
    // The spin alone reads the clock hundreds of times; the deadline is missed by a few readings.
    let late = clock.now_ns() - start - 10 * WINDOW;
    assert!(late < 2_000, "{late} ns late");
}

/// SPEC 15, 17, 23
#[test]
fn a_spin_that_lasts_until_the_deadline_does_not_sleep_and_stays_in_spin_mode() {
    let (ctx, _clock) = spinning();
    let predicate = Predicate::new();
    member(&ctx, &EventNotifier::new().unwrap(), &predicate);
    let sleeps = ctx.stats().sleeps;
    for _ in 0..3 {
        sleep_for(&ctx, WINDOW / 2);
    }
    assert_eq!(ctx.stats().sleeps, sleeps);
    assert_eq!((predicate.begins(), predicate.ends()), (1, 0));
    ctx.suspend().unwrap();
    assert_eq!(predicate.ends(), 1);
}

/// SPEC 17
#[test]
fn a_turn_that_found_something_by_spinning_does_not_sleep_and_stays_in_spin_mode() {
    let (ctx, clock) = spinning();
    clock.set_step_ns(1_000);
    let predicate = Predicate::new();
    let runs = member(&ctx, &EventNotifier::new().unwrap(), &predicate);
    let (hit, mut rounds) = (predicate.clone(), 0);
    predicate.on_poll(move || {
        rounds += 1;
        hit.say(rounds == 5);
    });
    let before = ctx.stats();
    assert!(block(&ctx));
    let after = ctx.stats();
    assert_eq!(runs.get(), 1);
    assert_eq!(predicate.asked(), 5);
    assert_eq!(after.sleeps, before.sleeps);
    assert_eq!(after.spin_hits, before.spin_hits + 1);
    assert_eq!((predicate.begins(), predicate.ends()), (1, 0));
}

/// SPEC 18
#[test]
fn a_non_blocking_turn_runs_each_predicate_once_and_makes_no_system_call() {
    let (ctx, _clock) = spinning();
    let predicates: Vec<_> = (0..5).map(|_| Predicate::new()).collect();
    for predicate in &predicates {
        member(&ctx, &EventNotifier::new().unwrap(), predicate);
    }
    for predicate in &predicates {
        predicate.asked();
    }
    let waits = ctx.stats().waits;
    for _ in 0..200 {
        assert!(!ctx.poll(false).unwrap());
        for predicate in &predicates {
            assert_eq!(predicate.asked(), 1);
        }
    }
    // The clock stands still, so of the looks that are due every 50 µs there is one at most.
    assert!(ctx.stats().waits <= waits + u64::from(!super::sees_readiness()));
}

/// SPEC 18
#[test]
fn a_non_blocking_turn_asks_the_kernel_once_when_a_handler_is_not_on_the_spin_list() {
    let (ctx, _clock) = spinning();
    member(&ctx, &EventNotifier::new().unwrap(), &Predicate::new());
    let late = EventNotifier::new().unwrap();
    let runs = Count::new();
    ctx.set_fd_handler(late.clone(), Handlers::new().read(runs.callback())).unwrap();
    let before = ctx.stats();
    for _ in 0..10 {
        assert!(!ctx.poll(false).unwrap());
    }
    let after = ctx.stats();
    // A ring is told of the fd once, and then seen in memory.
    let waits = if super::sees_readiness() { 1 } else { 10 };
    assert_eq!((after.waits - before.waits, after.sleeps - before.sleeps), (waits, 0));
    late.set().unwrap();
    assert!(ctx.poll(false).unwrap());
    assert_eq!(runs.get(), 1);
}

/// SPEC 18
#[test]
fn a_non_blocking_turn_without_any_handler_makes_no_system_call() {
    let (ctx, _clock) = manual();
    for _ in 0..10 {
        assert!(!ctx.poll(false).unwrap());
    }
    assert_eq!(ctx.stats().waits, 0);
}

/// SPEC 20
#[test]
fn each_ready_handler_runs_once_a_turn() {
    let (ctx, _clock) = manual();
    let counts: Vec<_> = (0..20).map(|_| Count::new()).collect();
    for count in &counts {
        ctx.set_fd_handler(rung(), Handlers::new().read(count.callback())).unwrap();
    }
    for turn in 1..=3 {
        assert!(block(&ctx));
        assert!(counts.iter().all(|count| count.get() == turn));
    }
}

/// SPEC 20
#[test]
fn handlers_found_by_spinning_run_before_those_that_the_kernel_reports() {
    let (ctx, _clock) = spinning();
    let log = Log::new();
    let bell = EventNotifier::new().unwrap();
    ctx.set_fd_handler(bell.clone(), Handlers::new().read(log.callback("kernel"))).unwrap();
    let predicate = Predicate::new();
    predicate.say(true);
    let handlers = Handlers::new().poll(predicate).poll_ready(log.callback("hit"));
    ctx.set_fd_handler(EventNotifier::new().unwrap(), handlers).unwrap();
    bell.set().unwrap();
    assert!(ctx.poll(false).unwrap());
    assert_eq!(log.take(), ["hit", "kernel"]);
}

/// SPEC 25
#[test]
fn run_and_poll_until_end_by_stop_from_a_callback() {
    let (ctx, _clock) = manual();
    let turns = Count::new();
    let counter = turns.clone();
    let bell = rung();
    let handlers = Handlers::new().read(move |ops| {
        counter.bump();
        if counter.get().is_multiple_of(3) {
            ops.stop();
        }
        Ok(())
    });
    ctx.set_fd_handler(by_number(std::os::fd::AsRawFd::as_raw_fd(&bell)), handlers).unwrap();
    ctx.run().unwrap();
    assert_eq!(turns.get(), 3);
    ctx.poll_until(|| false).unwrap();
    assert_eq!(turns.get(), 6);
    let until = turns.clone();
    ctx.poll_until(move || until.get() == 8).unwrap();
    assert_eq!(turns.get(), 8);
    ctx.poll_until(|| true).unwrap();
    assert_eq!(turns.get(), 8, "the condition is looked at first");
    ctx.stop();
    ctx.run().unwrap();
    assert_eq!(turns.get(), 8, "with none going on, stop ends the next");
    ctx.run().unwrap();
    assert_eq!(turns.get(), 9, "and only that one");
}

/// SPEC 25
#[test]
fn a_stop_in_a_nested_run_ends_the_outer_one_too() {
    let (ctx, _clock) = manual();
    let log = Log::new();
    let writes = log.clone();
    ctx.schedule(move |ops| {
        ops.schedule(|ops| {
            ops.stop();
            Ok(())
        })?;
        ops.context().run()?;
        writes.add("inner over");
        Ok(())
    })
    .unwrap();
    ctx.run().unwrap();
    assert_eq!(log.take(), ["inner over"]);
}

/// SPEC 17, 25
#[test]
fn run_for_takes_as_long_as_it_is_told() {
    let (ctx, clock) = manual();
    let ticks = Count::new();
    let timer: Rc<Cell<Option<fdmon::Timer>>> = Rc::default();
    let (again, counter) = (timer.clone(), ticks.clone());
    let tick = ctx
        .timer(move |_| {
            counter.bump();
            let timer = again.take().unwrap();
            timer.arm(Duration::from_millis(100))?;
            again.set(Some(timer));
            Ok(())
        })
        .unwrap();
    tick.arm(Duration::from_millis(50)).unwrap();
    timer.set(Some(tick));
    ctx.run_for(Duration::from_secs(1)).unwrap();
    assert_eq!(clock.now_ns(), 1_000_000_000);
    assert_eq!(ticks.get(), 10);
}

/// SPEC 1
#[test]
fn contexts_of_one_thread_know_nothing_of_each_other() {
    let (one, other) = (context(), context());
    assert_ne!(one.id(), other.id());
    let runs = Count::new();
    one.set_fd_handler(rung(), Handlers::new().read(runs.callback())).unwrap();
    one.schedule(|_| Ok(())).unwrap();
    one.notify();
    assert!(!other.poll(false).unwrap());
    assert_eq!(runs.get(), 0);
    assert!(one.poll(true).unwrap());
    assert_eq!((one.stats().turns, other.stats().turns), (1, 1));
    let id = other.id();
    drop(other);
    assert!(fdmon::Remote::from_id(id).is_err());
    assert!(context().id() > id, "an id is never used again");
}
