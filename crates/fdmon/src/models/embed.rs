//! An outer loop sleeps for the context.

use super::{check, check_within, context, notifies, schedules, spin};
use crate::monitor::Monitor;
use crate::{AioContext, MonitorKind};

/// One round of an outer loop that watches the context and nothing else.
fn round(ctx: &AioContext) {
    if ctx.prepare().unwrap().is_none() {
        match &ctx.0.state().monitor {
            Monitor::Model(kernel) => kernel.sleep(),
            _ => unreachable!("the models have a kernel of their own"),
        }
    }
    ctx.check().unwrap();
    ctx.dispatch().unwrap();
    assert_eq!(ctx.0.shared.notify_me.load(crate::sync::Ordering::Relaxed), 0, "awake");
}

/// SPEC 33, 50
#[test]
fn an_outer_loop_is_woken_and_sees_what_was_told() {
    check(|| {
        let ctx = context(MonitorKind::Epoll);
        let (news, other) = notifies(&ctx);
        while !news.is_told() {
            round(&ctx);
        }
        other.join().unwrap();
    });
}

/// SPEC 33, 50
#[test]
fn the_round_that_a_schedule_wakes_runs_it() {
    check(|| {
        let ctx = context(MonitorKind::Poll);
        let (_half, seen, other) = schedules(&ctx);
        while seen.get() == 0 {
            round(&ctx);
        }
        other.join().unwrap();
    });
}

/// SPEC 25, 50
#[test]
fn a_producer_with_a_suppress_word_loses_no_event_when_an_outer_loop_goes_to_sleep() {
    check(|| {
        let (ctx, ring) = spin::in_spin_mode(MonitorKind::Epoll);
        let producer = ring.producer();
        while ring.taken() != 3 {
            round(&ctx);
        }
        producer.join().unwrap();
    });
}

/// SPEC 19, 33, 34, 50
#[test]
fn an_outer_loop_is_woken_although_a_nested_turn_slept_and_took_notifications_in_a_hook() {
    check_within(4, || {
        let ctx = spin::nesting(MonitorKind::Epoll, spin::nap);
        let (news, other) = notifies(&ctx);
        while !news.is_told() {
            round(&ctx);
        }
        other.join().unwrap();
    });
}
