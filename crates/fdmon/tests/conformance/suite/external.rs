//! External handlers: held back and let go.

use std::os::fd::AsRawFd;
use std::rc::Rc;

use fdmon::{EventNotifier, Handlers};

use super::{manual, spinning};
use crate::support::{Count, Log, Predicate, block, drain, member, pair, polling, rung, sleep_for};

/// SPEC 14
#[test]
fn a_disabled_external_handler_is_neither_waited_for_nor_dispatched_and_loses_nothing() {
    let (ctx, _clock) = manual();
    let bell = rung();
    let (external, own) = (Count::new(), Count::new());
    let (clear, counter) = (bell.clone(), external.clone());
    let handlers = Handlers::new().external(true).read(move |_| {
        clear.test_and_clear()?;
        counter.bump();
        Ok(())
    });
    ctx.set_fd_handler(bell.clone(), handlers).unwrap();
    ctx.disable_external();
    ctx.disable_external();
    sleep_for(&ctx, 1_000_000_000);
    let other = rung();
    ctx.set_fd_handler(other, Handlers::new().read(own.callback())).unwrap();
    assert!(block(&ctx));
    assert_eq!((external.get(), own.get()), (0, 1), "handlers of our own go on");
    ctx.enable_external();
    ctx.poll(false).unwrap();
    assert_eq!(external.get(), 0, "disabled twice");
    ctx.enable_external();
    ctx.poll(false).unwrap();
    assert_eq!(external.get(), 1);
    assert!(bell.set().is_ok());
    ctx.poll(false).unwrap();
    assert_eq!(external.get(), 2);
}

/// SPEC 14
#[test]
fn enabling_more_often_than_disabling_does_nothing() {
    let (ctx, _clock) = manual();
    let runs = Count::new();
    ctx.enable_external();
    let handlers = Handlers::new().external(true).read(runs.callback());
    ctx.set_fd_handler(rung(), handlers).unwrap();
    ctx.disable_external();
    assert_eq!(drain(&ctx), 0);
    ctx.enable_external();
    ctx.poll(false).unwrap();
    assert_eq!(runs.get(), 1);
}

/// SPEC 14, 22
#[test]
fn disabling_runs_poll_end_takes_it_off_the_spin_list_and_enabling_looks_again() {
    let (ctx, _clock) = spinning();
    let bell = EventNotifier::new().unwrap();
    let predicate = Predicate::new();
    let runs = Count::new();
    let handlers = Handlers::new()
        .external(true)
        .read(runs.callback())
        .poll(predicate.clone())
        .poll_ready(predicate.taken(&runs));
    ctx.set_fd_handler(bell.clone(), handlers).unwrap();
    predicate.say(true);
    assert!(block(&ctx));
    // Spin until it hits, which leaves it begun.
    let hit = predicate.clone();
    let mut rounds = 0;
    predicate.on_poll(move || {
        rounds += 1;
        hit.say(rounds == 1);
    });
    assert!(block(&ctx));
    assert!(predicate.has_begun());
    ctx.disable_external();
    assert!(!predicate.has_begun());
    assert!(!polling(&ctx, bell.as_raw_fd()));
    predicate.asked();
    runs.take();
    let always = predicate.clone();
    predicate.on_poll(move || always.say(true));
    sleep_for(&ctx, 1_000_000_000);
    assert_eq!((predicate.asked(), runs.get()), (0, 0), "not spun while disabled");
    ctx.enable_external();
    assert!(ctx.poll(true).unwrap());
    assert_eq!(runs.get(), 1, "the first look after enabling finds it");
    assert!(polling(&ctx, bell.as_raw_fd()));
}

/// SPEC 14
#[test]
fn disabled_in_a_callback_the_other_external_handlers_of_the_turn_wait() {
    let (ctx, _clock) = manual();
    let log = Log::new();
    let (first, second) = (EventNotifier::new().unwrap(), EventNotifier::new().unwrap());
    let (clear, writes) = (first.clone(), log.clone());
    let handlers = Handlers::new().read(move |ops| {
        clear.test_and_clear()?;
        writes.add("disable");
        ops.disable_external();
        Ok(())
    });
    ctx.set_fd_handler(first.clone(), handlers).unwrap();
    let handlers = Handlers::new().external(true).read(log.callback("external"));
    ctx.set_fd_handler(second.clone(), handlers).unwrap();
    first.set().unwrap();
    second.set().unwrap();
    assert!(block(&ctx));
    sleep_for(&ctx, 1_000);
    assert_eq!(log.take(), ["disable"]);
    ctx.enable_external();
    ctx.poll(false).unwrap();
    assert_eq!(log.take(), ["external"]);
}

/// SPEC 14, 20
#[test]
#[cfg_attr(wasi, ignore = "WASI makes no sockets")]
fn disabled_in_its_own_read_its_write_waits_too() {
    let (ctx, _clock) = manual();
    let (ours, theirs) = pair();
    rustix::io::write(&theirs, b"x").unwrap();
    let log = Log::new();
    let writes = log.clone();
    let handlers = Handlers::new().external(true).write(log.callback("write")).read(move |ops| {
        writes.add("read");
        ops.disable_external();
        Ok(())
    });
    ctx.set_fd_handler(ours, handlers).unwrap();
    assert!(block(&ctx));
    assert_eq!(log.take(), ["read"]);
    ctx.enable_external();
    ctx.poll(false).unwrap();
    assert_eq!(log.take().len(), 1, "read, which disables again");
}

/// SPEC 14
#[test]
fn registered_while_disabled_it_waits_for_the_enable_and_is_looked_at_then() {
    let (ctx, _clock) = spinning();
    ctx.disable_external();
    let predicate = Predicate::new();
    predicate.say(true);
    let runs = Count::new();
    let handlers = Handlers::new()
        .external(true)
        .read(runs.callback())
        .poll(predicate.clone())
        .poll_ready(predicate.taken(&runs));
    ctx.set_fd_handler(rung(), handlers).unwrap();
    sleep_for(&ctx, 1_000_000_000);
    assert_eq!((predicate.asked(), runs.get()), (0, 0));
    ctx.enable_external();
    ctx.poll(false).unwrap();
    assert_eq!((predicate.asked(), runs.get()), (1, 1));
}

/// SPEC 14, 25
#[test]
fn disabled_by_the_poll_end_of_another_it_is_not_asked_in_the_last_look() {
    let (ctx, _clock) = spinning();
    let ctx = Rc::new(ctx);
    let first = Predicate::new();
    member(&ctx, &EventNotifier::new().unwrap(), &first);
    let (second, runs) = (Predicate::new(), Count::new());
    second.say(true);
    let handlers =
        Handlers::new().external(true).poll(second.clone()).poll_ready(second.taken(&runs));
    ctx.set_fd_handler(EventNotifier::new().unwrap(), handlers).unwrap();
    assert!(block(&ctx));
    assert_eq!(runs.take(), 1);
    let (weak, late) = (Rc::downgrade(&ctx), second.clone());
    first.on_end(move || {
        weak.upgrade().unwrap().disable_external();
        late.say(true);
    });
    second.asked();
    sleep_for(&ctx, 1_000_000_000);
    assert_eq!((second.asked(), runs.get()), (1, 0), "asked by the spin alone");
    ctx.enable_external();
    ctx.poll(false).unwrap();
    assert_eq!(runs.get(), 1);
}

/// SPEC 14, 25
#[test]
fn disabled_by_the_poll_begin_of_another_it_does_not_begin() {
    let (ctx, _clock) = spinning();
    let ctx = Rc::new(ctx);
    let first = Predicate::new();
    member(&ctx, &EventNotifier::new().unwrap(), &first);
    let second = Predicate::new();
    second.say(true);
    let handlers =
        Handlers::new().external(true).poll(second.clone()).poll_ready(second.taken(&Count::new()));
    ctx.set_fd_handler(EventNotifier::new().unwrap(), handlers).unwrap();
    assert!(ctx.poll(false).unwrap()); // joins
    let weak = Rc::downgrade(&ctx);
    first.on_begin(move || weak.upgrade().unwrap().disable_external());
    sleep_for(&ctx, 1_000_000_000);
    assert!(!second.has_begun(), "its producer is told not to signal, for ever");
    assert!(!first.has_begun());
}

/// SPEC 14
#[test]
#[cfg_attr(wasi, ignore = "nothing on WASI wakes an outer loop")]
fn the_last_enable_wakes_the_loop() {
    let (ctx, _clock) = manual();
    let runs = Count::new();
    ctx.disable_external();
    ctx.disable_external();
    let handlers = Handlers::new().external(true).read(runs.callback());
    ctx.set_fd_handler(rung(), handlers).unwrap();
    assert_eq!(ctx.prepare().unwrap(), None);
    ctx.enable_external();
    assert_eq!(ctx.stats().notifies_sent, 0);
    ctx.enable_external(); // the outer loop's watched fd becomes readable
    let mut backend = [rustix::event::PollFd::new(&ctx, rustix::event::PollFlags::IN)];
    let limit = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
    assert_eq!(rustix::event::poll(&mut backend, Some(&limit)).unwrap(), 1);
    assert!(ctx.check().unwrap());
    assert!(ctx.dispatch().unwrap());
    assert_eq!(runs.get(), 1);
}

/// SPEC 14, 46
#[test]
fn disabling_changes_no_monitor() {
    let (ctx, _clock) = manual();
    let runs = Rc::new(Count::new());
    for _ in 0..10 {
        let handlers = Handlers::new().external(true).read(runs.callback());
        ctx.set_fd_handler(rung(), handlers).unwrap();
    }
    ctx.disable_external();
    assert_eq!(drain(&ctx), 0);
    assert_eq!(ctx.monitor(), super::monitor());
    assert_eq!(ctx.stats().fallbacks, 0);
    ctx.enable_external();
    ctx.poll(false).unwrap();
    assert_eq!(runs.get(), 10);
}
