//! What the context counts.

use std::os::fd::AsRawFd;
use std::time::Duration;

use fdmon::{EventNotifier, Handlers};

use super::{builder, manual, monitor, spinning};
use crate::support::{Predicate, WINDOW, block, member, rung, sleep_for};

/// SPEC 53
#[test]
fn turns_waits_and_sleeps_are_counted() {
    let (ctx, _clock) = manual();
    ctx.poll(false).unwrap();
    sleep_for(&ctx, 1_000_000);
    let stats = ctx.stats();
    assert_eq!((stats.turns, stats.sleeps), (2, 1));
    assert!((1..=3).contains(&stats.waits), "{} waits", stats.waits);
    assert_eq!((stats.monitor, stats.monitor_reason.is_empty()), (monitor(), false));
    assert_eq!((stats.fallbacks, stats.guard), (0, None));
}

/// SPEC 53
#[test]
fn spins_and_their_time_are_counted() {
    let (ctx, _clock) = spinning();
    let predicate = Predicate::new();
    member(&ctx, &EventNotifier::new().unwrap(), &predicate);
    let before = ctx.stats();
    predicate.say(true);
    assert!(block(&ctx));
    sleep_for(&ctx, 10 * WINDOW);
    let after = ctx.stats();
    assert_eq!(after.spin_hits - before.spin_hits, 1);
    assert_eq!(after.spin_misses - before.spin_misses, 1);
    assert_eq!(after.spin_ns - before.spin_ns, WINDOW);
    assert_eq!(after.spin_wasted_ns - before.spin_wasted_ns, WINDOW);
    assert_eq!(before.window_ns, WINDOW);
}

/// SPEC 2, 53
#[test]
#[cfg_attr(wasi, ignore = "WASI makes no sockets")]
fn each_handler_has_its_own_row() {
    let (ctx, _clock) = spinning();
    let (bell, predicate) = (EventNotifier::new().unwrap(), Predicate::new());
    member(&ctx, &bell, &predicate);
    bell.set().unwrap();
    assert!(block(&ctx));
    let (ours, _theirs) = crate::support::pair();
    let fd = ours.as_raw_fd();
    ctx.set_fd_handler(ours, Handlers::new().write(|_| Ok(()))).unwrap();
    ctx.poll(false).unwrap();
    ctx.poll(false).unwrap();
    let stats = ctx.stats();
    assert_eq!(stats.handlers.len(), 2);
    let row = stats.handlers.iter().find(|row| row.fd == bell.as_raw_fd()).unwrap();
    assert_eq!((row.reads, row.writes, row.poll_hits, row.polling), (1, 0, 1, true));
    let row = stats.handlers.iter().find(|row| row.fd == fd).unwrap();
    assert_eq!((row.reads, row.writes, row.poll_hits, row.polling), (0, 2, 0, false));
    ctx.remove_fd_handler(fd);
    assert_eq!(ctx.stats().handlers.len(), 1);
}

/// SPEC 53
#[test]
fn events_are_the_callbacks_that_were_due_of_every_kind() {
    let (ctx, clock) = manual();
    ctx.set_fd_handler(rung(), Handlers::new().read(|_| Ok(()))).unwrap();
    ctx.schedule(|_| Ok(())).unwrap();
    let timer = ctx.timer(|_| Ok(())).unwrap();
    timer.arm(Duration::from_nanos(1)).unwrap();
    clock.advance_ns(1);
    let idle = ctx.bottom_half(|_| Ok(())).unwrap();
    idle.schedule_idle();
    assert!(ctx.poll(true).unwrap());
    assert_eq!(ctx.stats().events, 3);
}

/// SPEC 53
#[test]
fn the_largest_batch_is_kept() {
    let (ctx, _clock) = manual();
    for _ in 0..5 {
        ctx.schedule(|_| Ok(())).unwrap();
    }
    assert!(ctx.poll(true).unwrap());
    ctx.schedule(|_| Ok(())).unwrap();
    assert!(ctx.poll(true).unwrap());
    assert_eq!(ctx.stats().batch_max, 5);
}

/// SPEC 53
#[test]
fn dispatch_time_is_counted_while_spinning_is_on() {
    let (ctx, clock) = spinning();
    let before = ctx.stats().dispatch_ns;
    ctx.schedule(move |_| {
        clock.advance_ns(12_345);
        Ok(())
    })
    .unwrap();
    assert!(block(&ctx));
    sleep_for(&ctx, 1);
    assert_eq!(ctx.stats().dispatch_ns - before, 12_345);
}

/// SPEC 2, 53
#[test]
fn name_id_and_monitor_are_shown() {
    let ctx = builder().name("loop of a test").build().unwrap();
    assert_eq!((ctx.name(), ctx.monitor()), ("loop of a test", monitor()));
    let text = format!("{ctx:?}");
    assert!(text.contains("loop of a test") && text.contains(&ctx.id().to_string()), "{text}");
}
