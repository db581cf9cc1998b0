//! An outer loop sleeps for the context.

use super::{News, check, check_within, context, idle_fd, notifies, schedules, spin};
use crate::monitor::Monitor;
use crate::{AioContext, MonitorKind};

/// One round of an outer loop that watches the context and nothing else.
fn round(ctx: &AioContext) {
    round_with(ctx, || {});
}

/// …and does this before it sleeps.
fn round_with(ctx: &AioContext, before: impl FnOnce()) {
    let deadline = ctx.prepare().unwrap();
    before();
    if deadline.is_none() {
        match &ctx.0.state().monitor {
            Monitor::Model(kernel) => kernel.sleep(),
            _ => unreachable!("the models have a kernel of their own"),
        }
    }
    ctx.check().unwrap();
    ctx.dispatch().unwrap();
    assert!(!ctx.0.shared.is_asleep(), "awake");
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

/// SPEC 19, 32, 33, 50
#[test]
fn an_outer_loop_is_woken_although_a_turn_took_the_signal_before_it_slept() {
    for kind in [MonitorKind::Epoll, MonitorKind::Poll] {
        check_within(3, move || {
            let ctx = context(kind);
            idle_fd(&ctx);
            let (news, others): (Vec<_>, Vec<_>) = (0..2).map(|_| notifies(&ctx)).unzip();
            while !news.iter().all(News::is_told) {
                round_with(&ctx, || _ = ctx.poll(false).unwrap());
            }
            others.into_iter().for_each(|other| other.join().unwrap());
        });
    }
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
