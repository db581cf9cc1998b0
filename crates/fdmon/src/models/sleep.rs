//! A turn goes to sleep while others notify it.

use super::{News, check, check_within, context, notifies, thread};
use crate::sync::{Ordering, kept};
use crate::{AioContext, MonitorKind};

/// Turns until all is told that the others had told before they notified.
fn notified(ctx: &AioContext, threads: usize) {
    let (news, others): (Vec<_>, Vec<_>) = (0..threads).map(|_| notifies(ctx)).unzip();
    while !news.iter().all(News::is_told) {
        ctx.poll(true).unwrap();
    }
    for other in others {
        other.join().unwrap();
    }
}

#[test]
fn a_quick_turn_is_woken_and_sees_what_was_told_level_triggered() {
    check(|| notified(&context(MonitorKind::Poll), 1));
}

#[test]
fn a_quick_turn_is_woken_and_sees_what_was_told_edge_triggered() {
    check(|| notified(&context(MonitorKind::Epoll), 1));
}

#[test]
fn what_two_notifiers_told_is_seen_although_one_flag_hides_the_other() {
    check_within(3, || notified(&context(MonitorKind::Epoll), 2));
}

#[test]
fn a_turn_with_all_its_steps_is_woken() {
    check(|| {
        let ctx = context(MonitorKind::Epoll);
        let timer = ctx.timer(|_| unreachable!("no time passes")).unwrap();
        timer.arm(std::time::Duration::from_secs(3600)).unwrap();
        notified(&ctx, 1);
    });
}

/// SPEC 32
#[test]
fn a_notifier_that_is_killed_before_its_signal_keeps_no_other_from_waking_the_loop() {
    check(|| {
        let ctx = context(MonitorKind::Epoll);
        let news = News::none();
        let told = news.clone();
        let other = thread(&ctx, move |remote| {
            let shared = &remote.0;
            shared.notified.swap(true, Ordering::Release); // as far as it came
            if !kept("signal: order") {
                let asleep = shared.notify_me.load(Ordering::Relaxed);
                shared.signalled.store(asleep, Ordering::Relaxed);
            }
            told.tell();
            remote.notify().unwrap();
        });
        while !news.is_told() {
            ctx.poll(true).unwrap();
        }
        other.join().unwrap();
    });
}
