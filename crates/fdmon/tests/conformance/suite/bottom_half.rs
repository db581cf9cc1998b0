//! Bottom halves.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use fdmon::BottomHalf;

use super::{context, manual};
use crate::support::{Count, Log, block, sleep_for};

type Later = Rc<RefCell<Option<BottomHalf>>>;

/// SPEC 36
#[test]
fn it_never_runs_inline_and_twice_scheduled_runs_once() {
    let (ctx, _clock) = manual();
    let runs = Count::new();
    let half = ctx.bottom_half(runs.callback()).unwrap();
    half.schedule();
    half.schedule();
    half.remote().schedule(&half.id()).unwrap();
    assert_eq!(runs.get(), 0);
    assert!(block(&ctx));
    assert_eq!(runs.get(), 1);
    assert!(!ctx.poll(false).unwrap());
    half.schedule();
    assert!(block(&ctx));
    assert_eq!(runs.get(), 2);
}

/// SPEC 20
#[test]
fn they_run_in_the_order_in_which_they_were_scheduled() {
    let (ctx, _clock) = manual();
    let log = Log::new();
    let halves: Vec<_> =
        ["a", "b", "c", "d"].map(|name| ctx.bottom_half(log.callback(name)).unwrap()).into();
    for order in [[0, 1, 2, 3], [3, 1, 0, 2], [2, 3, 1, 0]] {
        for at in order {
            halves[at].schedule();
        }
        assert!(block(&ctx));
        assert_eq!(log.take(), order.map(|at| ["a", "b", "c", "d"][at]));
    }
}

/// SPEC 20, 36
#[test]
#[cfg_attr(not(threads), ignore = "there are no threads")]
fn the_order_holds_across_threads_kinds_and_jobs() {
    let ctx = context();
    let seen: Arc<Mutex<Vec<&str>>> = Arc::default();
    let add = |name| {
        let seen = seen.clone();
        move || seen.lock().unwrap().push(name)
    };
    let half = |name| {
        let add = add(name);
        ctx.bottom_half(move |_| {
            add();
            Ok(())
        })
        .unwrap()
    };
    let (first, third) = (half("first"), half("third"));
    first.schedule();
    let (remote, id, second, fourth) = (ctx.remote(), third.id(), add("second"), add("fourth"));
    std::thread::spawn(move || {
        remote.run(move |_| second()).unwrap();
        remote.schedule(&id).unwrap();
        remote.run(move |_| fourth()).unwrap();
    })
    .join()
    .unwrap();
    let fifth = add("fifth");
    ctx.schedule(move |_| {
        fifth();
        Ok(())
    })
    .unwrap();
    assert!(block(&ctx));
    assert_eq!(*seen.lock().unwrap(), ["first", "second", "third", "fourth", "fifth"]);
}

/// SPEC 36
#[test]
fn one_that_schedules_itself_or_another_runs_in_the_next_turn() {
    let (ctx, _clock) = manual();
    let log = Log::new();
    let (own, writes, other) = (Later::default(), log.clone(), log.clone());
    let again = own.clone();
    let half = ctx
        .bottom_half(move |ops| {
            writes.add("itself");
            again.borrow().as_ref().unwrap().schedule();
            let other = other.clone();
            ops.schedule(move |_| {
                other.add("another");
                Ok(())
            })
            .map_err(Into::into)
        })
        .unwrap();
    half.schedule();
    *own.borrow_mut() = Some(half);
    assert!(ctx.poll(true).unwrap());
    assert_eq!(log.take(), ["itself"]);
    assert!(ctx.poll(true).unwrap());
    assert_eq!(log.take(), ["itself", "another"]);
    own.take();
}

/// SPEC 36
#[test]
fn a_cancelled_one_does_not_run() {
    let (ctx, _clock) = manual();
    let runs = Count::new();
    let half = ctx.bottom_half(runs.callback()).unwrap();
    for idle in [false, true] {
        if idle {
            half.schedule_idle();
        } else {
            half.schedule();
        }
        half.cancel();
        half.cancel();
        sleep_for(&ctx, 1_000_000_000); // nothing is due, nothing limits the sleep
        assert_eq!(runs.get(), 0);
    }
}

/// SPEC 20, 36
#[test]
fn cancelled_and_scheduled_again_it_goes_to_the_back() {
    let (ctx, _clock) = manual();
    let log = Log::new();
    let halves = ["a", "b", "c"].map(|name| ctx.bottom_half(log.callback(name)).unwrap());
    for half in &halves {
        half.schedule();
    }
    halves[0].cancel();
    halves[0].schedule();
    assert!(block(&ctx));
    assert_eq!(log.take(), ["b", "c", "a"]);
}

/// SPEC 20, 36, 37
#[test]
fn cancelled_and_scheduled_again_when_it_was_due_already_it_goes_to_the_back_too() {
    let (ctx, _clock) = manual();
    let log = Log::new();
    let target = Later::default();
    let (victim, writes) = (target.clone(), log.clone());
    ctx.schedule(move |ops| {
        let victim = victim.borrow();
        let victim = victim.as_ref().unwrap();
        victim.cancel();
        victim.schedule();
        ops.poll(false)?;
        writes.add("outer");
        Ok(())
    })
    .unwrap();
    let b = ctx.bottom_half(log.callback("b")).unwrap();
    let c = ctx.bottom_half(log.callback("c")).unwrap();
    b.schedule();
    c.schedule();
    *target.borrow_mut() = Some(b);
    assert!(ctx.poll(true).unwrap());
    assert_eq!(log.take(), ["c", "b", "outer"]);
    target.take();
}

/// SPEC 36
#[test]
fn one_that_another_of_the_same_turn_cancels_or_deletes_does_not_run() {
    let (ctx, _clock) = manual();
    for delete in [false, true] {
        let (log, target) = (Log::new(), Later::default());
        let victim = target.clone();
        ctx.schedule(move |_| {
            if delete {
                victim.take().unwrap().delete();
            } else {
                victim.borrow().as_ref().unwrap().cancel();
            }
            Ok(())
        })
        .unwrap();
        let half = ctx.bottom_half(log.callback("victim")).unwrap();
        half.schedule();
        *target.borrow_mut() = Some(half);
        assert!(ctx.poll(true).unwrap());
        assert!(!ctx.poll(false).unwrap());
        assert_eq!(log.take(), [""; 0]);
        target.take();
    }
}

/// SPEC 36
#[test]
fn it_can_be_deleted_from_its_own_callback() {
    let (ctx, _clock) = manual();
    let (own, runs) = (Later::default(), Count::new());
    let (me, counter, owned) = (own.clone(), runs.clone(), Rc::new(()));
    let kept = owned.clone();
    let half = ctx
        .bottom_half(move |_| {
            let _ = &kept;
            counter.bump();
            let me = me.take().unwrap();
            me.schedule();
            me.delete();
            Ok(())
        })
        .unwrap();
    half.schedule();
    *own.borrow_mut() = Some(half);
    assert!(ctx.poll(true).unwrap());
    assert!(!ctx.poll(false).unwrap());
    assert_eq!((runs.get(), Rc::strong_count(&owned)), (1, 1));
    assert_eq!(ctx.close().bottom_halves, 0);
}

/// SPEC 36
#[test]
fn one_whose_handle_is_dropped_runs_if_it_is_scheduled_and_is_gone_then() {
    let (ctx, _clock) = manual();
    let runs = Count::new();
    let half = ctx.bottom_half(runs.callback()).unwrap();
    half.schedule();
    let id = half.id();
    drop(half);
    assert!(block(&ctx));
    assert_eq!(runs.get(), 1);
    ctx.remote().schedule(&id).unwrap();
    ctx.poll(false).unwrap();
    assert_eq!(runs.get(), 1, "it is gone");
    assert_eq!(ctx.close(), fdmon::LeakReport::default());
}

/// SPEC 36
#[test]
fn an_idle_one_limits_the_sleep_to_10_ms_and_runs_without_progress() {
    let (ctx, clock) = manual();
    let runs = Count::new();
    let half = ctx.bottom_half(runs.callback()).unwrap();
    half.schedule_idle();
    let start = clock.now_ns();
    assert!(!ctx.poll(true).unwrap());
    assert_eq!(clock.now_ns() - start, 10_000_000);
    assert_eq!(runs.get(), 1);
    sleep_for(&ctx, 1_000_000_000);
    assert_eq!(runs.get(), 1);
}

/// SPEC 36
#[test]
fn schedule_overrides_an_earlier_idle_schedule_and_not_the_other_way_round() {
    let (ctx, clock) = manual();
    let runs = Count::new();
    let half = ctx.bottom_half(runs.callback()).unwrap();
    let start = clock.now_ns();
    half.schedule_idle();
    half.schedule();
    assert!(ctx.poll(true).unwrap());
    half.schedule();
    half.schedule_idle();
    assert!(ctx.poll(true).unwrap());
    half.schedule_idle();
    half.remote().schedule(&half.id()).unwrap();
    assert!(ctx.poll(true).unwrap());
    assert_eq!((runs.get(), clock.now_ns() - start), (3, 0));
}

/// SPEC 20, 36
#[test]
fn an_idle_one_keeps_its_place_in_the_order() {
    let (ctx, _clock) = manual();
    let log = Log::new();
    let idle = ctx.bottom_half(log.callback("idle")).unwrap();
    let normal = ctx.bottom_half(log.callback("normal")).unwrap();
    idle.schedule_idle();
    normal.schedule();
    assert!(block(&ctx));
    assert_eq!(log.take(), ["idle", "normal"]);
}

/// SPEC 36
#[test]
fn a_one_shot_runs_once_and_is_released() {
    let (ctx, _clock) = manual();
    let owned = Rc::new(Cell::new(0));
    for _ in 0..100 {
        let count = owned.clone();
        ctx.schedule(move |_| {
            count.set(count.get() + 1);
            Ok(())
        })
        .unwrap();
    }
    assert!(block(&ctx));
    assert_eq!((owned.get(), Rc::strong_count(&owned)), (100, 1));
    assert_eq!(ctx.close().bottom_halves, 0);
}

/// SPEC 36, 38
#[test]
fn a_one_shot_that_closes_the_context_stops_those_behind_it() {
    let (ctx, _clock) = manual();
    let log = Log::new();
    let writes = log.clone();
    ctx.schedule(move |ops| {
        writes.add("close");
        ops.close();
        assert!(ops.schedule(|_| Ok(())).unwrap_err().is_closed());
        Ok(())
    })
    .unwrap();
    let half = ctx.bottom_half(log.callback("behind")).unwrap();
    half.schedule();
    assert!(ctx.poll(true).unwrap());
    half.schedule();
    half.cancel();
    assert_eq!(log.take(), ["close"]);
}
