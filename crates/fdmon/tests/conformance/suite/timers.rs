//! Timers, on a clock turned by hand: exact to the nanosecond.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use fdmon::Timer;

use super::{manual, spinning};
use crate::support::{Count, Log, block, drain};

/// SPEC 39
#[test]
fn a_timer_fires_at_its_deadline_and_never_early() {
    let (ctx, clock) = manual();
    let fired = Count::new();
    let timer = ctx.timer(fired.callback()).unwrap();
    for ns in [1, 999, 1_000, 999_999, 1_000_001, 123_456_789, 10_000_000_001] {
        let start = clock.now_ns();
        timer.arm(Duration::from_nanos(ns)).unwrap();
        assert!(timer.is_pending());
        clock.advance_ns(ns - 1);
        assert!(!ctx.poll(false).unwrap(), "a nanosecond early");
        assert!(ctx.poll(true).unwrap());
        assert_eq!(clock.now_ns(), start + ns);
        assert!(!timer.is_pending());
        assert_eq!(fired.take(), 1);
    }
}

/// SPEC 17, 39, 40
#[test]
fn deadlines_are_exact_whatever_spins_on_the_way() {
    let (ctx, clock) = spinning();
    let fired = Count::new();
    let timer = ctx.timer(fired.callback()).unwrap();
    for ns in [1, 50_000, 99_999, 100_000, 100_001, 1_500_000, 3_000_000_007] {
        let start = clock.now_ns();
        timer.arm(Duration::from_nanos(ns)).unwrap();
        assert!(ctx.poll(true).unwrap());
        assert_eq!((fired.take(), clock.now_ns() - start), (1, ns));
    }
}

/// SPEC 39
#[test]
fn equal_deadlines_fire_in_the_order_of_arming() {
    let (ctx, clock) = manual();
    let log = Log::new();
    let names = ["a", "b", "c", "d", "e"];
    let timers = names.map(|name| ctx.timer(log.callback(name)).unwrap());
    for timer in &timers {
        timer.arm_at(1_000).unwrap();
    }
    timers[1].arm_at(1_000).unwrap(); // armed last now
    timers[3].arm_at(999).unwrap();
    assert_eq!(clock.now_ns(), 0);
    clock.advance_ns(5_000);
    assert!(ctx.poll(true).unwrap());
    assert_eq!(log.take(), ["d", "a", "c", "e", "b"]);
}

/// SPEC 39
#[test]
fn it_is_one_shot_and_its_callback_may_arm_it_again() {
    let (ctx, clock) = manual();
    let own: Rc<RefCell<Option<Timer>>> = Rc::default();
    let (me, at) = (own.clone(), Rc::new(Cell::new(Vec::new())));
    let seen = at.clone();
    let timer = ctx
        .timer(move |ops| {
            let me = me.borrow();
            let me = me.as_ref().unwrap();
            assert!(!me.is_pending(), "removed before its callback");
            let mut times = seen.take();
            times.push(ops.now_ns());
            if times.len() < 3 {
                me.arm(Duration::from_secs(1))?;
            }
            seen.set(times);
            Ok(())
        })
        .unwrap();
    timer.arm(Duration::from_secs(1)).unwrap();
    *own.borrow_mut() = Some(timer);
    for _ in 0..3 {
        assert!(ctx.poll(true).unwrap());
    }
    assert_eq!(at.take(), [1_000_000_000, 2_000_000_000, 3_000_000_000]);
    clock.advance_ns(u64::MAX / 2);
    assert!(!ctx.poll(false).unwrap());
    own.take();
}

/// SPEC 39
#[test]
fn armed_into_the_past_by_its_callback_it_runs_in_the_next_turn() {
    let (ctx, clock) = manual();
    clock.advance_ns(1_000_000);
    let own: Rc<RefCell<Option<Timer>>> = Rc::default();
    let (me, runs) = (own.clone(), Count::new());
    let counter = runs.clone();
    let timer = ctx
        .timer(move |_| {
            counter.bump();
            me.borrow().as_ref().unwrap().arm_at(5)?;
            Ok(())
        })
        .unwrap();
    timer.arm(Duration::ZERO).unwrap();
    *own.borrow_mut() = Some(timer);
    for turn in 1..=3 {
        assert!(ctx.poll(true).unwrap());
        assert_eq!(runs.get(), turn);
    }
    assert_eq!(clock.now_ns(), 1_000_000);
    own.take();
}

/// SPEC 39
#[test]
fn a_cancelled_timer_does_not_fire_and_one_armed_again_moves() {
    let (ctx, clock) = manual();
    let log = Log::new();
    let (moved, cancelled) =
        (ctx.timer(log.callback("moved")).unwrap(), ctx.timer(log.callback("never")).unwrap());
    moved.arm(Duration::from_secs(1)).unwrap();
    cancelled.arm(Duration::from_secs(1)).unwrap();
    moved.arm(Duration::from_secs(5)).unwrap();
    cancelled.cancel();
    cancelled.cancel();
    assert!(ctx.poll(true).unwrap());
    assert_eq!((log.take(), clock.now_ns()), (vec!["moved"], 5_000_000_000));
    cancelled.arm(Duration::from_secs(1)).unwrap();
    cancelled.delete();
    clock.advance_ns(2_000_000_000);
    assert_eq!(drain(&ctx), 0);
}

/// SPEC 19, 39
#[test]
fn armed_anew_by_an_earlier_timer_of_the_turn_it_waits_for_its_new_deadline() {
    let (ctx, clock) = manual();
    let log = Log::new();
    let second: Rc<RefCell<Option<Timer>>> = Rc::default();
    let (other, writes) = (second.clone(), log.clone());
    let first = ctx
        .timer(move |_| {
            writes.add("first");
            other.borrow().as_ref().unwrap().arm(Duration::from_secs(1))?;
            Ok(())
        })
        .unwrap();
    let timer = ctx.timer(log.callback("second")).unwrap();
    first.arm(Duration::from_nanos(1)).unwrap();
    timer.arm(Duration::from_nanos(1)).unwrap();
    *second.borrow_mut() = Some(timer);
    assert!(ctx.poll(true).unwrap());
    assert_eq!(log.take(), ["first"]);
    assert!(ctx.poll(true).unwrap());
    assert_eq!((log.take(), clock.now_ns()), (vec!["second"], 1_000_000_001));
    second.take();
}

/// SPEC 39
#[test]
fn one_whose_handle_is_dropped_fires_if_it_is_armed_and_is_gone_then() {
    let (ctx, _clock) = manual();
    let fired = Count::new();
    let timer = ctx.timer(fired.callback()).unwrap();
    timer.arm(Duration::from_secs(1)).unwrap();
    drop(timer);
    drop(ctx.timer(fired.callback()).unwrap());
    assert!(ctx.poll(true).unwrap());
    assert_eq!((fired.get(), ctx.close().timers), (1, 0));
}

/// SPEC 39
#[test]
fn it_can_be_deleted_from_its_own_callback() {
    let (ctx, clock) = manual();
    let own: Rc<RefCell<Option<Timer>>> = Rc::default();
    let (me, owned) = (own.clone(), Rc::new(()));
    let kept = owned.clone();
    let timer = ctx
        .timer(move |_| {
            let _ = &kept;
            let me = me.take().unwrap();
            me.arm(Duration::from_nanos(1))?;
            me.delete();
            Ok(())
        })
        .unwrap();
    timer.arm(Duration::ZERO).unwrap();
    *own.borrow_mut() = Some(timer);
    assert!(block(&ctx));
    clock.advance_ns(1_000);
    assert_eq!(drain(&ctx), 0);
    assert_eq!((Rc::strong_count(&owned), ctx.close().timers), (1, 0));
}

/// SPEC 39
#[test]
fn the_longest_delay_does_not_overflow() {
    let (ctx, clock) = manual();
    clock.advance_ns(1_000);
    let fired = Count::new();
    let timer = ctx.timer(fired.callback()).unwrap();
    timer.arm(Duration::MAX).unwrap();
    assert!(!ctx.poll(false).unwrap());
    timer.arm_at(u64::MAX - 1).unwrap();
    assert!(ctx.poll(true).unwrap());
    assert_eq!((fired.get(), clock.now_ns()), (1, u64::MAX - 1));
}

/// SPEC 39
#[test]
#[cfg_attr(wasi, ignore = "Node 20 and 22 crash when so much memory is asked for")]
fn a_million_timers_are_armed_cancelled_and_expire_in_order() {
    const TIMERS: u32 = 1_000_000;
    let (ctx, clock) = manual();
    let (last, fired) = (Rc::new(Cell::new(0)), Count::new());
    let deadline = |at: u32| 1_000 + u64::from(at.wrapping_mul(2_654_435_761));
    let timers: Vec<_> = (0..TIMERS)
        .map(|at| {
            let (last, fired, due) = (last.clone(), fired.clone(), deadline(at));
            let timer = ctx
                .timer(move |_| {
                    assert!(last.replace(due) <= due, "out of order");
                    fired.bump();
                    Ok(())
                })
                .unwrap();
            timer.arm_at(due).unwrap();
            timer
        })
        .collect();
    for timer in timers.iter().skip(1).step_by(2) {
        timer.cancel();
    }
    clock.advance_ns(1_000 + u64::from(u32::MAX) / 2);
    assert!(ctx.poll(true).unwrap());
    let due = (0..TIMERS).step_by(2).filter(|&at| deadline(at) <= clock.now_ns()).count();
    assert_eq!(fired.get() as usize, due);
    clock.advance_ns(u64::from(u32::MAX));
    assert!(ctx.poll(true).unwrap());
    assert_eq!(fired.get(), TIMERS / 2);
    assert_eq!(ctx.close().timers, TIMERS);
    drop(timers);
}
