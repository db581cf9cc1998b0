//! Deadlines in real time. Never early holds on any machine; how late, only on a quick one.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::super::context;
use crate::support::{Count, a_while, alone, on_time};

unsafe extern "C" {
    // std and rustix have none of these; the C library is linked anyway.
    fn signal(number: i32, handler: extern "C" fn(i32)) -> usize;
    fn pthread_self() -> usize;
    fn pthread_kill(thread: usize, number: i32) -> i32;
}

static SIGNALS: AtomicU32 = AtomicU32::new(0);

extern "C" fn count_signal(_: i32) {
    SIGNALS.fetch_add(1, Ordering::Relaxed);
}

/// SPEC 16, 44
#[test]
fn signals_interrupt_the_sleep_and_it_goes_on_with_the_time_that_is_left() {
    const SIGUSR1: i32 = 10;
    if !alone("FDMON_SIGNALS", "1") {
        return;
    }
    // SAFETY: the handler only adds to an atomic.
    unsafe { signal(SIGUSR1, count_signal) };
    // SAFETY: it names this thread and has no conditions.
    let home = unsafe { pthread_self() };
    let ctx = context();
    let fired = Count::new();
    let timer = ctx.timer(fired.callback()).unwrap();
    let start = Instant::now();
    let delay = a_while(50);
    timer.arm(delay).unwrap();
    let remote = ctx.remote();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for _ in 0..20 {
                // SAFETY: the thread lives until the scope ends.
                unsafe { pthread_kill(home, SIGUSR1) };
                std::thread::sleep(Duration::from_millis(1));
            }
            // Where all was late the timer was due before there was a sleep.
            while remote.stats().sleeps + remote.stats().turns == 0 {
                std::thread::yield_now();
            }
        });
        assert!(ctx.poll(true).unwrap());
    });
    assert!(start.elapsed() >= delay);
    assert_eq!(fired.get(), 1);
    assert!(SIGNALS.load(Ordering::Relaxed) > 0);
    assert_eq!(ctx.stats().turns, 1, "one turn slept through them all");
}

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
