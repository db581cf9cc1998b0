//! Deadlines in real time. Never early holds on any machine; how late, only on a quick one.

use std::time::{Duration, Instant};

use super::super::context;
use crate::support::{Count, on_time};

/// SPEC 39, 40
#[test]
fn no_deadline_is_met_early_and_none_by_a_busy_loop() {
    let ctx = context();
    let fired = Count::new();
    let timer = ctx.timer(fired.callback()).unwrap();
    for micros in [1, 10, 100, 400, 999, 1_000, 1_001, 1_500, 2_999, 10_000] {
        let start = Instant::now();
        let before = ctx.stats();
        timer.arm(Duration::from_micros(micros)).unwrap();
        while fired.get() == 0 {
            ctx.poll(true).unwrap();
        }
        let took = start.elapsed();
        assert!(took >= Duration::from_micros(micros), "{micros} µs took {took:?}");
        let after = ctx.stats();
        // One turn; in it at most a wait in milliseconds, the rest, and a last look.
        assert_eq!(after.turns - before.turns, 1, "{micros} µs");
        assert!(after.waits - before.waits <= 4, "{micros} µs: {}", after.waits - before.waits);
        fired.take();
    }
}

/// SPEC 40
#[test]
fn a_deadline_below_a_millisecond_does_not_take_one() {
    let ctx = context();
    let fired = Count::new();
    let timer = ctx.timer(fired.callback()).unwrap();
    let best = (0..20)
        .map(|_| {
            let start = Instant::now();
            timer.arm(Duration::from_micros(200)).unwrap();
            ctx.poll(true).unwrap();
            start.elapsed()
        })
        .min()
        .unwrap();
    assert_eq!(fired.get(), 20);
    assert!(best >= Duration::from_micros(200));
    if on_time() {
        assert!(best < Duration::from_micros(900), "{best:?}");
    }
}

/// SPEC 40
#[test]
fn very_long_deadlines_are_slept_for_and_interrupted_by_a_notification() {
    for delay in [Duration::from_secs(86_400 * 100), Duration::MAX] {
        let ctx = context();
        let fired = Count::new();
        let timer = ctx.timer(fired.callback()).unwrap();
        timer.arm(delay).unwrap();
        let remote = ctx.remote();
        let thread = std::thread::spawn(move || {
            while remote.stats().sleeps == 0 {
                std::thread::yield_now();
            }
            remote.notify().unwrap();
        });
        assert!(!ctx.poll(true).unwrap());
        thread.join().unwrap();
        assert_eq!(fired.get(), 0);
        assert!(timer.is_pending());
    }
}

/// SPEC 17, 40
#[test]
fn an_event_ends_a_long_sleep_at_once() {
    let ctx = context();
    let far = ctx.timer(|_| panic!("slept on")).unwrap();
    far.arm(Duration::from_secs(60)).unwrap();
    let bell = fdmon::EventNotifier::new().unwrap();
    let runs = Count::new();
    let (clear, counter) = (bell.clone(), runs.clone());
    let handlers = fdmon::Handlers::new().read(move |_| {
        clear.test_and_clear()?;
        counter.bump();
        Ok(())
    });
    ctx.set_fd_handler(bell.clone(), handlers).unwrap();
    let remote = ctx.remote();
    let thread = std::thread::spawn(move || {
        while remote.stats().sleeps == 0 {
            std::thread::yield_now();
        }
        bell.set().unwrap();
    });
    assert!(ctx.poll(true).unwrap());
    thread.join().unwrap();
    assert_eq!(runs.get(), 1);
}
