//! Turns inside callbacks.

use std::cell::Cell;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::Duration;

use fdmon::{EventNotifier, Handlers};

use super::{manual, spinning};
use crate::support::{Count, Log, Predicate, block, drain, rung, sleep_for};

/// SPEC 19
#[test]
fn a_nested_turn_takes_what_the_outer_one_collected_and_each_runs_once() {
    let (ctx, _clock) = manual();
    let log = Log::new();
    let bells: Vec<_> = (0..5).map(|_| EventNotifier::new().unwrap()).collect();
    for (at, bell) in bells.iter().enumerate() {
        let (clear, writes) = (bell.clone(), log.clone());
        let handlers = Handlers::new().read(move |ops| {
            clear.test_and_clear()?;
            writes.add(["a", "b", "c", "d", "e"][at]);
            if at == 1 {
                assert!(ops.poll(false)?);
                writes.add("nested over");
            }
            Ok(())
        });
        ctx.set_fd_handler(bell.clone(), handlers).unwrap();
    }
    for bell in &bells {
        bell.set().unwrap();
    }
    assert!(block(&ctx));
    assert_eq!(log.take(), ["a", "b", "c", "d", "e", "nested over"]);
    assert_eq!(drain(&ctx), 0);
}

/// SPEC 19
#[test]
fn turns_nest_deeply() {
    let (ctx, _clock) = manual();
    let bells: Vec<_> = (0..50).map(|_| EventNotifier::new().unwrap()).collect();
    let (depth, deepest) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    for bell in &bells {
        let (clear, depth, deepest) = (bell.clone(), depth.clone(), deepest.clone());
        let handlers = Handlers::new().read(move |ops| {
            clear.test_and_clear()?;
            depth.set(depth.get() + 1);
            deepest.set(deepest.get().max(depth.get()));
            ops.poll(false)?;
            depth.set(depth.get() - 1);
            Ok(())
        });
        ctx.set_fd_handler(bell.clone(), handlers).unwrap();
    }
    for bell in &bells {
        bell.set().unwrap();
    }
    assert!(block(&ctx));
    assert_eq!((depth.get(), deepest.get()), (0, 50));
    assert_eq!(drain(&ctx), 0);
}

/// SPEC 19
#[test]
fn a_running_handler_is_not_entered_again_and_its_events_arrive_afterwards() {
    let (ctx, _clock) = manual();
    let bell = rung();
    let log = Log::new();
    let (clear, writes) = (bell.clone(), log.clone());
    let inside = Rc::new(Cell::new(false));
    let first = Cell::new(true);
    let handlers = Handlers::new().read(move |ops| {
        assert!(!inside.replace(true), "entered while it runs");
        writes.add("in");
        if first.take() {
            // Still readable: it neither runs nor ends the nested sleep.
            let woken = Count::new();
            let timer = ops.arm(Duration::from_secs(1), woken.callback())?;
            while woken.get() == 0 {
                assert!(ops.poll(true)?, "only the timer ends this sleep");
            }
            drop(timer);
        } else {
            clear.test_and_clear()?;
        }
        writes.add("out");
        inside.set(false);
        Ok(())
    });
    ctx.set_fd_handler(bell, handlers).unwrap();
    assert!(block(&ctx));
    assert_eq!(log.take(), ["in", "out"]);
    assert!(block(&ctx), "what came meanwhile arrives now");
    assert_eq!(log.take(), ["in", "out"]);
    assert_eq!(drain(&ctx), 0);
}

/// SPEC 19
#[test]
fn the_events_of_a_running_handler_end_no_nested_sleep_and_burn_no_cpu() {
    let (ctx, _clock) = manual();
    let runs = Count::new();
    let counter = runs.clone();
    let bell = rung();
    let clear = bell.clone();
    let handlers = Handlers::new().read(move |ops| {
        counter.bump();
        let before = ops.context().stats().waits;
        sleep_for(ops.context(), 1_000_000_000);
        let waits = ops.context().stats().waits - before;
        assert!(waits <= 4, "{waits} waits for one sleep");
        clear.test_and_clear()?;
        Ok(())
    });
    ctx.set_fd_handler(bell, handlers).unwrap();
    assert!(block(&ctx));
    assert_eq!(runs.get(), 1);
}

/// SPEC 19
#[test]
fn what_arrives_at_a_running_handler_is_kept_when_another_callback_of_the_turn_nests() {
    let (ctx, _clock) = manual();
    let log = Log::new();
    let (first, second) = (EventNotifier::new().unwrap(), EventNotifier::new().unwrap());
    let (clear, bell, writes) = (first.clone(), first.clone(), log.clone());
    let once = Cell::new(true);
    let handlers = Handlers::new().read(move |ops| {
        clear.test_and_clear()?;
        writes.add("first");
        if once.take() {
            bell.set()?;
            ops.poll(false)?;
        }
        Ok(())
    });
    ctx.set_fd_handler(first.clone(), handlers).unwrap();
    let (clear, writes) = (second.clone(), log.clone());
    let handlers = Handlers::new().read(move |ops| {
        clear.test_and_clear()?;
        writes.add("second");
        // By now the first one has returned, or is around this turn.
        ops.poll(false)?;
        Ok(())
    });
    ctx.set_fd_handler(second.clone(), handlers).unwrap();
    first.set().unwrap();
    second.set().unwrap();
    assert!(block(&ctx));
    drain(&ctx);
    assert_eq!(log.take(), ["first", "second", "first"]);
}

/// SPEC 19
#[test]
fn a_running_handler_is_not_spun_by_a_nested_turn_and_is_back_on_the_list_afterwards() {
    let (ctx, _clock) = spinning();
    let (bell, predicate) = (EventNotifier::new().unwrap(), Predicate::new());
    let runs = Count::new();
    let (counter, asked) = (runs.clone(), predicate.clone());
    let handlers =
        Handlers::new().read(|_| Ok(())).poll(predicate.clone()).poll_ready(move |ops| {
            counter.bump();
            asked.asked();
            sleep_for(ops.context(), 1_000_000_000);
            assert_eq!(asked.asked(), 0, "asked while its callback runs");
            asked.say(counter.get() < 3);
            Ok(())
        });
    ctx.set_fd_handler(bell.clone(), handlers).unwrap();
    predicate.say(true);
    assert!(block(&ctx));
    assert!(crate::support::polling(&ctx, bell.as_raw_fd()));
    // The long sleep has closed the window, so only turns that do not block ask it.
    assert!(ctx.poll(false).unwrap());
    assert!(ctx.poll(false).unwrap());
    assert_eq!(runs.get(), 3);
    assert!(!ctx.poll(false).unwrap());
}

/// SPEC 19
#[test]
fn replaced_in_a_nested_turn_the_new_handler_hears_what_is_still_there() {
    let (ctx, _clock) = manual();
    let bell = rung();
    let log = Log::new();
    let (target, writes) = (bell.clone(), log.clone());
    let handlers = Handlers::new().read(move |ops| {
        writes.add("old");
        let (target, writes) = (target.clone(), writes.clone());
        ops.schedule(move |ops| {
            let (clear, writes) = (target.clone(), writes.clone());
            ops.set_fd_handler(
                target.clone(),
                Handlers::new().read(move |_| {
                    clear.test_and_clear()?;
                    writes.add("new");
                    Ok(())
                }),
            )?;
            Ok(())
        })?;
        ops.poll(true)?; // adds it
        ops.poll(true)?; // runs it: it is not the handler that runs
        Ok(())
    });
    ctx.set_fd_handler(bell.clone(), handlers).unwrap();
    assert!(block(&ctx));
    assert_eq!(log.take(), ["old", "new"]);
    assert_eq!(drain(&ctx), 0);
}

/// SPEC 19, 39
#[test]
fn a_nested_turn_runs_the_outer_turns_remaining_timers_once() {
    let (ctx, clock) = manual();
    let log = Log::new();
    let writes = log.clone();
    let timers: Vec<_> = ["one", "two", "three"]
        .into_iter()
        .map(|name| {
            let writes = writes.clone();
            ctx.timer(move |ops| {
                writes.add(name);
                if name == "one" {
                    assert!(ops.poll(false)?);
                    writes.add("nested over");
                }
                Ok(())
            })
            .unwrap()
        })
        .collect();
    for timer in &timers {
        timer.arm(Duration::from_secs(1)).unwrap();
    }
    clock.advance_ns(1_000_000_000);
    assert!(ctx.poll(true).unwrap());
    assert_eq!(log.take(), ["one", "two", "three", "nested over"]);
    assert!(!ctx.poll(false).unwrap());
}

/// SPEC 19, 39
#[test]
fn an_earlier_timer_can_cancel_a_later_one_that_is_due_as_well() {
    let (ctx, clock) = manual();
    let log = Log::new();
    let second: Rc<std::cell::RefCell<Option<fdmon::Timer>>> = Rc::default();
    let (writes, other) = (log.clone(), second.clone());
    let first = ctx
        .timer(move |_| {
            writes.add("first");
            let other = other.borrow();
            let other = other.as_ref().unwrap();
            assert!(other.is_pending());
            other.cancel();
            assert!(!other.is_pending());
            Ok(())
        })
        .unwrap();
    first.arm(Duration::from_nanos(5)).unwrap();
    let timer = ctx.timer(log.callback("second")).unwrap();
    timer.arm(Duration::from_nanos(5)).unwrap();
    *second.borrow_mut() = Some(timer);
    clock.advance_ns(5);
    assert!(ctx.poll(true).unwrap());
    assert!(!ctx.poll(false).unwrap());
    assert_eq!(log.take(), ["first"]);
}

/// SPEC 37
#[test]
fn a_nested_turn_runs_the_outer_turns_remaining_bottom_halves() {
    let (ctx, _clock) = manual();
    let log = Log::new();
    let writes = log.clone();
    ctx.schedule(move |ops| {
        writes.add("a");
        assert!(ops.poll(false)?);
        writes.add("nested over");
        Ok(())
    })
    .unwrap();
    for name in ["b", "c"] {
        let writes = log.clone();
        ctx.schedule(move |_| {
            writes.add(name);
            Ok(())
        })
        .unwrap();
    }
    assert!(block(&ctx));
    assert_eq!(log.take(), ["a", "b", "c", "nested over"]);
    assert!(!ctx.poll(false).unwrap());
}

/// SPEC 25
#[test]
fn leaving_spin_mode_ends_a_running_handler_too_and_asks_it_when_it_has_returned() {
    let (ctx, _clock) = spinning();
    let (bell, predicate) = (EventNotifier::new().unwrap(), Predicate::new());
    let runs = Count::new();
    let (counter, quiet) = (runs.clone(), predicate.clone());
    let handlers =
        Handlers::new().read(|_| Ok(())).poll(predicate.clone()).poll_ready(move |ops| {
            counter.bump();
            quiet.say(false);
            if counter.get() == 2 {
                assert!(quiet.has_begun());
                sleep_for(ops.context(), 1_000_000_000); // leaves spin mode
                quiet.say(true); // meanwhile the producer, still suppressed, has published
            }
            Ok(())
        });
    ctx.set_fd_handler(bell, handlers).unwrap();
    predicate.say(true);
    assert!(block(&ctx)); // joins
    predicate.say(false);
    let (hit, mut rounds) = (predicate.clone(), 0);
    predicate.on_poll(move || {
        rounds += 1;
        if rounds == 1 {
            hit.say(true);
        }
    });
    assert!(block(&ctx)); // spins, hits, nests
    assert_eq!(runs.get(), 2);
    assert!(!predicate.has_begun(), "its end was owed and paid");
    assert!(block(&ctx), "and a look after it");
    assert_eq!(runs.get(), 3);
}

/// SPEC 19, 25
#[test]
fn removed_by_a_nested_turn_while_its_callback_runs_it_gets_its_end() {
    let (ctx, _clock) = spinning();
    let (bell, predicate) = (EventNotifier::new().unwrap(), Predicate::new());
    let (runs, quiet) = (Count::new(), predicate.clone());
    let counter = runs.clone();
    let handlers =
        Handlers::new().read(|_| Ok(())).poll(predicate.clone()).poll_ready(move |ops| {
            counter.bump();
            quiet.say(false);
            if quiet.has_begun() {
                let fd = ops.fd().as_raw_fd();
                ops.schedule(move |ops| {
                    ops.remove_fd_handler(fd);
                    Ok(())
                })?;
                assert!(ops.poll(false)?);
            }
            Ok(())
        });
    ctx.set_fd_handler(bell, handlers).unwrap();
    predicate.say(true);
    assert!(block(&ctx));
    let (hit, mut rounds) = (predicate.clone(), 0);
    predicate.on_poll(move || {
        rounds += 1;
        hit.say(rounds == 1);
    });
    assert!(block(&ctx));
    assert_eq!((runs.get(), predicate.begins(), predicate.ends()), (2, 1, 1));
    assert_eq!(drain(&ctx), 0);
}

/// SPEC 19
#[test]
fn a_nested_run_ends_by_its_condition_and_the_outer_turn_goes_on() {
    let (ctx, _clock) = manual();
    let log = Log::new();
    let writes = log.clone();
    ctx.schedule(move |ops| {
        let fired = Count::new();
        let timer = ops.arm(Duration::from_millis(5), fired.callback())?;
        ops.poll_until(|| fired.get() == 1)?;
        drop(timer);
        writes.add("outer");
        Ok(())
    })
    .unwrap();
    assert!(ctx.poll(true).unwrap());
    assert_eq!(log.take(), ["outer"]);
}
