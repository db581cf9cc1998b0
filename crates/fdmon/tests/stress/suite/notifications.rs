//! Eight threads notify as fast as they can: nothing is lost, and an awake loop costs no signal.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use fdmon::{AioContext, PollParams};

use super::{builder, spin};
use crate::support::{alone, of_ten_million};

const THREADS: usize = 8;

/// Each thread publishes a number and schedules its bottom half, again and again; the bottom half
/// looks how far it has come. Now and then a thread waits for that, and always for the last one: a
/// notification that is lost is a thread that waits for ever.
fn storm(params: PollParams, each: u64, wait_every: u64, pause: Option<Duration>) -> AioContext {
    let ctx = builder().poll(params).build().unwrap();
    let limit =
        ctx.timer(|_| panic!("a notification was lost: nothing happened for long")).unwrap();
    limit.arm(Duration::from_secs(60)).unwrap();
    let numbers = || -> Arc<[AtomicU64]> { (0..THREADS).map(|_| AtomicU64::new(0)).collect() };
    let (published, seen) = (numbers(), numbers());
    let halves: Vec<_> = (0..THREADS)
        .map(|at| {
            let (published, seen) = (published.clone(), seen.clone());
            let half = ctx.bottom_half(move |_| {
                let news = published[at].load(Ordering::Relaxed);
                seen[at].store(news, Ordering::Release);
                Ok(())
            });
            half.unwrap()
        })
        .collect();
    let done = Arc::new(AtomicU32::new(0));
    std::thread::scope(|scope| {
        for (at, half) in halves.iter().enumerate() {
            let (remote, id, done) = (ctx.remote(), half.id(), done.clone());
            let (published, seen) = (published.clone(), seen.clone());
            scope.spawn(move || {
                for number in 1..=each {
                    published[at].store(number, Ordering::Relaxed);
                    remote.schedule(&id).unwrap();
                    if number % wait_every == 0 || number == each {
                        while seen[at].load(Ordering::Acquire) < number {
                            std::thread::yield_now();
                        }
                        if let Some(pause) = pause {
                            std::thread::sleep(pause);
                        }
                    }
                }
                done.fetch_add(1, Ordering::Release);
                remote.notify().unwrap();
            });
        }
        let over = done.clone();
        ctx.poll_until(|| {
            // Whoever is lost hangs for a minute, not as long as there are others.
            limit.arm(Duration::from_secs(60)).unwrap();
            over.load(Ordering::Acquire) == 8
        })
        .unwrap();
    });
    assert!(seen.iter().all(|seen| seen.load(Ordering::Relaxed) == each));
    let stats = ctx.stats();
    let total = stats.notifies_sent + stats.notifies_elided;
    assert_eq!(total, (each + 1) * THREADS as u64, "each is counted once, sent or elided");
    ctx
}

/// SPEC 32, 35
#[test]
fn ten_million_notifications_of_eight_threads_none_lost_and_nine_of_ten_elided_by_a_loop_that_is_awake()
 {
    if !alone() {
        return;
    }
    let each = of_ten_million() / THREADS as u64;
    let ctx = storm(spin(1_000_000_000), each, 1024, None);
    let stats = ctx.stats();
    let total = stats.notifies_sent + stats.notifies_elided;
    let share = 100.0 * stats.notifies_elided as f64 / total as f64;
    println!(
        "{total} notifications, {share:.2} % elided, {} turns, {} sleeps",
        stats.turns, stats.sleeps
    );
    assert!(share >= 90.0, "{share} % elided, {} sleeps", stats.sleeps);
}

/// SPEC 32, 35
#[test]
fn a_loop_that_sleeps_between_notifications_of_eight_threads_misses_none() {
    if !alone() {
        return;
    }
    let each = of_ten_million() / 200 / THREADS as u64;
    let ctx = storm(PollParams::default(), each, 4, Some(Duration::from_micros(50)));
    let stats = ctx.stats();
    println!(
        "{} sent, {} elided, {} sleeps",
        stats.notifies_sent, stats.notifies_elided, stats.sleeps
    );
    assert!(stats.notifies_sent > 0 && stats.sleeps > each / 100, "it hardly slept: {stats:?}");
}
