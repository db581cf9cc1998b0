//! `poll_begin` and `poll_end`: always balanced, whatever happens in between.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use fdmon::{AioContext, EventNotifier, Handlers, PollParams, WordSource};

use super::{manual_with, spinning};
use crate::support::{
    Count, Log, Predicate, WINDOW, block, member, polling, sleep_for, spin, warm,
};
use std::os::fd::AsRawFd;

/// A context in spin mode with one handler that has begun.
fn begun() -> (Rc<AioContext>, EventNotifier, Predicate) {
    let (ctx, _clock) = spinning();
    let (bell, predicate) = (EventNotifier::new().unwrap(), Predicate::new());
    member(&ctx, &bell, &predicate);
    enter(&ctx, &predicate);
    (Rc::new(ctx), bell, predicate)
}

/// A spin that hits: the context stays in spin mode.
fn enter(ctx: &AioContext, predicate: &Predicate) {
    predicate.say(true);
    assert!(block(ctx));
    assert!(predicate.has_begun());
    predicate.asked();
}

/// SPEC 22, 25
#[test]
fn poll_begin_is_called_once_when_handler_and_spin_mode_meet() {
    let (ctx, bell, predicate) = begun();
    for _ in 0..5 {
        predicate.say(true);
        assert!(block(&ctx));
    }
    assert_eq!((predicate.begins(), predicate.ends()), (1, 0));
    // A second one joins while spin mode is on: it begins in the next spin.
    let late = Predicate::new();
    member(&ctx, &EventNotifier::new().unwrap(), &late);
    assert_eq!(late.begins(), 0);
    predicate.say(true);
    assert!(block(&ctx));
    assert_eq!((late.begins(), predicate.begins()), (1, 1));
    drop(bell);
}

/// SPEC 25
#[test]
fn a_bare_turn_may_return_in_spin_mode_and_suspend_leaves_it_with_a_last_look() {
    let (ctx, _bell, predicate) = begun();
    ctx.suspend().unwrap();
    assert!(!predicate.has_begun());
    assert_eq!(predicate.asked(), 1);
    ctx.suspend().unwrap();
    assert_eq!((predicate.ends(), predicate.asked()), (1, 0), "once");
    enter(&ctx, &predicate);
    let late = predicate.clone();
    predicate.on_end(move || late.say(true));
    ctx.suspend().unwrap();
    let sleeps = ctx.stats().sleeps;
    assert!(ctx.poll(true).unwrap(), "the hit of the last look is run by the next turn");
    assert_eq!(ctx.stats().sleeps, sleeps);
}

/// SPEC 25
#[test]
fn run_and_poll_until_leave_spin_mode_when_they_end() {
    for way in ["run", "poll_until"] {
        let (ctx, _bell, predicate) = begun();
        predicate.say(true);
        match way {
            "run" => {
                ctx.schedule(|ops| {
                    ops.stop();
                    Ok(())
                })
                .unwrap();
                ctx.run().unwrap();
            }
            _ => {
                let mut turns = 0;
                ctx.poll_until(|| {
                    turns += 1;
                    turns > 1
                })
                .unwrap();
            }
        }
        assert!(!predicate.has_begun(), "{way}");
    }
}

/// SPEC 11, 25
#[test]
fn removal_replacement_and_close_call_poll_end() {
    for way in ["remove", "replace", "close", "drop"] {
        let (ctx, bell, predicate) = begun();
        match way {
            "remove" => ctx.remove_fd_handler(bell.as_raw_fd()),
            "replace" => {
                ctx.set_fd_handler(bell.clone(), Handlers::new().read(|_| Ok(()))).unwrap();
            }
            "close" => {
                ctx.close();
            }
            _ => drop(ctx),
        }
        assert_eq!((predicate.begins(), predicate.ends()), (1, 1), "{way}");
    }
}

/// SPEC 11, 25, 38
#[test]
fn close_from_its_own_callback_calls_poll_end() {
    let (ctx, _clock) = spinning();
    let predicate = Predicate::new();
    let (quiet, runs) = (predicate.clone(), Count::new());
    let counter = runs.clone();
    let handlers = Handlers::new().poll(predicate.clone()).poll_ready(move |ops| {
        quiet.say(false);
        counter.bump();
        if counter.get() == 2 {
            assert!(quiet.has_begun());
            ops.close();
        }
        Ok(())
    });
    ctx.set_fd_handler(EventNotifier::new().unwrap(), handlers).unwrap();
    predicate.say(true);
    assert!(block(&ctx));
    predicate.say(true);
    assert!(ctx.poll(true).unwrap());
    assert_eq!(runs.get(), 2);
    assert_eq!((predicate.begins(), predicate.ends()), (1, 1));
}

/// SPEC 11, 25
#[test]
fn removal_from_its_own_callback_calls_poll_end_after_it() {
    let (ctx, _clock) = spinning();
    let predicate = Predicate::new();
    let log = Log::new();
    let (quiet, writes) = (predicate.clone(), log.clone());
    let handlers = Handlers::new().poll(predicate.clone()).poll_ready(move |ops| {
        quiet.say(false);
        if quiet.has_begun() {
            ops.remove_fd_handler(ops.fd().as_raw_fd());
            writes.add("callback over");
        }
        Ok(())
    });
    let writes = log.clone();
    predicate.on_end(move || writes.add("end"));
    ctx.set_fd_handler(EventNotifier::new().unwrap(), handlers).unwrap();
    predicate.say(true);
    assert!(block(&ctx));
    predicate.say(true);
    assert!(block(&ctx));
    assert_eq!(log.take(), ["callback over", "end"]);
    assert_eq!((predicate.begins(), predicate.ends()), (1, 1));
}

/// SPEC 25, 31
#[test]
fn turning_spinning_off_leaves_spin_mode_and_empties_the_spin_list() {
    for from_afar in [false, true] {
        let (ctx, bell, predicate) = begun();
        if from_afar {
            ctx.remote().set_poll_params(PollParams::default()).unwrap();
            ctx.poll(false).unwrap();
        } else {
            ctx.set_poll_params(PollParams::default()).unwrap();
        }
        assert!(!predicate.has_begun());
        assert!(!polling(&ctx, bell.as_raw_fd()));
        predicate.asked();
        sleep_for(&ctx, 1_000_000_000);
        assert_eq!((predicate.asked(), predicate.begins()), (0, 1));
    }
}

/// SPEC 25, 31
#[test]
fn other_parameters_reset_the_window_and_keep_the_balance() {
    let (ctx, bell, predicate) = begun();
    ctx.set_poll_params(PollParams { max_ns: WINDOW / 2, ..spin() }).unwrap();
    assert_eq!(ctx.stats().window_ns, 0);
    assert!(polling(&ctx, bell.as_raw_fd()));
    sleep_for(&ctx, 1_000_000_000);
    assert!(!predicate.has_begun());
}

/// SPEC 15, 25
#[test]
fn a_guard_that_forbids_the_next_spin_still_ends_what_has_begun_before_the_sleep() {
    let (ctx, _bell, predicate) = begun();
    // A handler without `poll` makes spinning give way to a wait.
    let plain = EventNotifier::new().unwrap();
    ctx.set_fd_handler(plain, Handlers::new().read(|_| Ok(()))).unwrap();
    if super::sees_readiness() {
        return;
    }
    predicate.asked();
    sleep_for(&ctx, 1_000_000_000);
    assert_eq!((predicate.begins(), predicate.ends()), (1, 1));
    assert_eq!(predicate.asked(), 1, "the last look");
}

/// SPEC 25
#[test]
fn a_hook_that_leaves_spin_mode_leaves_nothing_begun_in_the_sleep() {
    let (ctx, _clock) = spinning();
    let ctx = Rc::new(ctx);
    let predicates = [Predicate::new(), Predicate::new(), Predicate::new()];
    for predicate in &predicates {
        member(&ctx, &EventNotifier::new().unwrap(), predicate);
    }
    let weak = Rc::downgrade(&ctx);
    predicates[0].on_begin(move || weak.upgrade().unwrap().suspend().unwrap());
    let asleep = Rc::new(std::cell::Cell::new(false));
    let (watched, slept) = (predicates.clone(), asleep.clone());
    let timer = ctx
        .timer(move |_| {
            // What the sleep found, since nothing else ran in this turn.
            slept.set(watched.iter().any(Predicate::has_begun));
            Ok(())
        })
        .unwrap();
    timer.arm(Duration::from_secs(1)).unwrap();
    ctx.poll(true).unwrap();
    assert!(!asleep.get(), "a producer was told not to signal, and then the loop slept");
}

/// SPEC 25, 50
#[test]
#[cfg_attr(wasi, ignore = "nothing on WASI wakes an outer loop")]
fn a_hook_whose_nested_turn_enters_spin_mode_again_keeps_turn_and_outer_loop_awake() {
    for way in ["turn", "prepare"] {
        let (ctx, _clock) = spinning();
        let ctx = Rc::new(ctx);
        let predicates = [Predicate::new(), Predicate::new()];
        for predicate in &predicates {
            member(&ctx, &EventNotifier::new().unwrap(), predicate);
        }
        if way == "prepare" {
            ctx.prepare().unwrap(); // makes the side for an outer loop
            ctx.check().unwrap();
            ctx.dispatch().unwrap();
            warm(&ctx);
        }
        enter(&ctx, &predicates[0]);
        let (weak, first) = (Rc::downgrade(&ctx), predicates[0].clone());
        let nested = Count::new();
        let counter = nested.clone();
        predicates[1].on_end(move || {
            if counter.get() == 0 {
                counter.bump();
                first.say(true);
                assert!(weak.upgrade().unwrap().poll(true).unwrap());
            }
        });
        let sleeps = ctx.stats().sleeps;
        if way == "turn" {
            block(&ctx);
            assert_eq!(ctx.stats().sleeps, sleeps);
        } else {
            assert_eq!(ctx.prepare().unwrap(), Some(0));
        }
        assert_eq!(nested.get(), 1, "{way}");
        assert!(predicates[0].has_begun(), "{way}");
    }
}

/// SPEC 19, 34
#[test]
#[cfg_attr(wasi, ignore = "nothing on WASI wakes an outer loop")]
fn a_notification_that_a_nested_turn_in_a_hook_accepts_ends_the_turn_around_it_too() {
    for hook in ["begin", "end"] {
        for way in ["run", "prepare"] {
            let (ctx, _clock) = spinning();
            let ctx = Rc::new(ctx);
            let predicate = Predicate::new();
            member(&ctx, &EventNotifier::new().unwrap(), &predicate);
            if way == "prepare" {
                ctx.prepare().unwrap();
                ctx.check().unwrap();
                ctx.dispatch().unwrap();
                warm(&ctx);
                ctx.suspend().unwrap();
            }
            let (weak, remote) = (Rc::downgrade(&ctx), ctx.remote());
            let nests = move || {
                remote.stop().unwrap();
                weak.upgrade().unwrap().poll(false).unwrap();
            };
            if hook == "begin" {
                predicate.on_begin(nests);
            } else {
                predicate.on_end(nests);
            }
            if way == "prepare" {
                assert_eq!(ctx.prepare().unwrap(), Some(0), "{hook}");
                continue;
            }
            let slept = Count::new();
            let (counter, remote) = (slept.clone(), ctx.remote());
            let limit = ctx
                .timer(move |_| {
                    counter.bump();
                    remote.stop()?;
                    Ok(())
                })
                .unwrap();
            limit.arm(Duration::from_secs(10)).unwrap();
            ctx.run().unwrap();
            assert_eq!(slept.get(), 0, "{hook}: it slept although a stop was asked for");
        }
    }
}

/// SPEC 25
#[test]
fn a_suppress_word_is_1_while_the_producer_need_not_signal() {
    let (ctx, _clock) = manual_with(spin());
    warm(&ctx);
    let (head, suppress) = (Arc::new(AtomicU32::new(1)), Arc::new(AtomicU32::new(0)));
    let source = WordSource::differs_from(head.clone(), 0).suppress(suppress.clone()).unwrap();
    let runs = Count::new();
    let (take, counter) = (head.clone(), runs.clone());
    let handlers = Handlers::new().read(|_| Ok(())).poll(source).poll_ready(move |_| {
        take.store(0, Ordering::Release);
        counter.bump();
        Ok(())
    });
    let bell = EventNotifier::new().unwrap();
    ctx.set_fd_handler(bell.clone(), handlers).unwrap();
    assert!(block(&ctx));
    assert_eq!((runs.get(), suppress.load(Ordering::SeqCst)), (1, 0), "found by the first look");
    head.store(1, Ordering::Release);
    assert!(block(&ctx));
    assert_eq!((runs.get(), suppress.load(Ordering::SeqCst)), (2, 1), "found by a spin");
    let error = WordSource::differs_from(head.clone(), 0).suppress(suppress.clone()).unwrap_err();
    assert!(error.is_in_use());
    let (observed, seen) = (suppress.clone(), Rc::new(std::cell::Cell::new(9)));
    let shown = seen.clone();
    let timer = ctx
        .timer(move |_| {
            shown.set(observed.load(Ordering::SeqCst));
            Ok(())
        })
        .unwrap();
    timer.arm(Duration::from_secs(1)).unwrap();
    ctx.poll(true).unwrap();
    assert_eq!(seen.get(), 0, "asleep");
    warm(&ctx);
    head.store(1, Ordering::Release);
    assert!(block(&ctx));
    assert_eq!(suppress.load(Ordering::SeqCst), 1);
    ctx.remove_fd_handler(bell.as_raw_fd());
    assert_eq!(suppress.load(Ordering::SeqCst), 0);
    assert!(WordSource::differs_from(head, 0).suppress(suppress).is_ok(), "free again");
}

/// SPEC 25
#[test]
fn an_event_published_just_before_the_suppress_word_falls_is_found_by_the_last_look() {
    let (ctx, _clock) = manual_with(spin());
    warm(&ctx);
    let (head, suppress) = (Arc::new(AtomicU32::new(1)), Arc::new(AtomicU32::new(0)));
    let source = WordSource::differs_from(head.clone(), 0).suppress(suppress.clone()).unwrap();
    let runs = Count::new();
    let (take, counter) = (head.clone(), runs.clone());
    let handlers = Handlers::new().read(|_| Ok(())).poll(source).poll_ready(move |_| {
        take.store(0, Ordering::Release);
        counter.bump();
        Ok(())
    });
    ctx.set_fd_handler(EventNotifier::new().unwrap(), handlers).unwrap();
    assert!(block(&ctx));
    // A second member plays the producer: at its own poll_end it publishes without signalling.
    let producer = Predicate::new();
    member(&ctx, &EventNotifier::new().unwrap(), &producer);
    let publish = head.clone();
    producer.on_end(move || publish.store(1, Ordering::Release));
    let sleeps = ctx.stats().sleeps;
    assert!(block(&ctx));
    assert_eq!((runs.get(), ctx.stats().sleeps), (2, sleeps));
    assert_eq!(suppress.load(Ordering::SeqCst), 0);
}

/// SPEC 16, 17
#[test]
fn a_timer_that_poll_begin_puts_off_does_not_end_the_turn() {
    let (ctx, _clock) = spinning();
    let (bell, predicate) = (EventNotifier::new().unwrap(), Predicate::new());
    member(&ctx, &bell, &predicate);
    let expired = Count::new();
    let timer = Rc::new(ctx.timer(expired.callback()).unwrap());
    timer.arm(Duration::from_nanos(WINDOW / 2)).unwrap();
    let later = Rc::clone(&timer);
    predicate.on_begin(move || later.arm(Duration::from_nanos(3 * WINDOW)).unwrap());
    assert!(ctx.poll(true).unwrap(), "it ended with nothing to do");
    assert_eq!(expired.get(), 1);
}
