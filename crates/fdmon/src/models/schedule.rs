//! Bottom halves, closures, parameters and the stop, from other threads.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{News, check, check_within, context, schedules, thread, watching};
use crate::{BusyPoll, MonitorKind, PollParams};

/// SPEC 32, 34, 36
#[test]
fn the_turn_that_a_schedule_wakes_runs_it() {
    check(|| {
        let ctx = context(MonitorKind::Epoll);
        let (_half, seen, other) = schedules(&ctx);
        assert!(ctx.poll(true).unwrap());
        assert_eq!(seen.get(), 1);
        other.join().unwrap();
    });
}

/// SPEC 32, 34, 36
#[test]
fn the_turn_with_all_its_steps_that_a_schedule_wakes_runs_it() {
    check(|| {
        let ctx = context(MonitorKind::Epoll);
        let timer = ctx.timer(|_| unreachable!("no time passes")).unwrap();
        timer.arm(Duration::from_secs(3600)).unwrap();
        let (_half, seen, other) = schedules(&ctx);
        assert!(ctx.poll(true).unwrap());
        assert_eq!(seen.get(), 1);
        other.join().unwrap();
    });
}

/// SPEC 32, 34, 36
#[test]
fn a_schedule_that_a_turn_accepts_and_does_not_read_is_not_slept_on() {
    check(|| {
        let ctx = context(MonitorKind::Epoll);
        let (_half, seen, other) = schedules(&ctx);
        ctx.poll(false).unwrap();
        while seen.get() == 0 {
            ctx.poll(true).unwrap();
        }
        other.join().unwrap();
    });
}

/// SPEC 32, 36
#[test]
fn a_run_sees_what_each_of_two_threads_told_before_its_schedule() {
    check_within(2, || {
        let ctx = context(MonitorKind::Epoll);
        let news = [News::none(), News::none()];
        let (half, seen) = watching(&ctx, &[&news[0], &news[1]]);
        let others = news.map(|news| {
            let id = half.id();
            thread(&ctx, move |remote| {
                news.tell();
                remote.schedule(&id).unwrap();
            })
        });
        while seen.get() < 2 {
            ctx.poll(true).unwrap();
        }
        others.into_iter().for_each(|other| other.join().unwrap());
    });
}

/// SPEC 36
#[test]
fn a_cancelled_bottom_half_can_be_scheduled_again_whoever_scheduled_it_meanwhile() {
    check(|| {
        let ctx = context(MonitorKind::Epoll);
        let news = News::none();
        let (half, seen) = watching(&ctx, &[&news]);
        half.schedule();
        let id = half.id();
        let other = thread(&ctx, move |remote| remote.schedule(&id).unwrap());
        half.cancel();
        other.join().unwrap();
        ctx.poll(false).unwrap();
        news.tell();
        half.schedule();
        ctx.poll(false).unwrap();
        assert_eq!(seen.get(), 1);
    });
}

/// SPEC 36
#[test]
fn a_schedule_from_elsewhere_and_the_deletion_get_along() {
    check(|| {
        let ctx = context(MonitorKind::Epoll);
        let (half, _) = watching(&ctx, &[]);
        let id = half.id();
        let other = thread(&ctx, move |remote| {
            remote.schedule(&id).unwrap();
            remote.schedule(&id).unwrap();
        });
        drop(half);
        ctx.poll(false).unwrap();
        other.join().unwrap();
        ctx.poll(false).unwrap();
        ctx.poll(false).unwrap();
        assert_eq!(ctx.close().bottom_halves, 0);
    });
}

/// SPEC 20, 35
#[test]
fn closures_of_one_thread_run_in_their_order_once_each() {
    check_within(2, || {
        let ctx = context(MonitorKind::Poll);
        let runs = Arc::new(Mutex::new(Vec::new()));
        let others = [0, 10].map(|first| {
            let (told, runs) = (News::none(), Arc::clone(&runs));
            thread(&ctx, move |remote| {
                told.tell();
                for number in first..first + 2 - first / 10 {
                    let (told, runs) = (told.clone(), Arc::clone(&runs));
                    let run = remote.run(move |_| {
                        assert!(told.is_told());
                        runs.lock().unwrap().push(number);
                    });
                    run.unwrap();
                }
            })
        });
        while runs.lock().unwrap().len() < 3 {
            ctx.poll(true).unwrap();
        }
        others.into_iter().for_each(|other| other.join().unwrap());
        let runs = std::mem::take(&mut *runs.lock().unwrap());
        assert_eq!(runs.iter().filter(|run| **run < 10).collect::<Vec<_>>(), [&0, &1]);
    });
}

/// SPEC 15, 17
#[test]
fn a_stop_ends_the_run_and_what_was_told_before_is_seen_after_it() {
    check(|| {
        let ctx = context(MonitorKind::Epoll);
        let news = News::none();
        let told = news.clone();
        let other = thread(&ctx, move |remote| {
            told.tell();
            remote.stop().unwrap();
        });
        ctx.run().unwrap();
        assert!(news.is_told());
        other.join().unwrap();
    });
}

/// SPEC 31
#[test]
fn parameters_from_elsewhere_wake_the_loop_and_are_in_force() {
    check(|| {
        let ctx = context(MonitorKind::Epoll);
        let params = PollParams { max_ns: 1000, ..PollParams::default() };
        let other = thread(&ctx, move |remote| remote.set_poll_params(params).unwrap());
        ctx.poll(true).unwrap();
        ctx.poll(false).unwrap();
        assert_eq!(ctx.poll_params().max_ns, 1000);
        other.join().unwrap();
    });
}

/// SPEC 31
#[test]
fn parameters_that_are_refused_do_not_undo_those_that_were_asked_for_after_them() {
    check(|| {
        let ctx = context(MonitorKind::Epoll);
        let other = thread(&ctx, move |remote| {
            let busy_poll = BusyPoll { usecs: 50, budget: 0, prefer: false };
            let refused = PollParams { kernel_busy_poll: Some(busy_poll), ..Default::default() };
            remote.set_poll_params(refused).unwrap();
            let params = PollParams { max_ns: 1000, ..PollParams::default() };
            remote.set_poll_params(params).unwrap();
        });
        let _refused = ctx.poll(false);
        let _refused = ctx.poll(false);
        other.join().unwrap();
        let _refused = ctx.poll(false);
        assert_eq!(ctx.poll_params().max_ns, 1000);
    });
}
