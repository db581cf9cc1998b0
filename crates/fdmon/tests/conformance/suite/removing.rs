//! ① Removing and replacing, from every place where user code runs.

use std::cell::RefCell;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::{Rc, Weak};
use std::time::Duration;

use fdmon::{AioContext, EventNotifier, Handlers, Ops};

use super::{manual, spinning};
use crate::support::{Count, Log, Predicate, block, drain, member, pair, polling, rung, sleep_for};

/// A bell whose handler writes "victim" and stays readable until it runs.
fn victim(ctx: &AioContext, log: &Log) -> EventNotifier {
    let bell = EventNotifier::new().unwrap();
    let (clear, writes) = (bell.clone(), log.clone());
    let handlers = Handlers::new().read(move |_| {
        clear.test_and_clear()?;
        writes.add("victim");
        Ok(())
    });
    ctx.set_fd_handler(bell.clone(), handlers).unwrap();
    bell
}

/// What to do to the victim, and what a later turn may show.
const DEEDS: [&str; 2] = ["remove", "replace"];

fn commit(ctx: &AioContext, deed: &str, bell: &EventNotifier, log: &Log) {
    ctx.remove_fd_handler(bell.as_raw_fd());
    if deed == "replace" {
        let (clear, writes) = (bell.clone(), log.clone());
        let handlers = Handlers::new().read(move |_| {
            clear.test_and_clear()?;
            writes.add("heir");
            Ok(())
        });
        ctx.set_fd_handler(bell.clone(), handlers).unwrap();
    }
}

fn afterwards(deed: &str) -> &'static [&'static str] {
    if deed == "replace" { &["heir"] } else { &[] }
}

#[track_caller]
fn expect(ctx: &AioContext, deed: &str, log: &Log) {
    assert_eq!(log.take(), [""; 0], "{deed}: in the turn of the removal nothing of it runs");
    drain(ctx);
    assert_eq!(log.take(), afterwards(deed), "{deed}: and later only its heir");
}

/// SPEC 3, 7, 10
#[test]
#[cfg_attr(wasi, ignore = "WASI makes no sockets")]
fn from_read_write_and_priority_of_another_handler() {
    for deed in DEEDS {
        for place in ["read", "write"] {
            let (ctx, _clock) = manual();
            let log = Log::new();
            let (ours, theirs) = pair();
            let target: Rc<RefCell<Option<EventNotifier>>> = Rc::default();
            let (bell, heirs) = (target.clone(), log.clone());
            let act = move |ops: &mut Ops<'_>| {
                commit(ops.context(), deed, bell.borrow().as_ref().unwrap(), &heirs);
                ops.remove_fd_handler(ops.fd().as_raw_fd());
                Ok(())
            };
            let handlers = match place {
                "read" => Handlers::new().read(act),
                _ => Handlers::new().write(act),
            };
            rustix::io::write(&theirs, b"x").unwrap();
            ctx.set_fd_handler(ours, handlers).unwrap();
            let bell = victim(&ctx, &log);
            bell.set().unwrap();
            *target.borrow_mut() = Some(bell);
            assert!(block(&ctx));
            expect(&ctx, deed, &log);
        }
    }
}

/// SPEC 3, 7, 10
#[test]
fn from_poll_ready_of_another_handler() {
    for deed in DEEDS {
        let (ctx, _clock) = spinning();
        let log = Log::new();
        let bell = victim(&ctx, &log);
        let predicate = Predicate::new();
        let (target, heirs, quiet) = (bell.clone(), log.clone(), predicate.clone());
        let handlers = Handlers::new().poll(predicate.clone()).poll_ready(move |ops| {
            quiet.say(false);
            commit(ops.context(), deed, &target, &heirs);
            Ok(())
        });
        ctx.set_fd_handler(EventNotifier::new().unwrap(), handlers).unwrap();
        bell.set().unwrap();
        predicate.say(true);
        // A hit is found before the kernel is asked, so it is dispatched first.
        assert!(block(&ctx));
        expect(&ctx, deed, &log);
    }
}

/// SPEC 3, 7, 10
#[test]
fn from_a_bottom_half() {
    for deed in DEEDS {
        let (ctx, _clock) = manual();
        let log = Log::new();
        let bell = victim(&ctx, &log);
        bell.set().unwrap();
        let (target, heirs) = (bell.clone(), log.clone());
        ctx.schedule(move |ops| {
            commit(ops.context(), deed, &target, &heirs);
            Ok(())
        })
        .unwrap();
        assert!(block(&ctx));
        expect(&ctx, deed, &log);
    }
}

/// SPEC 3, 7, 10
#[test]
fn from_a_timer() {
    for deed in DEEDS {
        let (ctx, _clock) = manual();
        let log = Log::new();
        let bell = victim(&ctx, &log);
        let (target, heirs) = (bell.clone(), log.clone());
        let timer = ctx
            .timer(move |ops| {
                commit(ops.context(), deed, &target, &heirs);
                target.set()?;
                Ok(())
            })
            .unwrap();
        timer.arm(Duration::ZERO).unwrap();
        assert!(block(&ctx));
        expect(&ctx, deed, &log);
    }
}

/// SPEC 3, 10, 19
#[test]
fn from_a_nested_turn_what_the_outer_turn_had_collected() {
    for deed in DEEDS {
        let (ctx, _clock) = manual();
        let log = Log::new();
        let opener = EventNotifier::new().unwrap();
        let target: Rc<RefCell<Option<EventNotifier>>> = Rc::default();
        let (clear, bell, heirs) = (opener.clone(), target.clone(), log.clone());
        let handlers = Handlers::new().read(move |ops| {
            clear.test_and_clear()?;
            let (bell, heirs) = (bell.borrow().clone().unwrap(), heirs.clone());
            ops.schedule(move |ops| {
                commit(ops.context(), deed, &bell, &heirs);
                Ok(())
            })?;
            ops.poll(false)?;
            Ok(())
        });
        ctx.set_fd_handler(opener.clone(), handlers).unwrap();
        let bell = victim(&ctx, &log);
        opener.set().unwrap();
        bell.set().unwrap();
        *target.borrow_mut() = Some(bell);
        assert!(block(&ctx));
        // The nested turn asks the kernel after its bottom half… or before: either way once.
        let heirs = log.take();
        assert!(!heirs.contains(&"victim"));
        drain(&ctx);
        assert_eq!([heirs, log.take()].concat(), afterwards(deed));
    }
}

/// SPEC 3, 10, 20
#[cfg(not(wasi))]
#[test]
fn itself_from_read_and_write_does_not_run() {
    for deed in DEEDS {
        let (ctx, _clock) = manual();
        let log = Log::new();
        let (ours, theirs) = pair();
        rustix::io::write(&theirs, b"x").unwrap();
        let (writes, again) = (log.clone(), log.clone());
        let handlers = Handlers::new().write(log.callback("write")).read(move |ops| {
            writes.add("read");
            let copy = crate::support::by_number(ops.fd().as_raw_fd());
            match deed {
                "remove" => ops.remove_fd_handler(copy.as_raw_fd()),
                _ => {
                    let heir = Handlers::new().read(again.callback("heir"));
                    ops.set_fd_handler(copy, heir)?;
                }
            }
            Ok(())
        });
        let kept = rustix::io::dup(&ours).unwrap();
        // Registered by number, so that the fd stays open when its handler goes.
        ctx.set_fd_handler(crate::support::by_number(kept.as_raw_fd()), handlers).unwrap();
        assert!(block(&ctx));
        assert_eq!(log.take(), ["read"]);
        ctx.poll(false).unwrap();
        assert_eq!(log.take(), afterwards(deed));
        ctx.remove_fd_handler(kept.as_raw_fd());
    }
}

/// SPEC 3, 10
#[test]
fn itself_from_poll_ready() {
    let (ctx, _clock) = spinning();
    let predicate = Predicate::new();
    predicate.say(true);
    let runs = Count::new();
    let counter = runs.clone();
    let handlers =
        Handlers::new().poll(predicate.clone()).read(|_| Ok(())).poll_ready(move |ops| {
            counter.bump();
            ops.remove_fd_handler(ops.fd().as_raw_fd());
            Ok(())
        });
    ctx.set_fd_handler(EventNotifier::new().unwrap(), handlers).unwrap();
    assert!(block(&ctx));
    drain(&ctx);
    assert_eq!(runs.get(), 1);
    assert!(ctx.stats().handlers.is_empty());
}

/// A context that hooks can reach.
fn reachable() -> (Rc<AioContext>, Weak<AioContext>) {
    let ctx = Rc::new(spinning().0);
    let weak = Rc::downgrade(&ctx);
    (ctx, weak)
}

fn remover(ctx: &Weak<AioContext>, fd: RawFd) -> impl FnMut() + use<> {
    let ctx = ctx.clone();
    move || ctx.upgrade().unwrap().remove_fd_handler(fd)
}

/// SPEC 3, 10, 11
#[test]
fn itself_from_its_predicate_poll_begin_and_poll_end() {
    for place in ["poll", "begin", "end"] {
        let (ctx, weak) = reachable();
        let bell = EventNotifier::new().unwrap();
        let predicate = Predicate::new();
        let runs = member(&ctx, &bell, &predicate);
        match place {
            "poll" => {
                predicate.say(true);
                predicate.on_poll(remover(&weak, bell.as_raw_fd()));
            }
            "begin" => predicate.on_begin(remover(&weak, bell.as_raw_fd())),
            _ => predicate.on_end(remover(&weak, bell.as_raw_fd())),
        }
        sleep_for(&ctx, 1_000_000_000);
        assert!(ctx.stats().handlers.is_empty(), "{place}");
        assert_eq!(predicate.begins(), 1, "{place}");
        assert!(!predicate.has_begun(), "{place}: begin and end are balanced");
        predicate.asked();
        bell.set().unwrap();
        predicate.say(true);
        assert_eq!(drain(&ctx), 0, "{place}");
        assert_eq!((runs.get(), predicate.asked()), (0, 0), "{place}");
    }
}

/// SPEC 3, 10, 11
#[test]
fn another_from_a_predicate_poll_begin_and_poll_end() {
    for place in ["poll", "begin", "end"] {
        for first in [false, true] {
            let (ctx, weak) = reachable();
            let bells = [EventNotifier::new().unwrap(), EventNotifier::new().unwrap()];
            let predicates = [Predicate::new(), Predicate::new()];
            let runs: Vec<_> =
                bells.iter().zip(&predicates).map(|(bell, p)| member(&ctx, bell, p)).collect();
            let (actor, gone) = if first { (1, 0) } else { (0, 1) };
            let remove = remover(&weak, bells[gone].as_raw_fd());
            match place {
                "poll" => predicates[actor].on_poll(remove),
                "begin" => predicates[actor].on_begin(remove),
                _ => predicates[actor].on_end(remove),
            }
            sleep_for(&ctx, 1_000_000_000);
            assert_eq!(ctx.stats().handlers.len(), 1, "{place}");
            for predicate in &predicates {
                assert!(!predicate.has_begun(), "{place}");
            }
            predicates[gone].asked();
            bells[gone].set().unwrap();
            predicates[gone].say(true);
            assert_eq!(drain(&ctx), 0, "{place}");
            assert_eq!((runs[gone].get(), predicates[gone].asked()), (0, 0), "{place}");
            assert!(polling(&ctx, bells[actor].as_raw_fd()), "{place}");
            bells[actor].set().unwrap();
            assert!(block(&ctx), "{place}: the other one goes on");
            assert_eq!(runs[actor].get(), 1, "{place}");
        }
    }
}

/// SPEC 7, 10
#[test]
fn replacing_a_hit_that_was_found_but_not_dispatched_drops_it() {
    let (ctx, weak) = reachable();
    let bell = EventNotifier::new().unwrap();
    let predicate = Predicate::new();
    let runs = member(&ctx, &bell, &predicate);
    let heir = Count::new();
    let (target, counter) = (bell.clone(), heir.clone());
    // A second member that replaces the first after the first has hit in the same round.
    let (second, actor) = (EventNotifier::new().unwrap(), Predicate::new());
    member(&ctx, &second, &actor);
    let mut once = true;
    actor.on_poll(move || {
        if std::mem::take(&mut once) {
            let handlers = Handlers::new().read(counter.callback());
            weak.upgrade().unwrap().set_fd_handler(target.clone(), handlers).unwrap();
        }
    });
    predicate.say(true);
    assert!(!ctx.poll(false).unwrap());
    assert_eq!((runs.get(), heir.get()), (0, 0));
    bell.set().unwrap();
    assert!(block(&ctx));
    assert_eq!(heir.get(), 1);
}

/// SPEC 3, 7
#[test]
fn a_poll_end_that_registers_the_fd_which_is_being_registered_is_replaced_too() {
    let (ctx, weak) = reachable();
    let (bell, predicate) = (EventNotifier::new().unwrap(), Predicate::new());
    member(&ctx, &bell, &predicate);
    predicate.say(true);
    assert!(block(&ctx));
    assert!(predicate.has_begun());
    let (inner, outer, target) = (Count::new(), Count::new(), bell.clone());
    let counter = inner.clone();
    predicate.on_end(move || {
        let handlers = Handlers::new().read(counter.callback());
        weak.upgrade().unwrap().set_fd_handler(target.clone(), handlers).unwrap();
    });
    ctx.set_fd_handler(bell.clone(), Handlers::new().read(outer.callback())).unwrap();
    assert_eq!(ctx.stats().handlers.len(), 1);
    bell.set().unwrap();
    assert!(block(&ctx));
    assert_eq!((inner.get(), outer.get()), (0, 1));
    ctx.remove_fd_handler(bell.as_raw_fd());
    assert_eq!(drain(&ctx), 0);
    assert_eq!(ctx.close().handlers, 0);
}

/// SPEC 3, 7, 10
#[test]
fn a_poll_end_that_registers_the_fd_which_is_being_removed_keeps_its_new_handler() {
    let (ctx, weak) = reachable();
    let (bell, predicate) = (EventNotifier::new().unwrap(), Predicate::new());
    member(&ctx, &bell, &predicate);
    predicate.say(true);
    assert!(block(&ctx));
    assert!(predicate.has_begun());
    let (heir, target) = (Count::new(), bell.clone());
    let counter = heir.clone();
    predicate.on_end(move || {
        let handlers = Handlers::new().read(counter.callback());
        weak.upgrade().unwrap().set_fd_handler(target.clone(), handlers).unwrap();
    });
    ctx.remove_fd_handler(bell.as_raw_fd()); // outside of any turn
    assert_eq!(ctx.stats().handlers.len(), 1);
    bell.set().unwrap();
    assert!(block(&ctx));
    assert_eq!(heir.get(), 1);
}

/// SPEC 10
#[test]
fn what_a_removed_handler_owned_is_dropped_at_once_or_after_its_callback() {
    let (ctx, _clock) = manual();
    let owned = Rc::new(());
    let bell = rung();
    let lives = owned.clone();
    let handlers = Handlers::new().read(move |ops| {
        ops.remove_fd_handler(ops.fd().as_raw_fd());
        assert_eq!(Rc::strong_count(&lives), 2, "still alive while it runs");
        Ok(())
    });
    ctx.set_fd_handler(bell.clone(), handlers).unwrap();
    assert!(block(&ctx));
    assert_eq!(Rc::strong_count(&owned), 1);
    let lives = owned.clone();
    let handlers = Handlers::new().read(move |_| {
        let _ = &lives;
        Ok(())
    });
    ctx.set_fd_handler(bell.clone(), handlers).unwrap();
    ctx.remove_fd_handler(bell.as_raw_fd());
    assert_eq!(Rc::strong_count(&owned), 1);
}

/// SPEC 3, 8
#[test]
fn slots_and_numbers_that_are_used_again_belong_to_the_new_handler_alone() {
    let (ctx, _clock) = manual();
    let log = Log::new();
    let bell = EventNotifier::new().unwrap();
    for _ in 0..50 {
        let stale = ctx.set_fd_handler(bell.clone(), Handlers::new().read(log.callback("old")));
        ctx.remove_fd_handler(bell.as_raw_fd());
        let other = rung();
        let (clear, writes) = (other.clone(), log.clone());
        let handlers = Handlers::new().read(move |ops| {
            writes.add("new");
            clear.test_and_clear()?;
            // Its slot may go to one more handler while a turn runs: not in this turn.
            ops.remove_fd_handler(clear.as_raw_fd());
            Ok(())
        });
        ctx.set_fd_handler(other, handlers).unwrap();
        assert!(!stale.unwrap().is_live());
        assert!(block(&ctx));
        assert_eq!(log.take(), ["new"]);
    }
}
