//! Handlers of another thread's context: what is acknowledged, when, and what comes back.

use std::cell::{Cell, RefCell};
use std::os::fd::{AsRawFd, IntoRawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use fdmon::{
    EventNotifier, Handlers, Interest, LeakReport, Remote, SendHandlers, SendToken, WordSource,
};

use super::{context, io_thread, manual, spinning};
use crate::support::{
    Log, Spun, Tally, answer, awaited, block, by_number, close_number, drain, pair, polling,
    private, ringing, rung, sleep_for, turn_until,
};

/// SPEC 4, 12
#[test]
#[cfg_attr(not(threads), ignore = "there are no threads")]
fn a_registration_from_another_thread_wakes_a_sleeping_loop() {
    let ctx = context();
    let (remote, runs) = (ctx.remote(), Tally::new());
    let (bell, heard) = (rung(), runs.clone());
    let thread = std::thread::spawn(move || {
        while remote.stats().sleeps == 0 {
            std::thread::yield_now();
        }
        let token = awaited(remote.register_send(ringing(&bell, &heard))).unwrap();
        assert_eq!(token.context_id(), remote.id());
    });
    assert!(block(&ctx), "the registration ends the sleep");
    assert!(block(&ctx));
    assert_eq!(runs.get(), 1);
    thread.join().unwrap();
}

/// SPEC 4, 12
#[test]
#[cfg_attr(not(threads), ignore = "there are no threads")]
fn a_removal_and_a_change_of_interest_wake_a_sleeping_loop_too() {
    for what in ["remove", "interest"] {
        let ctx = context();
        let (bell, runs) = (EventNotifier::new().unwrap(), Tally::new());
        let token = ctx.register(ringing(&bell, &runs)).map_err(|(e, _)| e).unwrap().to_send();
        let remote = ctx.remote();
        let thread = std::thread::spawn(move || {
            while remote.stats().sleeps == 0 {
                std::thread::yield_now();
            }
            match what {
                "remove" => drop(awaited(remote.deregister(&token)).unwrap().unwrap()),
                _ => {
                    assert!(awaited(remote.set_interest(&token, Interest::empty())).unwrap())
                }
            }
        });
        assert!(block(&ctx), "{what}");
        thread.join().unwrap();
        bell.set().unwrap();
        assert_eq!(drain(&ctx), 0, "{what}");
    }
}

/// SPEC 4
#[test]
fn the_acknowledgement_comes_when_the_home_thread_has_done_it_and_not_before() {
    let (ctx, _clock) = manual();
    let (bell, runs) = (rung(), Tally::new());
    let ack = ctx.remote().register_send(ringing(&bell, &runs));
    assert!(!ack.is_done() && ctx.stats().handlers.is_empty());
    assert!(ctx.poll(false).unwrap());
    assert!(ack.is_done());
    assert_eq!((ctx.stats().handlers.len(), runs.get()), (1, 0));
    assert!(block(&ctx));
    assert_eq!(runs.get(), 1);
    let token = answer(ack).unwrap();
    assert_eq!(token.context_id(), ctx.id());
    let local = token.to_local(&ctx).unwrap();
    assert!(local.is_live());
    assert!(ctx.deregister(&local).is_some());
    assert!(!local.is_live());
}

/// SPEC 4, 7
#[test]
fn a_registration_from_afar_replaces_the_handler_of_its_fd_as_one_at_home_does() {
    let (ctx, _clock) = manual();
    let (bell, log, runs) = (rung(), Log::new(), Tally::new());
    ctx.set_fd_handler(bell.clone(), Handlers::new().read(log.callback("old"))).unwrap();
    let ack = ctx.remote().register_send(ringing(&bell, &runs));
    // The old one was ready in the same turn: what was collected for it is dropped.
    assert!(block(&ctx));
    assert!(answer(ack).is_ok());
    assert!(block(&ctx));
    assert_eq!((log.take().len(), runs.get(), ctx.stats().handlers.len()), (0, 1, 1));
}

/// SPEC 4, 22
#[test]
fn the_predicate_of_one_that_comes_from_afar_is_asked_before_any_sleep() {
    let (ctx, _clock) = manual();
    let (source, _bell, hands) = Spun::new();
    let ack = ctx.remote().register_send(source);
    assert!(ctx.poll(true).unwrap());
    assert!(answer(ack).is_ok());
    hands.say(true);
    assert!(ctx.poll(true).unwrap());
    assert_eq!(hands.runs.get(), 1);
}

/// SPEC 4, 13
#[test]
#[cfg_attr(wasi, ignore = "WASI duplicates no fds")]
fn a_source_that_is_refused_comes_back_with_the_reason() {
    let (ctx, _clock) = manual();
    let remote = ctx.remote();

    let closed = private(rung()).into_raw_fd();
    let number = by_number(closed);
    close_number(closed);
    let bad = remote.register_send(SendHandlers::new(number).read(|_| Ok(())));
    let none = remote.register_send(SendHandlers::new(rung()));
    assert!(ctx.poll(false).unwrap());
    let (error, source) = answer(bad).unwrap_err();
    assert!(error.is_bad_fd() && error.to_string().contains(&closed.to_string()), "{error}");
    assert_eq!(source.into_fd().as_raw_fd(), closed);
    let (error, source) = answer(none).unwrap_err();
    assert!(error.is_invalid_arg(), "{error}");
    assert!(source.into_fd().test_and_clear().unwrap());
    assert_eq!(ctx.close(), LeakReport::default());
}

/// SPEC 4, 21
#[test]
#[cfg_attr(wasi, ignore = "WebAssembly does not unwind")]
fn a_source_that_panics_when_it_is_asked_comes_back_and_the_turn_resumes_the_panic() {
    let (ctx, _clock) = manual();
    let (source, _bell, hands) = Spun::new();
    hands.panics.store(true, Ordering::SeqCst);
    let ack = ctx.remote().register_send(source);
    let (other, _other_bell, _) = Spun::new();
    let next = ctx.remote().register_send(other);
    let turn = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| ctx.poll(false)));
    assert_eq!(*turn.unwrap_err().downcast::<&str>().unwrap(), "asked for its interest");
    let (error, source) = answer(ack).unwrap_err();
    assert!(error.is_callback(), "{error}");
    assert_eq!(hands.dropped.get(), 0);
    assert!(answer(next).is_ok(), "the others of the turn are served");
    hands.panics.store(false, Ordering::SeqCst);
    let ack = ctx.remote().register_send(source);
    assert!(ctx.poll(false).unwrap());
    assert!(answer(ack).is_ok());
}

/// SPEC 4, 38
#[test]
fn if_the_target_closes_first_the_asker_gets_closed_and_its_source_and_nothing_is_counted() {
    for way in ["close", "drop", "in a bottom half before it", "in a nested turn"] {
        let (ctx, _clock) = manual();
        let (source, _bell, hands) = Spun::new();
        let (remote, report) = (ctx.remote(), Rc::new(Cell::new(LeakReport::default())));
        let ack = Rc::new(RefCell::new(None));
        let (place, told) = (ack.clone(), report.clone());
        match way {
            "close" => {
                *ack.borrow_mut() = Some(remote.register_send(source));
                report.set(ctx.close());
            }
            "drop" => {
                *ack.borrow_mut() = Some(remote.register_send(source));
                drop(ctx);
            }
            "in a bottom half before it" => {
                ctx.schedule(move |ops| {
                    told.set(ops.close());
                    Ok(())
                })
                .unwrap();
                *ack.borrow_mut() = Some(remote.register_send(source));
                assert!(ctx.poll(true).unwrap());
            }
            _ => {
                ctx.schedule(move |ops| {
                    ops.schedule(move |ops| {
                        told.set(ops.close());
                        Ok(())
                    })?;
                    *place.borrow_mut() = Some(remote.register_send(source));
                    assert!(ops.poll(true)?);
                    Ok(())
                })
                .unwrap();
                assert!(ctx.poll(true).unwrap());
            }
        }
        let (error, source) = answer(ack.take().unwrap()).unwrap_err();
        assert!(error.is_closed(), "{way}: {error}");
        assert_eq!(report.get(), LeakReport::default(), "{way}");
        assert_eq!((hands.dropped.get(), hands.runs.get(), hands.asked.get()), (0, 0, 0), "{way}");
        assert!(Arc::ptr_eq(&source.hands, &hands), "{way}");
    }
}

/// SPEC 4, 38
#[test]
fn a_closed_context_answers_at_once() {
    let (ctx, _clock) = manual();
    let (bell, runs) = (rung(), Tally::new());
    let token = ctx.register(ringing(&bell, &runs)).map_err(|(e, _)| e).unwrap().to_send();
    let remote = ctx.remote();
    ctx.close();
    assert!(answer(remote.register_send(ringing(&bell, &runs))).unwrap_err().0.is_closed());
    assert!(answer(remote.deregister(&token)).unwrap_err().is_closed());
    assert!(answer(remote.set_interest(&token, Interest::READ)).unwrap_err().is_closed());
}

/// SPEC 4, 38
#[test]
fn close_counts_what_is_registered_and_neither_what_comes_nor_what_was_asked_to_go() {
    let (ctx, _clock) = manual();
    let (bells, runs) = ([(); 4].map(|()| rung()), Tally::new());
    let [stays, goes, comes, late] = &bells;
    ctx.register(ringing(stays, &runs)).map_err(|(e, _)| e).unwrap();
    let token = ctx.register(ringing(goes, &runs)).map_err(|(e, _)| e).unwrap().to_send();
    let half = ctx.bottom_half(|_| Ok(())).unwrap();
    let timer = ctx.timer(|_| Ok(())).unwrap();
    let remote = ctx.remote();
    let coming = remote.register_send(ringing(comes, &runs));
    let going = remote.deregister(&token);
    let interest = remote.set_interest(&token, Interest::empty());
    let report = ctx.close();
    assert_eq!((report.handlers, report.bottom_halves, report.timers), (1, 1, 1));
    assert!(answer(coming).unwrap_err().0.is_closed());
    assert!(answer(going).unwrap().is_some(), "it was asked for before the end, so it is served");
    assert!(answer(interest).unwrap_err().is_closed());
    assert!(answer(remote.register_send(ringing(late, &runs))).unwrap_err().0.is_closed());
    assert_eq!((runs.get(), runs.holders()), (0, 1), "nothing is kept");
    drop((half, timer));
}

/// SPEC 4, 38
#[test]
fn a_removal_that_is_due_already_is_served_when_a_bottom_half_before_it_closes_the_context() {
    let (ctx, _clock) = manual();
    let (bells, runs, log) = ([(); 2].map(|()| rung()), Tally::new(), Log::new());
    let [stays, goes] = bells.each_ref().map(|bell| ctx.register(ringing(bell, &runs)).unwrap());
    ctx.schedule(|ops| {
        assert_eq!(ops.close().handlers, 1);
        Ok(())
    })
    .unwrap();
    let ack = ctx.remote().deregister(&goes.to_send());
    ctx.schedule(log.callback("after the end")).unwrap();
    assert!(ctx.poll(true).unwrap());
    assert!(answer(ack).unwrap().is_some());
    assert!(!stays.is_live() && log.take().is_empty() && runs.get() == 0);
}

/// SPEC 4, 10
#[test]
fn a_removal_from_afar_gives_the_source_back_and_drops_what_was_collected() {
    let (ctx, _clock) = manual();
    let (source, bell, hands) = Spun::new();
    let token = ctx.register(source).map_err(|(e, _)| e).unwrap();
    let ack = ctx.remote().deregister(&token.to_send());
    bell.set().unwrap();
    hands.say(true);
    // The request is served in the turn that has just found it ready.
    assert!(block(&ctx));
    let source = answer(ack).unwrap().unwrap();
    assert!(Arc::ptr_eq(&source.hands, &hands));
    assert!(!token.is_live());
    let asked = hands.asked.get();
    assert_eq!(drain(&ctx), 0);
    sleep_for(&ctx, 1_000_000);
    assert_eq!((hands.runs.get(), hands.asked.get()), (0, asked));
    assert_eq!(ctx.close(), LeakReport::default());
}

/// SPEC 4, 10
#[test]
fn a_removal_that_is_served_while_the_handler_runs_is_acknowledged_when_it_has_returned() {
    let (ctx, _clock) = manual();
    let remote = ctx.remote();
    let (bell, inside) = (rung(), Tally::new());
    let (clear, here, done) = (bell.clone(), inside.clone(), Tally::new());
    let ended = done.clone();
    let handlers = SendHandlers::new(bell.clone()).read(move |ops| {
        here.bump();
        let token = ops.token_of::<SendHandlers<EventNotifier>>(ops.fd()).unwrap().to_send();
        let ack = remote.deregister(&token);
        assert!(ops.poll(false)?, "a nested turn serves it");
        assert!(ops.context().stats().handlers.is_empty());
        assert!(!ack.is_done(), "acknowledged while it runs");
        let (seen, after) = (here.clone(), ended.clone());
        ack.then(ops.context(), move |_, gone| {
            assert!(gone?.is_some());
            assert_eq!(seen.get(), 2, "the callback had not returned");
            after.bump();
            Ok(())
        })
        .map_err(|(error, _)| error)?;
        clear.test_and_clear()?;
        here.bump();
        Ok(())
    });
    ctx.register(handlers).map_err(|(e, _)| e).unwrap();
    assert!(block(&ctx));
    assert_eq!((inside.get(), done.get()), (2, 0));
    assert!(block(&ctx));
    assert_eq!(done.get(), 1);
    bell.set().unwrap();
    assert_eq!(drain(&ctx), 0);
    assert_eq!(inside.get(), 2);
}

/// SPEC 8, 10
#[test]
fn tokens_of_what_is_gone_or_of_another_context_remove_nothing() {
    let ((ctx, _clock), (other, _other_clock)) = (manual(), manual());
    let (bell, runs) = (rung(), Tally::new());
    let token = ctx.register(ringing(&bell, &runs)).map_err(|(e, _)| e).unwrap();
    let (theirs, name) = (rung(), token.to_send());
    let their_token = other.register(ringing(&theirs, &runs)).map_err(|(e, _)| e).unwrap();

    // Both have the same slot and generation there.
    assert!(other.deregister(&token).is_none() && their_token.is_live());
    let error = answer(other.remote().deregister(&name)).unwrap_err();
    assert!(error.is_invalid_arg() && error.to_string().contains("token"), "{error}");
    let error = answer(other.remote().set_interest(&name, Interest::READ)).unwrap_err();
    assert!(error.is_invalid_arg(), "{error}");
    assert!(name.to_local(&other).is_none());

    let remote = ctx.remote();
    let acks = [remote.deregister(&name), remote.deregister(&name)];
    let change = remote.set_interest(&name, Interest::empty());
    assert!(ctx.poll(false).unwrap());
    let gone: Vec<_> = acks.into_iter().map(|ack| answer(ack).unwrap().is_some()).collect();
    assert_eq!(gone, [true, false]);
    assert!(!answer(change).unwrap());

    // The heir has the number of its fd and of its slot, and another generation.
    let heir = ctx.register(ringing(&bell, &runs)).map_err(|(e, _)| e).unwrap();
    let late = remote.deregister(&name);
    ctx.poll(false).unwrap();
    assert!(answer(late).unwrap().is_none());
    assert!(heir.is_live());
    drop(ctx);
    assert!(heir.to_send().context_id() == 0, "of a context that is gone it names nothing");
}

/// SPEC 3, 8
#[test]
fn the_token_of_an_fd_is_that_of_its_handler_now_and_of_its_type() {
    let (ctx, _clock) = manual();
    let (bell, runs) = (rung(), Tally::new());
    type Bell = SendHandlers<EventNotifier>;
    assert!(ctx.token_of::<Bell>(&bell).is_none());
    let token = ctx.register(ringing(&bell, &runs)).unwrap();
    let same = ctx.token_of::<Bell>(&bell).unwrap();
    assert!(ctx.token_of::<EventNotifier>(&bell).is_none(), "of that type there are closures");
    ctx.set_fd_handler(bell.clone(), Handlers::new().read(|_| Ok(()))).unwrap();
    assert!(!token.is_live() && !same.is_live());
    assert!(ctx.token_of::<Bell>(&bell).is_none());
    let closures = ctx.token_of::<EventNotifier>(&bell).unwrap();
    assert!(ctx.deregister(&closures).is_some());
    assert!(ctx.token_of::<EventNotifier>(&bell).is_none());
}

/// SPEC 4
#[test]
#[cfg_attr(not(threads), ignore = "there are no threads")]
fn the_fd_of_closures_comes_back_and_they_are_dropped_at_home_before_that() {
    let (ctx, _clock) = manual();
    let kept = Rc::new(());
    let held = kept.clone();
    let handlers = Handlers::new().read(move |_| {
        let _ = &held;
        Ok(())
    });
    let token = ctx.set_fd_handler(rung(), handlers).unwrap().to_send();
    let remote = ctx.remote();
    let asker = std::thread::spawn(move || awaited(remote.deregister(&token)).unwrap());
    turn_until(&ctx, &asker);
    assert!(asker.join().unwrap().unwrap().test_and_clear().unwrap());
    assert_eq!(Rc::strong_count(&kept), 1);
}

/// SPEC 8
#[test]
#[cfg_attr(wasi, ignore = "WASI makes no sockets")]
fn interest_is_changed_from_afar_and_only_to_what_there_are_callbacks_for() {
    let (ctx, _clock) = manual();
    let (ours, theirs) = pair();
    rustix::io::write(&theirs, b"x").unwrap();
    let (reads, writes) = (Tally::new(), Tally::new());
    let (read, write) = (reads.clone(), writes.clone());
    let handlers = SendHandlers::new(ours)
        .read(move |_| {
            read.bump();
            Ok(())
        })
        .write(move |_| {
            write.bump();
            Ok(())
        });
    let token = ctx.register(handlers).map_err(|(e, _)| e).unwrap().to_send();
    let remote = ctx.remote();
    let ack = remote.set_interest(&token, Interest::WRITE);
    ctx.poll(false).unwrap();
    assert!(answer(ack).unwrap());
    ctx.poll(false).unwrap();
    assert_eq!((reads.get(), writes.get() > 0), (0, true));
    let ack = remote.set_interest(&token, Interest::PRIORITY);
    ctx.poll(false).unwrap();
    let error = answer(ack).unwrap_err();
    assert!(error.is_invalid_arg() && error.to_string().contains("interest"), "{error}");
}

/// SPEC 10, 11, 25
#[test]
fn a_removal_from_afar_in_spin_mode_ends_what_has_begun_first() {
    let (ctx, _clock) = spinning();
    let (source, bell, hands) = Spun::new();
    let token = ctx.register(source).map_err(|(e, _)| e).unwrap().to_send();
    hands.say(true);
    assert!(ctx.poll(true).unwrap());
    hands.say(true);
    assert!(ctx.poll(true).unwrap());
    assert!(polling(&ctx, bell.as_raw_fd()) && hands.has_begun());
    let ack = ctx.remote().deregister(&token);
    assert!(ctx.poll(true).unwrap());
    assert!(ack.is_done() && !hands.has_begun());
    assert_eq!((hands.begins.get(), hands.ends.get()), (1, 1));
    drop(ctx);
    assert_eq!(hands.dropped.get(), 0);
    drop(answer(ack).unwrap().unwrap());
    assert_eq!((hands.dropped.get(), hands.ends.get()), (1, 1));
}

/// SPEC 25
#[test]
#[cfg_attr(not(threads), ignore = "there are no threads")]
fn a_suppress_word_is_free_as_soon_as_the_removal_is_acknowledged() {
    let thread = io_thread().spawn().unwrap();
    let remote = thread.remote();
    let words = [(); 3].map(|()| Arc::new(AtomicU32::new(0)));
    let word = || {
        let [head, tail, suppress] = words.clone();
        WordSource::words_differ(head, tail).suppress(suppress)
    };
    for _ in 0..200 {
        let source = word().expect("it is free");
        let handlers =
            SendHandlers::new(EventNotifier::new().unwrap()).poll(source).poll_ready(|_| Ok(()));
        let token = awaited(remote.register_send(handlers)).map_err(|(e, _)| e).unwrap();
        assert!(word().is_err(), "it belongs to a handler");
        drop(awaited(remote.deregister(&token)).unwrap().unwrap());
    }
}

/// SPEC 22, 24
#[test]
fn a_word_of_handlers_that_may_move_is_spun_in_place() {
    let (ctx, _clock) = spinning();
    let [head, tail, suppress] = [(); 3].map(|()| Arc::new(AtomicU32::new(0)));
    let source = WordSource::words_differ(head.clone(), tail.clone());
    let source = source.suppress(suppress.clone()).unwrap();
    let (published, end, runs) = (head.clone(), tail.clone(), Tally::new());
    let ran = runs.clone();
    let handlers =
        SendHandlers::new(EventNotifier::new().unwrap()).poll(source).poll_ready(move |ops| {
            assert!(ops.events().is_empty());
            let _ = ops.fd();
            end.store(published.load(Ordering::Acquire), Ordering::Release);
            ran.bump();
            Ok(())
        });
    let token = ctx.register(handlers).map_err(|(e, _)| e).unwrap();
    for round in 1..=3 {
        head.store(round, Ordering::Release);
        assert!(ctx.poll(true).unwrap());
        assert_eq!(runs.get(), round);
    }
    assert_eq!(suppress.load(Ordering::SeqCst), 1);
    let back = ctx.deregister(&token).unwrap();
    assert_eq!(suppress.load(Ordering::SeqCst), 0);
    drop(back);
}

/// SPEC 5
#[test]
fn a_predicate_without_poll_ready_is_ignored_also_in_handlers_that_may_move() {
    let (ctx, _clock) = spinning();
    let asked = Tally::new();
    let predicate = asked.clone();
    let (bell, runs) = (rung(), Tally::new());
    let handlers = ringing(&bell, &runs).poll(move || {
        predicate.bump();
        true
    });
    ctx.register(handlers).map_err(|(e, _)| e).unwrap();
    assert!(block(&ctx));
    assert_eq!((runs.get(), asked.get()), (1, 0));
    assert!(!polling(&ctx, bell.as_raw_fd()));
}

/// SPEC 14
#[test]
fn a_source_that_is_external_is_held_back() {
    let (ctx, _clock) = manual();
    let (source, bell, hands) = Spun::new();
    hands.external.store(true, Ordering::SeqCst);
    ctx.register(source).map_err(|(e, _)| e).unwrap();
    ctx.disable_external();
    bell.set().unwrap();
    hands.say(true);
    assert_eq!(drain(&ctx), 0);
    sleep_for(&ctx, 1_000_000);
    ctx.enable_external();
    assert!(ctx.poll(false).unwrap());
    assert_eq!(hands.runs.get(), 1);
}

/// SPEC 4, 20
#[test]
fn requests_are_served_in_the_order_in_which_they_were_made() {
    let (ctx, _clock) = manual();
    let remote: Remote = ctx.remote();
    let (bell, log) = (EventNotifier::new().unwrap(), Log::new());
    ctx.schedule({
        let log = log.clone();
        move |ops| {
            log.add(if ops.context().stats().handlers.is_empty() { "first" } else { "too late" });
            Ok(())
        }
    })
    .unwrap();
    let registered = remote.register_send(ringing(&bell, &Tally::new()));
    let seen = Tally::new();
    let count = seen.clone();
    remote
        .run(move |ops| {
            assert_eq!(ops.context().stats().handlers.len(), 1);
            count.bump();
        })
        .unwrap();
    assert!(block(&ctx));
    assert_eq!((log.take(), seen.get()), (vec!["first"], 1));
    assert!(answer(registered).is_ok());
}

/// SPEC 4
#[test]
fn what_other_threads_hold_may_go_to_any_thread() {
    fn goes_anywhere<T: Send + Sync + 'static>() {}
    fn moves<T: Send + 'static>() {}
    goes_anywhere::<Remote>();
    goes_anywhere::<SendToken<Rc<()>>>();
    goes_anywhere::<fdmon::IoThread>();
    goes_anywhere::<fdmon::Ack<fdmon::Result<Option<EventNotifier>>>>();
    moves::<SendHandlers<EventNotifier>>();
    moves::<WordSource>();
    moves::<fdmon::MoveError<EventNotifier>>();
}
