//! Many threads at once: nothing is lost, whether the loop sleeps or spins.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::time::{Duration, Instant};

use fdmon::{AioContext, EventNotifier, Handlers, PollParams, WordSource};

use super::super::{builder, context};
use crate::support::{Count, often, on_time, spin};

const THREADS: u32 = 4;

fn parameters() -> [PollParams; 2] {
    [PollParams::default(), PollParams { max_ns: 20_000, grow: 0, ..spin() }]
}

/// A timer that fails the test instead of letting it hang.
fn limit(ctx: &AioContext) -> fdmon::Timer {
    let timer = ctx.timer(|_| panic!("something was lost: nothing happened for long")).unwrap();
    timer.arm(Duration::from_secs(30)).unwrap();
    timer
}

/// SPEC 32, 35, 36
#[test]
fn every_schedule_is_followed_by_a_run_that_sees_what_was_published_before_it() {
    for params in parameters() {
        let ctx = builder().poll(params).build().unwrap();
        let _limit = limit(&ctx);
        let published: Arc<[AtomicU64]> = (0..THREADS).map(|_| AtomicU64::new(0)).collect();
        let seen: Arc<[AtomicU64]> = (0..THREADS).map(|_| AtomicU64::new(0)).collect();
        let halves: Vec<_> = (0..THREADS as usize)
            .map(|at| {
                let (published, seen) = (published.clone(), seen.clone());
                ctx.bottom_half(move |_| {
                    let news = published[at].load(Ordering::Relaxed);
                    seen[at].store(news, Ordering::Release);
                    Ok(())
                })
                .unwrap()
            })
            .collect();
        let rounds = u64::from(often(2_000));
        let done = Arc::new(AtomicU32::new(0));
        std::thread::scope(|scope| {
            for (at, half) in halves.iter().enumerate() {
                let (remote, id) = (ctx.remote(), half.id());
                let (published, seen, done) = (published.clone(), seen.clone(), done.clone());
                scope.spawn(move || {
                    for round in 1..=rounds {
                        published[at].store(round, Ordering::Relaxed);
                        remote.schedule(&id).unwrap();
                        // Every other round in lockstep, so that the loop falls asleep often.
                        while round % 2 == 0 && seen[at].load(Ordering::Acquire) < round {
                            std::thread::yield_now();
                        }
                    }
                    while seen[at].load(Ordering::Acquire) < rounds {
                        std::thread::yield_now();
                    }
                    done.fetch_add(1, Ordering::Release);
                    remote.notify().unwrap();
                });
            }
            let over = done.clone();
            ctx.poll_until(|| over.load(Ordering::Acquire) == THREADS).unwrap();
        });
        assert!(seen.iter().all(|seen| seen.load(Ordering::Relaxed) == rounds));
        let stats = ctx.stats();
        assert!(stats.notifies_sent + stats.notifies_elided >= u64::from(THREADS) * rounds);
    }
}

/// SPEC 4, 32, 35
#[test]
fn jobs_of_many_threads_run_once_each_and_each_threads_in_order() {
    for params in parameters() {
        let ctx = builder().poll(params).build().unwrap();
        let _limit = limit(&ctx);
        let jobs = u64::from(often(2_000));
        let last: Arc<[AtomicU64]> = (0..THREADS).map(|_| AtomicU64::new(0)).collect();
        let ran = Arc::new(AtomicU64::new(0));
        std::thread::scope(|scope| {
            for at in 0..THREADS as usize {
                let (remote, last, ran) = (ctx.remote(), last.clone(), ran.clone());
                scope.spawn(move || {
                    for job in 1..=jobs {
                        let (last, ran) = (last.clone(), ran.clone());
                        remote
                            .run(move |_| {
                                assert_eq!(last[at].swap(job, Ordering::Relaxed), job - 1);
                                ran.fetch_add(1, Ordering::Relaxed);
                            })
                            .unwrap();
                        if job % 64 == 0 {
                            std::thread::sleep(Duration::from_micros(50));
                        }
                    }
                });
            }
            let counter = ran.clone();
            ctx.poll_until(|| counter.load(Ordering::Relaxed) == jobs * u64::from(THREADS))
                .unwrap();
        });
        assert!(!ctx.poll(false).unwrap());
    }
}

/// SPEC 25, 32
#[test]
fn a_producer_that_obeys_the_suppress_word_loses_no_event() {
    let params = PollParams { max_ns: 20_000, grow: 0, ..spin() };
    let ctx = builder().poll(params).build().unwrap();
    let _limit = limit(&ctx);
    let [head, tail, suppress] = [(); 3].map(|()| Arc::new(AtomicU32::new(0)));
    let source = WordSource::words_differ(head.clone(), tail.clone());
    let source = source.suppress(suppress.clone()).unwrap();
    let bell = EventNotifier::new().unwrap();
    let take = {
        let (head, tail) = (head.clone(), tail.clone());
        move || tail.store(head.load(Ordering::Acquire), Ordering::Release)
    };
    let (clear, taken) = (bell.clone(), take.clone());
    let handlers = Handlers::new()
        .read(move |_| {
            clear.test_and_clear()?;
            taken();
            Ok(())
        })
        .poll(source)
        .poll_ready(move |_| {
            take();
            Ok(())
        });
    ctx.set_fd_handler(bell.clone(), handlers).unwrap();
    let events = often(20_000);
    let signals = Arc::new(AtomicU32::new(0));
    let tail_of_ring = tail.clone();
    std::thread::scope(|scope| {
        let signals = signals.clone();
        scope.spawn(move || {
            for event in 1..=events {
                head.store(event, Ordering::Release);
                fence(Ordering::SeqCst);
                if suppress.load(Ordering::Relaxed) == 0 {
                    signals.fetch_add(1, Ordering::Relaxed);
                    bell.set().unwrap();
                }
                // Lockstep, and now and then a pause that is longer than the window.
                while tail.load(Ordering::Acquire) < event {
                    std::thread::yield_now();
                }
                if event % 512 == 0 {
                    std::thread::sleep(Duration::from_micros(100));
                }
            }
        });
        ctx.poll_until(|| tail_of_ring.load(Ordering::Acquire) == events).unwrap();
    });
    assert!(signals.load(Ordering::Relaxed) > 0);
}

/// SPEC 16, 32
#[test]
fn a_signal_that_comes_after_its_notification_was_taken_does_not_keep_the_loop_busy() {
    let ctx = context();
    // Between prepare and check the notification signals; a bare turn takes only the flag.
    assert_eq!(ctx.prepare().unwrap(), None);
    ctx.remote().notify().unwrap();
    assert_eq!(ctx.stats().notifies_sent, 1);
    assert!(!ctx.poll(false).unwrap());
    let before = ctx.stats().waits;
    let fired = Count::new();
    let timer = ctx.timer(fired.callback()).unwrap();
    timer.arm(Duration::from_millis(20)).unwrap();
    while fired.get() == 0 {
        ctx.poll(true).unwrap();
    }
    let waits = ctx.stats().waits - before;
    assert!(waits <= 6, "{waits} waits for one sleep of 20 ms");
}

/// SPEC 16, 32
#[test]
fn storms_of_notifications_while_fds_are_busy_end_with_a_quiet_loop() {
    let ctx = context();
    let bell = EventNotifier::new().unwrap();
    let (clear, stop) = (bell.clone(), Arc::new(AtomicU32::new(0)));
    let handlers = Handlers::new().read(move |_| {
        clear.test_and_clear()?;
        Ok(())
    });
    ctx.set_fd_handler(bell.clone(), handlers).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let (remote, bell, stop) = (ctx.remote(), bell.clone(), stop.clone());
            scope.spawn(move || {
                for at in 0..often(3_000) {
                    remote.notify().unwrap();
                    bell.set().unwrap();
                    if at % 16 == 0 {
                        std::thread::yield_now();
                    }
                }
                stop.fetch_add(1, Ordering::Release);
                remote.notify().unwrap();
            });
        }
        ctx.poll_until(|| stop.load(Ordering::Acquire) == 2).unwrap();
    });
    while ctx.poll(false).unwrap() {}
    let before = ctx.stats().waits;
    let fired = Count::new();
    let timer = ctx.timer(fired.callback()).unwrap();
    timer.arm(Duration::from_millis(20)).unwrap();
    while fired.get() == 0 {
        ctx.poll(true).unwrap();
    }
    let waits = ctx.stats().waits - before;
    assert!(waits <= 8, "{waits} waits for one sleep of 20 ms");
}

/// SPEC 32
#[test]
fn a_ping_pong_with_a_thread_ends_in_time() {
    let ctx = context();
    let _limit = limit(&ctx);
    let (ours, theirs) = (EventNotifier::new().unwrap(), EventNotifier::new().unwrap());
    let rounds = 500;
    let start = Instant::now();
    let runs = Count::new();
    let (clear, answer, counter) = (ours.clone(), theirs.clone(), runs.clone());
    let handlers = Handlers::new().read(move |_| {
        if clear.test_and_clear()? {
            counter.bump();
            answer.set()?;
        }
        Ok(())
    });
    ctx.set_fd_handler(ours.clone(), handlers).unwrap();
    let thread = std::thread::spawn(move || {
        for _ in 0..rounds {
            ours.set().unwrap();
            while !theirs.test_and_clear().unwrap() {
                std::thread::yield_now();
            }
        }
    });
    let done = runs.clone();
    ctx.poll_until(|| done.get() == rounds).unwrap();
    thread.join().unwrap();
    if on_time() {
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}

/// SPEC 31, 53
#[test]
fn parameters_and_statistics_from_threads_while_the_loop_runs() {
    let ctx = builder().poll(spin()).build().unwrap();
    let _limit = limit(&ctx);
    let done = Arc::new(AtomicU32::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let (remote, done) = (ctx.remote(), done.clone());
            scope.spawn(move || {
                for at in 0..300 {
                    let max_ns = if at % 3 == 0 { 0 } else { 1_000 + at };
                    remote.set_poll_params(PollParams { max_ns, ..spin() }).unwrap();
                    assert!(remote.stats().window_ns <= crate::support::WINDOW);
                }
                done.fetch_add(1, Ordering::Release);
                remote.notify().unwrap();
            });
        }
        ctx.poll_until(|| done.load(Ordering::Acquire) == 2).unwrap();
    });
    ctx.poll(false).unwrap();
    assert_eq!(ctx.poll_params(), ctx.remote().poll_params());
}
